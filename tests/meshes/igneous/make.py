"""How `layers.zip` beside this file was made: the meshes of one small volume, by Igneous.

    python -m venv VENV && VENV/bin/pip install igneous-pipeline && VENV/bin/python make.py

Igneous is licensed under the GPL: nothing here needs it. What it has written is data, which
`tests/meshes/test_mesh_igneous.py` reads. Made with igneous-pipeline 4.37.0, zmesh 1.15.0,
cloud-volume 12.15.2 and DracoPy 1.7.0. The volume's voxels are left out.

`read` in the archive is what CloudVolume reads: for each layer, segment and level of
detail the numbers of vertices and triangles, and the sums of vertices along x, y, z.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import igneous.task_creation as tasks
import numpy as np
from cloudvolume import CloudVolume
from taskqueue import LocalTaskQueue

SHAPE = (42, 40, 36)
RESOLUTION = (8, 8, 20)
OFFSET = (100, 200, 300)
IDS = (5, 6, 2**40 + 7, 2**62 + 3)
BLOCK = (32, 32, 32)
LEVELS = {"num_lod": 2, "min_chunk_size": (4, 4, 4), "mesh_dir": "mesh"}
LAYERS: dict[str, dict[str, Any]] = {
    "legacy": {},
    "files-10": {"vertex_quantization_bits": 10},
    "files-16": {"vertex_quantization_bits": 16},
    "shards-10": {"vertex_quantization_bits": 10, "sharded": True},
    "shards-16": {"vertex_quantization_bits": 16, "sharded": True},
}


def labels() -> np.ndarray:
    """Overlapping balls (x, y, z), one of them beyond the faces of the volume."""
    found = np.zeros(SHAPE, np.uint64)
    grid = np.stack(np.indices(SHAPE), axis=-1)
    middles = ((12, 12, 12), (28, 26, 20), (9, 30, 28), (40, 4, 30))
    for label, middle, radius in zip(IDS, middles, (6, 8, 4, 5), strict=True):
        found[((grid - middle) ** 2).sum(axis=-1) <= radius**2] = label
    return found


def run(made: Iterable[Any]) -> None:
    queue = LocalTaskQueue(parallel=1, progress=False)
    queue.insert(made)
    queue.execute()


def make(folder: Path, *, sharded: bool = False, vertex_quantization_bits: int = 0) -> str:
    url = f"file://{folder}"
    CloudVolume.from_numpy(
        labels(), url, resolution=RESOLUTION, voxel_offset=OFFSET, chunk_size=BLOCK,
        layer_type="segmentation", progress=False, compress=False,
    )  # fmt: skip
    run(
        tasks.create_meshing_tasks(
            url, mip=0, shape=BLOCK, mesh_dir="mesh", sharded=sharded, compress=None,
            max_simplification_error=8,
        )
    )  # fmt: skip
    if sharded:
        levels = partial(tasks.create_sharded_multires_mesh_tasks, min_shards=2, progress=False)
        run(levels(url, vertex_quantization_bits=vertex_quantization_bits, **LEVELS))
    elif vertex_quantization_bits:
        levels = partial(tasks.create_unsharded_multires_mesh_tasks, magnitude=1)
        run(levels(url, vertex_quantization_bits=vertex_quantization_bits, **LEVELS))
    else:
        run(tasks.create_mesh_manifest_tasks(url, magnitude=1, mesh_dir="mesh"))
    return url


def read(url: str, name: str) -> Iterator[dict[str, Any]]:
    source = CloudVolume(url, progress=False).mesh
    for segment_id in IDS:
        for lod in range(1 if name == "legacy" else source.get_manifest(segment_id).num_lods):
            options = {"fuse": False} if name == "legacy" else {"lod": lod}
            mesh = source.get([segment_id], **options)[segment_id]
            yield {
                "layer": name,
                "segment_id": segment_id,
                "lod": lod,
                "num_vertices": len(mesh.vertices),
                "num_faces": len(mesh.faces),
                "sums": mesh.vertices.astype(float).sum(axis=0).tolist(),
            }


def main() -> None:
    found: list[dict[str, Any]] = []
    target = Path(__file__).with_name("layers.zip")
    with (
        tempfile.TemporaryDirectory() as folder,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, options in LAYERS.items():
            found += read(make(Path(folder) / name, **options), name)
            for path in sorted((Path(folder) / name).rglob("*")):
                place = path.relative_to(folder)
                kept = place.parts[1] == "info" or place.parts[1] == "mesh"
                leftover = path.suffix in (".frags", ".spatial", ".gz")
                leftover |= name.startswith("files") and ":" in path.name
                if path.is_file() and kept and not leftover:
                    archive.write(path, place.as_posix())
        archive.writestr("read", json.dumps(found))


if __name__ == "__main__":
    main()
