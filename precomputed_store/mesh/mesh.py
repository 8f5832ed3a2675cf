"""`Mesh`: vertices in nanometres and triangles between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from precomputed_store.mesh import vertices as merging

if TYPE_CHECKING:
    import trimesh

__all__ = ["Mesh", "NmBox", "as_mesh"]

NmBox: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""Lower and upper corner of a box, x, y, z in nanometres."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mesh:
    """A triangular mesh. Immutable: operations give new meshes.

    Parameters
    ----------
    vertices : array-like, shape (n, 3)
        x, y, z in nanometres; kept as float32.
    faces : array-like of int, shape (m, 3)
        Three vertices per triangle, counter-clockwise as seen from outside; kept as uint32.

    Raises
    ------
    ValueError
        A shape is wrong, a coordinate is not finite, or a face names a vertex that is not
        there.

    Examples
    --------
    >>> mesh = Mesh(vertices=[[0, 0, 0], [8, 0, 0], [0, 8, 0]], faces=[[0, 1, 2]])
    >>> mesh
    <precomputed_store.Mesh: 3 vertices, 1 face, (0, 0, 0) to (8, 8, 0) nm>
    >>> mesh.area
    32.0
    """

    vertices: npt.NDArray[Any]
    faces: npt.NDArray[Any]

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices)
        faces = np.asarray(self.faces)
        if vertices.size and (vertices.ndim != 2 or vertices.shape[1] != 3):
            raise ValueError(f"vertices have the shape {vertices.shape}; expected (n, 3)")
        if faces.size and (faces.ndim != 2 or faces.shape[1] != 3):
            raise ValueError(f"faces have the shape {faces.shape}; expected (m, 3)")
        if faces.size and (faces.dtype.kind not in "iu" or int(faces.min()) < 0):
            raise ValueError("faces: expected integers from 0 on")
        if faces.size and int(faces.max()) >= len(vertices):
            raise ValueError(f"a face names vertex {faces.max()} of {len(vertices)}")
        with np.errstate(over="ignore"):
            vertices = vertices.astype(np.float32, copy=False).reshape(-1, 3)
        if not np.isfinite(vertices).all():
            raise ValueError("vertices: a coordinate is not a finite number")
        for name, array in (
            ("vertices", vertices),
            ("faces", faces.astype(np.uint32, copy=False).reshape(-1, 3)),
        ):
            view = np.ascontiguousarray(array).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @classmethod
    def trusted(cls, vertices: npt.NDArray[np.float32], faces: npt.NDArray[np.uint32]) -> Mesh:
        """A mesh of arrays that are known to be one, without checking or copying them."""
        mesh = object.__new__(cls)
        for name, array in (("vertices", vertices), ("faces", faces)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(mesh, name, view)
        return mesh

    @classmethod
    def concatenate(cls, *meshes: Mesh) -> Mesh:
        """One mesh of all triangles; equal vertices stay apart (see `deduplicate`)."""
        if not meshes:
            return cls(vertices=np.empty((0, 3)), faces=np.empty((0, 3), np.uint32))
        first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
        if first[-1] >= 2**32:
            raise ValueError(f"{first[-1]} vertices: a face can name 2**32 at most")
        faces = [
            mesh.faces + np.uint32(start) for mesh, start in zip(meshes, first[:-1], strict=True)
        ]
        vertices = np.concatenate([mesh.vertices for mesh in meshes])
        return cls.trusted(vertices, np.concatenate(faces))

    def deduplicate(
        self,
        *,
        chunk_shape: Sequence[float] | None = None,
        offset: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> Mesh:
        """Merge equal vertices; drop triangles that collapse and vertices without triangles.

        Parameters
        ----------
        chunk_shape : (float, float, float), optional
            Merge only what lies on the faces of a grid of such cells (nanometres): surfaces
            that were made chunk by chunk are joined, surfaces that touch elsewhere stay apart.
        offset : (float, float, float)
            Where that grid begins.
        """
        wanted = None
        if chunk_shape is not None:
            wanted = merging.on_grid_planes(self.vertices, chunk_shape, offset)
        vertices, faces = merging.merge_equal(self.vertices, self.faces, wanted)
        return Mesh(vertices=vertices, faces=faces)

    def crop(self, box: NmBox) -> Mesh:
        """The triangles that lie within a closed box (nanometres), whole."""
        low, high = np.asarray(box[0], float), np.asarray(box[1], float)
        inside = np.all((self.vertices >= low) & (self.vertices <= high), axis=1)
        kept = self.faces[inside[self.faces].all(axis=1)]
        vertices, faces = merging.drop_unused(self.vertices, kept)
        return Mesh(vertices=vertices, faces=faces)

    def transform(self, matrix: npt.ArrayLike) -> Mesh:
        """Each vertex moved by a matrix of 3 rows, or 4, and 4 columns.

        Triangles are turned over where the matrix mirrors, so that they still face outwards.
        """
        affine = np.asarray(matrix, np.float64)
        if affine.shape not in ((3, 4), (4, 4)):
            raise ValueError(f"the matrix has the shape {affine.shape}; expected (3, 4) or (4, 4)")
        linear, shift = affine[:3, :3], affine[:3, 3]
        faces = self.faces[:, ::-1] if np.linalg.det(linear) < 0 else self.faces
        return Mesh(vertices=self.vertices @ linear.T + shift, faces=faces)

    @property
    def triangles(self) -> npt.NDArray[np.float32]:
        """Corners of each triangle, shape (m, 3, 3): triangle, corner, coordinate."""
        corners: npt.NDArray[np.float32] = self.vertices[self.faces]
        return corners

    @property
    def area(self) -> float:
        """Of the surface, in square nanometres."""
        a, b, c = self.triangles.astype(np.float64).transpose(1, 0, 2)
        return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)

    @property
    def volume(self) -> float:
        """Enclosed, in cubic nanometres: right for closed surfaces, negative if inside out."""
        if not len(self.vertices):
            return 0.0
        # Near the mesh, so that large coordinates do not cancel.
        corners = self.triangles.astype(np.float64) - self.vertices[0]
        a, b, c = corners.transpose(1, 0, 2)
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)

    @property
    def bounds(self) -> npt.NDArray[np.float64]:
        """Lower and upper corner, shape (2, 3), in nanometres; NaN for an empty mesh."""
        if not len(self.vertices):
            return np.full((2, 3), np.nan)
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)]).astype(np.float64)

    @property
    def is_closed(self) -> bool:
        """Whether each edge has as many triangles on one side as on the other."""
        return merging.is_closed(self.faces)

    def to_trimesh(self) -> trimesh.Trimesh:
        """A `trimesh.Trimesh` of exactly these vertices and faces."""
        from precomputed_store.mesh.interop import to_trimesh

        return to_trimesh(self)  # type: ignore[no-any-return]

    @classmethod
    def from_trimesh(cls, mesh: trimesh.Trimesh) -> Mesh:
        """The vertices and faces of a `trimesh.Trimesh`."""
        return cls(vertices=mesh.vertices, faces=mesh.faces)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file on this computer: ``.ply`` (binary), ``.obj``, ``.stl`` or ``.glb``.

        Raises
        ------
        ValueError
            The name ends in none of these.
        UnsupportedError
            trimesh is not installed.
        """
        from precomputed_store.mesh.interop import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Mesh:
        """Read a file that `save`, or another program, has written."""
        from precomputed_store.mesh.interop import load

        return load(path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mesh):
            return NotImplemented
        return np.array_equal(self.vertices, other.vertices) and np.array_equal(
            self.faces, other.faces
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        plural = "" if len(self.faces) == 1 else "s"
        text = f"{len(self.vertices)} vertices, {len(self.faces)} face{plural}"
        if len(self.vertices):
            low, high = (", ".join(f"{x:g}" for x in corner) for corner in self.bounds)
            text += f", ({low}) to ({high}) nm"
        return f"<precomputed_store.Mesh: {text}>"

    def _repr_html_(self) -> str:
        from precomputed_store.mesh.picture import as_svg

        text = repr(self).strip("<>")
        return f"<div><div>{text}</div>{as_svg(self.vertices, self.faces)}</div>"


def as_mesh(value: Any) -> Mesh:
    """A `Mesh` from whatever has vertices and faces.

    Parameters
    ----------
    value : Mesh, trimesh, CloudVolume, zmesh, DracoPy or Open3D mesh, or (vertices, faces)
        Recognised by attributes: ``vertices`` or ``points``, and ``faces`` or ``triangles``.

    Raises
    ------
    TypeError
        It has neither.
    ValueError
        Its arrays are no mesh.
    """
    if isinstance(value, Mesh):
        return value
    if isinstance(value, tuple) and len(value) == 2:
        vertices, faces = value
        return Mesh(vertices=vertices, faces=faces)
    vertices = getattr(value, "vertices", getattr(value, "points", None))
    faces = getattr(value, "faces", None)
    # A method of that name has another meaning.
    faces = getattr(value, "triangles", None) if faces is None else faces
    if vertices is None or faces is None or callable(faces):
        raise TypeError(
            f"{type(value).__name__} is no mesh: expected a Mesh, (vertices, faces), or an object "
            "with the attributes vertices and faces"
        )
    return Mesh(vertices=vertices, faces=faces)
