"""Exceptions of the package; a message is one sentence: expected, got, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


HALF = re.compile("[\ud800-\udfff]")
"""Half of a pair of surrogates: Python reads pairs as one character."""
MOST_CHARACTERS = 1000
"""Of a message; a longer one repeats a value of a file, and is cut in its middle."""


class TshsrError(Exception):
    """Base of all errors that a user can fix; the command line prints the message and exits with 2."""

    def __str__(self) -> str:
        """The message, of at most `MOST_CHARACTERS`."""
        text = super().__str__()
        half = MOST_CHARACTERS // 2 - 3
        return text if len(text) <= MOST_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


class DataError(TshsrError):
    """A file or folder of data is missing, damaged or of another kind."""


class PictureError(DataError):
    """A picture cannot be decoded: damaged, truncated, empty, too large, or no picture."""


class UnknownPictureError(DataError):
    """An id names no picture of an index or a split."""


class FilterError(DataError):
    """A filter cannot be used on the metadata of an index."""


class SettingsError(TshsrError):
    """A setting, recipe or argument has an unknown name or an invalid value."""


class InputError(TshsrError):
    """Tensors or scores given to a public function have a wrong shape or non-finite values."""


class CheckpointError(TshsrError):
    """A run's folder is missing, incomplete, or does not fit the model or the data."""


class CollapseError(TshsrError):
    """Training stopped because all pairs have the same score."""


class DivergenceError(TshsrError):
    """Training stopped because the loss or its gradient is not finite."""


class ProcessError(TshsrError):
    """Another process of the same job was lost."""


@dataclass(frozen=True)
class InvalidValue:
    """A value that fails the validation of pydantic.

    Attributes:
        place: Its path, "a.0.b"; empty for the whole document.
    """

    place: str
    reason: str
    value: Any

    def __str__(self) -> str:
        """The place and the reason, as a clause of an error message."""
        return f"{self.place}: {self.reason}" if self.place else self.reason


def reason_in(error: BaseException) -> str:
    """The message of another library's error on one line; the name of its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line_in(error: BaseException) -> str:
    """The first line of the message of another library's error; the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """A JSON value.

    Args:
        options: Of `json.loads`.

    Raises:
        ValueError: Where the text is no JSON, is nested too deeply for Python's parser, or holds half a character (one
            of a pair of surrogates), which no file and no other library takes.
    """
    try:
        value = json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    escape = b"\\u" if isinstance(text, bytes) else "\\u"
    if (escape in text or not text.isascii()) and has_half_character(value):  # type: ignore[operator]
        raise ValueError("it holds half a character")
    return value


def has_half_character(value: Any) -> bool:
    """Whether a text in a JSON value holds one of a pair of surrogates."""
    waiting = [value]  # a call for each level of nesting would pass Python's limit before its parser does
    while waiting:
        one = waiting.pop()
        if isinstance(one, str) and not one.isascii() and HALF.search(one) is not None:
            return True
        if isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return False


def first_invalid(error: ValidationError, *, omit: Collection[str] = ()) -> InvalidValue:
    """The first invalid value of a validation.

    Args:
        omit: Parts of the path that the document does not have, such as the tags of a union.
    """
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in omit)
    return InvalidValue(place, str(first["msg"]), first["input"])
