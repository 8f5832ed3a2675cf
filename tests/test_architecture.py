"""Imports point one way, and importing the package costs next to nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import precomputed_store

PACKAGE = Path(precomputed_store.__file__).parent

# Format: pure, no I/O. Storage: the only layer that touches files and networks.
# Engine: plans, fetches, decodes. Edges: one ecosystem each.
FORMAT = {
    "_native",
    "cached",
    "errors",
    "forks",
    "grid",
    "read_plan",
    "selection",
    "shard_assembly",
    "shard_shape",
    "sharding",
    "skeleton",
    "spatial_grid",
    "codecs",
    "mesh",
    "metadata",
    "downsampling",
    "pyramid_plan",
    "url",
    "write_plan",
    "zarr_metadata",
}
STORAGE = {"storage", "concurrency", "progress", "isolation"}
ISOLATED = {"_decoder_process", "_decoder_worker", "_shared_memory"}
ENGINE = {
    "block_plan",
    "chunk_source",
    "engine",
    "indexed_source",
    "info_edits",
    "keyed_reader",
    "keyed_spool",
    "keyed_writer",
    "layer",
    "mesh_encoding",
    "mesh_layouts",
    "mesh_objects",
    "mesh_pieces",
    "mesh_source",
    "mesh_target",
    "mesh_writer",
    "mesh_writing",
    "object_steps",
    "shard_batch",
    "shard_cache",
    "shard_queue",
    "shard_reader",
    "shard_source",
    "shard_writer",
    "spatial_database",
    "spatial_index",
    "spatial_tables",
    "validation",
    "writer",
}


def rank(module: str) -> int:
    name = module.split(".")[0]
    if name in FORMAT:
        return 0
    if name in STORAGE or name in ISOLATED:
        return 1
    return 2 if name in ENGINE else 3


def imported_names(path: Path) -> set[str]:
    """Modules of this package that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "precomputed_store."
        ):
            found.add((node.module or "").removeprefix("precomputed_store."))
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("precomputed_store.")
                for alias in node.names
                if alias.name.startswith("precomputed_store.")
            }
    return found


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


def test_imports_point_from_the_edges_to_the_format() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in modules()
        for name in imported_names(path)
        if rank(name) > rank(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    ]
    assert not wrong


def test_only_the_storage_layer_opens_files_and_file_systems() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in modules()
        if rank(path.relative_to(PACKAGE).parts[0].removesuffix(".py")) in (0, 2)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
        and node.func.id == "open"
    ]
    assert not wrong


HEAVY = [
    "xarray",
    "dask",
    "zarr",
    "pandas",
    "aiohttp",
    "s3fs",
    "gcsfs",
    "rich",
    "click",
    "networkx",
    "scipy",
    "sqlalchemy",
    "sqlite3",
]
NATIVE = ["compressed_segmentation", "compresso", "fpzip", "crackle", "simplejpeg", "imagecodecs"]
MESH = ["DracoPy", "trimesh", "fast_simplification"]


@pytest.mark.parametrize(
    "statement",
    [
        "import precomputed_store",
        "import precomputed_store; precomputed_store.open_volume",
        "import precomputed_store; precomputed_store.VolumeInfo",
        "import precomputed_store; precomputed_store.Mesh; precomputed_store.open_meshes",
        "import precomputed_store; precomputed_store.Skeleton",
    ],
)
def test_importing_loads_no_ecosystem(statement: str) -> None:
    code = f"{statement}; import sys; print(*(m for m in sys.modules if '.' not in m))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(shown.stdout.split())
    assert not loaded & {*HEAVY, *NATIVE, *MESH}


def test_the_bare_import_loads_few_modules() -> None:
    # numpy and fsspec load these anyway.
    known = "sys, typing, importlib, concurrent.futures.thread"
    code = f"import {known}; before = len(sys.modules); import precomputed_store"
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}; print(len(sys.modules) - before)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(shown.stdout) <= 5


def test_every_public_name_exists() -> None:
    for name in precomputed_store.__all__:
        assert getattr(precomputed_store, name) is not None
    assert set(precomputed_store.__all__) <= set(dir(precomputed_store))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        precomputed_store.nothing  # noqa: B018


def test_a_public_function_is_not_shadowed_by_a_module() -> None:
    assert callable(precomputed_store.to_precomputed)
    assert not (PACKAGE / "to_precomputed.py").exists()


def test_every_module_has_its_line_on_the_architecture_page() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE))
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert named == {name for name in modules if not name.endswith(("__init__.py", "__main__.py"))}
