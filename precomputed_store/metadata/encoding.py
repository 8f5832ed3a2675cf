"""The encoding of a scale and its parameters, found through the registry of codecs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from precomputed_store.codecs import ENCODINGS, Codec, codec_class
from precomputed_store.metadata.rules import ABSENT, Report

__all__ = ["codec_problems", "parameter_owners", "read_codec"]

_LONGEST_MESSAGE = 300


def read_codec(members: Mapping[str, Any], report: Report) -> Codec | None:
    """The encoding of a scale in plain JSON, or None and problems in `report`."""
    encoding = members.get("encoding", ABSENT)
    name = report.choice(encoding, "encoding", tuple(ENCODINGS))
    found = codec_class(name) if name else None
    if found is None:
        return None
    parameters = {
        parameter: members[parameter]
        for parameter in found.parameter_names()
        if report.present(members, parameter)
    }
    required = [
        parameter.name
        for parameter in dataclasses.fields(found)
        if parameter.default is dataclasses.MISSING
        and parameter.default_factory is dataclasses.MISSING
    ]
    if missing := [parameter for parameter in required if parameter not in parameters]:
        for parameter in missing:
            report.problem(parameter, f"missing: the encoding {name} requires it")
        return None
    try:
        return found.from_parameters(parameters)
    except (ValueError, TypeError, OverflowError) as error:
        # Whatever a codec raises here, the values are the document's.
        for parameter, message in _parameter_problems(error):
            report.problem(parameter, message)
        return None


def _parameter_problems(error: Exception) -> Iterator[tuple[str, str]]:
    for item in error.args or (str(error),):
        match item:
            case (str(parameter), str(message)):
                yield parameter, message[:_LONGEST_MESSAGE]
            case _:
                yield "encoding", str(item)[:_LONGEST_MESSAGE]


def codec_problems(
    codec: Codec, *, data_type: str, num_channels: int
) -> Iterator[tuple[str, str]]:
    """Why chunks of this data type and channel count cannot have this encoding."""
    if data_type not in codec.data_types:
        holds = ", ".join(codec.data_types)
        yield "encoding", f"{codec.name} holds {holds}; the volume's data_type is {data_type}"
    if codec.channels is not None and num_channels not in codec.channels:
        holds = " or ".join(map(str, codec.channels))
        yield "encoding", f"{codec.name} holds {holds} channels; num_channels is {num_channels}"


def parameter_owners() -> dict[str, str]:
    """Every parameter of a known encoding → the encodings that it belongs to."""
    owners: dict[str, list[str]] = {}
    for encoding in ENCODINGS:
        found = codec_class(encoding)
        for parameter in found.parameter_names() if found else ():
            owners.setdefault(parameter, []).append(encoding)
    return {parameter: " and ".join(names) for parameter, names in owners.items()}
