"""Running many tasks of one kind on whatever scheduler of dask is active."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from precomputed_store.progress import Advance, progress_bar
from precomputed_store.storage import Storage
from precomputed_store.writing.graph import active_client

__all__ = ["MARK", "run_tasks"]

MARK: Final = "failed"
"""Name of the object that tells tasks that another one has failed."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong in a task."""

    error: Exception


@dataclass(frozen=True)
class _Stoppable:
    """A task that does nothing any more once another one has failed.

    So nothing is under way when the job ends, and what it has put away can be removed.
    """

    task: Callable[[Any], Any]
    storage: Storage

    def __call__(self, item: Any) -> Any:
        if self.storage.exists(MARK):
            return None
        try:
            return self.task(item)
        except Exception as error:
            self.storage.put(MARK, b"1", content_type="text/plain")
            return Failure(error)


def run_tasks(
    task: Callable[[T], R],
    items: Iterable[T],
    *,
    storage: Storage,
    description: str,
    progress: bool,
) -> list[R]:
    """What the task gives for each item, in their order.

    The first error ends the job, when the tasks that were running have ended. It leaves the
    object `MARK` in `storage`.
    """
    from dask.delayed import delayed

    function = delayed(_Stoppable(task, storage), pure=False)
    tasks = [function(item) for item in items]
    with progress_bar(description, total=len(tasks), enabled=progress, unit="tasks") as done:
        client = active_client()
        results = _on_cluster(client, tasks, done) if client else _here(tasks, done)
    for result in results:
        if isinstance(result, Failure):
            raise result.error
    return results


def _here(tasks: list[Any], done: Advance) -> list[Any]:
    from dask.base import compute
    from dask.callbacks import Callback

    keys = {task.key for task in tasks}

    def finished(key: object, *_: object) -> None:
        if key in keys:
            done(1)

    with Callback(posttask=finished):  # type: ignore[no-untyped-call]
        return list(compute(*tasks))  # type: ignore[no-untyped-call]


def _on_cluster(client: Any, tasks: list[Any], done: Advance) -> list[Any]:
    from distributed import as_completed

    futures = client.compute(tasks)
    for future in as_completed(futures):  # type: ignore[no-untyped-call]
        future.result()
        done(1)
    return list(client.gather(futures))
