"""Running the tasks of a write: on the scheduler that is active, with progress, or later."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from precomputed_store.progress import Advance, progress_bar
from precomputed_store.writing.stages import Stage, all_done, unique_name

if TYPE_CHECKING:
    from dask.array import Array
    from dask.delayed import Delayed

__all__ = ["WriteGraph", "active_client"]


@dataclass(frozen=True, kw_only=True)
class WriteGraph:
    """Every task of a write.

    Attributes
    ----------
    stages : sequence of Stage
        Finest first.
    finish : callable
        Called after all of them, on a worker; what it returns is what the write gives
        back. It must not mind being called twice.
    description : str
        What a progress bar says.
    """

    stages: Sequence[Stage]
    finish: Callable[[], Any]
    description: str = "writing"

    @property
    def num_tasks(self) -> int:
        """Tasks that store something."""
        return sum(1 for stage in self.stages for _ in stage.tasks())

    def delayed(self) -> Delayed:
        """The whole write as one delayed value."""
        from dask.blockwise import optimize_blockwise
        from dask.delayed import Delayed
        from dask.highlevelgraph import HighLevelGraph

        name = unique_name("to-precomputed")
        if len(self.stages) == 1 and self.stages[0].written is not None:
            return self._symbolic(self.stages[0].written, name)
        layers: dict[str, Any] = {}
        dependencies: dict[str, set[str]] = {}
        for stage in self.stages:
            layers |= stage.layers
            dependencies |= stage.dependencies
        keys = [key for stage in self.stages for key in stage.tasks()]
        layers[name] = {name: (call, self.finish, (all_done, keys))}
        dependencies[name] = {stage.name for stage in self.stages}
        graph = HighLevelGraph(layers, dependencies)
        # Reading, computing and writing a block become one task.
        kept = [stage.name for stage in self.stages]
        fused = optimize_blockwise(graph, keys=[name, *kept])  # type: ignore[no-untyped-call]
        return Delayed(name, fused, layer=name)  # type: ignore[no-untyped-call]

    def _symbolic(self, written: Array, name: str) -> Delayed:
        """The same for a single array, as a graph that does not grow with its blocks."""
        import dask.array as da
        from dask.blockwise import optimize_blockwise
        from dask.delayed import Delayed

        fused = optimize_blockwise(  # type: ignore[no-untyped-call]
            written.__dask_graph__(), keys=[written.name]
        )
        blocks = da.Array(  # type: ignore[no-untyped-call]
            fused, written.name, written.chunks, meta=written._meta
        )
        done: Array = da.blockwise(  # type: ignore[no-untyped-call]
            call_after,
            "",
            blocks,
            "czyx",
            finish=self.finish,
            name=name,
            dtype=np.bool_,
            meta=np.empty((), np.bool_),
        )
        return Delayed((done.name,), done.__dask_graph__(), layer=done.name)  # type: ignore[no-untyped-call]

    def compute(self, *, progress: bool) -> Any:
        """Run everything and give back what `finish` returns."""
        delayed: Any = self.delayed()
        if not progress:
            return delayed.compute()
        total, names = self.num_tasks, {stage.name for stage in self.stages}
        with progress_bar(self.description, total=total, enabled=True, unit="tasks") as done:
            client = active_client()
            if client is None:
                with _counting(names, done):
                    return delayed.compute()
            keys = [key for stage in self.stages for key in stage.tasks()]
            return _follow(client, delayed, keys, done)


def call(finish: Callable[[], Any], _after: object) -> Any:
    """What comes after every other task."""
    return finish()


def call_after(_blocks: object, *, finish: Callable[[], Any]) -> Any:
    """The same after the blocks of an array."""
    return finish()


def active_client() -> Any:
    """The dask.distributed client in use, or None."""
    from dask.base import get_scheduler

    owner = getattr(get_scheduler(), "__self__", None)  # type: ignore[no-untyped-call]
    return owner if hasattr(owner, "persist") else None


def _counting(names: set[str], done: Advance) -> AbstractContextManager[object]:
    """Counts the tasks that a scheduler of this process finishes."""
    from dask.callbacks import Callback

    def finished(key: object, *_: object) -> None:
        if isinstance(key, tuple) and key[0] in names:
            done(1)

    return Callback(posttask=finished)  # type: ignore[no-untyped-call]


def _follow(client: Any, delayed: Delayed, keys: Sequence[Hashable], done: Advance) -> Any:
    """Compute on a cluster, and count the tasks that are done there."""
    from distributed import as_completed

    *futures, result = client.get(
        delayed.__dask_graph__(), [*keys, delayed.key], sync=False, optimize_graph=False
    )
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            future.result()
            done(1)
        return result.result()
    finally:
        # An exception keeps this frame alive, and with it the futures: the scheduler would
        # remember failed tasks of the caller's own array, whose names do not change.
        for future in (*futures, result):
            future.release()
