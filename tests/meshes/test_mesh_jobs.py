"""Meshes made again, in another way, and by jobs that were interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.mesh.extract import Surface, extract_surfaces
from precomputed_store.mesh_writer import MeshWriter

OPTIONS: dict[str, Any] = {"block_shape": (16, 16, 16), "lods": 1}
BLOCKS = 8
SPEC = ps.ShardingSpec(hash="identity", preshift_bits=0, minishard_bits=0, shard_bits=1)


def write_labels(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    labels = rng.integers(1, 7, (4, 4, 4)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    ps.to_precomputed(
        labels.astype(np.uint32), folder, dims=("x", "y", "z"), resolution=(4, 4, 4),
        layer_type="segmentation", pyramid=None,
    )  # fmt: skip
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same volume."""
    return write_labels(tmp_path / "other")


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return write_labels(tmp_path / "layer")


class Counted:
    """An extractor that counts the blocks and fails at one of them."""

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at, self.calls = fails_at, 0

    def __call__(self, labels: np.ndarray) -> Iterator[Surface]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("out of luck")
        yield from extract_surfaces(labels)


def left_over(layer: Path) -> list[str]:
    return [path.name for path in (layer / "mesh").iterdir() if path.name.startswith(".")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def test_a_job_that_failed_is_resumed_without_doing_anything_twice(
    layer: Path, other: Path
) -> None:
    expected = ps.make_meshes(other, **OPTIONS)
    with pytest.raises(RuntimeError, match="out of luck"):
        ps.make_meshes(layer, extractor=Counted(fails_at=6), resume=True, **OPTIONS)
    assert len(left_over(layer)) == 1
    assert not (layer / "mesh" / "info").exists()
    again = Counted()
    source = ps.make_meshes(layer, extractor=again, resume=True, **OPTIONS)
    assert again.calls == BLOCKS - 5
    assert source.get(source.ids()) == expected.get(expected.ids())
    assert not left_over(layer)
    # There is nothing to resume: all is made.
    ps.make_meshes(layer, extractor=(last := Counted()), resume=True, **OPTIONS)
    assert last.calls == BLOCKS


@pytest.mark.parametrize("sharding", [None, SPEC])
def test_meshes_that_are_stored_are_not_stored_again(
    layer: Path,
    other: Path,
    sharding: ps.ShardingSpec | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("precomputed_store.meshing.merge._GROUP_BYTES", 1)
    options = {**OPTIONS, "sharding": sharding, "resume": True}
    expected = ps.make_meshes(other, **options)
    write, calls = MeshWriter.write, []

    def failing(self: MeshWriter, items: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of luck")
        return write(self, items)

    monkeypatch.setattr(MeshWriter, "write", failing)
    with pytest.raises(RuntimeError, match="out of luck"):
        ps.make_meshes(layer, **options)
    source = ps.make_meshes(layer, **options)
    num_groups = 6 if sharding is None else 2
    assert len(calls) == 2 + num_groups - 1
    assert source.get(source.ids()) == expected.get(expected.ids())
    assert not left_over(layer)


def test_a_killed_job_is_found_and_resumed_or_dropped(layer: Path, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys, time
            import dask
            import precomputed_store as ps
            from precomputed_store.mesh.extract import extract_surfaces

            calls = []
            def slow(labels):
                calls.append(1)
                if len(calls) == 5:
                    print("five", flush=True)
                    time.sleep(600)
                yield from extract_surfaces(labels)
            slow.__module__, slow.__qualname__ = "tests.slow", "slow"

            with dask.config.set(scheduler="synchronous"):
                ps.make_meshes({str(layer)!r}, extractor=slow, block_shape=(16, 16, 16), lods=1)
            """
        )
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"five\n"
        process.kill()
    counted = Counted()

    def slow(labels: np.ndarray) -> Iterator[Surface]:
        return counted(labels)

    slow.__module__, slow.__qualname__ = "tests.slow", "slow"
    with pytest.raises(FileExistsError, match="resume=True goes on with it"):
        ps.make_meshes(layer, extractor=slow, **OPTIONS)
    # Another job does not mind.
    ps.make_meshes(layer, ids=[1], extractor=slow, **OPTIONS)
    assert len(left_over(layer)) == 1
    before = counted.calls
    source = ps.make_meshes(layer, extractor=slow, resume=True, **OPTIONS)
    assert counted.calls == before + BLOCKS - 4
    assert source.ids() == [1, 2, 3, 4, 5, 6]
    assert source[1].volume > 0
    assert not left_over(layer)


def test_what_a_killed_job_has_left_goes_when_all_is_replaced(layer: Path) -> None:
    with pytest.raises(RuntimeError):
        ps.make_meshes(layer, extractor=Counted(fails_at=4), resume=True, **OPTIONS)
    place = layer / "mesh" / left_over(layer)[0]
    (place / ".precomputed-99999-0123456789abcdef.tmp").write_bytes(b"of a killed writer")
    source = ps.make_meshes(layer, mode="w", **OPTIONS)
    assert len(source.ids()) == 6
    assert not left_over(layer)


@pytest.mark.parametrize("before", [{"kind": "legacy"}, {}, {"sharding": SPEC}])
@pytest.mark.parametrize("after", [{"kind": "legacy"}, {"sharding": "auto"}])
def test_all_meshes_are_replaced_by_others_of_another_kind(
    layer: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    old = ps.make_meshes(layer, **OPTIONS, **before)
    assert len(old.ids()) == 6
    expected = ps.make_meshes(layer, folder="other", ids=[2, 3], **OPTIONS, **after)
    new = ps.make_meshes(layer, ids=[2, 3], mode="w", **OPTIONS, **after)
    assert new.ids() == [2, 3]
    assert new.get([2, 3]) == expected.get([2, 3])
    assert ps.open_volume(layer).meshes.get([2, 3]) == expected.get([2, 3])
    names = [sorted(path.name for path in (layer / each).iterdir()) for each in ("mesh", "other")]
    assert names[0] == names[1]


def test_meshes_that_are_there_stay_where_others_are_added(layer: Path) -> None:
    first = ps.make_meshes(layer, ids=[2, 3], **OPTIONS)[3]
    source = ps.make_meshes(layer, ids=[3, 4], smooth=5, **OPTIONS)
    assert source.ids() == [2, 3, 4]
    assert source[3] != first
    with pytest.raises(FileExistsError, match="mode='a' adds to them"):
        ps.make_meshes(layer, ids=[5], mode="w-", **OPTIONS)
    with pytest.raises(ValueError, match="expected 'w-', 'w' or 'a'"):
        ps.make_meshes(layer, mode="x", **OPTIONS)  # type: ignore[arg-type]
    assert source.ids() == [2, 3, 4]


def test_a_new_folder_that_was_interrupted_is_resumed_under_every_mode(layer: Path) -> None:
    for mode, folder in (("w-", "a"), ("w", "b"), ("a", "c")):
        options = {**OPTIONS, "mode": mode, "folder": folder, "resume": True}
        with pytest.raises(RuntimeError):
            ps.make_meshes(layer, extractor=Counted(fails_at=3), **options)
        ps.make_meshes(layer, extractor=(again := Counted()), **options)
        assert again.calls == BLOCKS - 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "legacy"}, "there are multilod meshes"),
        ({"vertex_quantization_bits": 10}, "vertices of 16 bits, not of 10"),
        ({"sharding": SPEC}, "in files of their own, not as"),
    ],
)
def test_meshes_are_not_added_in_another_way_than_those_that_are_there(
    layer: Path, options: dict[str, Any], message: str
) -> None:
    ps.make_meshes(layer, ids=[2], **OPTIONS)
    with pytest.raises(ValueError, match=message):
        ps.make_meshes(layer, ids=[3], **OPTIONS, **options)
    with pytest.raises(ValueError, match=message):
        ps.write_meshes(layer, {}, **options)
    assert ps.open_meshes(layer / "mesh").ids() == [2]
    assert not left_over(layer)


def test_legacy_meshes_without_an_info_are_added_to_as_such(layer: Path) -> None:
    expected = ps.make_meshes(layer, ids=[2], kind="legacy", **OPTIONS)[2]
    (layer / "mesh" / "info").unlink()
    source = ps.make_meshes(layer, ids=[3], **OPTIONS)
    assert source.info.kind == "legacy"
    assert source[2] == expected
    assert ps.open_meshes(layer / "mesh").ids() == [2, 3]
    with pytest.raises(ValueError, match="legacy meshes cannot be sharded"):
        ps.make_meshes(layer, ids=[4], sharding="auto", **OPTIONS)


def test_a_layer_links_its_meshes_only_when_they_are_there(layer: Path) -> None:
    with pytest.raises(RuntimeError):
        ps.make_meshes(layer, extractor=Counted(fails_at=1), resume=True, **OPTIONS)
    assert "mesh" not in json.loads((layer / "info").read_text())
    ps.make_meshes(layer, resume=True, extractor=Counted(), **OPTIONS)
    assert json.loads((layer / "info").read_text())["mesh"] == "mesh"
