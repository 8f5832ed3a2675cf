"""Checking layers that are sound, incomplete, damaged and hostile."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.errors import StorageError
from precomputed_store.validation import Report, ScaleReport, folder as folder_module, validate
from tests.oracles import cloudvolume_write, make_info, tensorstore_write
from tests.servers.web import WebServer

INFO = make_info(size=(50, 40, 30), chunk_size=(20, 20, 20), voxel_offset=(1, 2, 3))
SHARDS = {
    "hash": "identity",
    "preshift_bits": 1,
    "minishard_bits": 1,
    "shard_bits": 2,
    "minishard_index_encoding": "raw",
    "data_encoding": "raw",
}
SHARDED_INFO = make_info(size=(50, 40, 30), chunk_size=(20, 20, 20), sharding=SHARDS)
CELLS = 3 * 2 * 2
FIRST = "8_8_8/1-21_2-22_3-23"


@pytest.fixture
def data() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asfortranarray(rng.integers(1, 255, (50, 40, 30, 1), dtype=np.uint8))


@pytest.fixture
def layer(tmp_path: Path, data: np.ndarray) -> Path:
    tensorstore_write(tmp_path / "layer", INFO, data)
    return tmp_path / "layer"


@pytest.fixture
def sharded(tmp_path: Path, data: np.ndarray) -> Path:
    tensorstore_write(tmp_path / "sharded", SHARDED_INFO, data)
    return tmp_path / "sharded"


def only_scale(report: Report) -> ScaleReport:
    (scale,) = report.scales
    return scale


def write_info(folder: Path, info: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "info").write_text(json.dumps(info))
    return folder


def test_a_sound_layer_is_ok_at_every_depth(layer: Path, data: np.ndarray) -> None:
    assert validate(layer) == Report(url=f"file://{layer}", problems=(), warnings=())
    for options, decoded in (({"chunks": True}, False), ({"decode": True}, True)):
        report = validate(layer, **options)
        assert report.ok
        assert only_scale(report) == ScaleReport(
            index=0,
            key="8_8_8",
            num_chunks=CELLS,
            num_checked=CELLS,
            decoded=decoded,
            num_present=CELLS,
            num_bytes=data.size,
        )


def test_every_problem_of_a_document_is_listed_with_its_location(tmp_path: Path) -> None:
    good, bad = INFO["scales"][0], {**INFO["scales"][0], "key": "", "size": [0, 1]}
    info = {**INFO, "data_type": "uint7", "num_channels": 0, "scales": [good, bad]}
    report = validate(write_info(tmp_path / "layer", info), decode=True)
    assert not report.ok
    assert {problem.location for problem in report.problems} == {
        "data_type",
        "num_channels",
        "scales[1].key",
        "scales[1].size",
    }
    assert report.scales == ()


def test_a_damaged_scale_is_a_problem_and_the_others_are_checked(layer: Path) -> None:
    damaged = {**INFO["scales"][0], "key": "16_16_16", "chunk_sizes": []}
    write_info(layer, {**INFO, "scales": [*INFO["scales"], damaged]})
    report = validate(layer, chunks=True)
    assert [problem.location for problem in report.problems] == ["scales[1].chunk_sizes"]
    assert not report.ok
    assert only_scale(report).num_present == CELLS


def test_what_other_programs_refuse_is_a_warning_and_not_wrong(tmp_path: Path) -> None:
    info = make_info(size=(5, 5, 5), dtype="float64")
    report = validate(write_info(tmp_path / "layer", info))
    assert report.ok
    assert [warning.location for warning in report.warnings] == ["data_type"]


def test_text_that_is_not_json_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "info").write_bytes(b"\xff\xfe{")
    report = validate(tmp_path)
    assert not report.ok
    assert len(report.problems) == 1


def test_no_layer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ps.VolumeNotFoundError, match="looked for"):
        validate(tmp_path)


def test_missing_chunks_are_counted_and_not_wrong(layer: Path) -> None:
    (layer / FIRST).unlink()
    for options in ({"chunks": True}, {"decode": True}):
        report = validate(layer, **options)
        assert report.ok
        assert only_scale(report).num_missing == 1
        assert only_scale(report).num_present == CELLS - 1


@pytest.mark.parametrize(
    ("content", "cause"),
    [(b"", "empty"), (b"x" * 7999, "expected 8000"), (b"x" * 8001, "expected 8000")],
)
@pytest.mark.parametrize("options", [{"chunks": True}, {"decode": True}])
def test_a_chunk_of_impossible_size_is_corrupt_with_or_without_reading_it(
    layer: Path, content: bytes, cause: str, options: dict[str, bool]
) -> None:
    (layer / FIRST).write_bytes(content)
    report = validate(layer, **options)
    (corrupt,) = only_scale(report).corrupt
    assert (corrupt.key, corrupt.box) == (FIRST, ps.Box((1, 2, 3), (21, 22, 23)))
    assert cause in corrupt.message
    assert not report.ok
    assert only_scale(report).num_present == CELLS
    assert only_scale(report).num_missing == 0


def test_decoding_finds_what_sizes_do_not_show(tmp_path: Path) -> None:
    info = make_info(
        size=(50, 40, 30),
        chunk_size=(20, 20, 20),
        dtype="uint64",
        encoding="compressed_segmentation",
        layer_type="segmentation",
    )
    layer = tmp_path / "layer"
    labels = np.arange(50 * 40 * 30, dtype=np.uint64).reshape(50, 40, 30, 1) // 50
    tensorstore_write(layer, info, labels)
    names = sorted(path.name for path in (layer / "8_8_8").iterdir())
    truncated = layer / "8_8_8" / names[0]
    truncated.write_bytes(truncated.read_bytes()[:-400])
    (layer / "8_8_8" / names[1]).write_bytes(b"\xff" * 400)
    assert validate(layer, chunks=True).ok
    scale = only_scale(validate(layer, decode=True))
    assert [problem.key for problem in scale.corrupt] == [f"8_8_8/{name}" for name in names[:2]]
    assert all("compressed_segmentation" in problem.message for problem in scale.corrupt)


def test_what_nothing_reads_is_noted(layer: Path, data: np.ndarray) -> None:
    folder = layer / "8_8_8"
    chunk = (layer / FIRST).read_bytes()
    (layer / f"{FIRST}.gz").write_bytes(gzip.compress(chunk))
    (folder / ".precomputed-77-0011223344556677.tmp").write_bytes(chunk)
    (folder / "0-20_0-20_0-20").write_bytes(chunk)
    (folder / "notes.txt").write_text("mine")
    for options in ({"chunks": True}, {"decode": True}):
        report = validate(layer, **options)
        assert report.ok
        scale = only_scale(report)
        assert (scale.num_present, scale.num_bytes) == (CELLS, data.size)
        assert {name: what.split()[1] for name, what in scale.unknown} == {
            "1-21_2-22_3-23.gz": "copy",
            ".precomputed-77-0011223344556677.tmp": "temporary",
            "0-20_0-20_0-20": "a",
            "notes.txt": "a",
        }


def test_chunks_of_further_sizes_and_folders_of_other_scales_belong_there(layer: Path) -> None:
    scale = {**INFO["scales"][0], "chunk_sizes": [[20, 20, 20], [50, 40, 30]]}
    inner = {**INFO["scales"][0], "key": "8_8_8/inner"}
    write_info(layer, {**INFO, "scales": [scale, inner]})
    (layer / "8_8_8" / "1-51_2-42_3-33").write_bytes(bytes(60_000))
    (layer / "8_8_8" / "inner").mkdir()
    assert validate(layer, chunks=True, scale=0).scales[0].unknown == ()


def test_compressed_files_of_cloudvolume_are_sound(tmp_path: Path, data: np.ndarray) -> None:
    cloudvolume_write(tmp_path / "layer", INFO, data, compress="gzip")
    assert all(path.suffix == ".gz" for path in (tmp_path / "layer" / "8_8_8").iterdir())
    for options in ({"chunks": True}, {"decode": True}):
        report = validate(tmp_path / "layer", **options)
        assert report.ok
        assert only_scale(report).num_present == CELLS
        assert only_scale(report).unknown == ()


def test_nested_folders_are_followed(layer: Path) -> None:
    for path in list((layer / "8_8_8").iterdir()):
        nested = layer / "8_8_8" / path.name.replace("_", "/")
        nested.parent.mkdir(parents=True, exist_ok=True)
        path.rename(nested)
    (layer / FIRST.replace("1-21_2-22_3-23", "1-21/2-22/3-23")).unlink()
    for options in ({"chunks": True}, {"decode": True}):
        report = validate(layer, **options)
        assert report.ok
        assert only_scale(report).num_missing == 1


def test_a_scale_without_a_folder_is_missing_as_a_whole(layer: Path) -> None:
    shutil.rmtree(layer / "8_8_8")
    scale = only_scale(validate(layer, decode=True))
    assert (scale.num_present, scale.num_missing) == (0, CELLS)


def test_a_sound_sharded_layer_is_ok(sharded: Path, data: np.ndarray) -> None:
    for options in ({"chunks": True}, {"decode": True}):
        report = validate(sharded, **options)
        assert report.ok
        scale = only_scale(report)
        assert (scale.num_present, scale.num_bytes, scale.unknown) == (CELLS, data.size, ())


def first_shard(folder: Path) -> tuple[Path, bytearray, int, int]:
    """A shard, its bytes, and where the index of its first minishard lies."""
    path = min((folder / "8_8_8").iterdir())
    shard = bytearray(path.read_bytes())
    start, stop = (32 + int(offset) for offset in np.frombuffer(bytes(shard[:16]), "<u8"))
    assert start < stop
    return path, shard, start, stop


@pytest.mark.parametrize("options", [{"chunks": True}, {"decode": True}])
def test_a_chunk_past_the_end_of_its_shard_spoils_no_other(
    sharded: Path, options: dict[str, bool]
) -> None:
    path, shard, _, stop = first_shard(sharded)
    # The last number of a minishard index is the size of its last chunk.
    shard[stop - 8 : stop] = (1 << 20).to_bytes(8, "little")
    path.write_bytes(shard)
    scale = only_scale(validate(sharded, **options))
    (corrupt,) = scale.corrupt
    assert corrupt.key == f"8_8_8/{path.name}"
    assert str(len(shard)) in corrupt.message
    assert scale.num_present == CELLS


@pytest.mark.parametrize("options", [{"chunks": True}, {"decode": True}])
def test_a_damaged_minishard_index_spoils_only_its_chunks(
    sharded: Path, options: dict[str, bool]
) -> None:
    path, shard, _, stop = first_shard(sharded)
    shard[8:16] = (stop - 32 - 1).to_bytes(8, "little")
    path.write_bytes(shard)
    scale = only_scale(validate(sharded, **options))
    assert 0 < len(scale.corrupt) < CELLS
    assert all("multiple of 24" in problem.message for problem in scale.corrupt)


@pytest.mark.parametrize("options", [{"chunks": True}, {"decode": True}])
def test_an_index_that_gives_a_chunk_no_bytes_is_corrupt(
    sharded: Path, options: dict[str, bool]
) -> None:
    path, shard, _, stop = first_shard(sharded)
    shard[stop - 8 : stop] = bytes(8)
    path.write_bytes(shard)
    (corrupt,) = only_scale(validate(sharded, **options)).corrupt
    assert "0 bytes" in corrupt.message


def test_files_that_are_not_shards_are_noted(sharded: Path) -> None:
    for name in ("4.shard", "00.shard", "0.index", "x.shard"):
        (sharded / "8_8_8" / name).write_bytes(b"")
    names = {unknown.name for unknown in only_scale(validate(sharded, chunks=True)).unknown}
    assert names == {"4.shard", "00.shard", "0.index", "x.shard"}


@pytest.fixture
def served(layer: Path) -> Any:
    (layer / FIRST).unlink()
    (layer / "8_8_8" / "21-41_2-22_3-23").write_bytes(b"short")
    with WebServer() as server:
        for path in layer.rglob("*"):
            if path.is_file():
                server.add(f"/{path.relative_to(layer).as_posix()}", path.read_bytes())
        yield server


@pytest.mark.server
def test_without_a_listing_each_chunk_is_asked_for(served: WebServer) -> None:
    pytest.importorskip("aiohttp")
    scale = only_scale(validate(served.url, chunks=True))
    assert (scale.num_present, scale.num_missing) == (CELLS - 1, 1)
    assert (scale.num_bytes, scale.corrupt, scale.unknown) == (None, (), ())
    asked = [request for request in served.requests if request.path.startswith("/8_8_8/")]
    assert {request.method for request in asked} == {"HEAD"}
    assert len(asked) == CELLS


@pytest.mark.server
def test_chunks_on_a_server_are_decoded(served: WebServer) -> None:
    pytest.importorskip("aiohttp")
    scale = only_scale(validate(served.url, decode=True))
    assert (scale.num_present, scale.num_missing) == (CELLS - 1, 1)
    assert [problem.key for problem in scale.corrupt] == ["8_8_8/21-41_2-22_3-23"]


@pytest.mark.server
def test_shards_on_a_server_are_looked_up_and_decoded(sharded: Path) -> None:
    pytest.importorskip("aiohttp")
    path, shard, _, stop = first_shard(sharded)
    shard[8:16] = (stop - 32 - 1).to_bytes(8, "little")
    path.write_bytes(shard)
    with WebServer() as server:
        for file in sharded.rglob("*"):
            if file.is_file():
                server.add(f"/{file.relative_to(sharded).as_posix()}", file.read_bytes())
        for options in ({"chunks": True}, {"decode": True}):
            scale = only_scale(validate(server.url, **options))
            assert 0 < len(scale.corrupt) < CELLS
            assert {problem.key for problem in scale.corrupt} == {f"8_8_8/{path.name}"}
            assert (scale.num_present, scale.num_missing) == (CELLS, 0)


def test_a_bucket_that_forbids_listing_is_asked_chunk_by_chunk(
    layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Any:
        yield from ()
        raise StorageError("no permission to list", status=403)

    monkeypatch.setattr(folder_module, "list_objects", refuse)
    scale = only_scale(validate(layer, chunks=True))
    assert (scale.num_present, scale.num_bytes) == (CELLS, None)


def test_a_storage_that_fails_is_an_error_and_not_a_missing_chunk(
    layer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Any:
        yield from ()
        raise StorageError("broken disk")

    monkeypatch.setattr(folder_module, "list_objects", fail)
    with pytest.raises(StorageError, match="broken disk"):
        validate(layer, chunks=True)


@pytest.mark.parametrize("options", [{"chunks": True}, {"decode": True}])
@pytest.mark.parametrize("kind", ["folder", "link to nowhere"])
def test_a_chunk_that_is_no_file_is_named(
    layer: Path, options: dict[str, bool], kind: str
) -> None:
    (layer / FIRST).unlink()
    if kind == "folder":
        (layer / FIRST).mkdir()
    else:
        (layer / FIRST).symlink_to(layer / "annexed")
    scale = only_scale(validate(layer, **options))
    assert [problem.key for problem in scale.corrupt] == [FIRST]
    assert scale.num_present == CELLS


def test_a_sample_is_so_many_different_chunks(layer: Path) -> None:
    scale = only_scale(validate(layer, sample=5))
    assert (scale.num_checked, scale.num_present, scale.decoded) == (5, 5, True)
    everything = only_scale(validate(layer, sample=1000))
    assert (everything.num_checked, everything.num_present) == (CELLS, CELLS)
    with pytest.raises(ValueError, match="sample is 0"):
        validate(layer, sample=0)


def test_samples_reach_every_chunk(layer: Path) -> None:
    """Each chunk is corrupt, so each one that is picked is named."""
    for path in (layer / "8_8_8").iterdir():
        path.write_bytes(b"x")
    named: set[str] = set()
    for _ in range(200):
        corrupt = only_scale(validate(layer, sample=6)).corrupt
        assert len({problem.key for problem in corrupt}) == 6
        named |= {problem.key for problem in corrupt}
        if len(named) == CELLS:
            break
    assert len(named) == CELLS


def test_one_scale_is_checked_by_index_key_or_resolution(layer: Path) -> None:
    coarse = {**INFO["scales"][0], "key": "16", "resolution": [16, 16, 16], "size": [25, 20, 15]}
    write_info(layer, {**INFO, "scales": [*INFO["scales"], coarse]})
    assert [scale.index for scale in validate(layer, chunks=True).scales] == [0, 1]
    for selector in (-1, "16", (16, 16, 16)):
        scale = only_scale(validate(layer, chunks=True, scale=selector))
        assert (scale.index, scale.num_present) == (1, 0)
    with pytest.raises(ValueError, match="this volume has"):
        validate(layer, chunks=True, scale="32")


def test_layers_in_memory_are_checked(data: np.ndarray) -> None:
    url = "memory://validation/layer"
    ps.create(url, INFO, overwrite=True)
    ps.open_volume(url, mode="r+")[...] = data
    scale = only_scale(validate(url, chunks=True))
    assert (scale.num_present, scale.num_missing) == (CELLS, 0)
    assert only_scale(validate(url, decode=True)).num_bytes == data.size


def test_a_report_is_plain_json(layer: Path) -> None:
    (layer / FIRST).write_bytes(b"")
    (layer / "8_8_8" / "x").write_bytes(b"")
    document = json.loads(json.dumps(validate(layer, chunks=True).to_json()))
    assert document["ok"] is False
    (scale,) = document["scales"]
    assert scale["corrupt"] == [
        {
            "key": FIRST,
            "box": [[1, 2, 3], [21, 22, 23]],
            "message": "the stored object is empty (0 bytes)",
        }
    ]
    assert scale["unknown"] == [{"name": "x", "what": "not a chunk of this scale's grid"}]
    assert (scale["num_present"], scale["num_corrupt"]) == (CELLS, 1)


def test_progress_is_shown_for_a_scale_of_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = make_info(size=(5, 4, 3))
    info["scales"][0]["key"] = "[red]x[/blue]"
    validate(write_info(tmp_path / "layer", info), chunks=True, progress=True)
    shown = capsys.readouterr().err
    assert "looking for [red]x[/blue]" in shown
    assert "1/1" in shown
