"""Compiles the kernels while the package is built; not part of what is installed.

Without a compiler, or with ``PRECOMPUTED_STORE_PURE=1``, the package is built without them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("precomputed_store", "_native")
LIBRARY = "native.kernel"
"""A shared library, whose name does not make a module of Python of it."""


class NativeBuildHook(BuildHookInterface):
    """Puts the shared library into wheels, and beside its source for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or os.environ.get("PRECOMPUTED_STORE_PURE") == "1":
            return
        root = Path(self.root)
        self._scratch = Path(tempfile.mkdtemp(prefix="precomputed-store-"))
        try:
            library = compiled(root / FOLDER, self._scratch)
        except Exception as error:
            # Whatever a compiler may lack: the package works without.
            self.app.display_warning(
                f"the kernels are not compiled, and some encodings will be slower: {error}"
            )
            return
        if version == "editable":
            shutil.copyfile(library, root / FOLDER / LIBRARY)
            return
        build_data["force_include"][str(library)] = str(FOLDER / LIBRARY)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_scratch"):
            shutil.rmtree(self._scratch, ignore_errors=True)


def compiled(sources: Path, folder: Path) -> Path:
    """Compile the C files of a folder with this Python's own compiler into a shared library."""
    import setuptools  # noqa: F401  # brings distutils on Python 3.12 and later

    # isort: split
    from distutils.ccompiler import new_compiler
    from distutils.sysconfig import customize_compiler

    compiler: Any = new_compiler()
    customize_compiler(compiler)
    windows = sys.platform == "win32"
    arguments = ["/O2"] if windows else ["-O3", "-std=c99", "-fPIC", "-fvisibility=hidden"]
    files = [str(path) for path in sorted(sources.glob("*.c"))]
    objects = compiler.compile(files, output_dir=str(folder), extra_preargs=arguments)
    compiler.link_shared_object(objects, str(folder / LIBRARY))
    return folder / LIBRARY
