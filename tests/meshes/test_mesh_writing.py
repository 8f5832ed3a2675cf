"""What is written here, CloudVolume reads; and put, replace, delete."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from cloudvolume import CloudVolume

import precomputed_store as ps
from precomputed_store.mesh import Mesh
from precomputed_store.metadata import ShardingSpec
from tests.meshes.mesh_builders import layer_folder, sphere
from tests.servers.fake_gcs import Bucket, FakeGcs
from tests.servers.moto import MotoServer

SPEC = ShardingSpec(
    hash="murmurhash3_x86_128", preshift_bits=1, minishard_bits=2, shard_bits=1,
    data_encoding="gzip", minishard_index_encoding="gzip",
)  # fmt: skip
IDS = [1, 2, 77, 2**40, 2**64 - 1]


def meshes() -> dict[int, Mesh]:
    return {one: sphere(5 + number, shift=1000 * number) for number, one in enumerate(IDS)}


@pytest.mark.parity
@pytest.mark.parametrize("bits", [10, 16])
@pytest.mark.parametrize("sharding", [None, SPEC, "auto"])
def test_cloudvolume_reads_every_level_of_detail(
    sharding: Any, bits: Literal[10, 16], tmp_path: Path
) -> None:
    layer = layer_folder(tmp_path / "layer")
    source = ps.write_meshes(
        layer, meshes(), sharding=sharding, lods=3, vertex_quantization_bits=bits
    )
    assert json.loads((layer / "info").read_text())["mesh"] == "mesh"
    assert source.ids() == IDS
    theirs = CloudVolume(f"file://{layer}", progress=False)
    for lod in range(3):
        for one, original in meshes().items():
            found = source.get([one], lod=lod)[one]
            expected = theirs.mesh.get([one], lod=lod)[one]
            np.testing.assert_array_equal(found.faces, expected.faces)
            np.testing.assert_allclose(found.vertices, expected.vertices, rtol=3e-7, atol=1e-3)
            step = float(np.ptp(original.bounds, axis=0).max()) / (2**bits - 1)
            if lod == 0:
                merged = found.deduplicate()
                assert merged.is_closed
                assert merged.volume == pytest.approx(
                    original.volume, abs=2 * step * original.area
                )
                assert np.abs(merged.bounds - original.bounds).max() <= step
            else:
                assert len(found.faces) < len(source.get([one], lod=lod - 1)[one].faces)


@pytest.mark.parity
def test_cloudvolume_reads_legacy_meshes_exactly(tmp_path: Path) -> None:
    layer = layer_folder(tmp_path / "layer")
    source = ps.write_meshes(layer / "surfaces", meshes(), kind="legacy")
    assert json.loads((layer / "info").read_text())["mesh"] == "surfaces"
    assert source.get(IDS) == meshes()
    theirs = CloudVolume(f"file://{layer}", progress=False).mesh.get(IDS, fuse=False)
    for one, mesh in meshes().items():
        np.testing.assert_array_equal(theirs[one].vertices, mesh.vertices)
        np.testing.assert_array_equal(theirs[one].faces, mesh.faces)


@pytest.mark.parametrize("options", [{"kind": "legacy"}, {}, {"sharding": SPEC}])
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_meshes_are_put_replaced_and_deleted(
    options: dict[str, Any], place: str, tmp_path: Path
) -> None:
    url = str(tmp_path / "m") if place == "disk" else f"memory://{tmp_path.name}/m"
    ps.write_meshes(url, meshes(), **options)
    source = ps.write_meshes(url, [(77, sphere(3)), (5, sphere(4))])
    assert source == ps.open_meshes(url)
    assert source.ids() == sorted([*IDS, 5])
    assert source[77].deduplicate().volume == pytest.approx(sphere(3).volume, rel=1e-3)
    assert source[1].deduplicate().volume == pytest.approx(meshes()[1].volume, rel=1e-3)
    ps.delete_meshes(url, [1, 77, 1234])
    assert source.ids() == sorted({*IDS, 5} - {1, 77})
    assert source.get([1, 2, 77], missing="omit").keys() == {2}
    if place == "disk":
        names = {path.name for path in (tmp_path / "m").iterdir()}
        assert not [name for name in names if name.split(":")[0].split(".")[0] in ("1", "77")]


def test_a_mesh_of_fragments_is_replaced_with_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    ps.write_meshes(folder, {7: sphere(3)}, kind="legacy")
    (folder / "7:0:0").rename(folder / "strange")
    (folder / "7:0").write_text('{"fragments": ["strange"]}')
    source = ps.write_meshes(folder, {7: sphere(4)})
    assert source[7] == sphere(4)
    assert not (folder / "strange").exists()


def test_levels_of_detail_may_be_given(tmp_path: Path) -> None:
    levels = [sphere(9), sphere(6), sphere(3)]
    source = ps.write_meshes(tmp_path / "m", {7: levels})
    assert source.manifest(7).num_lods == 3
    for lod, level in enumerate(levels):
        found = source.get([7], lod=lod)[7].deduplicate()
        assert found.volume == pytest.approx(level.volume, rel=1e-3)


def test_a_folder_with_a_transform_is_written_in_its_own_units(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    info = ps.MeshInfo(kind="multilod", transform=[8, 0, 0, 5, 0, 8, 0, 6, 0, 0, 40, 7])
    (folder / "info").write_bytes(info.to_bytes())
    source = ps.write_meshes(folder, {7: sphere()})
    assert source.info == info
    np.testing.assert_allclose(source[7].bounds, sphere().bounds, atol=0.02)


def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for options, message in (
        ({"lods": 0}, "lods"),
        ({"reduction": 1}, "reduction"),
        ({"draco_level": 11}, "draco_level"),
        ({"vertex_quantization_bits": 12}, "10 or 16"),
        ({"kind": "legacy", "sharding": SPEC}, "cannot be sharded"),
        ({"kind": "obj"}, "kind"),
    ):
        with pytest.raises(ValueError, match=message):
            ps.write_meshes(folder, {1: sphere()}, **options)  # type: ignore[arg-type]
        assert not folder.exists()
    for wrong in ({-1: sphere()}, {1: sphere(), 2: "no mesh"}, {1: [sphere(), 5]}):
        with pytest.raises((ValueError, TypeError)):
            ps.write_meshes(folder, wrong)
        assert not folder.exists()
    ps.write_meshes(folder, {}, kind="legacy")
    with pytest.raises(ValueError, match="there are legacy meshes, not multilod ones"):
        ps.write_meshes(folder, {1: sphere()}, kind="multilod")


@pytest.mark.parametrize("library", ["DracoPy", "fast_simplification"])
def test_a_missing_library_is_found_out_before_anything_is_written(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ps.UnsupportedError, match=r"precomputed-store\[meshes\]"):
        ps.write_meshes(tmp_path / "m", {1: sphere()})
    assert not (tmp_path / "m").exists()
    ps.write_meshes(tmp_path / "m", {1: sphere()}, kind="legacy")


@pytest.mark.server
@pytest.mark.parametrize("options", [{"kind": "legacy"}, {}, {"sharding": SPEC}])
def test_google_storage_holds_meshes(options: dict[str, Any], gcs_server: FakeGcs) -> None:
    gcs_server.buckets["bucket"] = Bucket()
    login = {"storage_options": {"endpoint_url": gcs_server.url, "token": "anon"}}
    ps.write_meshes("gs://bucket/m", meshes(), **options, **login)
    source = ps.open_meshes("gs://bucket/m", **login)
    assert source.ids() == IDS
    assert [one in source for one in (IDS[0], 12345)] == [True, False]
    found = source.get([*IDS, 12345], deduplicate=True, missing="omit")
    assert list(found) == IDS
    for one, mesh in meshes().items():
        assert found[one].volume == pytest.approx(mesh.volume, rel=1e-3)
    ps.delete_meshes("gs://bucket/m", IDS[1:], **login)
    assert source.ids() == IDS[:1]


@pytest.mark.server
@pytest.mark.parametrize("options", [{"kind": "legacy"}, {}, {"sharding": SPEC}])
def test_an_object_store_holds_meshes(options: dict[str, Any], s3_server: MotoServer) -> None:
    bucket = s3_server.create_bucket(f"bucket-{uuid.uuid4().hex[:12]}")
    login = {"storage_options": s3_server.storage_options}
    source = ps.write_meshes(f"s3://{bucket}/m", meshes(), **options, **login)
    assert source.ids() == IDS
    ps.delete_meshes(f"s3://{bucket}/m", IDS[1:], **login)
    assert source.ids() == IDS[:1]
    found = source[1].deduplicate()
    assert found.volume == pytest.approx(meshes()[1].volume, rel=1e-3)
