"""The real Neuroglancer client: its JavaScript, out of the Python package, in Chromium.

Two ways lead from its decoders back to numpy, both exact:

- `Client.read` asks for chunks by the protocol of the Python package. Not for uint32 and
  uint64, which the client holds, and would send, as compressed_segmentation.
- `Client.read_by_shader` draws the bytes of every value as colours.

What does not arrive (404) is zeros without a word, so only values and requests prove anything.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from precomputed_store import Box

__all__ = ["RESOLUTION", "Client"]

RESOLUTION = 10
"""Extent of the voxels in every picture, in nanometres."""

_DIMENSIONS = {axis: [RESOLUTION * 1e-9, "m"] for axis in "xyz"}
_BITS_PER_PICTURE = 24
_TIMEOUT = 60.0

# WebGL 2 in software (SwiftShader); no address but this machine's.
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--window-size=300,200",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
]


class Client:
    """A browser with one viewer in it.

    Parameters
    ----------
    chromium : str
        The program.
    folder : Path
        For its profile and its log; the caller removes it.
    """

    def __init__(self, chromium: str, folder: Path) -> None:
        import neuroglancer

        neuroglancer.set_server_bind_address("127.0.0.1")
        self._stop_server = neuroglancer.stop
        self._viewer = neuroglancer.Viewer()
        self._pass_errors_on()
        self._log = folder / "chromium.log"
        profile = f"--user-data-dir={folder / 'profile'}"
        with self._log.open("wb") as log:
            self._browser = subprocess.Popen(
                [chromium, *_FLAGS, profile, self._viewer.get_viewer_url()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "HOME": str(folder)},
                start_new_session=True,
            )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kill()
        self._stop_server()

    def read(self, url: str) -> np.ndarray:
        """Voxels ``(x, y, z, channel)`` of the finest scale."""
        self._set_size((8, 8))  # to draw would take longer than to answer
        layer = _layer("image", f"precomputed://{url}", visible=False)
        self._viewer.set_state({"layers": [layer], "layout": "xy"})
        info = self._result(self._viewer.volume_info("image"))
        size = info.upper_bound - info.lower_bound
        cells = np.ndindex(*-(-size // info.chunk_shape))
        # Counted from the volume's first voxel, whatever the reply's grid_origin says.
        chunks = {cell: self._viewer._volume_chunk("image", info, cell) for cell in cells}
        out = np.empty(size, info.data_type)
        for cell, chunk in chunks.items():
            start = cell * info.chunk_shape
            stop = np.minimum(start + info.chunk_shape, size)
            inside = tuple(map(slice, stop - start))
            out[tuple(map(slice, start, stop))] = self._result(chunk)[inside]
        return out if out.ndim == 4 else out[..., np.newaxis]

    def read_by_shader(
        self, url: str, *, bounds: Box, dtype: npt.DTypeLike, num_channels: int = 1
    ) -> np.ndarray:
        """Voxels ``(x, y, z, channel)`` of uint32 or uint64, out of one picture.

        Slices lie side by side; channels, and parts of a value, below each other. Each is
        a layer of its own, moved there, with a shader that colours a voxel by 24 of its bits.
        """
        (x0, y0, z0), (nx, ny, nz) = bounds.start, bounds.shape
        shifts = range(0, 8 * np.dtype(dtype).itemsize, _BITS_PER_PICTURE)
        rows = list(itertools.product(range(num_channels), shifts))
        layers = []
        for (row, (channel, shift)), z in itertools.product(enumerate(rows), range(nz)):
            by = (z * nx - x0, row * ny - y0, -z0 - z)
            source = _moved(url, by=by, num_channels=num_channels)
            shader = _bits_shader(dtype, shift=shift, channel=channel)
            layers.append(_layer(f"{z} {row}", source, opacity=1, shader=shader))
        picture = self.picture(layers, size=(nz * nx, len(rows) * ny))
        parts = picture.astype(np.uint64).reshape(num_channels, len(shifts), ny, nz, nx, 3)
        value = np.zeros((num_channels, ny, nz, nx), np.uint64)
        for (i, shift), byte in itertools.product(enumerate(shifts), range(3)):
            # Beyond the value's last bit there is black, wherever it is shifted to.
            value |= parts[:, i, ..., byte] << np.uint64(min(shift + 8 * byte, 56))
        return value.transpose(3, 1, 2, 0).astype(dtype)

    def picture(
        self,
        layers: Sequence[Mapping[str, Any]],
        *,
        size: tuple[int, int],
        corner: tuple[int, int, int] = (0, 0, 0),
    ) -> np.ndarray:
        """A slice across z, one voxel per pixel: red, green and blue, ``(y, x, 3)``.

        Parameters
        ----------
        layers : sequence of mapping
            As in the client's own JSON.
        size : (int, int)
            Width and height.
        corner : (int, int, int)
            The voxel in the picture's upper left corner.
        """
        self._set_size(size)
        centre = np.asarray(corner) + np.asarray((*size, 1)) / 2
        state = {
            # Without them, the scale is taken for metres until the layers are there.
            "dimensions": _DIMENSIONS,
            "layers": layers,
            "layout": "xy",
            "position": centre.tolist(),
            "crossSectionScale": 1,
            "crossSectionBackgroundColor": "#000000",
            "showAxisLines": False,
            "showScaleBar": False,
            "showDefaultAnnotations": False,
        }
        return self._shown(state, size)

    def picture_3d(
        self,
        layers: Sequence[Mapping[str, Any]],
        *,
        size: tuple[int, int],
        centre: tuple[float, float, float],
        height: float,
    ) -> np.ndarray:
        """Surfaces as seen along z, without perspective, on black: ``(y, x, 3)``.

        Parameters
        ----------
        layers : sequence of mapping
            As in the client's own JSON.
        size : (int, int)
            Width and height in pixels.
        centre : (float, float, float)
            What is in the middle, in voxels of `RESOLUTION`.
        height : float
            Voxels from the lower to the upper edge.
        """
        self._set_size(size)
        state = {
            "dimensions": _DIMENSIONS,
            "layers": layers,
            "layout": {"type": "3d", "orthographicProjection": True},
            "position": list(centre),
            "projectionScale": height,
            "projectionBackgroundColor": "#000000",
            "showSlices": False,
            "showAxisLines": False,
            "showScaleBar": False,
            "showDefaultAnnotations": False,
        }
        return self._shown(state, size)

    def _shown(self, state: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
        self._viewer.set_state(state)
        for _ in range(10):  # the first after a change of size may still have the old one
            reply: Future[Any] = Future()
            self._viewer.async_screenshot(reply.set_result)
            shot = self._result(reply).screenshot
            if (shot.width, shot.height) == size:
                return np.array(shot.image_pixels[..., :3])
        raise TimeoutError(f"the picture stays {shot.width} x {shot.height}, not {size}")

    def _set_size(self, size: tuple[int, int]) -> None:
        with self._viewer.config_state.txn() as config:
            config.show_ui_controls = False
            config.show_panel_borders = False
            config.viewer_size = list(size)

    def _result(self, future: Future[Any]) -> Any:
        """An answer of the client; one that gives none is not asked again."""
        end = time.monotonic() + _TIMEOUT
        while self._browser.poll() is None and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                return future.result(timeout=1)
        self._kill()
        lines = self._log.read_text(errors="replace").splitlines()
        said = [line for line in lines if "dbus" not in line]
        raise ChildProcessError("\n".join(["no answer from the client:", *said[-20:]]))

    def _kill(self) -> None:
        # A session of its own, so that the whole family of processes goes at once.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._browser.pid, signal.SIGKILL)
        self._browser.wait(_TIMEOUT)

    def _pass_errors_on(self) -> None:
        """Raise what a reply breaks where the reply is waited for, not in the server's loop."""
        understand = self._viewer._handle_volume_chunk_reply

        def handle(request_id: str, params: Any, data: bytes) -> None:
            promise = self._viewer._volume_chunk_promises.get(request_id)
            try:
                understand(request_id, params, data)
            except ValueError as error:
                if promise is not None:
                    promise.set_exception(error)

        self._viewer._handle_volume_chunk_reply = handle


def _layer(name: str, source: Any, **members: Any) -> dict[str, Any]:
    return {"type": "image", "name": name, "source": source, **members}


def _moved(url: str, *, by: tuple[int, int, int], num_channels: int) -> dict[str, Any]:
    """A source whose voxels lie somewhere else."""
    dimensions: dict[str, Any] = dict(_DIMENSIONS)
    translation = list(by)
    if num_channels > 1:
        dimensions["c^"] = [1, ""]
        translation.append(0)
    matrix = np.column_stack([np.eye(len(dimensions)), translation]).tolist()
    transform = {"matrix": matrix, "outputDimensions": dimensions}
    return {"url": f"precomputed://{url}", "transform": transform}


def _bits_shader(dtype: npt.DTypeLike, *, shift: int, channel: int) -> str:
    """Red, green and blue are the 24 bits of a value from `shift` on, or what is left of them."""
    value = f"getDataValue({channel}).value"
    low, high = (f"{value}[0]", f"{value}[1]") if dtype == "uint64" else (value, "0u")
    part = {0: low, 24: f"{low} >> 24u | {high} << 8u", 48: f"{high} >> 16u"}[shift]
    return (
        f"void main() {{ uint part = {part}; "
        "emitRGB(vec3(uvec3(part, part >> 8u, part >> 16u) & 255u) / 255.0); }"
    )
