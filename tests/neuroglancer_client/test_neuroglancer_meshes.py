"""Meshes that are written here are drawn by the real Neuroglancer client, at every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from tests.meshes.mesh_builders import ball
from tests.neuroglancer_client.client import RESOLUTION
from tests.neuroglancer_client.conftest import Neuroglancer
from tests.servers.faulty import Request

pytestmark = [pytest.mark.neuroglancer, pytest.mark.server, pytest.mark.slow]

RADIUS = 24
SIZE = 240


def layer_of_a_ball(folder: Path, **options: Any) -> ps.MeshSource:
    labels = ball(RADIUS).astype(np.uint64) * 77
    ps.to_precomputed(
        labels, folder, dims=("x", "y", "z"), resolution=(RESOLUTION,) * 3,
        voxel_offset=(1000, 2000, 3000), layer_type="segmentation", pyramid=None,
    )  # fmt: skip
    return ps.make_meshes(folder, block_shape=(20, 64, 64), **options)


def starts_of(requests: Sequence[Request]) -> list[int]:
    """First bytes of the ranges of fragment data that were asked for."""
    ranges = [one.headers["range"] for one in requests if one.path.endswith("/mesh/77")]
    return [int(each.removeprefix("bytes=").partition("-")[0]) for each in ranges]


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "legacy"},
        {"lods": 1},
        {"lods": 3},
        {"lods": 3, "vertex_quantization_bits": 10},
        {"lods": 3, "sharding": "auto"},
    ],
    ids=["legacy", "one level", "three levels", "10 bits", "sharded"],
)
def test_a_ball_is_drawn_where_it_is_and_as_large_as_it_is(
    tmp_path: Path, neuroglancer: Neuroglancer, options: dict[str, Any]
) -> None:
    source = layer_of_a_ball(tmp_path, **options)
    layer = {
        "type": "segmentation",
        "name": "labels",
        "source": f"precomputed://{neuroglancer.files.url_of(tmp_path)}",
        "segments": ["77"],
        "segmentColors": {"77": "#ffffff"},
    }
    middle = RADIUS + 1.5
    centre = (1000 + middle, 2000 + middle, 3000 + middle)
    asked = []
    # From far to near: the client fetches finer levels as they are needed.
    for height in (40 * 2 * RADIUS, 4 * 2 * RADIUS, 1.2 * 2 * RADIUS):
        before = len(neuroglancer.files.requests)
        picture = neuroglancer.client.picture_3d(
            [layer], size=(SIZE, SIZE), centre=centre, height=height
        )
        lit = picture.max(axis=2) > 0
        pixels_per_voxel = SIZE / height
        expected = math.pi * (RADIUS * pixels_per_voxel) ** 2
        assert lit.sum() == pytest.approx(expected, rel=0.06, abs=12)
        # In the middle of the picture, within a pixel.
        assert np.abs(np.argwhere(lit).mean(axis=0) - (SIZE - 1) / 2).max() < 1
        # No seams: from the outline inwards nothing is dark.
        rows = lit[lit.any(axis=1)]
        assert (rows.sum(axis=1) == [np.ptp(np.flatnonzero(row)) + 1 for row in rows]).all()
        asked.append(neuroglancer.files.requests[before:])
    assert not {path for path in neuroglancer.files.not_found(tmp_path) if "mesh" in path}
    if options.get("lods") == 3 and "sharding" not in options:
        finest = int(source.manifest(77).fragment_starts(0)[-1])
        coarsest = int(source.manifest(77).fragment_starts(2)[0])
        far, *nearer = map(starts_of, asked)
        assert min(far) >= coarsest
        assert min(start for starts in nearer for start in starts) < finest
