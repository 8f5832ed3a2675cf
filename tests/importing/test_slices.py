"""Stacks of TIFF, PNG and JPEG slices; golden values are those of tifffile and Pillow."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import precomputed_store as ps
from precomputed_store.errors import FormatError, UnsupportedError
from precomputed_store.importing.base import SliceHeader
from precomputed_store.importing.slices import BAND_BYTES, stack_blocks


def write_tiffs(folder: Path, voxels: np.ndarray, **options: Any) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"slice{index}.tif" for index in range(len(voxels))]
    for path, plane in zip(paths, voxels, strict=True):
        tifffile.imwrite(path, plane, **options)
    return paths


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw", "rowsperstrip": 7},
        {"compression": "zlib", "tile": (16, 16)},
        {"byteorder": ">"},
    ],
    ids=["plain", "lzw strips", "tiles", "big-endian"],
)
def test_a_folder_of_tiff_slices_is_a_volume(
    folder: Path, voxels: np.ndarray, options: dict[str, Any]
) -> None:
    write_tiffs(folder / "slices", voxels, **options)
    (folder / "slices" / "notes.txt").write_text("not a slice")
    array = ps.open_source(folder / "slices")
    assert array.dims == ("z", "y", "x")
    assert array.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(array.values, voxels)


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "lzw", "rowsperstrip": 64}, {"compression": "lzw", "tile": (128, 128)}],
    ids=["plain", "strips", "tiles"],
)
def test_large_slices_are_read_in_bands(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precomputed_store.importing.slices.BAND_BYTES", 32 << 10)
    voxels = np.random.default_rng(0).integers(0, 2**16, (3, 300, 256), dtype="uint16")
    write_tiffs(folder, voxels, **options)
    array = ps.open_source(folder)
    assert array.chunks is not None
    assert array.chunks[0] == (3,)
    assert array.chunks[1][0] == (128 if "tile" in options else 64)
    np.testing.assert_array_equal(array.values, voxels)
    np.testing.assert_array_equal(array[:, 130:140, 3:9].values, voxels[:, 130:140, 3:9])


@pytest.mark.parametrize(
    ("stored", "shape", "block"),
    [
        (None, (20_000, 20_000), (1, 20_000)),  # a format that cannot be read in part
        (20_000, (20_000, 20_000), (1, 20_000)),  # every band would decompress all of it
        (1, (20_000, 20_000), (64, 64)),
        (16, (20_000, 20_000), (64, 64)),
        (100, (20_000, 20_000), (64, 100)),
        (200, (20_000, 20_000), (32, 200)),
        (7, (20_000, 1000), (64, 448 * (BAND_BYTES // 1000 // 448))),
        (1, (100, 100), (64, 100)),
        (None, (100, 100), (64, 100)),
    ],
)
def test_a_task_reads_whole_strips_and_whole_chunks(
    stored: int | None, shape: tuple[int, int], block: tuple[int, int]
) -> None:
    header = SliceHeader(shape=shape, dtype=np.dtype("uint8"), axes="yx", rows=stored)
    assert stack_blocks(header) == block


def test_slices_are_sorted_by_number(folder: Path) -> None:
    voxels = np.arange(12, dtype="uint8").repeat(100).reshape(12, 10, 10)
    paths = write_tiffs(folder, voxels)
    expected = list(range(12))
    for source in (folder, str(folder / "*.tif"), f"{folder}/slice*.tif"):
        assert ps.open_source(source)[:, 0, 0].values.tolist() == expected
    # As they are given, they stay.
    assert ps.open_source([paths[3], paths[1]])[:, 0, 0].values.tolist() == [3, 1]


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "L"), ("a.png", "RGB"), ("a.png", "RGBA"), ("a.png", "I;16"), ("a.png", "1"),
     ("a.jpg", "L"), ("a.jpeg", "RGB"), ("a.png", "P")],
)  # fmt: skip
def test_png_and_jpeg_are_what_pillow_reads(folder: Path, name: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, (30, 40), dtype="uint16"))
    else:
        shape = (30, 40, len(mode)) if mode.startswith("RGB") else (30, 40)
        plane = Image.fromarray(rng.integers(0, 256, shape, dtype="uint8"))
        image = plane if mode.startswith("RGB") else plane.convert(mode)
    assert image.mode == mode
    image.save(folder / name)
    with Image.open(folder / name) as reopened:
        golden = np.asarray(reopened)
    array = ps.open_source(folder / name)
    assert array.dims == (("channel",) if golden.ndim == 3 else ()) + ("z", "y", "x")
    assert array.dtype == ("uint8" if golden.dtype == bool else golden.dtype)
    np.testing.assert_array_equal(
        array.transpose(..., "channel", missing_dims="ignore")[0], golden
    )


def test_colour_slices_become_channels(folder: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype="uint8")
    write_tiffs(folder, voxels, photometric="rgb")
    array = ps.open_source(folder, resolution=(4, 4, 40))
    assert array.dims == ("channel", "z", "y", "x")
    volume = ps.to_precomputed(array, "memory://colour-slices")
    np.testing.assert_array_equal(volume[...], voxels.transpose(2, 1, 0, 3))


def png_of_16_bit_colours(path: Path) -> None:
    import imagecodecs

    path.write_bytes(imagecodecs.png_encode(np.zeros((8, 8, 3), "uint16")))


def test_16_bit_colours_are_refused_rather_than_cut(folder: Path) -> None:
    png_of_16_bit_colours(folder / "a.png")
    with pytest.raises(UnsupportedError, match=r"a\.png: .* with 16 bits.*TIFF"):
        ps.open_source(folder / "a.png")


@pytest.mark.parametrize("change", ["size", "dtype", "channels"])
def test_a_slice_that_differs_is_named(folder: Path, voxels: np.ndarray, change: str) -> None:
    paths = write_tiffs(folder, voxels)
    other = {
        "size": voxels[0, :, :-1],
        "dtype": voxels[0].astype("uint8"),
        "channels": np.zeros((*voxels.shape[1:], 3), "uint16"),
    }[change]
    tifffile.imwrite(paths[3], other)
    with pytest.raises(ValueError, match=r"slice3\.tif is .*slice0\.tif is uint16 y 30 × x 40"):
        ps.open_source(folder)


def test_a_slice_that_changes_after_it_was_looked_at_is_named(
    folder: Path, voxels: np.ndarray
) -> None:
    paths = write_tiffs(folder, voxels)
    array = ps.open_source(folder)
    tifffile.imwrite(paths[2], voxels[0, :-1])
    with pytest.raises(FormatError, match=r"slice2\.tif: .*as its header says"):
        array.values  # noqa: B018


def volume_instead_of_slice(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((6, 30, 40), "uint16"))


def two_images(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((30, 40), "uint16"))
        file.write(np.zeros((3, 4), "uint16"))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            volume_instead_of_slice,
            r"slice1\.tif: one slice of a stack has the shape \(6, 30, 40\)",
        ),
        (two_images, r"slice1\.tif: one slice has 2 images"),
    ],
)
def test_one_file_is_one_slice(
    folder: Path, voxels: np.ndarray, write: Callable[[Path], None], message: str
) -> None:
    write(write_tiffs(folder, voxels)[1])
    with pytest.raises(ValueError, match=message):
        ps.open_source(folder)


@pytest.mark.parametrize("name", ["bad.tif", "bad.png", "bad.jpg"])
def test_garbage_is_no_image(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match=name):
        ps.open_source(folder / name)


def test_a_cut_png_is_broken_when_it_is_read(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype="uint8")
    Image.fromarray(noise).save(folder / "a.png")
    data = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"a\.png"):
        ps.open_source(folder / "a.png").values  # noqa: B018


def test_a_stack_can_be_sent_to_another_process(folder: Path, voxels: np.ndarray) -> None:
    write_tiffs(folder, voxels)
    array = pickle.loads(pickle.dumps(ps.open_source(folder)))
    np.testing.assert_array_equal(array.values, voxels)


def test_the_paths_of_a_stack_are_in_its_graph_once(folder: Path) -> None:
    plane = np.zeros((8, 8), "uint8")
    paths = write_tiffs(folder, np.stack([plane] * 640))
    array = ps.open_source(folder).data
    assert array.npartitions == 10
    graph = pickle.dumps(dict(array.__dask_graph__()))
    assert graph.count(b"slice639.tif") == 1
    assert len(graph) < 2 * sum(len(str(path)) for path in paths)


def test_slices_say_how_large_pixels_are_but_not_how_thick_they_are(
    folder: Path, voxels: np.ndarray
) -> None:
    write_tiffs(
        folder, voxels, imagej=True, resolution=(250, 125), metadata={"unit": "um", "axes": "YX"}
    )
    array = ps.open_source(folder)
    assert set(array.coords) == {"x", "y"}
    assert float(array.x[0]), float(array.y[0]) == (2, 4)
    with pytest.raises(ValueError, match="along z: pass resolution="):
        ps.to_precomputed(array, "memory://no-thickness", layer_type="image")
