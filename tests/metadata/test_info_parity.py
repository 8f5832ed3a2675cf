"""TensorStore reads and refuses the same documents, but for the differences listed here."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from info_builders import DELETE, Path, changed, info_json, paths, read, scale_json, sharding_json

from precomputed_store.errors import MetadataError

pytestmark = pytest.mark.parity

SHARDED = info_json(scale_json(sharding=sharding_json(), hidden=False), mesh="mesh", other=1)
LABELS = info_json(
    scale_json(encoding="compressed_segmentation", compressed_segmentation_block_size=[8, 8, 8])
)
PNG = info_json(scale_json(encoding="png", png_level=5), type="image", data_type="uint16")
JPEG = info_json(
    scale_json(encoding="jpeg", jpeg_quality=80), type="image", data_type="uint8", num_channels=3
)

VALUES: list[Any] = [
    DELETE, None, True, False, 0, 1, 2, 4, -1, 65, 101, 64.0, 64.5, -0.0, 2**31, 2**40,
    2**62 - 1, 2**62, 2**63, 2**64, 1e300, "", "1", "raw", "RAW", "jpeg", "png", "gzip",
    "identity", "murmurhash3_x86_128", "uint64", "Uint8", "float64", "image", "../x", "/x", "a b",
    [], [1], [1, 2, 3], [0, 1, 1], [1, 2, 3, 4], [[1, 2, 3]], [[1, 1, 1], [2, 2, 2]],
    ["1", 2, 3], [1.0, 2, 3], [1.5, 2, 3], [True, 2, 3], [None, 2, 3], {}, {"a": 1},
]  # fmt: skip

SCALE: Path = ("scales", 0)
NOT_A_NUMBER = (["1", 2, 3], "1")
ZERO = (0, -0.0, [0, 1, 1])


def we_refuse(path: Path, value: Any) -> str | None:
    """Why we refuse what TensorStore accepts."""
    member = path[2] if path[:2] == SCALE and len(path) > 2 else path[0]
    if member in ("type", "hidden", "mesh"):
        return "the specification fixes the type of the member; TensorStore does not look at it"
    if member in ("size", "resolution") and value in ZERO:
        return "the specification wants positive numbers"
    if member == "resolution" and (value == -1 or value in NOT_A_NUMBER):
        return "the specification wants positive numbers"
    if member == "key" and value in ("", "/x"):
        return "the specification wants the relative path of a folder"
    if member in ("size", "chunk_sizes") and value == 2**62:
        return "extents end where coordinates do"
    return None


def we_accept(path: Path, value: Any) -> str | None:
    """Why we accept what TensorStore refuses."""
    if value in ("RAW", "Uint8") and path[-1] != "key":
        return "the specification reads names in any case"
    if path == ("data_type",) and value == "float64":
        return "CloudVolume writes it"
    if value is None and path[-1] in ("voxel_offset", "jpeg_quality", "png_level"):
        return "null stands for an optional member that is absent"
    if path == (*SCALE, "encoding") and value in ("raw", "png"):
        return "a parameter of another encoding does no harm"
    return None


def accepted_here(document: Any) -> bool:
    try:
        return bool(read(document).usable_scales)
    except MetadataError:
        return False


class TensorStoreReader:
    """Opens documents in TensorStore's memory."""

    def __init__(self) -> None:
        self.ts = pytest.importorskip("tensorstore")
        self.context = self.ts.Context()
        self.store = self.ts.KvStore.open("memory://", context=self.context).result()
        self.numbers = itertools.count()

    def accepts(self, document: Any) -> bool:
        folder = f"{next(self.numbers)}/"
        self.store.write(f"{folder}info", json.dumps(document)).result()
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory", "path": folder},
        }
        try:
            self.ts.open(spec, context=self.context, open=True).result()
        except ValueError:
            return False
        return True


@pytest.fixture(scope="module")
def tensorstore() -> TensorStoreReader:
    return TensorStoreReader()


@pytest.mark.parametrize(
    "document", [SHARDED, LABELS, PNG, JPEG], ids=["sharded", "labels", "png", "jpeg"]
)
def test_every_single_change_is_judged_alike(
    tensorstore: TensorStoreReader, document: Any
) -> None:
    unexplained = []
    for path in paths(document):
        for value in VALUES:
            variant = changed(document, path, value)
            ours, theirs = accepted_here(variant), tensorstore.accepts(variant)
            if ours == theirs:
                continue
            reason = (we_accept if ours else we_refuse)(path, value)
            if reason is None:
                shown = "(removed)" if value is DELETE else value
                unexplained.append((path, shown, "accepted here" if ours else "refused here"))
    assert not unexplained


def test_what_we_write_tensorstore_reads_as_we_do(tensorstore: TensorStoreReader) -> None:
    info = read(SHARDED)
    tensorstore.store.write("written/info", info.to_bytes()).result()
    store = tensorstore.ts.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "memory", "path": "written/"},
        },
        context=tensorstore.context,
        open=True,
    ).result()
    (_, scale), *_ = info.usable_scales
    domain = store.domain
    assert tuple(domain.inclusive_min) == (*scale.voxel_offset, 0)
    assert tuple(domain.exclusive_max) == (*scale.grid.bounds.stop, info.num_channels)
    assert store.dtype.numpy_dtype == info.dtype
    assert store.spec().to_json()["scale_metadata"]["sharding"] == scale.to_json()["sharding"]
