"""Values of the campaigns' options, refused in a sentence before hours of work."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Sequence
from pathlib import Path


def from_least(least: int) -> Callable[[str], int]:
    """The type of a whole number that is not below another one."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ArgumentTypeError(f"expected a whole number from {least} up, got {text!r}")
        return number

    return read


def above_zero(text: str) -> float:
    """The type of a duration or a share."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def existing_folder(text: str) -> Path:
    """The type of a folder that is written into."""
    if not Path(text).is_dir():
        raise ArgumentTypeError(f"{text!r} is no folder; make it, or name another one")
    return Path(text)


def named(parser: ArgumentParser, option: str, words: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """The names that hold one of the words; all without words. Ends the program where a word is in none."""
    for word in words or ():
        if not any(word in name for name in names):
            parser.error(f"argument {option}: {word!r} is in no name; expected a part of one of: {', '.join(names)}")
    return [name for name in names if not words or any(word in name for word in words)]
