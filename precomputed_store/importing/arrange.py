"""Axes of a file → ``(channel, z, y, x)``. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Arrangement", "arrange", "check_letters"]

_ORDER = "czyx"
_DIMS = {"c": "channel"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """How the axes of an array become those of a layer.

    Attributes
    ----------
    sources : tuple of (int or None)
        For c (if there is one), z, y, x: which axis of the array; None for a new one.
    dropped : tuple of int
        Axes of length one that a layer does not have.
    """

    sources: tuple[int | None, ...]
    dropped: tuple[int, ...]

    @property
    def letters(self) -> str:
        return _ORDER[-len(self.sources) :]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(_DIMS.get(letter, letter) for letter in self.letters)


def check_letters(axes: str) -> str:
    """The axes that a user gave, in lower case.

    Raises
    ------
    ValueError
        A letter is there twice, or x or y is not.
    """
    letters = axes.lower()
    if not letters.isalpha() or len(set(letters)) < len(letters) or not {"x", "y"} <= set(letters):
        raise ValueError(
            f"axes is {axes!r}; expected one letter for each axis, none twice: x, y, z, and c for "
            "the channel, as in 'zyx' or 'xyzc'. Any other letter stands for an axis of length one"
        )
    return letters


def arrange(axes: str, shape: tuple[int, ...], *, is_given: bool) -> Arrangement:
    """Find the axes of a layer among those of an array.

    Parameters
    ----------
    axes : str
        A letter for each axis.
    shape : tuple of int
    is_given : bool
        Whether the user says so, rather than the file.

    Raises
    ------
    ValueError
        There are more or fewer axes, or some that a layer cannot have.
    """
    if len(axes) != len(shape):
        raise ValueError(f"axes {axes!r} are {len(axes)}, but the array has {len(shape)}: {shape}")
    dropped = tuple(i for i, letter in enumerate(axes) if letter not in _ORDER and shape[i] == 1)
    kept = {i: letter for i, letter in enumerate(axes) if i not in dropped}
    letters = list(kept.values())
    wrong = [letter for letter in letters if letter not in _ORDER or letters.count(letter) > 1]
    missing = [letter for letter in "yx" if letter not in letters]
    if wrong or missing:
        raise ValueError(_complaint(axes, shape, wrong, missing, is_given=is_given))
    where = {letter: i for i, letter in kept.items()}
    order = _ORDER if "c" in where else _ORDER[1:]
    return Arrangement(sources=tuple(where.get(letter) for letter in order), dropped=dropped)


def _complaint(
    axes: str, shape: tuple[int, ...], wrong: list[str], missing: list[str], *, is_given: bool
) -> str:
    lengths = ", ".join(f"{letter} {length}" for letter, length in zip(axes, shape, strict=True))
    what = f"has the axes {lengths}"
    if wrong:
        names = ", ".join(dict.fromkeys(wrong))
        what += f"; a layer has x, y, z and c, each once, so what is {names}?"
    if missing:
        what += f"; it has no {', '.join(missing)}"
    hint = "" if is_given else " Say which axis is which, for example axes='zyx' or axes='czyx'"
    return f"the array {what}{hint}"
