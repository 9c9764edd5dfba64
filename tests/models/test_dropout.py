"""Dropout: shares, scale, randomness and gradients, against PyTorch's where that is exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tshsr.models.dropout import LEVELS, Dropout


def dropped(p: float, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Dropout of ones."""
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(*shape, dtype=dtype))


@pytest.mark.parametrize("p", [0.1, 0.4, 0.9])
def test_a_share_is_zero_and_the_rest_keeps_the_mean(p: float) -> None:
    found = dropped(p, 1000, 1001)
    kept = round(LEVELS * (1 - p)) / LEVELS
    assert found.unique().tolist() == pytest.approx([0.0, 1 / kept])
    count = found.numel()
    deviation = (p * (1 - p) / count) ** 0.5
    assert float((found > 0).double().mean()) == pytest.approx(kept, abs=4 * deviation)
    assert float(found.double().mean()) == pytest.approx(1.0, abs=4 * deviation / kept)


def test_values_are_dropped_apart_from_each_other() -> None:
    """The four values of a number of 64 bits, and rows and columns, correlate no more than chance makes them."""
    mask = (dropped(0.4, 2000, 800) > 0).double() - 0.6
    bound = 4 * 0.24 / mask.numel() ** 0.5
    for shift in (1, 2, 3, 4, 5, 800):
        flat = mask.flatten()
        assert abs(float((flat[:-shift] * flat[shift:]).mean())) < bound, shift
    lanes = mask.view(-1, 4).mean(dim=0)
    assert lanes.abs().max() < 4 * (0.24 / (mask.numel() / 4)) ** 0.5, "every 16 bits have the whole range"


@pytest.mark.parametrize("shape", [(0,), (1,), (3,), (4,), (5,), (2, 3, 7)])
def test_any_shape_and_precision(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        found = dropped(0.5, *shape, dtype=dtype)
        assert (found.shape, found.dtype) == (shape, dtype)


def test_the_seed_decides_and_calls_differ() -> None:
    assert torch.equal(dropped(0.4, 50, 50), dropped(0.4, 50, 50))
    assert not torch.equal(dropped(0.4, 50, 50), dropped(0.4, 50, 50, seed=1))
    module, values = Dropout(0.4), torch.ones(50, 50)
    assert not torch.equal(module(values), module(values))


def test_the_gradient_is_the_mask() -> None:
    values = torch.randn(40, 30, requires_grad=True)
    torch.manual_seed(3)
    found = Dropout(0.3)(values)
    found.sum().backward()
    torch.manual_seed(3)
    torch.testing.assert_close(values.grad, Dropout(0.3)(torch.ones(40, 30)))


@pytest.mark.parametrize("p", [0.0, 1e-9, 1.0])
def test_nothing_and_everything(p: float) -> None:
    assert torch.equal(dropped(p, 9, 9), torch.full((9, 9), float(p < 1)))


def test_outside_training_values_pass() -> None:
    values = torch.randn(5)
    assert Dropout(0.4).eval()(values) is values
    assert isinstance(Dropout(0.4), nn.Dropout)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        Dropout(1.5)
