"""What we write, the real Neuroglancer client decodes bit for bit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner

import precomputed_store as ps
from precomputed_store import Volume, sample
from precomputed_store.cli import main
from tests.neuroglancer_client.client import RESOLUTION
from tests.neuroglancer_client.conftest import Neuroglancer
from tests.oracles import make_info, tensorstore_read

pytestmark = [pytest.mark.neuroglancer, pytest.mark.server, pytest.mark.slow]

DATA_TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"]
LOSSLESS_JXL = {"jxl_quality": 100}

# Every axis ends in a cropped chunk, and begins off the chunk grid.
SIZE = (21, 13, 7)
CHUNK_SIZE = (16, 8, 4)
VOXEL_OFFSET = (-17, 5, -3)


def noise(dtype: str, num_channels: int = 1) -> np.ndarray:
    """Random bits: every value there is, NaN with its payload too."""
    dtype_ = np.dtype(dtype)
    shape = (*SIZE, num_channels)
    bits = np.random.default_rng(5).bytes(int(np.prod(shape)) * dtype_.itemsize)
    return np.frombuffer(bits, dtype_).reshape(shape)


def labels(dtype: str) -> np.ndarray:
    """Blocks of few labels: the least, the greatest, low halves that mean something else."""
    rng = np.random.default_rng(6)
    greatest = int(np.iinfo(dtype).max)
    ids = [0, 1, greatest - 8, greatest - 3, greatest, greatest & (2**40 - 5), greatest & 2**63]
    blocks = rng.choice(np.array(ids, dtype), [-(-n // 3) for n in SIZE])
    voxels = blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    return voxels[tuple(map(slice, SIZE))][..., np.newaxis]


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def write(
    folder: Path,
    data: np.ndarray,
    *,
    encoding: str,
    layer_type: Any = "image",
    encoding_options: Mapping[str, Any] | None = None,
    chunk_size: tuple[int, int, int] = CHUNK_SIZE,
    allow_misread: bool = False,
) -> Volume:
    volume = ps.to_precomputed(
        data,
        folder,
        dims=("x", "y", "z", "channel"),
        layer_type=layer_type,
        encoding=encoding,
        encoding_options=encoding_options,
        resolution=(RESOLUTION,) * 3,
        voxel_offset=VOXEL_OFFSET,
        chunk_size=chunk_size,
        allow_misread=allow_misread,
    )
    assert isinstance(volume, Volume)
    return volume


@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_raw_of_every_data_type_is_exact(
    tmp_path: Path, neuroglancer: Neuroglancer, dtype: str
) -> None:
    data = noise(dtype)
    volume = write(tmp_path, data, encoding="raw")
    np.testing.assert_array_equal(bits(neuroglancer.read(volume)), bits(data))


@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_three_raw_channels_written_through_a_volume_are_exact(
    tmp_path: Path, neuroglancer: Neuroglancer, dtype: str
) -> None:
    data = noise(dtype, 3)
    info = make_info(
        size=SIZE,
        dtype=dtype,
        num_channels=3,
        voxel_offset=VOXEL_OFFSET,
        chunk_size=CHUNK_SIZE,
        resolution=(RESOLUTION,) * 3,
    )
    ps.create(tmp_path, info)
    volume = ps.open_volume(tmp_path, mode="r+")
    volume[...] = data
    np.testing.assert_array_equal(bits(neuroglancer.read(volume)), bits(data))


@pytest.mark.parametrize(
    ("dtype", "num_channels"),
    [("uint8", 1), ("uint8", 2), ("uint8", 3), ("uint8", 4), ("uint16", 1)],
)
def test_png_is_exact(
    tmp_path: Path, neuroglancer: Neuroglancer, dtype: str, num_channels: int
) -> None:
    data = noise(dtype, num_channels)
    volume = write(tmp_path, data, encoding="png")
    np.testing.assert_array_equal(neuroglancer.read(volume), data)


def test_lossless_jxl_is_exact(tmp_path: Path, neuroglancer: Neuroglancer) -> None:
    data = noise("uint8")
    volume = write(tmp_path, data, encoding="jxl", encoding_options=LOSSLESS_JXL)
    np.testing.assert_array_equal(neuroglancer.read(volume), data)


def test_lossy_jxl_decodes_as_here_but_for_rounding(
    tmp_path: Path, neuroglancer: Neuroglancer
) -> None:
    volume = write(tmp_path, noise("uint8"), encoding="jxl")
    error = np.abs(neuroglancer.read(volume).astype(int) - volume[...])
    assert error.max() <= 2


@pytest.mark.parametrize("num_channels", [1, 3])
def test_jpeg_decodes_as_here_and_in_tensorstore_but_for_rounding(
    tmp_path: Path, neuroglancer: Neuroglancer, num_channels: int
) -> None:
    # On noise, the worst there is, TensorStore's decoder and ours agree; the client's is another.
    volume = write(tmp_path, noise("uint8", num_channels), encoding="jpeg")
    read = neuroglancer.read(volume).astype(int)
    for reference in (volume[...], tensorstore_read(tmp_path)):
        error = np.abs(read - reference)
        assert error.max() <= 4
        assert error.mean() < 1


@pytest.mark.parametrize("dtype", ["uint32", "uint64"])
@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        ("raw", None),
        ("compressed_segmentation", None),
        ("compressed_segmentation", {"compressed_segmentation_block_size": (5, 7, 3)}),
        ("compresso", None),
    ],
    ids=["raw", "blocks of 8", "blocks of 5 x 7 x 3", "compresso"],
)
def test_segmentations_are_exact(
    tmp_path: Path,
    neuroglancer: Neuroglancer,
    encoding: str,
    options: Mapping[str, Any] | None,
    dtype: str,
) -> None:
    data = labels(dtype)
    volume = write(
        tmp_path, data, encoding=encoding, layer_type="segmentation", encoding_options=options
    )
    np.testing.assert_array_equal(neuroglancer.read(volume), data)


@pytest.mark.parametrize(
    ("encoding", "dtype"), [("raw", "uint8"), ("compressed_segmentation", "uint64")]
)
def test_chunks_of_zeros_are_not_stored_and_read_as_zeros(
    tmp_path: Path, neuroglancer: Neuroglancer, encoding: str, dtype: str
) -> None:
    data = np.zeros((*SIZE, 1), dtype)
    data[17, 3, 2] = 200
    volume = write(tmp_path, data, encoding=encoding)
    stored = {path.name for path in (tmp_path / volume.scale.key).iterdir()}
    assert stored == {"-1-4_5-13_-3-1"}
    np.testing.assert_array_equal(neuroglancer.read(volume), data)
    grid = volume.scale.grid
    names = {grid.chunk_name(cell) for cell in grid.cells(volume.bounds)}
    missing = {f"{volume.scale.key}/{name}" for name in names - stored}
    assert neuroglancer.files.not_found(tmp_path) == missing


def chunk_bytes(data: np.ndarray) -> np.ndarray:
    """A chunk as the images hold it: channels of a voxel side by side."""
    return bits(data.transpose(2, 1, 0, 3)).view(np.uint8).ravel()


def as_chunk(planar: np.ndarray, like: np.ndarray) -> np.ndarray:
    return planar.view(like.dtype).reshape(like.shape[::-1]).transpose()


def refused_and_misread(
    folder: Path, data: np.ndarray, *, encoding: str, options: Mapping[str, Any] | None = None
) -> Volume:
    """One chunk of what is not written unless asked for by name, and is read right here."""
    with pytest.raises(ValueError, match="Neuroglancer"):
        write(folder, data, encoding=encoding, encoding_options=options)
    volume = write(
        folder,
        data,
        encoding=encoding,
        encoding_options=options,
        chunk_size=SIZE,
        allow_misread=True,
    )
    np.testing.assert_array_equal(volume[...], data)
    return volume


# When one of these fails because the client reads right, `Codec.neuroglancer_misreads` has
# become too strict, and compresso's escapes superfluous.


def test_the_client_still_takes_interleaved_jxl_colours_for_planes(
    tmp_path: Path, neuroglancer: Neuroglancer
) -> None:
    data = noise("uint8", 3)
    volume = refused_and_misread(tmp_path, data, encoding="jxl", options=LOSSLESS_JXL)
    misread = as_chunk(chunk_bytes(data), data)
    np.testing.assert_array_equal(neuroglancer.read(volume), misread)


def test_the_client_still_crashes_on_four_jxl_channels(
    tmp_path: Path, neuroglancer: Neuroglancer
) -> None:
    volume = refused_and_misread(tmp_path, noise("uint8", 4), encoding="jxl", options=LOSSLESS_JXL)
    with pytest.raises(ValueError, match="unreachable"):
        neuroglancer.read(volume)


@pytest.mark.parametrize("num_channels", [2, 3, 4])
def test_the_client_still_sorts_bytes_of_16_bit_png_channels_as_if_they_were_8_bit(
    tmp_path: Path, neuroglancer: Neuroglancer, num_channels: int
) -> None:
    data = noise("uint16", num_channels)
    volume = refused_and_misread(tmp_path, data, encoding="png")
    stored = chunk_bytes(data)
    half = stored[: data.size].reshape(-1, num_channels).transpose().ravel()
    misread = as_chunk(np.append(half, np.zeros_like(half)), data)
    np.testing.assert_array_equal(neuroglancer.read(volume), misread)


def test_the_client_still_cuts_wide_labels_in_compresso_of_the_library_itself(
    tmp_path: Path, neuroglancer: Neuroglancer
) -> None:
    data = noise("uint64") % np.uint64(5) + np.uint64(2**40)
    volume = write(
        tmp_path, data, encoding="compresso", layer_type="segmentation", chunk_size=SIZE
    )
    np.testing.assert_array_equal(neuroglancer.read(volume), data)
    other = tmp_path / "library"
    ps.create(other, volume.info)
    (chunk,) = (tmp_path / volume.scale.key).iterdir()
    (other / volume.scale.key).mkdir()
    encoded = pytest.importorskip("compresso").compress(np.asfortranarray(data[..., 0]))
    (other / volume.scale.key / chunk.name).write_bytes(encoded)
    volume = ps.open_volume(other)
    np.testing.assert_array_equal(volume[...], data)
    read = neuroglancer.read(volume)
    assert set(np.unique(data - read)) == {0, 2**40}


def test_the_demo_looks_in_the_client_as_it_should(
    tmp_path: Path, neuroglancer: Neuroglancer
) -> None:
    """Image under segments, pixel by pixel: brightness, colours, place and scale."""
    from neuroglancer.segment_colors import hex_string_from_segment_id

    shown = CliRunner().invoke(main, ["demo", str(tmp_path / "demo")])
    assert shown.exit_code == 0, shown.output
    link = re.search(r"#!(\S+)", shown.output)
    assert link is not None
    served = neuroglancer.files.url_of(tmp_path / "demo")
    state = re.sub(r"http://localhost:\d+", served, unquote(link[1]))
    width, height, _ = sample.SIZE
    x, y, z = sample.VOXEL_OFFSET
    picture = neuroglancer.client.picture(
        json.loads(state)["layers"], size=(width, height), corner=(x, y, z + 15)
    )
    grey = ps.open_volume(tmp_path / "demo" / "image")[:, :, z + 15][:, :, 0].transpose(1, 0, 2)
    segments = sample.load().segmentation[15]
    ids, index = np.unique(segments, return_inverse=True)
    assert 0 not in ids
    assert len(ids) == 19
    names = [hex_string_from_segment_id(0, int(id_)) for id_ in ids]
    palette = np.array([list(bytes.fromhex(name.removeprefix("#"))) for name in names])
    colours = palette[index.reshape(segments.shape)]
    expected = 0.5 * colours + 0.5 * grey
    assert np.abs(picture - expected).max() <= 2
    assert np.ptp(picture.astype(int), axis=2).mean() > 40


SHARDINGS = {
    "auto": "auto",
    "boxes": ps.ShardingSpec(
        hash="identity", preshift_bits=1, minishard_bits=1, shard_bits=3,
        minishard_index_encoding="gzip", data_encoding="gzip",
    ),
    "scattered": ps.ShardingSpec(
        hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=1, shard_bits=2
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHARDINGS)
@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
def test_shards_and_coarser_scales_are_exact(
    tmp_path: Path, neuroglancer: Neuroglancer, kind: str, dtype: str
) -> None:
    data = noise(dtype) if dtype == "uint8" else labels(dtype)
    folder = tmp_path / "layer"
    volume = ps.to_precomputed(
        data,
        folder,
        dims=("x", "y", "z", "channel"),
        layer_type="image" if dtype == "uint8" else "segmentation",
        resolution=(RESOLUTION,) * 3,
        voxel_offset=VOXEL_OFFSET,
        chunk_size=CHUNK_SIZE,
        sharding=SHARDINGS[kind],  # type: ignore[arg-type]
        pyramid=[(2, 2, 1), (1, 2, 2)],
        method="max",
    )
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(neuroglancer.read(volume), data)
    if dtype == "uint64":
        return
    for name in ("coarse", "coarser"):
        # The client is asked for the finest scale only: let the next one be that, elsewhere.
        shutil.copytree(folder, tmp_path / name)
        folder = tmp_path / name
        ps.remove_scale(folder, 0)
        coarse = ps.open_volume(folder)
        np.testing.assert_array_equal(neuroglancer.read(coarse), coarse[...])
        assert coarse[...].any()
