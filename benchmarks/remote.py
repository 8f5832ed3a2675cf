"""Read the same layers over HTTP and S3 with added latency, in turns, and count the requests.

    python benchmarks/remote.py [--size 256] [--rounds 5] [--latency-ms 20] [--data FOLDER]
        [--json FILE] [--quick]

Every read is of a layer opened anew, with no index of a shard known; opening is neither timed
nor counted. The server is a process of its own that waits before each answer. S3 is moto, behind
a proxy that waits; moto itself takes some milliseconds of a processor for each request, so times
over S3 say more of it than of the readers: there the counts matter.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from cells import CELLS, Cell, Read, parts, volume

import precomputed_store as ps
from precomputed_store.shard_cache import clear_index_cache
from tests.servers.faulty import FaultyServer, Reply, Request
from tests.servers.moto import MotoServer, moto_server
from tests.servers.proxy import FaultyProxy
from tests.servers.web import sliced

LAYERS = ("raw", "cseg uint64", "raw, sharded, gzip")
KINDS = ("one chunk", "cutout", "whole")
BUCKET = "benchmark"


class FolderServer(FaultyServer):
    """Serves the files of a folder."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = Path(folder)

    def respond(self, request: Request) -> Reply:
        path = self._folder / request.path.lstrip("/")
        if not path.is_file():
            return Reply(status=404)
        return sliced(request, path.read_bytes(), {}, ranges=True)


@dataclass(frozen=True, kw_only=True)
class Server:
    url: str
    counter: Any

    @property
    def requests(self) -> int:
        return int(self.counter.value)


def serve(target: str, latency: float, counter: Any, connection: Any) -> None:
    """In a process of its own, until the other end hangs up."""
    server = FaultyProxy(target) if urlsplit(target).scheme else FolderServer(target)

    def wait(request: Request) -> str:
        with counter.get_lock():
            counter.value += 1
        time.sleep(latency)
        return "ok"

    server.pick_fault = wait
    with server, contextlib.suppress(EOFError):
        connection.send(server.url)
        connection.recv()


@contextlib.contextmanager
def serving(target: str, latency: float) -> Iterator[Server]:
    """A server of a folder, or a proxy of another server."""
    context = multiprocessing.get_context("spawn")
    counter, (ours, theirs) = context.Value("q", 0), context.Pipe()
    process = context.Process(target=serve, args=(target, latency, counter, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Server(url=ours.recv(), counter=counter)
    finally:
        ours.close()
        process.join(10)
        process.terminate()


def http_readers(server: Server, cell: Cell, part: Any) -> dict[str, Callable[[], Read]]:
    """Name → what opens the layer and returns what reads the part."""

    def cloudvolume() -> Read:
        from cloudvolume import CloudVolume

        opened = CloudVolume(f"precomputed://{server.url}/layer", progress=False)
        return lambda: opened[part]

    found = {
        "ours": lambda: ours(f"{server.url}/layer", part),
        "CloudVolume": cloudvolume,
    }
    store = {"driver": "http", "base_url": server.url, "path": "/layer/"}
    return found | tensorstore(cell, store, part)


def s3_readers(server: Server, cell: Cell, part: Any) -> dict[str, Callable[[], Read]]:
    """As `http_readers`. Without CloudVolume, whose S3 takes its credentials from home."""
    options = {"anon": True, "endpoint_url": server.url}
    store = {
        "driver": "s3",
        "bucket": BUCKET,
        "path": "layer/",
        "endpoint": server.url,
        "aws_region": "us-east-1",
        "aws_credentials": {"type": "anonymous"},
    }
    found = {"ours": lambda: ours(f"s3://{BUCKET}/layer", part, options)}
    return found | tensorstore(cell, store, part)


def ours(url: str, part: Any, options: dict[str, Any] | None = None) -> Read:
    clear_index_cache()
    opened = ps.open_volume(url, storage_options=options)
    return lambda: opened[part]


def tensorstore(cell: Cell, kvstore: dict[str, Any], part: Any) -> dict[str, Callable[[], Read]]:
    import tensorstore as ts

    def opened() -> Read:
        spec = {"driver": "neuroglancer_precomputed", "kvstore": kvstore}
        context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
        store = ts.open(spec, open=True, context=context).result()
        return lambda: store[part].read(order="F").result()

    return {"TensorStore": opened} if cell.in_tensorstore else {}


def compare(openers: dict[str, Callable[[], Read]], server: Server, rounds: int) -> dict[str, Any]:
    """Median times and requests of each, and of the ratios within a turn."""
    turns: list[dict[str, tuple[float, int]]] = []
    for number in range(rounds + 1):
        turn = {name: cold(opener, server) for name, opener in openers.items()}
        if number:  # The first opens connections.
            turns.append(turn)
    return {
        name: {
            "wall_s": statistics.median(turn[name][0] for turn in turns),
            "requests": statistics.median(turn[name][1] for turn in turns),
            "ratio": statistics.median(turn[name][0] / turn["ours"][0] for turn in turns),
        }
        for name in openers
    }


def cold(opener: Callable[[], Read], server: Server) -> tuple[float, int]:
    read = opener()
    before, start = server.requests, time.perf_counter()
    read()
    return time.perf_counter() - start, server.requests - before


def wanted(size: int) -> dict[str, Any]:
    return {name: part for name, part in parts(size).items() if name.startswith(KINDS)}


def upload(moto: MotoServer, layer: Path) -> None:
    client = moto.client()
    for path in filter(Path.is_file, layer.rglob("*")):
        key = f"layer/{path.relative_to(layer)}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes(), ACL="public-read")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    latency = arguments.latency_ms / 1000
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        http = stack.enter_context(serving(scratch, latency))
        moto = stack.enter_context(moto_server())
        moto.create_bucket(BUCKET, public=True)
        s3 = stack.enter_context(serving(moto.url, latency))
        for cell in (cell for cell in CELLS if cell.name in arguments.layers):
            layer = Path(scratch, "layer")
            voxels = volume(cell.dtype, arguments.size, arguments.data)
            ps.to_precomputed(voxels, layer, **cell.arguments())
            upload(moto, layer)
            for what, part in wanted(arguments.size).items():
                for name, server, readers in (
                    ("HTTP", http, http_readers),
                    ("S3", s3, s3_readers),
                ):
                    found = compare(readers(server, cell, part), server, arguments.rounds)
                    results[f"{cell.name}; {what}; {name}"] = found
            shutil.rmtree(layer)
    return results


def markdown(results: dict[str, Any]) -> str:
    lines = [
        "| layer; read; from | ours | CloudVolume | TensorStore |",
        "| --- | --- | --- | --- |",
    ]
    for name, result in results.items():
        shown = [
            "{:.0f} ms, {:.0f} requests".format(
                result[who]["wall_s"] * 1e3, result[who]["requests"]
            )
            + (f" ({result[who]['ratio']:.1f})" if who != "ours" else "")
            if who in result
            else "–"
            for who in ("ours", "CloudVolume", "TensorStore")
        ]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", "In brackets: their time / ours, median within a turn."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="edge of the volume, in voxels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=20)
    parser.add_argument("--layers", nargs="*", choices=LAYERS, default=LAYERS)
    parser.add_argument("--data", type=Path, help="folder with fib25_250.npz")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--quick", action="store_true", help="a small layer, one round")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.rounds, arguments.layers = 128, 1, LAYERS[2:]
    warnings.simplefilter("ignore")
    results = run(arguments)
    print(markdown(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
