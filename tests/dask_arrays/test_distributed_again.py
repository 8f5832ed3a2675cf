"""The same job twice on one cluster that remembers the first: it must really run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.storage import Storage
from tests.oracles import tensorstore_read

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.server

SIZE = (40, 33, 27)
SHARDINGS: dict[str, Any] = {
    "none": None,
    "boxes": ps.ShardingSpec(hash="identity", preshift_bits=2, minishard_bits=1, shard_bits=9),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=1, shard_bits=3
    ),
}
COARSER = [(2, 2, 2)]


class RefusedError(Exception):
    pass


@pytest.fixture(scope="module")
def client() -> Iterator[distributed.Client]:
    """Workers in this process, where a test can make the storage refuse."""
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 4, SIZE, dtype=np.uint32)


def write(array: Any, folder: Path, **options: Any) -> Any:
    given: dict[str, Any] = {
        "dims": "xyz",
        "resolution": (8, 8, 8),
        "chunk_size": (8, 8, 8),
    }
    return ps.to_precomputed(array, folder, **{**given, **options})


def job(kind: str, sharding: str, labels: np.ndarray, folder: Path) -> Callable[..., Any]:
    """Something to do to `folder`, with everything it needs made."""
    spec = SHARDINGS[sharding]
    if kind == "write":
        array = da.from_array(labels, chunks=16)
        return lambda **how: write(array, folder, sharding=spec, pyramid=COARSER, **how)
    if kind == "downsample":
        write(labels, folder)
        return lambda **how: ps.downsample(folder, COARSER, scale=0, sharding=spec, **how)
    source = folder.with_name("source")
    write(labels, source, mode="w")
    changed = {"encoding": "compressed_segmentation"} if kind == "recode" else {}
    return lambda **how: ps.copy(source, folder, sharding=spec, **changed, **how)


KINDS = pytest.mark.parametrize("kind", ["write", "downsample", "copy", "recode"])
EACH_SHARDING = pytest.mark.parametrize("sharding", SHARDINGS)


@KINDS
@EACH_SHARDING
@pytest.mark.parametrize("progress", [False, True])
def test_a_job_that_failed_is_resumed_while_its_failure_is_remembered(
    client: Any,
    labels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    sharding: str,
    progress: bool,
) -> None:
    run = job(kind, sharding, labels, tmp_path / "b")

    def refuse(self: Storage, key: str, data: Any, **options: Any) -> None:
        raise RefusedError(key)

    with monkeypatch.context() as broken:
        delayed = run(compute=False)
        broken.setattr(Storage, "put", refuse)
        failed = client.compute(delayed)
        assert isinstance(failed.exception(), RefusedError)
    run(resume=True, progress=progress)
    assert failed.status == "error"  # it was remembered all the time
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "b")[..., 0], labels)


@KINDS
@EACH_SHARDING
def test_a_job_that_is_done_runs_again_where_its_result_was_removed(
    client: Any, labels: np.ndarray, tmp_path: Path, kind: str, sharding: str
) -> None:
    done = client.compute(job(kind, sharding, labels, tmp_path / "b")(compute=False))
    done.result()
    expected = stored(tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    job(kind, sharding, labels, tmp_path / "b")()
    assert stored(tmp_path / "b") == expected
    assert done.status == "finished"  # it was remembered all the time


def test_an_array_that_failed_is_computed_again_after_a_failure_with_progress(
    client: Any, labels: np.ndarray, tmp_path: Path
) -> None:
    """The rechunked blocks are tasks of the caller's array, whose names stay the same."""
    broken = [True]

    def compute(block: np.ndarray) -> np.ndarray:
        if broken[0]:
            raise RefusedError
        return block

    array = da.from_array(labels, chunks=10).map_blocks(compute, dtype=labels.dtype, name="own")
    with pytest.raises(RefusedError) as raised:
        write(array, tmp_path / "b", progress=True)
    broken[0] = False
    write(array, tmp_path / "b", resume=True, progress=True)
    np.testing.assert_array_equal(tensorstore_read(tmp_path / "b")[..., 0], labels)
    assert raised.tb is not None


def stored(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
