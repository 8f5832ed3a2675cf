"""Random trees, as our object and as osteoid's."""

from __future__ import annotations

import numpy as np
import osteoid

from precomputed_store.skeleton import Skeleton, as_skeleton


def random_forest(rng: np.random.Generator) -> tuple[Skeleton, osteoid.Skeleton]:
    """One to three trees of distinct vertices, numbered at random, in nm."""
    count, reach = int(rng.integers(2, 40)), int(rng.integers(1, 5))
    trees = int(rng.integers(1, 4))
    sizes = [2] * trees
    sizes[0] = max(2, count - 2 * (trees - 1))
    edges, start = [], 0
    for size in sizes:
        # A small reach makes long branches, a large one bushes.
        edges += [
            (start + child, start + int(rng.integers(max(0, child - reach), child)))
            for child in range(1, size)
        ]
        start += size
    number = rng.permutation(start)
    places = rng.choice(10**4, size=start, replace=False)
    vertices = np.stack(np.unravel_index(places, (100, 10, 10)), axis=1).astype(np.float32)
    theirs = osteoid.Skeleton(
        vertices,
        number[np.array(edges)].astype(np.uint32),
        radii=rng.uniform(1, 9, start).astype(np.float32),
        vertex_types=rng.integers(0, 7, start).astype(np.uint8),
        space="physical",
    )
    return as_skeleton(theirs), theirs
