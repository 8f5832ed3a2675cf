"""Whatever writes, copies or removes is told by ``root=`` how far a layer may lead it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import precomputed_store as ps
import precomputed_store.xarray_accessor  # registers itself
from precomputed_store.cli import main
from tests.oracles import make_info

SIZE = (16, 16, 16)
NEW = np.full(SIZE, 7, np.uint8)
NAME = "0-16_0-16_0-16"
COARSE = "0-8_0-8_0-8"


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer whose chunks lie two folders up, where it may not lead by default."""
    folder = tmp_path / "a" / "layer"
    folder.mkdir(parents=True)
    info = make_info(size=SIZE, chunk_size=SIZE)
    info["scales"][0]["key"] = "../../far"
    coarse = json.loads(json.dumps(info["scales"][0]))
    coarse |= {
        "key": "../../coarse", "size": [8, 8, 8], "chunk_sizes": [[8, 8, 8]],
        "resolution": [2 * n for n in coarse["resolution"]],
    }  # fmt: skip
    info["scales"].append(coarse)
    (folder / "info").write_text(json.dumps(info))
    for name, chunk, size in (("far", NAME, 16), ("coarse", COARSE, 8)):
        (tmp_path / name).mkdir()
        (tmp_path / name / chunk).write_bytes(b"\5" * size**3)
    return folder


def far(layer: Path) -> bytes:
    return (layer.parents[1] / "far" / NAME).read_bytes()


def write(layer: Path, **options: Any) -> None:
    ps.to_precomputed(NEW, layer, dims="xyz", mode="r+", scale=0, **options)
    assert set(far(layer)) == {7}


def write_by_xarray(layer: Path, **options: Any) -> None:
    array = xr.DataArray(NEW, dims=("x", "y", "z"))
    array.precomputed.to_precomputed(layer, mode="r+", scale=0, **options)
    assert set(far(layer)) == {7}


def add_scales(layer: Path, **options: Any) -> None:
    ps.downsample(layer, 1, **options)
    assert np.unique(np.asarray(ps.open_volume(layer, scale=2))).tolist() == [5]


def remake_scales(layer: Path, **options: Any) -> None:
    (layer.parents[1] / "coarse" / COARSE).unlink(missing_ok=True)
    ps.update_scales(layer, **options)
    assert set((layer.parents[1] / "coarse" / COARSE).read_bytes()) == {5}


def copy(layer: Path, **options: Any) -> None:
    target = layer.parent / "copy"
    given = {f"source_{name}": value for name, value in options.items()}
    ps.copy(layer, target, **given)
    assert np.unique(np.asarray(ps.open_volume(target)[...])).tolist() == [5]


def line(command: str, *arguments: str) -> Callable[..., None]:
    def run(layer: Path, **options: Any) -> None:
        words = [word.format(layer=layer, out=layer.parent / "out") for word in arguments]
        name = "--source-root" if command == "copy" else "--root"
        given = [word for root in options.values() for word in (name, str(root))]
        result = CliRunner().invoke(main, [command, *words, *given])
        if isinstance(result.exception, ValueError | ps.PrecomputedError):
            raise result.exception
        if result.exit_code:
            raise ps.PrecomputedError(result.output)

    return run


DOORS: dict[str, Callable[..., None]] = {
    "to_precomputed": write,
    "xarray": write_by_xarray,
    "downsample": add_scales,
    "update_scales": remake_scales,
    "copy": copy,
    "precomputed validate": line("validate", "{layer}", "--decode"),
    "precomputed copy": line("copy", "{layer}", "{out}"),
    "precomputed downsample": line("downsample", "{layer}", "--pyramid", "1"),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_layer_leads_as_far_as_the_root_that_is_given(door: str, layer: Path) -> None:
    act = DOORS[door]
    before = far(layer)
    with pytest.raises(ps.PrecomputedError, match="wider root"):
        act(layer)
    assert far(layer) == before
    act(layer, root=layer.parents[1])


def preview(layer: Path, **options: Any) -> None:
    ps.plan(NEW, layer, dims="xyz", mode="r+", scale=0, **options)


EVERY = {
    **DOORS,
    "plan": preview,
    "delete": lambda layer, **options: ps.delete(layer, **options),
    "precomputed rm": line("rm", "{layer}", "--yes"),
    "create": lambda layer, **options: ps.create(layer, make_info(size=SIZE), **options),
    "add_scale": lambda layer, **options: ps.add_scale(
        layer, make_info(size=SIZE)["scales"][0], allow_unwritten=True, **options
    ),
    "remove_scale": lambda layer, **options: ps.remove_scale(layer, 1, **options),
    "reset_scales": lambda layer, **options: ps.reset_scales(layer, **options),
    "precomputed info": line("info", "{layer}"),
    "precomputed convert": line("convert", "{layer}", "{out}"),
}


@pytest.mark.parametrize("door", EVERY)
def test_a_root_that_does_not_hold_the_layer_is_refused_before_anything_is_done(
    door: str, layer: Path
) -> None:
    before = (layer / "info").read_bytes(), far(layer)
    with pytest.raises((ValueError, ps.PrecomputedError), match="is not within the root"):
        EVERY[door](layer, root=layer / "other")
    assert ((layer / "info").read_bytes(), far(layer)) == before


def test_the_place_of_a_copy_has_a_root_of_its_own(layer: Path) -> None:
    wide = layer.parents[1]
    with pytest.raises(ValueError, match="is not within the root"):
        ps.copy(layer, layer.parent / "copy", source_root=wide, root=wide / "elsewhere")
    done = ps.copy(layer, layer.parent / "copy", source_root=wide, root=wide)
    assert isinstance(done, ps.Layer)
    assert done.storage.root == f"file://{wide}"
