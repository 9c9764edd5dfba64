"""Conversion of inputs to numpy arrays: arrays, tensors on any device, nested lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from tshsr.errors import InputError

Numbers: TypeAlias = np.ndarray | torch.Tensor | Sequence[Any]
"""An array, a tensor, or (nested) lists of numbers or of these."""


def as_array(values: Numbers) -> np.ndarray:
    """A numpy array of the values, sharing memory where possible.

    Raises:
        InputError: Where they cannot form an array.
    """
    try:
        if isinstance(values, torch.Tensor):
            return tensor_to_array(values)
        if isinstance(values, Sequence):
            values = [tensor_to_array(each) if isinstance(each, torch.Tensor) else each for each in values]
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"a {type(values).__name__} cannot be read as an array ({reason}); give a dense array or tensor, or lists "
            "of equal length."
        ) from None


def tensor_to_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values without its gradient; bfloat16, unknown to numpy, becomes float32."""
    plain = tensor.detach().cpu()
    array: np.ndarray = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def as_matrix(values: Numbers, name: str) -> np.ndarray:
    """A score matrix.

    Args:
        values: Images x captions.
        name: Its name in error messages, in the plural.

    Raises:
        InputError: Where it is not a matrix of floats, or is empty.
    """
    matrix = as_array(values)
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.dtype.kind != "f":
        raise InputError(
            f"{name} are {matrix.dtype} of shape {matrix.shape}; expected floats of shape images x captions, not empty."
        )
    return matrix


def as_rows(values: Numbers) -> np.ndarray:
    """The row of each caption's image: int64.

    Raises:
        InputError: Where they are not a list of integers.
    """
    rows = as_array(values)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"captions are {rows.dtype} of shape {rows.shape}; expected whole numbers, for each caption the row of its "
            "image, or one path: convert them, as in captions.astype(int)."
        )
    return rows.astype(np.int64)
