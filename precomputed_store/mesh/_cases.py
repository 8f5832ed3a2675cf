"""The 256 ways in which a surface can pass between eight voxels.

The corners of a cell are numbered ``x + 2 y + 4 z``, the bits of a case say which of them
are inside. The surface passes through the middle of each edge with one end inside. On a
face of which two opposite corners are inside, the two are kept apart: a rule that looks at
nothing but the face, so that neighbouring cells always fit together.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["EDGES", "Cases", "cases"]

Loop: TypeAlias = tuple[int, ...]
Triangle: TypeAlias = tuple[int, int, int]

EDGES: Final = tuple(
    (corner, corner | 1 << axis)
    for axis in range(3)
    for corner in range(8)
    if not corner >> axis & 1
)
"""Lower and upper corner of each edge: four along x, four along y, four along z."""

_FACES: Final = tuple(
    tuple(
        (side << axis) | (b << (axis + 1) % 3) | (c << (axis + 2) % 3)
        for b, c in ((0, 0), (1, 0), (1, 1), (0, 1))
    )
    for axis in range(3)
    for side in range(2)
)
"""Corners of each face of a cell, around it."""

_POSITION: Final = tuple(
    np.array([corner & 1, corner >> 1 & 1, corner >> 2]) for corner in range(8)
)


class Cases(NamedTuple):
    """The triangles of each case.

    Attributes
    ----------
    counts : uint8 (256,)
        How many there are.
    triangles : uint8 (256, most, 3)
        Three edges each, counter-clockwise as seen from outside.
    """

    counts: npt.NDArray[np.uint8]
    triangles: npt.NDArray[np.uint8]


@cache
def cases() -> Cases:
    """The table, worked out on first use."""
    found = [_triangles_of(case) for case in range(256)]
    counts = np.array(list(map(len, found)), np.uint8)
    triangles = np.zeros((256, counts.max(), 3), np.uint8)
    for case, members in enumerate(found):
        triangles[case, : len(members)] = np.reshape(members, (-1, 3))
    return Cases(counts, triangles)


def _triangles_of(case: int) -> list[Triangle]:
    inside = [bool(case >> corner & 1) for corner in range(8)]
    found: list[Triangle] = []
    for loop in _loops(inside):
        outwards = loop if _faces_outwards(loop, inside) else loop[::-1]
        found += _fan(outwards)
    return found


def _loops(inside: list[bool]) -> list[Loop]:
    """The closed lines in which the surface meets the faces of the cell, as edges."""
    neighbours: dict[int, list[int]] = {}
    for a, b in itertools.chain.from_iterable(_segments(face, inside) for face in _FACES):
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    loops = []
    while neighbours:
        loop = [min(neighbours)]
        following = neighbours.pop(loop[0])[0]
        while following in neighbours:
            a, b = neighbours.pop(following)
            previous = loop[-1]
            loop.append(following)
            following = b if a == previous else a
        loops.append(tuple(loop))
    return loops


def _segments(face: tuple[int, ...], inside: list[bool]) -> list[tuple[int, int]]:
    ring = [_edge(face[i], face[(i + 1) % 4]) for i in range(4)]
    crossed = [i for i in range(4) if inside[face[i]] != inside[face[(i + 1) % 4]]]
    if len(crossed) == 2:
        return [(ring[crossed[0]], ring[crossed[1]])]
    # None, or around each of the two corners that are inside.
    return [(ring[i - 1], ring[i]) for i in range(4) if crossed and inside[face[i]]]


def _edge(a: int, b: int) -> int:
    return EDGES.index((min(a, b), max(a, b)))


def _middle(edge: int) -> npt.NDArray[np.float64]:
    a, b = EDGES[edge]
    middle: npt.NDArray[np.float64] = (_POSITION[a] + _POSITION[b]) / 2
    return middle


def _faces_outwards(loop: Loop, inside: list[bool]) -> bool:
    points = [_middle(edge) for edge in loop]
    normal = sum(
        (np.cross(p, q) for p, q in zip(points, [*points[1:], points[0]], strict=True)),
        start=np.zeros(3),
    )
    outwards = sum(
        (
            (_POSITION[b] - _POSITION[a]) * (1 if inside[a] else -1)
            for a, b in (EDGES[edge] for edge in loop)
        ),
        start=np.zeros(3),
    )
    return bool(normal @ outwards > 0)


def _fan(loop: Loop) -> list[Triangle]:
    """Triangles of a loop, none of whose inner sides lies in a face of the cell.

    There the neighbouring cell could have the same side, and four triangles would meet.
    """
    fans = [
        [(turned[0], turned[i], turned[i + 1]) for i in range(1, len(loop) - 1)]
        for start in range(len(loop))
        for turned in [loop[start:] + loop[:start]]
    ]
    return min(fans, key=lambda fan: sum(_share_a_face(a, c) for a, _, c in fan[:-1]))


def _share_a_face(first: int, second: int) -> bool:
    corners = {*EDGES[first], *EDGES[second]}
    return any(corners <= set(face) for face in _FACES)
