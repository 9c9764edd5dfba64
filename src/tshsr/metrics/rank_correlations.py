"""Kendall's tau-c and Spearman's rho of many weighted resamples at once.

Axes: resamples | judgements (in the order of their scores) | levels (different ratings). Ties are counted as each
formula says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 1 << 21
"""Weights of judgements held at once: bounds the temporary memory."""
FEW = 64
"""Different ratings up to which one pass a rating is the fastest way to count pairs."""


@dataclass(frozen=True)
class Groups:
    """Judgements in the order of their scores, with where equal ones stand.

    Attributes:
        order: What sorts the judgements by score.
        start: For each judgement in that order, where those with its score begin.
        end: Where they end.
        level: Its rating, as a number from 0.
        levels: Different ratings.
    """

    order: np.ndarray
    start: np.ndarray
    end: np.ndarray
    level: np.ndarray
    levels: int

    @classmethod
    def of(cls, scores: np.ndarray, ratings: np.ndarray) -> Groups:
        """Sort judgements."""
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        values, level = np.unique(ratings, return_inverse=True)
        start, end = np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")
        return cls(order, start, end, level[order], len(values))


def correlations(weights: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Tau-c and rho where each judgement stands so many times; NaN where all scores or ratings drawn are alike.

        tau_c = 2 m (C - D) / (n^2 (m - 1)),   m the smaller number of different values of the two
        rho   = the correlation of average ranks

    C counts pairs of judgements that score and rating order alike, D those that they order otherwise.

    Args:
        weights: resamples x judgements, in the order of the groups.
        groups: The judgements.

    Returns:
        Both, one value a resample.
    """
    counted = np.zeros((len(weights), groups.levels))
    np.add.at(counted.T, groups.level, weights.T)
    total = weights.sum(axis=1)
    ordered = ordered_by_level(weights, groups) if groups.levels <= FEW else ordered_by_pair(weights, groups)
    cumulative = before_each(weights)
    at_score = cumulative[:, groups.end] - cumulative[:, groups.start]
    firsts = groups.start == np.arange(len(groups.start))
    kinds = np.minimum((at_score[:, firsts] > 0).sum(axis=1), (counted > 0).sum(axis=1))
    below = before_each(counted)[:, :-1]
    rank_of_score = cumulative[:, groups.start] + (at_score + 1) / 2
    rank_of_rating = (below + (counted + 1) / 2)[:, groups.level]
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = 2 * kinds * ordered / (total**2 * (kinds - 1.0))
        centre = (total[:, None] + 1) / 2
        first, second = rank_of_score - centre, rank_of_rating - centre
        rho = (weights * first * second).sum(axis=1) / np.sqrt(
            (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
        )
    return np.where(kinds > 1, tau, np.nan), rho


def ordered_by_level(weights: np.ndarray, groups: Groups) -> np.ndarray:
    """C - D of each resample, by one pass for each different rating: steps grow with ratings times judgements."""
    found = np.zeros(len(weights))
    for level in range(groups.levels):
        (here,) = np.nonzero(groups.level == level)
        sign = np.sign(level - groups.level)
        before = before_each(weights * sign)[:, groups.start[here]]  # lower scores: lower ratings less higher ones
        found += (weights[:, here] * before).sum(axis=1)
    return found


def ordered_by_pair(weights: np.ndarray, groups: Groups) -> np.ndarray:
    """C - D of each resample, as products of matrices: no slower where every rating is another.

    C - D = 1/2 sum_ij w_i w_j sign(score_i - score_j) sign(rating_i - rating_j),   w how often each was drawn
    """
    step, found = max(1, CHUNK // weights.shape[1]), np.zeros(len(weights))
    for first in range(0, weights.shape[1], step):
        some = slice(first, first + step)
        signs = np.sign(groups.start[some, None] - groups.start) * np.sign(groups.level[some, None] - groups.level)
        found += (weights[:, some] * (weights @ signs.T.astype(np.float64))).sum(axis=1)
    return found / 2


def before_each(values: np.ndarray) -> np.ndarray:
    """Sums of all that stand before each place, and last of all."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
