"""``precomputed convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

import precomputed_store as ps
from precomputed_store.cli import main

RESOLUTION = ("--resolution", "8,8,40")


@pytest.fixture
def voxels() -> np.ndarray:
    return np.arange(5 * 30 * 40, dtype="uint16").reshape(5, 30, 40)


@pytest.fixture
def source(tmp_path: Path, voxels: np.ndarray) -> Path:
    np.save(tmp_path / "a.npy", voxels)
    return tmp_path / "a.npy"


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def converted(*arguments: object) -> str:
    shown = convert(*arguments)
    assert shown.exit_code == 0, shown.output
    return shown.output


def refused(*arguments: object) -> str:
    shown = convert(*arguments)
    assert shown.exit_code in (1, 2)
    assert "Traceback" not in shown.output
    return " ".join(shown.output.split())


def test_a_file_becomes_a_layer_and_both_are_described(
    source: Path, voxels: np.ndarray, tmp_path: Path
) -> None:
    shown = converted(source, tmp_path / "layer", *RESOLUTION, "--layer-type", "segmentation")
    first, second = shown.splitlines()
    assert first == f"{source} (npy): z 5, y 30, x 40, uint16, 12 kB"
    assert second == (
        f"file://{tmp_path}/layer: segmentation, 40 × 30 × 5 voxels (x, y, z) of 8 × 8 × 40 nm, "
        "raw, 1 chunk"
    )
    volume = ps.open_volume(tmp_path / "layer")
    assert (volume.resolution, volume.layer_type) == ((8, 8, 40), "segmentation")
    np.testing.assert_array_equal(volume[...][..., 0], voxels.T)


def test_every_option_does_what_it_says(source: Path, voxels: np.ndarray, tmp_path: Path) -> None:
    converted(
        source,
        tmp_path / "layer",
        *("--axes", "xyz", "--resolution", "4.5,4,40", "--voxel-offset", "-3,0,7"),
        *("--layer-type", "segmentation", "--dtype", "uint32"),
        *("--encoding", "compressed_segmentation"),
        *("--encoding-option", "compressed_segmentation_block_size=[4,4,4]"),
        *("--chunk-size", "5,16,32", "--workers", 1, "--no-progress"),
    )
    volume = ps.open_volume(tmp_path / "layer")
    assert (volume.resolution, volume.voxel_offset) == ((4.5, 4, 40), (-3, 0, 7))
    assert (volume.chunk_size, volume.dtype) == ((5, 16, 32), np.uint32)
    parameters = volume.scale.codec.to_parameters()
    assert parameters == {"compressed_segmentation_block_size": [4, 4, 4]}
    np.testing.assert_array_equal(volume[...][..., 0], voxels)


def test_rescaling_makes_bytes(source: Path, voxels: np.ndarray, tmp_path: Path) -> None:
    shown = converted(source, tmp_path / "layer", *RESOLUTION, "--rescale", "1000,2000")
    assert "uint16 → uint8" in shown
    golden = np.rint(np.clip((voxels.T - 1000.0) / 1000, 0, 1) * 255)
    np.testing.assert_array_equal(ps.open_volume(tmp_path / "layer")[...][..., 0], golden)


@pytest.mark.parametrize("option", ["--chunk-size", "--target-chunk-size"])
def test_one_number_is_for_all_axes_that_are_as_long(
    source: Path, tmp_path: Path, option: str
) -> None:
    converted(source, tmp_path / "layer", *RESOLUTION, "--layer-type", "image", option, 32)
    assert ps.open_volume(tmp_path / "layer").chunk_size == (32, 30, 5)


def test_slices_as_a_shell_hands_them_over(tmp_path: Path, voxels: np.ndarray) -> None:
    paths = [tmp_path / f"s{index}.tif" for index in range(5)]
    for path, plane in zip(paths, voxels, strict=True):
        tifffile.imwrite(path, plane)
    converted(*paths, tmp_path / "layer", *RESOLUTION, "--layer-type", "image")
    volume = ps.open_volume(tmp_path / "layer")
    np.testing.assert_array_equal(volume[...][..., 0], voxels.T)


def test_a_mask_needs_no_data_type(tmp_path: Path, voxels: np.ndarray) -> None:
    np.save(tmp_path / "mask.npy", voxels > 99)
    shown = converted(tmp_path / "mask.npy", tmp_path / "layer", *RESOLUTION)
    assert "bool → uint8" in shown


@pytest.mark.parametrize(
    ("dtype", "advice"), [("int64", "--dtype uint64"), ("float64", "--dtype float32")]
)
def test_a_type_that_nobody_reads_is_asked_about(
    tmp_path: Path, voxels: np.ndarray, dtype: str, advice: str
) -> None:
    np.save(tmp_path / "a.npy", voxels.astype(dtype))
    arguments = (tmp_path / "a.npy", tmp_path / "layer", *RESOLUTION)
    shown = refused(*arguments)
    assert f"holds {dtype}, which Neuroglancer cannot read" in shown
    assert advice in shown
    assert not (tmp_path / "layer").exists()
    converted(*arguments, *advice.split())


def test_a_second_run_takes_a_word(source: Path, tmp_path: Path) -> None:
    arguments = (source, tmp_path / "layer", *RESOLUTION, "--layer-type", "image")
    converted(*arguments)
    assert "--overwrite replaces it" in refused(*arguments)
    converted(*arguments, "--overwrite", "--chunk-size", 16)
    assert ps.open_volume(tmp_path / "layer").chunk_size == (16, 16, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layer-type", "image"), "along x, y, z: add --resolution X,Y,Z in nanometres"),
        (RESOLUTION, "add --layer-type image or --layer-type segmentation"),
        ((*RESOLUTION, "--axes", "tyx"), "what is t?"),
        (("--resolution", "8,8"), "expected the numbers X,Y,Z"),
        (("--voxel-offset", "1.5,0,0"), "expected the integers X,Y,Z"),
        (("--chunk-size", "8,8"), "expected the integers X,Y,Z, or one for all"),
        (
            (*RESOLUTION, "--layer-type", "image", "--encoding", "jpeg"),
            "jpeg holds uint8; --dtype or --rescale converts to that",
        ),
        ((*RESOLUTION, "--layer-type", "image", "--encoding", "jpg"), "did you mean 'jpeg'?"),
        ((*RESOLUTION, "--format", "nrrd"), "expected one of tiff, image, npy"),
        (("--scheduler", "tcp://127.0.0.1:1", "--workers", 2), "--workers are threads"),
        (
            (*RESOLUTION, "--layer-type", "image", "--dtype", "uint8", "--no-progress"),
            "256 cannot be stored as uint8",
        ),
    ],
)
def test_mistakes_are_told_in_words_of_the_command(
    source: Path, tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    assert message in refused(source, tmp_path / "layer", *options)


def test_axes_that_a_file_leaves_open(tmp_path: Path, voxels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "a.tif", voxels, imagej=True, metadata={"axes": "TYX"})
    shown = refused(tmp_path / "a.tif", tmp_path / "layer", *RESOLUTION)
    assert "for example --axes zyx or --axes czyx" in shown


def test_files_that_are_not_there(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "a.tif", tmp_path / "layer")
    assert "no file matches" in refused(tmp_path / "*.tif", tmp_path / "layer")
    (tmp_path / "a.nrrd").touch()
    assert "or say which, --format" in refused(tmp_path / "a.nrrd", tmp_path / "layer")


def test_what_the_user_should_know_is_a_note(tmp_path: Path, voxels: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(voxels.T.astype("int16"), np.eye(4))
    image.header.set_slope_inter(2, 0)
    nibabel.save(image, tmp_path / "a.nii")
    shown = converted(tmp_path / "a.nii", tmp_path / "layer", *RESOLUTION)
    assert f"Note: {tmp_path}/a.nii: its values are scaled by 2" in shown
    np.testing.assert_array_equal(ps.open_volume(tmp_path / "layer")[...][..., 0], voxels.T * 2.0)


def test_options_of_both_file_systems_are_handed_on(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def to_precomputed(array: Any, url: str, **options: Any) -> ps.Volume:
        seen["destination"] = options.pop("storage_options")
        return original_write(array, url, **options)  # type: ignore[return-value]

    def open_source(path: Any, **options: Any) -> Any:
        seen["source"] = options["storage_options"]
        return original_open(path, **options)

    original_write, original_open = ps.to_precomputed, ps.open_source
    monkeypatch.setattr(ps, "to_precomputed", to_precomputed)
    monkeypatch.setattr(ps, "open_source", open_source)
    arguments = (source, "memory://converted", *RESOLUTION, "--layer-type", "image")
    converted(*arguments, "--storage-option", "token=anon", "--source-option", "retries=3")
    assert seen == {"destination": {"token": "anon"}, "source": {"retries": 3}}


@pytest.mark.server
def test_a_cluster_does_it(source: Path, voxels: np.ndarray, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    stack = tmp_path / "slices"
    stack.mkdir()
    for index, plane in enumerate(voxels):
        tifffile.imwrite(stack / f"{index}.tif", plane, compression="lzw")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as cluster:
        converted(
            stack, tmp_path / "layer", *RESOLUTION, "--layer-type", "image",
            "--scheduler", cluster.scheduler_address,
        )  # fmt: skip
    volume = ps.open_volume(tmp_path / "layer")
    np.testing.assert_array_equal(volume[...][..., 0], voxels.T)


def test_a_dry_run_says_what_would_be_written(source: Path, tmp_path: Path) -> None:
    options = ("--layer-type", "segmentation", "--pyramid", "1", "--sharding", "auto")
    shown = converted(source, tmp_path / "layer", *RESOLUTION, *options, "--dry-run")
    assert "scale 4_4_40:" in shown or "objects" in shown
    assert "requests" in shown
    assert not (tmp_path / "layer").exists()


def test_an_interrupted_conversion_says_how_to_go_on(source: Path, tmp_path: Path) -> None:
    converted(source, tmp_path / "layer", *RESOLUTION, "--layer-type", "segmentation")
    (tmp_path / "layer" / "write-in-progress.json").write_text("{}")
    shown = refused(source, tmp_path / "layer", *RESOLUTION, "--layer-type", "segmentation")
    assert "--resume goes on with it, --overwrite replaces what it left" in shown


class TestPyramids:
    OPTIONS = (*RESOLUTION, "--layer-type", "segmentation", "--chunk-size", "8")

    @pytest.mark.parametrize(
        ("pyramid", "sizes"),
        [
            ("1", [(40, 30, 5), (20, 15, 5)]),
            ("2x2x1", [(40, 30, 5), (20, 15, 5), (10, 8, 5), (5, 4, 5)]),
            ("[[2,2,1],[1,1,5]]", [(40, 30, 5), (20, 15, 5), (20, 15, 1)]),
        ],
    )
    def test_coarser_scales(
        self, source: Path, tmp_path: Path, pyramid: str, sizes: list[tuple[int, int, int]]
    ) -> None:
        shown = converted(source, tmp_path / "layer", *self.OPTIONS, "--pyramid", pyramid)
        assert f"{len(sizes) - 1} coarser scale" in shown
        layer = ps.open_layer(tmp_path / "layer")
        assert [layer.scale(index).size for index in range(len(sizes))] == sizes

    def test_the_method_is_handed_on(
        self, source: Path, voxels: np.ndarray, tmp_path: Path
    ) -> None:
        options = ("--pyramid", "[[2,2,1]]", "--method", "stride")
        converted(source, tmp_path / "layer", *self.OPTIONS, *options)
        coarse = ps.open_volume(tmp_path / "layer", scale=1)
        np.testing.assert_array_equal(coarse[...][..., 0], voxels.T[::2, ::2])

    @pytest.mark.parametrize(
        "sharding",
        [
            "auto",
            '{"@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 1, '
            '"minishard_bits": 1, "shard_bits": 2}',
        ],
    )
    def test_shards(self, source: Path, voxels: np.ndarray, tmp_path: Path, sharding: str) -> None:
        converted(source, tmp_path / "layer", *self.OPTIONS, "--sharding", sharding)
        volume = ps.open_volume(tmp_path / "layer")
        assert volume.scale.sharding is not None
        np.testing.assert_array_equal(volume[...][..., 0], voxels.T)

    def test_sharding_parameters_that_are_wrong_are_named(
        self, source: Path, tmp_path: Path
    ) -> None:
        shown = refused(source, tmp_path / "layer", *self.OPTIONS, "--sharding", '{"hash": "x"}')
        assert "--sharding: - " in shown

    def test_a_finished_conversion_has_nothing_to_resume(
        self, source: Path, tmp_path: Path
    ) -> None:
        converted(source, tmp_path / "layer", *self.OPTIONS)
        converted(source, tmp_path / "layer", *self.OPTIONS, "--resume")
