"""``precomputed demo``: the whole way of real data, in and out, in a folder of one's own."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import numpy as np

from precomputed_store import sample
from precomputed_store.cli.text import by, console, size

if TYPE_CHECKING:
    import xarray as xr
    from rich.console import Console

    from precomputed_store.grid import XYZ

__all__ = ["command"]

_MARK = "# Written by `precomputed demo`"
_CHUNK_SIZE: XYZ = (64, 64, 16)
_SLICE = 15
_PORT = 9000


@click.command()
@click.argument(
    "folder", type=click.Path(file_okay=False, path_type=Path), default="precomputed-demo"
)
def command(folder: Path) -> None:
    """Write a small real volume into FOLDER, open it, compute on it, show a picture.

    Fly brain under the electron microscope (FIB-SEM) with its segmentation, by Janelia
    FlyEM, CC BY 3.0. FOLDER is ./precomputed-demo unless named; a second run replaces
    what the first one wrote.
    """
    _claim(folder)
    demo = _Demo(folder=folder, cut=sample.load(), out=console())
    demo.write()
    volume = demo.open()
    demo.compute(volume)
    demo.compare(volume)
    demo.draw(volume)
    demo.what_next()


def _claim(folder: Path) -> None:
    """Make the folder ours, unless it is somebody else's."""
    readme = folder / "README.md"
    if folder.exists() and any(folder.iterdir()):
        ours = readme.is_file() and readme.read_bytes().startswith(_MARK.encode())
        if not ours:
            raise FileExistsError(
                f"{folder} is not empty, and not from an earlier demo: name another folder, "
                "as in 'precomputed demo my-folder'"
            )
    folder.mkdir(parents=True, exist_ok=True)
    text = f"{_MARK}\n\nIt may be deleted. The data:\n\n{sample.attribution()}"
    readme.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demo:
    folder: Path
    cut: sample.Sample
    out: Console

    def write(self) -> None:
        """The arrays, in memory, to two layers."""
        import precomputed_store as ps

        self._title("1. Write numpy arrays as two Precomputed layers")
        encodings = {"image": "jpeg", "segmentation": "compressed_segmentation"}
        for name, encoding in encodings.items():
            array = getattr(self.cut, name)
            ps.to_precomputed(
                array,
                self.folder / name,
                dims=("z", "y", "x"),
                encoding=encoding,
                resolution=self.cut.resolution,
                voxel_offset=self.cut.voxel_offset,
                chunk_size=_CHUNK_SIZE,
                mode="w",
                progress=True,
            )
            stored = sum(path.stat().st_size for path in (self.folder / name).glob("*/*"))
            self._say(
                f"{self.folder / name}: {by(sample.SIZE)} voxels of {array.dtype}, "
                f"{size(array.nbytes)} in {size(stored)} as {encoding}"
            )

    def open(self) -> xr.Dataset:
        """Both layers, as one lazy dataset on the same coordinates."""
        import xarray as xr

        self._title("2. Open them with xarray: lazy, chunked by dask, coordinates in nm")
        parts = []
        for name in ("image", "segmentation"):
            url = (self.folder / name).as_posix()
            self._say(f'xr.open_dataset("{url}", engine="precomputed", chunks={{}})')
            parts.append(xr.open_dataset(url, engine="precomputed", chunks={}))
        volume = xr.merge(parts, combine_attrs="drop_conflicts")
        self._say(repr(volume))
        return volume

    def compute(self, volume: xr.Dataset) -> None:
        """Size and brightness of the largest segments, out of the chunks in parallel."""
        import dask.array as da
        from dask.base import compute

        self._title("3. Compute with dask: the five largest segments")
        image, segmentation = volume["image"], volume["segmentation"]
        every = da.unique(segmentation.data, return_counts=True)
        ids, voxels = compute(*every)  # type: ignore[no-untyped-call]
        largest = np.argsort(voxels)[::-1][:5]
        lazy = (image.where(segmentation == ids[i]).mean().data for i in largest)
        means = compute(*lazy)  # type: ignore[no-untyped-call]
        cubic_um = math.prod(self.cut.resolution) / 1e9
        self._say("  segment   volume (µm³)   mean brightness")
        for i, mean in zip(largest, means, strict=True):
            self._say(f"  {ids[i]:>7}   {voxels[i] * cubic_um:>12.4f}   {mean:>15.1f}")

    def compare(self, volume: xr.Dataset) -> None:
        """What was read against what was written."""
        self._title("4. Compare with the arrays that were written")
        equal = np.array_equal(volume["segmentation"].values[0], self.cut.segmentation)
        if not equal:
            raise ValueError("the segmentation that was read differs from the one written")
        self._say(
            f"segmentation: all {self.cut.segmentation.size:,} voxels are equal, bit for bit"
        )
        read = volume["image"].values[0].astype(np.int16)
        error = np.abs(read - self.cut.image)
        self._say(
            f"image: jpeg changes brightness by {error.mean():.1f} of 255 on average, "
            f"{error.max()} at most"
        )

    def draw(self, volume: xr.Dataset) -> None:
        """One slice, with the segments in colour beside it."""
        from precomputed_store.cli.picture import overlay_png

        self._title("5. Look at it")
        plane = volume.isel(channel=0, z=_SLICE)
        picture = overlay_png(plane["image"].values, plane["segmentation"].values)
        (self.folder / "demo.png").write_bytes(picture)
        self._say(f"{self.folder / 'demo.png'}: the slice at z = {float(plane['z']):g} nm")

    def what_next(self) -> None:
        self._title("Next")
        image, segmentation = (
            (self.folder / name).as_posix() for name in ("image", "segmentation")
        )
        (x, y, z), (nx, ny, _) = self.cut.voxel_offset, _CHUNK_SIZE
        for text in (
            f"precomputed info {image}",
            f"precomputed validate {segmentation} --decode",
            "",
            "In Python, by absolute voxel coordinates (x, y, z):",
            "  import precomputed_store as ps",
            f'  ps.open_volume("{image}")[{x}:{x + nx}, {y}:{y + ny}, {z + _SLICE}]',
            "",
            "In CloudVolume:",
            f'  CloudVolume("file://{Path(segmentation).absolute().as_posix()}", mip=0)',
            "",
            "In Neuroglancer: serve the folder with any web server that allows other origins,",
            f"  npx http-server {self.folder} --cors -p {_PORT}",
            "and open",
            f"  {_neuroglancer_link()}",
        ):
            self._say(text)

    def _title(self, text: str) -> None:
        self.out.print(f"\n{text}", style="bold")

    def _say(self, text: str) -> None:
        self.out.print(text, soft_wrap=True)


def _neuroglancer_link() -> str:
    layers: list[dict[str, Any]] = [
        {"type": name, "name": name, "source": f"precomputed://http://localhost:{_PORT}/{name}"}
        for name in ("image", "segmentation")
    ]
    state = json.dumps({"layers": layers, "layout": "4panel"}, separators=(",", ":"))
    return f"https://neuroglancer-demo.appspot.com/#!{quote(state, safe=':/,')}"
