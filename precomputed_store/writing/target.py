"""What to write where: a new layer's metadata, or a region of an existing one. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from precomputed_store.codecs import ENCODINGS, Codec, codec_class
from precomputed_store.errors import MetadataError
from precomputed_store.grid import XYZ
from precomputed_store.metadata import (
    DATA_TYPES,
    OTHER_DATA_TYPES,
    Scale,
    ScaleSelector,
    ShardingSpec,
    VolumeInfo,
)
from precomputed_store.shard_shape import ShardTarget, choose_sharding
from precomputed_store.writing.place import (
    Resolution,
    UnknownResolutionError,
    find_position,
    find_resolution,
    is_close,
    triple,
)
from precomputed_store.writing.source import WriteSource

__all__ = [
    "LayerType",
    "LayerWish",
    "Sharding",
    "check_matches",
    "choose_scale",
    "make_codec",
    "new_info",
    "scale_key",
    "sharded",
]

LayerType: TypeAlias = Literal["image", "segmentation"]

Sharding: TypeAlias = ShardingSpec | ShardTarget | Literal["auto"] | None
"""Parameters, what to aim at in choosing them (``"auto"``: the defaults), or no shards."""

_DEFAULT_CHUNK_SIZE = (64, 64, 64)
# What uint16 and the signed types hold is anybody's guess.
_USUAL_TYPES: dict[str, LayerType] = {
    "uint8": "image", "int8": "image",
    "float16": "image", "float32": "image", "float64": "image",
    "uint32": "segmentation", "uint64": "segmentation",
}  # fmt: skip
_DEFAULT_OPTIONS: dict[str, dict[str, Any]] = {
    "compressed_segmentation": {"compressed_segmentation_block_size": (8, 8, 8)},
    # Channels do not resemble each other: taken together they cost three times as many bytes.
    "zfpc": {"zfpc_correlated_dims": (True, True, True, False)},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWish:
    """What the caller said of the layer; None where the array is to be asked.

    See `precomputed_store.to_precomputed`.
    """

    layer_type: LayerType | None = None
    encoding: str | None = None
    encoding_options: Mapping[str, Any] | None = None
    resolution: Resolution | None = None
    voxel_offset: XYZ | None = None
    chunk_size: XYZ | None = None
    key: str | None = None
    sharding: Sharding = None

    def __post_init__(self) -> None:
        if not (
            isinstance(self.sharding, ShardingSpec | ShardTarget)
            or self.sharding is None
            or self.sharding == "auto"
        ):
            raise ValueError(
                f"sharding is {self.sharding!r}; expected None, 'auto', a ShardTarget or a "
                "ShardingSpec"
            )
        if self.layer_type not in ("image", "segmentation", None):
            raise ValueError(
                f"layer_type is {self.layer_type!r}; expected 'image' or 'segmentation'"
            )
        if not isinstance(self.encoding, str | None):
            raise TypeError(f"encoding is {self.encoding!r}; expected a name such as 'jpeg'")
        if not isinstance(self.encoding_options, Mapping | None):
            raise TypeError(
                f"encoding_options is {self.encoding_options!r}; expected a mapping such as "
                "{'jpeg_quality': 90}"
            )
        if self.key is not None:
            _check_key(self.key)
        for name in ("resolution", "voxel_offset", "chunk_size"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, triple(value, name))


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"key is {key!r}; expected the name of a folder such as '8_8_8'")
    if key.strip("/").partition("/")[0] in ("", "info"):
        raise ValueError(f"key is {key!r}; expected the name of a folder other than 'info'")


def new_info(source: WriteSource, wish: LayerWish) -> VolumeInfo:
    """Metadata of a new layer that holds the whole array.

    Raises
    ------
    ValueError
        Something can neither be found out nor guessed safely, or does not fit together.
    """
    resolution = wish.resolution or find_resolution(source)
    layer_type = _layer_type(source, wish)
    codec = _codec(source, wish, layer_type)
    size = source.size
    chunk_size = wish.chunk_size or source.encoding.get("chunk_size")
    if chunk_size is None:
        x, y, z = (min(a, b) for a, b in zip(_DEFAULT_CHUNK_SIZE, size, strict=True))
        chunk_size = (x, y, z)
    offset = wish.voxel_offset or find_position(source, resolution, default=0)
    try:
        scale = Scale(
            key=scale_key(resolution) if wish.key is None else wish.key,
            size=size,
            resolution=resolution,
            voxel_offset=offset,
            chunk_sizes=(triple(chunk_size, "chunk_size"),),
            codec=codec,
        )
        scale = sharded(scale, wish.sharding, voxel_bytes=source.shape[0] * source.dtype.itemsize)
        return VolumeInfo(
            layer_type=layer_type,
            data_type=source.dtype.name,
            num_channels=source.shape[0],
            scales=(scale,),
        )
    except MetadataError as error:
        # The caller's mistake, in the words of the arguments.
        problems = "; ".join(map(str, error.problems))
        text = problems.replace("scales[0].", "").replace("chunk_sizes[0]", "chunk_size")
        raise ValueError(text) from None


def sharded(scale: Scale, sharding: Sharding, *, voxel_bytes: int) -> Scale:
    """A scale with the sharding that is wished for.

    Parameters
    ----------
    scale : Scale
    sharding : ShardingSpec, ShardTarget, "auto" or None
    voxel_bytes : int
        Size of all channels of a voxel.
    """
    if sharding == "auto":
        sharding = ShardTarget()
    if isinstance(sharding, ShardTarget):
        sharding = choose_sharding(
            scale.grid, scale.codec, voxel_bytes=voxel_bytes, target=sharding
        )
    return replace(scale, sharding=sharding)


def scale_key(resolution: Resolution) -> str:
    """The customary name of a scale's folder.

    Examples
    --------
    >>> scale_key((8, 8, 40)), scale_key((4.5, 4, 40))
    ('8_8_40', '4.5_4.0_40.0')
    """
    whole = all(isinstance(value, int) for value in resolution)
    return "_".join(str(value if whole else float(value)) for value in resolution)


def choose_scale(info: VolumeInfo, source: WriteSource, wish: LayerWish) -> ScaleSelector:
    """The scale of an existing layer that the array belongs to, by its resolution.

    Raises
    ------
    ValueError
        The layer has several scales, and the array does not say which.
    """
    try:
        return wish.resolution or find_resolution(source)
    except UnknownResolutionError as error:
        if len(info.scales) == 1:
            return 0
        raise ValueError(f"{error}, or scale=") from None


def check_matches(source: WriteSource, wish: LayerWish, info: VolumeInfo, scale: Scale) -> None:
    """Refuse an array, or a caller's word, that contradicts an existing layer.

    Raises
    ------
    ValueError, TypeError
    """
    wanted: dict[str, tuple[Any, Any]] = {
        "layer_type": (wish.layer_type, info.layer_type),
        "encoding": (wish.encoding and wish.encoding.lower(), scale.encoding),
        "chunk_size": (wish.chunk_size, scale.chunk_size),
        "sharding": (wish.sharding if wish.sharding != "auto" else None, scale.sharding),
        "key": (wish.key, scale.key),
    }
    parameters = scale.codec.to_parameters()
    for name, value in (wish.encoding_options or {}).items():
        plain = list(value) if isinstance(value, tuple | np.ndarray) else value
        wanted[f"encoding_options[{name!r}]"] = (plain, parameters.get(name))
    for name, (value, there) in wanted.items():
        if value is not None and value != there:
            raise ValueError(
                f"{name} is {value!r}, but scale {scale.key!r} of the existing layer has {there!r}"
            )
    if wish.resolution is not None and not is_close(wish.resolution, scale.resolution):
        raise ValueError(
            f"resolution is {wish.resolution} nm, but scale {scale.key!r} of the existing layer "
            f"has {scale.resolution} nm"
        )
    if source.shape[0] != info.num_channels:
        raise ValueError(
            f"the array has {source.shape[0]} channel(s), the existing layer {info.num_channels}"
        )
    if not np.can_cast(source.dtype, info.dtype, "safe"):
        raise TypeError(
            f"cannot write {source.dtype} into a layer of {info.dtype} without loss; convert it "
            f"yourself: array.astype({info.data_type!r})"
        )


def _layer_type(source: WriteSource, wish: LayerWish) -> LayerType:
    if source.dtype.name not in (*DATA_TYPES, *OTHER_DATA_TYPES):
        raise ValueError(
            f"an array of {source.dtype} cannot be stored; data types are {', '.join(DATA_TYPES)}"
        )
    for said in (wish.layer_type, source.layer_type, source.name):
        if said == "segmentation" and source.dtype.kind == "f" and wish.layer_type is None:
            raise ValueError(
                f"the segmentation has become {source.dtype}, which cannot hold every segment id "
                "(where() without a second argument does that): give where() a 0, convert it with "
                "astype(), or pass layer_type="
            )
        if said == "image" or said == "segmentation":
            return said
    usual = _USUAL_TYPES.get(source.dtype.name)
    if usual is None:
        raise ValueError(
            f"an array of {source.dtype} may be an image or a segmentation: pass "
            "layer_type='image' or layer_type='segmentation'"
        )
    return usual


def _codec(source: WriteSource, wish: LayerWish, layer_type: LayerType) -> Codec:
    """The encoding: what the caller says, else how it was read, else a lossless default."""
    inherited = source.encoding.get("encoding")
    name = (wish.encoding or inherited or _default_encoding(source, layer_type)).lower()
    remembered = source.encoding.get("encoding_options") if inherited == name else None
    return make_codec(name, wish.encoding_options or {}, remembered=remembered or {})


def make_codec(
    name: str, options: Mapping[str, Any], *, remembered: Mapping[str, Any] | None = None
) -> Codec:
    """An encoding with its parameters.

    Parameters
    ----------
    name : str
    options : mapping
        What the caller says.
    remembered : mapping, optional
        What goes before the defaults where he says nothing.

    Raises
    ------
    ValueError
        There is no such encoding, or it has no such option; names the nearest.
    """
    found = codec_class(name)
    if found is None:
        raise ValueError(f"encoding is {name!r}; {_nearest(name, ENCODINGS)}")
    for option in options:
        if option not in found.parameter_names():
            hint = _nearest(option, found.parameter_names())
            raise ValueError(f"encoding {name} has no option {option!r}; {hint}")
    try:
        return found.from_parameters(
            {**_DEFAULT_OPTIONS.get(name, {}), **(remembered or {}), **options}
        )
    except ValueError as error:
        problems = [": ".join(item) if isinstance(item, tuple) else item for item in error.args]
        raise ValueError("encoding_options: " + "; ".join(map(str, problems))) from None


def _default_encoding(source: WriteSource, layer_type: LayerType) -> str:
    labels = layer_type == "segmentation" and source.dtype.name in ("uint32", "uint64")
    return "compressed_segmentation" if labels else "raw"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    if not names:
        return "it takes none"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}There are {', '.join(map(repr, names))}"
