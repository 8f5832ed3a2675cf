"""The compiled kernel of png gives what libpng and libspng give, and parts of it."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from image_peers import smooth

import precomputed_store as ps
from precomputed_store._native import png_rows as native
from precomputed_store.codecs import _image, png
from precomputed_store.codecs._png_pixels import in_runs
from precomputed_store.codecs.png import Png
from precomputed_store.errors import ChunkError, FormatError

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason="the package was installed without a compiler"
)
FILTERS = ["NONE", "SUB", "UP", "AVG", "PAETH", "ALL"]
KINDS = [(dtype, channels) for dtype in ("uint8", "uint16") for channels in (1, 2, 3, 4)]
SHAPE = (7, 6, 9)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library is there to step in."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(png, "_decode", refuse)


def by_libpng(voxels: np.ndarray[Any, Any], filters: str) -> bytes:
    """``(channel, z, y, x)`` as an image whose rows have one kind of filter."""
    imagecodecs = pytest.importorskip("imagecodecs")
    channels, z, y, x = voxels.shape
    image = np.ascontiguousarray(np.moveaxis(voxels, 0, -1)).reshape(z * y, x, channels)
    data: bytes = imagecodecs.png_encode(image, filter=imagecodecs.PNG.FILTER[filters])
    return data


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def grey(rows: bytes, *, width: int, height: int, interlace: int = 0) -> bytes:
    """An 8-bit grey image of these filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"".join([SIGNATURE, *(chunk(*each) for each in chunks)])


def filtered(data: bytes, row_bytes: int) -> np.ndarray[Any, Any]:
    """Rows as they are deflated, each behind its filter's number."""
    stream = b"".join(
        bytes(c[8:-4]) for kind, c in png._chunks(memoryview(data)) if kind == b"IDAT"
    )
    return np.frombuffer(zlib.decompress(stream), np.uint8).reshape(-1, row_bytes + 1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_every_filter_of_every_kind_of_pixel_is_undone(
    dtype: str, channels: int, filters: str, noise: bool
) -> None:
    shape = (channels, *SHAPE)
    voxels = smooth(shape, dtype)
    if noise:
        voxels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, True)
    data = by_libpng(voxels, filters)
    if filters in FILTERS[:5]:
        row_bytes = SHAPE[2] * channels * np.dtype(dtype).itemsize
        assert FILTERS.index(filters) in filtered(data, row_bytes)[:, 0]
    decoded = Png().decode(data, shape=shape, dtype=np.dtype(dtype))
    np.testing.assert_array_equal(decoded, voxels)
    assert decoded.dtype == dtype


@pytest.mark.usefixtures("alone")
@given(
    corners=st.tuples(
        *[st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True) for n in SHAPE]
    ),
    kind=st.sampled_from(KINDS),
)
def test_a_box_is_what_the_whole_chunk_has_there(
    corners: tuple[list[int], ...], kind: tuple[str, int]
) -> None:
    dtype, channels = kind
    voxels = smooth((channels, *SHAPE), dtype)
    z, y, x = (tuple(sorted(pair)) for pair in corners)
    sizes = [stop - start for start, stop in (z, y, x)]
    around = np.full((channels, *(2 * size + 1 for size in sizes)), 7, dtype)
    out = around[:, 1::2, 1::2, 1::2]
    data = by_libpng(voxels, "ALL")
    assert Png().decode_box(data, shape=voxels.shape, box=(z, y, x), out=out)
    np.testing.assert_array_equal(out, voxels[:, *(slice(*axis) for axis in (z, y, x))])
    out[...] = 7
    assert (around == 7).all()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("width", [1, 2, 6, 30, 120])
def test_a_box_of_an_image_of_any_width(width: int) -> None:
    voxels = np.arange(120, dtype=np.uint8).reshape(1, 4, 5, 6)
    rows = voxels.reshape(-1, width)
    filtered = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
    data = grey(filtered.tobytes(), width=width, height=len(rows))
    out = np.empty((1, 2, 3, 4), np.uint8)
    assert Png().decode_box(data, shape=voxels.shape, box=((1, 3), (2, 5), (0, 4)), out=out)
    np.testing.assert_array_equal(out, voxels[:, 1:3, 2:5, 0:4])


@pytest.mark.usefixtures("alone")
def test_no_more_is_inflated_than_is_wanted() -> None:
    """Rows far behind the box are not even a zlib stream: only their checksum counts.

    Inflaters go on for as much as they have room for, some ten thousands of bytes.
    """
    voxels = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 64), np.uint8)
    data = by_libpng(voxels, "ALL")
    stream = b"".join(
        bytes(c[8:-4]) for kind, c in png._chunks(memoryview(data)) if kind == b"IDAT"
    )
    broken = stream[: len(stream) * 3 // 4] + b"\xff" * (len(stream) // 4)
    damaged = data[:33] + chunk(b"IDAT", broken) + chunk(b"IEND", b"")
    out = np.empty((1, 2, 128, 64), np.uint8)
    box = (0, 2), (0, 128), (0, 64)
    assert Png().decode_box(damaged, shape=voxels.shape, box=box, out=out)
    np.testing.assert_array_equal(out, voxels[:, :2])


def test_damage_behind_the_box_is_found_by_the_checksum() -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (1, 64, 32, 32), np.uint8)
    data = bytearray(by_libpng(voxels, "ALL"))
    data[-100] ^= 1
    out = np.empty((1, 1, 32, 32), np.uint8)
    box = (0, 1), (0, 32), (0, 32)
    assert not Png().decode_box(bytes(data), shape=voxels.shape, box=box, out=out)


@pytest.mark.parametrize("number", [5, 6, 255])
def test_filters_that_there_are_not_are_refused(number: int) -> None:
    rows = bytes([0, 1, 2, 3, number, 4, 5, 6])
    data = grey(rows, width=3, height=2)
    with pytest.raises(FormatError):
        Png().decode(data, shape=(1, 1, 2, 3), dtype=np.dtype("uint8"))
    out = np.empty((1, 1, 2, 3), np.uint8)
    box = (0, 1), (0, 2), (0, 3)
    assert not Png().decode_box(data, shape=(1, 1, 2, 3), box=box, out=out)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("noise", [False, True])
def test_rows_are_filtered_as_libpng_would_and_read_by_it(
    dtype: str, channels: int, noise: bool
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    shape = (channels, *SHAPE)
    voxels = smooth(shape, dtype)
    if noise:
        voxels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape, dtype, True)
    data = in_runs(_image.to_image(Png, voxels, max_side=1000), colour=png._COLOURS[channels])
    assert data is not None
    row_bytes = SHAPE[2] * channels * np.dtype(dtype).itemsize
    assert filtered(data, row_bytes)[:, 0].tolist() == (
        filtered(by_libpng(voxels, "ALL"), row_bytes)[:, 0].tolist()
    )
    expected = np.moveaxis(voxels, 0, -1).reshape(-1, SHAPE[2], channels)
    image = imagecodecs.png_decode(data).reshape(expected.shape)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("row_bytes", [1, 2, 7, 8, 9, 300])
def test_rows_of_any_length_are_filtered(row_bytes: int) -> None:
    rows = np.random.default_rng(3).integers(0, 256, (5, row_bytes), np.uint8)
    for pixel in (1, 2, 3, 4, 6, 8):
        if row_bytes % pixel:
            continue
        coded = native.filter_rows(rows, pixel_bytes=pixel)
        assert coded is not None
        found = native.restore_rows(
            coded.tobytes(), num_rows=5, row_bytes=row_bytes, pixel_bytes=pixel
        )
        np.testing.assert_array_equal(found, rows)
    assert native.filter_rows(rows, pixel_bytes=0) is None
    assert native.filter_rows(rows, pixel_bytes=9) is None


@pytest.mark.usefixtures("alone")
def test_noise_is_written_without_a_library_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    voxels = np.random.default_rng(0).integers(90, 140, (1, 32, 32, 32), np.uint8)
    refuse = lambda *_, **__: pytest.fail("the library was asked")  # noqa: E731
    monkeypatch.setattr(png, "_encode_strings", refuse)
    monkeypatch.setattr(png, "_runs_by_libpng", refuse)
    assert len(Png().encode(voxels)) <= len(by_libpng(voxels, "ALL"))


def test_interlaced_images_are_for_the_library() -> None:
    """Of one pixel, they hold the same bytes as others."""
    data = grey(bytes([0, 42]), width=1, height=1, interlace=1)
    out = np.empty((1, 1, 1, 1), np.uint8)
    box = (0, 1), (0, 1), (0, 1)
    assert not Png().decode_box(data, shape=out.shape, box=box, out=out)
    assert Png().decode(data, shape=out.shape, dtype=out.dtype) == 42


def test_more_pixels_than_the_header_says_are_for_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    decode = png._decode
    monkeypatch.setattr(png, "_decode", lambda *a, **k: asked.append(a) or decode(*a, **k))
    data = grey(bytes([0, 1, 2, 3] * 3), width=3, height=2)
    decoded = Png().decode(data, shape=(1, 1, 2, 3), dtype=np.dtype("uint8"))
    assert asked
    np.testing.assert_array_equal(decoded.ravel(), [1, 2, 3] * 2)


def test_a_corrupt_chunk_of_a_layer_is_named(tmp_path: Any) -> None:
    voxels = np.random.default_rng(0).integers(1, 256, (32, 32, 32), np.uint8)
    ps.to_precomputed(voxels, tmp_path, dims=("z", "y", "x"), resolution=(1, 1, 1), encoding="png")
    (path,) = (tmp_path / "1_1_1").iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChunkError, match=path.name):
        ps.open_volume(tmp_path)[0:32, 0:32, 3]
