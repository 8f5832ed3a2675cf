"""What we write, the real Neuroglancer client draws, coloured by an attribute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import precomputed_store as ps
from precomputed_store.skeleton import Skeleton
from tests.neuroglancer_client.client import RESOLUTION
from tests.neuroglancer_client.conftest import Neuroglancer

pytestmark = [pytest.mark.neuroglancer, pytest.mark.server, pytest.mark.slow]

SIZE = (200, 60)
ID = 2**63 + 12345
SHARDING = ps.ShardingSpec(
    hash="murmurhash3_x86_128",
    preshift_bits=1,
    minishard_bits=2,
    shard_bits=1,
    minishard_index_encoding="gzip",
    data_encoding="gzip",
)
# Whatever it is blended with, red is to green as the attribute is to one.
SHADER = "void main() { emitRGB(vec3(prop_score(), 1.0, 0.0)); }"


def line(row: int) -> Skeleton:
    """Along x through a row of pixels, in the plane of the picture; the score grows with x."""
    x = np.linspace(20, 180, 33)
    vertices = np.stack([x, np.full_like(x, row + 0.5), np.full_like(x, 0.5)], axis=1)
    attributes = {"score": (x / SIZE[0]).astype(np.float32), "kind": np.full(33, 3, np.uint8)}
    edges = [(i, i + 1) for i in range(32)]
    return Skeleton(vertices * RESOLUTION, edges, attributes)


@pytest.mark.parametrize("sharding", [None, SHARDING], ids=["files", "shards"])
@pytest.mark.parametrize("transform", [None, [2, 0, 0, 10, 0, 2, 0, 20, 0, 0, 2, 0]])
def test_skeletons_are_drawn_where_they_are_in_the_colour_of_an_attribute(
    tmp_path: Path, neuroglancer: Neuroglancer, sharding: Any, transform: Any
) -> None:
    folder = tmp_path / "skeletons"
    data = {1: line(10), 2: line(30), ID: line(50)}
    ps.write_skeletons(folder, data, sharding=sharding, transform=transform)
    layer = {
        "type": "segmentation",
        "name": "skeletons",
        "source": f"precomputed://{neuroglancer.files.url_of(folder)}",
        "segments": ["1", str(ID)],
        "skeletonRendering": {"mode2d": "lines", "lineWidth2d": 5, "shader": SHADER},
    }
    picture = neuroglancer.client.picture([layer], size=SIZE).astype(float)
    columns = np.arange(30, 171, 10)
    for row in (10, 50):
        red, green = picture[row, columns, 0], picture[row, columns, 1]
        assert green.min() > 100
        np.testing.assert_allclose(red / green, (columns + 0.5) / SIZE[0], atol=0.02)
    assert picture[30].max() == 0
    assert picture[:, :10].max() == 0
