"""Calibration of probabilities: does a result shown with probability p match in a share p of the cases?

Axes: pairs (a query with one of its results).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tshsr.config.strict import STRICT
from tshsr.errors import InputError

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""
SMALLEST = 1e-12
"""Probabilities are kept this far from 0 and 1 in the logarithmic loss."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of similar probability: one point of a reliability diagram.

    Attributes:
        pairs: Number of pairs.
        probability: Their mean probability.
        frequency: Share of them that match.
    """

    __pydantic_config__ = STRICT

    pairs: int
    probability: float
    frequency: float


@dataclass(frozen=True)
class CalibrationFigures:
    """How well probabilities agree with frequencies, over the pairs of one population.

    Attributes:
        pairs: Number of pairs.
        matches: How many of them match.
        error: Expected calibration error, 0..1; 0 also for one constant probability, so that it needs the next two.
        brier: Mean squared difference of probability and outcome, 0..1.
        log_loss: Mean negative logarithm of the probability of the outcome, in nats.
        bins: The reliability diagram, by ascending probability.
    """

    __pydantic_config__ = STRICT

    pairs: int
    matches: int
    error: float
    brier: float
    log_loss: float
    bins: tuple[ReliabilityBin, ...]


def calibration_figures(probabilities: np.ndarray, matches: np.ndarray, *, bins: int = BINS) -> CalibrationFigures:
    """All figures of one population.

        brier = 1/n sum_i (p_i - y_i)^2,     log loss = -1/n sum_i [y_i ln p_i + (1 - y_i) ln(1 - p_i)]

    Args:
        probabilities: Numbers in 0..1, any shape.
        matches: Whether each pair matches, of the same shape.
        bins: Largest number of bins.

    Raises:
        InputError: Where there is no pair, shapes differ, or a probability is outside 0..1.
    """
    p, y = check_probabilities(probabilities, matches)
    found = reliability_bins(p, y, bins=bins)
    inside = np.clip(p, SMALLEST, 1 - SMALLEST)
    return CalibrationFigures(
        pairs=len(p),
        matches=int(y.sum()),
        error=calibration_error(found),
        brier=float(np.mean((p - y) ** 2)),
        log_loss=float(-np.mean(np.where(y, np.log(inside), np.log1p(-inside)))),
        bins=found,
    )


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015; Guo et al., ICML 2017).

    ECE = sum_b n_b / n |mean probability_b - frequency_b|
    """
    pairs = sum(each.pairs for each in bins)
    return sum(each.pairs * abs(each.probability - each.frequency) for each in bins) / pairs


def reliability_bins(probabilities: np.ndarray, matches: np.ndarray, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Bins of about equally many pairs; equal probabilities share a bin.

    Probabilities of a search lie close to 0, where bins of equal width would put nearly all of them into one.

    Raises:
        InputError: As `calibration_figures`.
    """
    p, y = check_probabilities(probabilities, matches)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    numbers = np.searchsorted(edges, p, side="left")
    found = []
    for number in range(len(edges) + 1):
        chosen = numbers == number
        if chosen.any():
            found.append(ReliabilityBin(int(chosen.sum()), float(p[chosen].mean()), float(y[chosen].mean())))
    return tuple(found)


def check_probabilities(probabilities: np.ndarray, matches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as flat arrays, float64 and bool.

    Raises:
        InputError: Where there is no pair, shapes differ, or a probability is outside 0..1.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(matches, bool)
    if p.shape != y.shape or not p.size:
        raise InputError(f"expected a match for each probability, at least one; got shapes {p.shape} and {y.shape}.")
    if not ((p >= 0) & (p <= 1)).all():  # NaN included
        raise InputError("a probability is outside 0..1, or not a number; calibrate the scores first.")
    return p.ravel(), y.ravel()
