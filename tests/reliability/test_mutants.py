"""Whatever bytes a chunk is made of, a decoder gives an array or our error, soon, and at no cost.

``PRECOMPUTED_TEST_MUTATIONS`` in the environment sets how many damaged chunks each decoder
is given by the long suite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import amounts
from hostile_chunks import SUBJECTS, mutants

from precomputed_store.codecs.compressed_segmentation import CompressedSegmentation
from precomputed_store.codecs.jpeg import Jpeg
from precomputed_store.codecs.png import Png
from precomputed_store.codecs.raw import Raw
from precomputed_store.errors import FormatError
from tests.codecs.segmentation_peers import TensorStoreChunk
from tests.reliability.hostile_chunks import labels, picture

HERE = Path(__file__).parent
MANY = int(os.environ.get("PRECOMPUTED_TEST_MUTATIONS", "10000"))
SPARE_MIB = 64


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for peaks of memory")
@pytest.mark.parametrize("count", amounts(2000, MANY))
@pytest.mark.parametrize("name", SUBJECTS)
def test_damaged_bytes_are_refused_or_decode_and_do_no_harm(
    name: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    """In a program without a ``__main__`` guard, which would not survive a crash."""
    command = [sys.executable, str(HERE / "try_decoder.py"), name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    told = ", ".join(f"{what} {found}" for what, found in report.items())
    record_property("figure", f"{name}: {told}")
    known = {
        "accepted",
        "refused",
        "of these, decoder died or hung",
        "of these, stopped at its limit of memory",
    }
    assert set(report["mutants"]) <= known
    assert set(report["truncations"]) <= known
    assert report["mutants"]["refused"] + report["mutants"].get("accepted", 0) == count
    assert report["truncations_silently_different"] == 0
    assert report["differing_on_repetition"] == 0
    assert report["slowest_s"] < 10
    chunk_mib = report["decoded_bytes"] / 2**20
    assert report["memory_mib"] < 2 * chunk_mib + SPARE_MIB
    assert report["worker_memory_mib"] < 2 * chunk_mib + SPARE_MIB


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Of Jupyter's own.
def test_a_notebook_survives_what_kills_a_decoder(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    lines = [
        "import sys",
        f"sys.path[:0] = [{str(HERE.parent.parent)!r}, {str(HERE)!r}, {str(HERE.parent)!r}]",
        "from collections import Counter",
        "from hostile_chunks import SUBJECTS, mutants",
        "from precomputed_store.errors import FormatError",
        "found = Counter()",
        "for data in mutants(SUBJECTS['fpzip, in its library'].encoded, 200):",
        "    try:",
        "        SUBJECTS['fpzip, in its library'].decode(data)",
        "    except FormatError as error:",
        "        found['decoder process died' in str(error)] += 1",
        "print(found[True] > 0, sum(found.values()))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    died, refused = notebook.cells[0].outputs[0].text.split()
    assert died == "True"
    assert 150 < int(refused) <= 200


COMPARED: dict[str, tuple[Any, np.ndarray, dict[str, Any]]] = {
    "raw": (Raw(), picture("uint16"), {}),
    "jpeg": (Jpeg(), picture(), {}),
    "jpeg, 3 channels": (Jpeg(), picture(channels=3), {}),
    "png": (Png(), picture(), {}),
    "png, 16 bit": (Png(), picture("uint16"), {}),
    "png, uncompressed": (Png(png_level=0), picture(channels=3), {}),
    **{
        f"compressed_segmentation, {dtype}": (
            CompressedSegmentation(compressed_segmentation_block_size=(8, 8, 8)),
            labels(dtype),
            {"block_size": (8, 8, 8)},
        )
        for dtype in ("uint32", "uint64")
    },
}


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("count", amounts(2000, MANY))
@pytest.mark.parametrize("name", COMPARED)
def test_what_tensorstore_accepts_too_reads_the_same(
    name: str, count: int, record_property: Callable[[str, object], None]
) -> None:
    codec, array, options = COMPARED[name]
    peer = TensorStoreChunk(shape=array.shape, dtype=array.dtype, encoding=codec.name, **options)
    both = only_ours = only_theirs = 0
    for data in mutants(codec.encode(array), count, seed=5):
        theirs = peer.decode(data)
        try:
            ours = codec.decode(data, shape=array.shape, dtype=array.dtype)
        except FormatError:
            only_theirs += theirs is not None
            continue
        if theirs is None:
            only_ours += 1
        else:
            both += 1
            np.testing.assert_array_equal(ours, theirs)
    record_property(
        "figure",
        f"{name}, {count} mutants: {both} accepted by both and equal, {only_ours} by this package "
        f"only, {only_theirs} by TensorStore only",
    )
    assert both or "png" in name
