"""The checks of shapes that the test run adds: each combination of arguments once, and never a wrong one."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tests.support.shapes import checked
from tshsr.models.attention import masked_softmax


@checked
def product(
    left: Float[Tensor, "rows inner"], right: Float[Tensor, "inner columns"], *, extra: int = 0
) -> Float[Tensor, "rows columns"]:
    return left @ right if extra == 0 else left


@checked
def total(items: list[Float[Tensor, "rows columns"]]) -> int:
    return len(items)


def test_a_wrong_argument_or_result_is_refused_after_right_ones_too() -> None:
    good = torch.zeros(2, 3), torch.zeros(3, 4)
    for _ in range(2):
        assert product(*good).shape == (2, 4)
        with pytest.raises(TypeCheckError, match="right"):
            product(good[0], torch.zeros(4, 3))
        with pytest.raises(TypeCheckError, match="left"):
            product(good[0].long(), good[1])
        with pytest.raises(TypeCheckError, match="return value"):
            product(*good, extra=1)


def test_lists_of_unlike_items_are_checked_every_time() -> None:
    alike, unlike = torch.zeros(2, 1), torch.zeros(3, 1)
    assert total([alike, alike]) == 2
    refused = 0
    for _ in range(100):  # beartype checks one item, drawn at random
        try:
            total([alike, unlike.long()])
        except TypeCheckError:
            refused += 1
    assert 10 < refused < 90


def test_functions_of_the_package_are_checked() -> None:
    logits = torch.zeros(2, 3)
    masked_softmax(logits, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeCheckError, match="mask"):
        masked_softmax(logits, torch.ones(2, 4, dtype=torch.bool))
