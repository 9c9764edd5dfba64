"""Is an explanation true? Deletion and insertion curves, the areas under them, and paired intervals (docs/metrics.md).

Axes: pairs | items (regions or words of a pair) | points (of a curve) | resamples. No network is known here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tshsr.errors import InputError
from tshsr.metrics.bootstrap import bootstrap_counts
from tshsr.metrics.report import Area, AreaDifference, Curve

STEPS = 12
"""A curve takes this many steps at most: 36 regions go three at a time, twelve words one by one."""
CONFIDENCE = 0.95
LEAST_PAIRS = 30
"""Below this many pairs there is no interval: so few say little of others."""


def removed(items: int) -> np.ndarray:
    """How many items are gone at each point of a curve: from none to all but one.

        k_j = round( j (n - 1) / J ),   j = 0..J,   J = min(n - 1, 12)

    Nothing is left out of all: no network scores an empty picture or caption.
    """
    return np.rint(np.linspace(0, items - 1, min(items - 1, STEPS) + 1)).astype(np.int64)


def places(relevance: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The place of each item, the most relevant at 0; equal ones stand in random order."""
    place = np.empty(len(relevance), np.int64)
    place[np.lexsort((generator.random(len(relevance)), -relevance))] = np.arange(len(relevance))
    return place


def kept(place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items are there at each point of the deletion curve and of the insertion curve: two of points x items.

    Both begin with all items and end with one. The insertion curve is read from its end, which leaves its area.
    """
    gone = removed(len(place))[:, None]
    return place >= gone, place < len(place) - gone


def area(scores: np.ndarray, items: int) -> float:
    """The area under a curve by the trapezoid rule; the share of the items that can go is the abscissa, 0 to 1.

        area = sum_j (x_{j+1} - x_j) (s_j + s_{j+1}) / 2,   x_j = k_j / (n - 1)

    Of a single item nothing can be taken away: the area is its score.
    """
    if items == 1:
        return float(scores[0])
    widths = np.diff(removed(items)) / (items - 1)
    return float((widths * (scores[1:] + scores[:-1]) / 2).sum())


def compare_areas(
    areas: Mapping[str, np.ndarray], full: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> Curve:
    """The normalised areas of rankings of the same pairs, and the first ranking against the others.

        normalised = sum_i area_i / sum_i |full_i|

    A ratio of sums, and not a mean of ratios: a pair whose full score is near zero counts little, not without bound.
    Pairs are drawn with replacement, the same for all rankings; an interval holds the middle 95 % of what comes out.
    Where pairs are fewer than `LEAST_PAIRS`, nothing is drawn and there is no interval.

    Args:
        areas: By ranking, one number a pair.
        full: The score of each whole pair.
        resamples: How many.
        seed: Of the resampling.

    Raises:
        InputError: Where there is no score but zero, or a number is not finite.
    """
    rankings = tuple(areas)
    table = np.stack([*areas.values(), np.abs(full)], axis=1).astype(np.float64)
    if not np.isfinite(table).all() or not table[:, -1].any():
        raise InputError(
            "the areas under curves need finite scores that are not all zero; this network tells no pair from another. "
            "Train it, or load another checkpoint."
        )
    resamples = resamples if len(table) >= LEAST_PAIRS else 0
    several = [counts @ table for counts in bootstrap_counts(len(table), 1, resamples, np.random.default_rng(seed))]
    drawn = np.concatenate([np.empty((0, table.shape[1])), *several])
    seen, drawn = _normalised(table.sum(axis=0)), _normalised(drawn)
    first = rankings[0]
    return Curve(
        areas={name: Area(*_interval(seen[number], drawn[:, number])) for number, name in enumerate(rankings)},
        differences=tuple(
            AreaDifference(first, name, *_interval(seen[0] - seen[number], drawn[:, 0] - drawn[:, number]))
            for number, name in enumerate(rankings)
            if number
        ),
    )


def _normalised(sums: np.ndarray) -> np.ndarray:
    """Sums of areas over the sum of full scores, which stands last; draws of zeros alone are zero."""
    normalised: np.ndarray = sums[..., :-1] / np.maximum(sums[..., -1:], np.finfo(np.float64).tiny)
    return normalised


def _interval(mean: float, drawn: np.ndarray) -> tuple[float, float | None, float | None]:
    if not len(drawn):
        return float(mean), None, None
    outside = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, (outside, 1 - outside))
    return float(mean), float(low), float(high)
