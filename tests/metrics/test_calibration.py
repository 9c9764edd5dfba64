"""Calibration error, Brier score and logarithmic loss: hand-computed cases, a plain-loop oracle, ties."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tshsr.errors import InputError
from tshsr.metrics.calibration import calibration_figures, reliability_bins


def loop_figures(p: list[float], y: list[bool], edges: list[float]) -> tuple[float, float, float]:
    """Error, Brier score and loss by loops; a pair is in the first bin whose upper edge is not below it."""
    bins: dict[int, list[int]] = {}
    for pair, each in enumerate(p):
        number = 0
        while number < len(edges) and each > edges[number]:
            number += 1
        bins.setdefault(number, []).append(pair)
    error = 0.0
    for pairs in bins.values():
        mean = sum(p[pair] for pair in pairs) / len(pairs)
        share = sum(y[pair] for pair in pairs) / len(pairs)
        error += len(pairs) / len(p) * abs(mean - share)
    brier = sum((each - right) ** 2 for each, right in zip(p, y, strict=True)) / len(p)
    loss = -sum(math.log(each if right else 1 - each) for each, right in zip(p, y, strict=True)) / len(p)
    return error, brier, loss


def test_a_case_computed_by_hand() -> None:
    found = calibration_figures(np.array([0.2, 0.2, 0.8, 0.8]), np.array([False, True, True, True]), bins=2)
    assert (found.pairs, found.matches) == (4, 3)
    assert [(each.pairs, each.probability, each.frequency) for each in found.bins] == [(2, 0.2, 0.5), (2, 0.8, 1.0)]
    assert found.error == pytest.approx(0.25)
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.04 + 0.04) / 4)
    assert found.log_loss == pytest.approx(-(3 * math.log(0.8) + math.log(0.2)) / 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_a_plain_loop(seed: int) -> None:
    dice = np.random.default_rng(seed)
    p = dice.random(200).round(2).clip(0.01, 0.99)
    y = dice.random(200) < p**2
    edges = sorted(set(np.quantile(p, [0.2, 0.4, 0.6, 0.8], method="lower").tolist()))
    found = calibration_figures(p, y, bins=5)
    assert (found.error, found.brier, found.log_loss) == pytest.approx(loop_figures(p.tolist(), y.tolist(), edges))


def test_frequencies_that_are_the_probabilities_have_no_error() -> None:
    p = np.repeat([0.1, 0.5, 0.9], 10)
    y = np.concatenate([np.arange(10) < count for count in (1, 5, 9)])
    assert calibration_figures(p, y).error == pytest.approx(0)


def test_equal_probabilities_share_a_bin_whatever_their_order() -> None:
    p, y = np.full(30, 0.5), np.arange(30) < 15
    assert len(reliability_bins(p, y)) == 1
    assert calibration_figures(p, y).error == 0


def test_certain_probabilities_have_a_finite_loss() -> None:
    assert calibration_figures(np.array([0.0, 1.0]), np.array([True, True])).log_loss == pytest.approx(13.8, abs=0.1)


@pytest.mark.parametrize("wrong", [[0.5, 1.5], [0.5, float("nan")], [-0.1, 0.5]])
def test_numbers_that_are_no_probabilities_are_refused(wrong: list[float]) -> None:
    with pytest.raises(InputError, match=r"a probability is outside 0\.\.1, or not a number; calibrate the scores"):
        calibration_figures(np.array(wrong), np.array([True, False]))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected a match for each probability, at least one; got shapes \(2,\)"):
        calibration_figures(np.array([0.1, 0.2]), np.array([True]))
