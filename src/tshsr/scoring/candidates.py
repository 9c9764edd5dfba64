"""Which pairs a two-stage search reasons about, and what that loses.

A query whose best answer is found among its first candidates needs no more of them; one whose first candidates all
score poorly does. So K is a mean: all queries have K / 2 candidates first, then the rest goes where the best score is
low.

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
"""So many candidates of a query tell how good its best answer is, or K / 2 of them where that is less."""


@dataclass(frozen=True)
class Depth:
    """How many candidates of a query are reasoned about, on average over the queries of its side.

    Attributes:
        k_images: Of an image, the captions with the highest v·t.
        k_captions: Of a caption, the images with the highest v·t.

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
        """The depth for more images x captions than those it was chosen among: ranks grow with what is ranked."""
        images, captions = (max(1.0, many / few) for many, few in zip(wanted, known, strict=True))
        return Depth(math.ceil(self.k_images * captions), math.ceil(self.k_captions * images))


@dataclass(frozen=True)
class Shares:
    """What each query gets of its side's K: the candidates at places r = 0, 1, ... with r / share < K.

    Attributes:
        images: One for each image.
        captions: One for each caption.
    """

    images: np.ndarray
    captions: np.ndarray

    @classmethod
    def alike(cls, shape: tuple[int, ...], share: float) -> Shares:
        """The same share for all."""
        return cls(np.full(shape[0], share), np.full(shape[1], share))

    @classmethod
    def by_best(cls, fused: np.ndarray, pooled: np.ndarray, first: tuple[int, int] = (FIRST, FIRST)) -> Shares:
        """From 1/2 for the query with the highest best score to 3/2 for that with the lowest, 1 on average.

        Args:
            fused: Scores, known at least for the first candidates of every query.
            pooled: v·t of all pairs.
            first: How many candidates of an image, and of a caption, tell its best score.
        """
        images, captions = (best_score(fused, pooled, axis, few) for axis, few in zip((1, 0), first, strict=True))
        return cls(_shares(images), _shares(captions))

    def of_lines(self, axis: int, lines: tuple[slice, slice]) -> np.ndarray:
        """The shares of some lines along an axis, to go with their pairs."""
        values = (self.captions if axis == 0 else self.images)[lines[1 - axis]]
        return np.expand_dims(values, axis)


def _shares(best: np.ndarray) -> np.ndarray:
    """1/2 + the part of the queries whose best score is higher."""
    shares = np.empty(len(best))
    shares[np.argsort(-best, kind="stable")] = (np.arange(len(best)) + 0.5) / len(best) + 0.5
    return shares


def best_score(fused: np.ndarray, pooled: np.ndarray, axis: int, few: int) -> np.ndarray:
    """The highest score among the few best by v·t of each line along an axis."""
    found = np.empty(pooled.shape[1 - axis], fused.dtype)
    for lines in blocks_across(pooled.shape, axis):
        best = best_places(pooled[lines], axis, few)
        found[lines[1 - axis]] = np.take_along_axis(fused[lines], best, axis=axis).max(axis=axis)
    return found


def best_places(pooled: np.ndarray, axis: int, few: int) -> np.ndarray:
    """Where along an axis the few highest v·t are, highest first."""
    few = min(few, pooled.shape[axis])
    places: np.ndarray = torch.from_numpy(np.ascontiguousarray(pooled)).topk(few, dim=axis).indices.numpy()
    return places


def candidates(pooled: np.ndarray, depth: Depth, shares: Shares | None = None) -> np.ndarray:
    """The pairs among the best of their image or of their caption by v·t, as a mask.

    Args:
        pooled: v·t of all pairs.
        depth: K of either side.
        shares: What each query gets of it; None: all of it. A K of all there is remains all.
    """
    shares = shares or Shares.alike(pooled.shape, 1)
    chosen = np.zeros(pooled.shape, dtype=bool)
    for axis, k, most in ((0, depth.k_captions, shares.captions.max()), (1, depth.k_images, shares.images.max())):
        for lines in blocks_across(pooled.shape, axis):
            best = best_places(pooled[lines], axis, max(k, math.ceil(k * most) + 1))  # one more, for rounding
            order = np.expand_dims(np.arange(best.shape[axis]), 1 - axis)
            within_k = (order / shares.of_lines(axis, lines) < k) | (k >= pooled.shape[axis])
            # What another side has chosen stays chosen.
            within_k |= np.take_along_axis(chosen[lines], best, axis=axis)
            np.put_along_axis(chosen[lines], best, within_k, axis=axis)
    return chosen


def rounds(fused: np.ndarray, pooled: np.ndarray, depth: Depth) -> Iterator[np.ndarray]:
    """The pairs that are to be known after each of two rounds: K / 2 for every query, then by need.

    Args:
        fused: Scores; those of the first round must be there when the second is asked for.
        pooled: v·t of all pairs.
        depth: K of either side.
    """
    yield candidates(pooled, depth, Shares.alike(pooled.shape, 0.5))
    images, captions = (min(FIRST, math.ceil(k / 2)) for k in (depth.k_images, depth.k_captions))
    yield candidates(pooled, depth, Shares.by_best(fused, pooled, (images, captions)))


def blocks_across(shape: tuple[int, ...], axis: int) -> Iterator[tuple[slice, slice]]:
    """Whole lines along an axis, some at a time."""
    size = max(1, BLOCK // shape[axis])
    for start in range(0, shape[1 - axis], size):
        some = slice(start, start + size)
        yield (slice(None), some) if axis == 0 else (some, slice(None))


def merged(fused: np.ndarray, pooled: np.ndarray, reasoned: np.ndarray) -> np.ndarray:
    """Reasoned scores where there are any, below all of them v·t."""
    scores = pooled - np.float32(pooled.max() - fused[reasoned].min() + 1)
    np.copyto(scores, fused, where=reasoned)
    return scores


def ceiling(reasoned: np.ndarray, image_of_caption: np.ndarray) -> tuple[float, float]:
    """Queries with a right answer among their candidates, in percent: the recall that no second stage can exceed.

    Returns:
        Of images (any of their captions), and of captions.
    """
    kept = reasoned[image_of_caption, np.arange(len(image_of_caption))]
    found = np.zeros(len(reasoned), dtype=bool)
    np.logical_or.at(found, image_of_caption, kept)
    return 100.0 * int(found.sum()) / len(found), 100.0 * int(kept.sum()) / len(kept)


def lost(full: ScoreMetrics, short: ScoreMetrics) -> tuple[float, ...]:
    """Points that R@1, R@5 and R@10 of image to text, then of text to image, lose by the short cut; below 0: gain."""
    return tuple(a - b for a, b in zip(full.recalls, short.recalls, strict=True))
