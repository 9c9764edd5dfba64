"""The package's exceptions: each carries one sentence that says what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class TshsrError(Exception):
    """The root of every error that a user can mend; the command line prints its sentence and exits with 2."""


class DataError(TshsrError):
    """A file or folder of data is missing, damaged or not what it claims to be."""


class PictureError(DataError):
    """A picture cannot be read: broken, truncated, empty, too large, or no picture at all."""


class SettingsError(TshsrError):
    """A setting, recipe or argument has a name or value that cannot be used."""


class InputError(TshsrError):
    """Tensors or scores given to a public function have a wrong shape, or hold values that are not finite."""


class CheckpointError(TshsrError):
    """A run's folder is missing, incomplete, or does not fit the model or the data."""


class CollapseError(TshsrError):
    """Training stopped because the network scores every pair alike."""


class DivergenceError(TshsrError):
    """Training stopped because the loss or its gradient is no longer a finite number."""


@dataclass(frozen=True)
class InvalidValue:
    """A value that pydantic refuses.

    Attributes:
        place: Its path, "a.0.b"; empty for the whole document.
        reason: What was expected.
        value: The value itself.
    """

    place: str
    reason: str
    value: Any

    def __str__(self) -> str:
        """The place and the reason, as a clause of an error message."""
        return f"{self.place}: {self.reason}" if self.place else self.reason


def first_invalid(error: ValidationError, *, omit: Collection[str] = ()) -> InvalidValue:
    """The first invalid value of a validation.

    Args:
        error: As pydantic raises it.
        omit: Parts of the path that the document does not have, such as the tags of a union.
    """
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in omit)
    return InvalidValue(place, str(first["msg"]), first["input"])
