"""Deletion and insertion curves of explanations, their areas, and paired intervals (docs/metrics.md).

Axes: pairs | items (regions or words of a pair) | points (of a curve) | resamples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tshsr.errors import InputError
from tshsr.metrics.bootstrap import bootstrap_counts
from tshsr.metrics.report import Area, AreaDifference, Curve

STEPS = 12
"""Maximum steps of a curve: 36 regions are removed three at a time, twelve words one by one."""
CONFIDENCE = 0.95
LEAST_PAIRS = 30
"""Minimum pairs for an interval."""


def removed_per_point(items: int) -> np.ndarray:
    """Number of removed items at each point of a curve: from none to all but one.

        k_j = round( j (n - 1) / J ),   j = 0..J,   J = min(n - 1, 12)

    One item stays, as networks score no empty image or caption.
    """
    return np.rint(np.linspace(0, items - 1, min(items - 1, STEPS) + 1)).astype(np.int64)


def ranks_of(relevance: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rank of each item by relevance, 0 for the highest; ties in random order."""
    rank = np.empty(len(relevance), np.int64)
    rank[np.lexsort((generator.random(len(relevance)), -relevance))] = np.arange(len(relevance))
    return rank


def remaining_masks(rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the remaining items at each point of the deletion and of the insertion curve, each points x items.

    Both begin with all items and end with one: the insertion curve is reversed, which preserves its area.
    """
    removed_counts = removed_per_point(len(rank))[:, None]
    return rank >= removed_counts, rank < len(rank) - removed_counts


def area(scores: np.ndarray, items: int) -> float:
    """Area under a curve by the trapezoid rule; abscissa: removed share of the removable items, 0 to 1.

        area = sum_j (x_{j+1} - x_j) (s_j + s_{j+1}) / 2,   x_j = k_j / (n - 1)

    For a single item the area is the score.
    """
    if items == 1:
        return float(scores[0])
    widths = np.diff(removed_per_point(items)) / (items - 1)
    return float((widths * (scores[1:] + scores[:-1]) / 2).sum())


def compare_areas(
    areas: Mapping[str, np.ndarray], full: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> Curve:
    """Normalised areas of several rankings of the same pairs, and the first ranking against the others.

        normalised = sum_i area_i / sum_i |full_i|

    A ratio of sums instead of a mean of ratios bounds the influence of pairs with a full score near zero. Intervals are
    95 % percentile intervals of a paired bootstrap over pairs; none below `LEAST_PAIRS` pairs.

    Args:
        areas: By ranking, one value per pair.
        full: The score of each complete pair.

    Raises:
        InputError: Where all scores are zero, or a value is not finite.
    """
    rankings = tuple(areas)
    table = np.stack([*areas.values(), np.abs(full)], axis=1).astype(np.float64)
    if not np.isfinite(table).all() or not table[:, -1].any():
        raise InputError(
            "the areas under curves need finite scores that are not all zero; this network gives all pairs the same "
            "score. Train it, or load another checkpoint."
        )
    resamples = resamples if len(table) >= LEAST_PAIRS else 0
    chunks = [counts @ table for counts in bootstrap_counts(len(table), 1, resamples, np.random.default_rng(seed))]
    drawn = np.concatenate([np.empty((0, table.shape[1])), *chunks])
    measured, drawn = _normalised(table.sum(axis=0)), _normalised(drawn)
    first = rankings[0]
    return Curve(
        areas={name: Area(*_interval(measured[number], drawn[:, number])) for number, name in enumerate(rankings)},
        differences=tuple(
            AreaDifference(first, name, *_interval(measured[0] - measured[number], drawn[:, 0] - drawn[:, number]))
            for number, name in enumerate(rankings)
            if number
        ),
    )


def _normalised(sums: np.ndarray) -> np.ndarray:
    """Sums of areas divided by the sum of full scores, the last column; 0 where that is 0."""
    normalised: np.ndarray = sums[..., :-1] / np.maximum(sums[..., -1:], np.finfo(np.float64).tiny)
    return normalised


def _interval(mean: float, drawn: np.ndarray) -> tuple[float, float | None, float | None]:
    if not len(drawn):
        return float(mean), None, None
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (outside, 1 - outside))
    return float(mean), float(low), float(high)
