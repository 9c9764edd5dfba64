"""Candidates of a two-stage search, the pairs that the network scores, and the loss of recall.

A query with a high best score among its first candidates needs few more; one with low scores needs many. So K is a mean
over queries: each has K / 2 candidates at first, and the other half is distributed by best score, more for lower ones.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.errors import SettingsError
from tshsr.metrics.recall import BLOCK, ScoreMetrics

FIRST = 10
"""Number of candidates that determine the best score of a query (K / 2 if less)."""


@dataclass(frozen=True)
class Depth:
    """Mean number of candidates per query.

    Attributes:
        k_images: Captions per image, by highest v·t.
        k_captions: Images per caption, by highest v·t.

    Raises:
        SettingsError: Where one is below 1.
    """

    k_images: int
    k_captions: int

    def __post_init__(self) -> None:
        if min(self.k_images, self.k_captions) < 1:
            raise SettingsError(
                f"{min(self.k_images, self.k_captions)} candidates were asked for; expected at least 1, or auto."
            )

    def scaled(self, known: tuple[int, int], wanted: tuple[int, int]) -> Depth:
        """The depth for a larger split than the one of its choice: ranks grow in proportion to the number of items.

        Args:
            known: Images and captions of the split of the choice.
            wanted: Images and captions of the split to search.
        """
        images, captions = (max(1.0, many / few) for many, few in zip(wanted, known, strict=True))
        return Depth(math.ceil(self.k_images * captions), math.ceil(self.k_captions * images))


@dataclass(frozen=True)
class Shares:
    """Factors on K, one per image and one per caption; a query has the candidates of rank r >= 0 with r / share < K."""

    images: np.ndarray
    captions: np.ndarray

    @classmethod
    def equal(cls, shape: tuple[int, ...], share: float) -> Shares:
        """One share for all queries."""
        return cls(np.full(shape[0], share), np.full(shape[1], share))

    @classmethod
    def by_best(cls, fused: np.ndarray, pooled: np.ndarray, first: tuple[int, int] = (FIRST, FIRST)) -> Shares:
        """Shares from 1/2 (highest best score) to 3/2 (lowest best score), 1 on average.

        Args:
            fused: Scores, valid at least for the first candidates of every query.
            pooled: v·t of all pairs.
            first: Candidates per image, and per caption, that determine its best score.
        """
        images, captions = (best_score(fused, pooled, axis, few) for axis, few in zip((1, 0), first, strict=True))
        return cls(_shares(images), _shares(captions))

    def of_lines(self, axis: int, lines: tuple[slice, slice]) -> np.ndarray:
        """The shares of a block of rows or columns, broadcastable to the block."""
        values = (self.captions if axis == 0 else self.images)[lines[1 - axis]]
        return np.expand_dims(values, axis)


def _shares(best: np.ndarray) -> np.ndarray:
    """1/2 + the fraction of queries with a higher best score."""
    shares = np.empty(len(best))
    shares[np.argsort(-best, kind="stable")] = (np.arange(len(best)) + 0.5) / len(best) + 0.5
    return shares


def best_score(fused: np.ndarray, pooled: np.ndarray, axis: int, few: int) -> np.ndarray:
    """The highest score among the `few` best by v·t, for each row (axis 1) or column (axis 0)."""
    found = np.empty(pooled.shape[1 - axis], fused.dtype)
    for lines in blocks_across(pooled.shape, axis):
        best = top_indices(pooled[lines], axis, few)
        found[lines[1 - axis]] = np.take_along_axis(fused[lines], best, axis=axis).max(axis=axis)
    return found


def top_indices(pooled: np.ndarray, axis: int, few: int) -> np.ndarray:
    """Indices of the `few` highest v·t along an axis, highest first."""
    few = min(few, pooled.shape[axis])
    indices: np.ndarray = torch.from_numpy(np.ascontiguousarray(pooled)).topk(few, dim=axis).indices.numpy()
    return indices


def candidates(pooled: np.ndarray, depth: Depth, shares: Shares | None = None) -> np.ndarray:
    """Mask of the pairs among the best of their image or of their caption by v·t.

    Args:
        pooled: v·t of all pairs.
        depth: K of both sides.
        shares: Factors on K; None: 1. Not applied to a K that covers all items.
    """
    shares = shares or Shares.equal(pooled.shape, 1)
    chosen = np.zeros(pooled.shape, dtype=bool)
    for axis, k, most in ((0, depth.k_captions, shares.captions.max()), (1, depth.k_images, shares.images.max())):
        for lines in blocks_across(pooled.shape, axis):
            best = top_indices(pooled[lines], axis, max(k, math.ceil(k * most) + 1))  # + 1 for rounding
            order = np.expand_dims(np.arange(best.shape[axis]), 1 - axis)
            within_k = (order / shares.of_lines(axis, lines) < k) | (k >= pooled.shape[axis])
            # Candidates of the other side are kept.
            within_k |= np.take_along_axis(chosen[lines], best, axis=axis)
            np.put_along_axis(chosen[lines], best, within_k, axis=axis)
    return chosen


def candidate_rounds(fused: np.ndarray, pooled: np.ndarray, depth: Depth) -> Iterator[np.ndarray]:
    """Masks of the candidates after the first and after the second round: K / 2 per query, then by best score.

    Args:
        fused: Scores; the caller fills in those of the first round before it requests the second.
        pooled: v·t of all pairs.
        depth: K of both sides.
    """
    yield candidates(pooled, depth, Shares.equal(pooled.shape, 0.5))
    images, captions = (min(FIRST, math.ceil(k / 2)) for k in (depth.k_images, depth.k_captions))
    yield candidates(pooled, depth, Shares.by_best(fused, pooled, (images, captions)))


def blocks_across(shape: tuple[int, ...], axis: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of complete rows (axis 1) or columns (axis 0), of at most `BLOCK` scores."""
    size = max(1, BLOCK // shape[axis])
    for start in range(0, shape[1 - axis], size):
        lines = slice(start, start + size)
        yield (slice(None), lines) if axis == 0 else (lines, slice(None))


def candidates_first(fused: np.ndarray, pooled: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """The fused score of candidates; v·t of other pairs, shifted below the lowest candidate."""
    scores = pooled - np.float32(pooled.max() - fused[scored].min() + 1)
    np.copyto(scores, fused, where=scored)
    return scores


def recall_ceiling(scored: np.ndarray, image_of_caption: np.ndarray) -> tuple[float, float]:
    """Percentage of queries with a relevant item among their candidates: an upper bound on every recall.

    Returns:
        For images (any of their captions), and for captions.
    """
    kept = scored[image_of_caption, np.arange(len(image_of_caption))]
    found = np.zeros(len(scored), dtype=bool)
    np.logical_or.at(found, image_of_caption, kept)
    return 100.0 * int(found.sum()) / len(found), 100.0 * int(kept.sum()) / len(kept)


def lost(full: ScoreMetrics, short: ScoreMetrics) -> tuple[float, ...]:
    """Points lost in R@1, R@5 and R@10 of image to text, then of text to image; negative: gained."""
    return tuple(a - b for a, b in zip(full.recalls, short.recalls, strict=True))
