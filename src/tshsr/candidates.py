"""Which pairs a two-stage search reasons about, what that loses, and how few candidates lose next to nothing.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.errors import SettingsError
from tshsr.metrics import BLOCK, ScoreMetrics, score_metrics

CHOICES = (10, 15, 20, 25, 30, 40, 50, 60, 75, 100, 150, 200, 300, 500, 1000)
"""The K that `choose_depth` tries for either side: none below 10, as R@10 has ten places to fill."""

TOLERANCE = 0.1
"""Points that no recall should lose."""

SLACK = 1.05
"""How many more pairs `choose_depth` spends than it must on captions of an image: most are candidates already."""

RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Depth:
    """How many candidates of a query are reasoned about.

    Attributes:
        k_images: Of each image the captions with the highest v·t.
        k_captions: Of each caption the images with the highest v·t.

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


def candidates(pooled: np.ndarray, depth: Depth) -> np.ndarray:
    """The pairs among the best of their image or of their caption by v·t, as a mask."""
    chosen = np.zeros(pooled.shape, dtype=bool)
    for axis, k in ((0, depth.k_captions), (1, depth.k_images)):
        few = min(k, pooled.shape[axis])
        for lines in blocks_across(pooled.shape, axis):
            best = torch.from_numpy(np.ascontiguousarray(pooled[lines])).topk(few, dim=axis).indices.numpy()
            np.put_along_axis(chosen[lines], best, values=True, axis=axis)
    return chosen


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


def choose_depth(
    fused: np.ndarray,
    pooled: np.ndarray,
    image_of_caption: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    choices: Sequence[int] = CHOICES,
) -> tuple[Depth, tuple[float, ...]]:
    """Few pairs to reason about, and no recall that loses more than a tolerance, here or on other images of this kind.

    Both K are searched together, as they are worth different things: an image has a few right captions among many, a
    caption one right image among a few. The recalls of every pair of choices come out of one reading of the scores.
    What is lost and what is gained by chance cancel, and will not do so again on other images: so the loss here is to
    be half the tolerance, and that of every deeper choice within it.

    Args:
        fused: Scores of all pairs of a split whose answers are known.
        pooled: v·t of all its pairs.
        image_of_caption: For each caption the row of its image.
        tolerance: Points.
        choices: The K to try, smallest first.

    Returns:
        The depth, and the points lost as `lost` orders them. All pairs, and nothing lost, where no choice will do.
    """
    full = score_metrics(fused, image_of_caption).recalls
    size = len(choices) + 1
    place = size * places(pooled, 1, choices).astype(np.uint16) + places(pooled, 0, choices)
    points = np.array(full)[:, None, None] - recalls_by_depth(fused, place, image_of_caption, size)
    counts = np.bincount(place.ravel(), minlength=size**2).reshape(1, size, size)
    chosen = fewest(within(counts)[0], points.max(axis=0), tolerance)
    if chosen is None:
        return Depth(pooled.shape[1], pooled.shape[0]), (0.0,) * len(full)
    images, captions = chosen
    return Depth(choices[images], choices[captions]), tuple(points[:, images, captions].tolist())


def fewest(pairs: np.ndarray, worst: np.ndarray, tolerance: float) -> tuple[int, int] | None:
    """Where the fewest pairs lose little enough, as `choose_depth` says; None where no choice does.

    Args:
        pairs: Pairs by the choices for images (rows) and for captions (columns), which grow.
        worst: Points that the worst recall loses, by the same.
        tolerance: Points.
    """
    rounding = 1e-9
    steady = np.flip(worst <= tolerance + rounding)
    steady = np.flip(np.minimum.accumulate(np.minimum.accumulate(steady, axis=0), axis=1))
    good = steady & (worst <= tolerance / 2 + rounding)
    if not good.any():
        return None
    images, captions = np.nonzero(good & (pairs <= SLACK * pairs[good].min()))
    deepest = max(range(len(images)), key=lambda i: (images[i], captions[i]))
    return int(images[deepest]), int(captions[deepest])


def places(pooled: np.ndarray, axis: int, choices: Sequence[int]) -> np.ndarray:
    """For each pair how many choices of K leave it out, by its rank along an axis."""
    found = np.empty(pooled.shape, np.uint8)
    steps = np.searchsorted(choices, np.arange(pooled.shape[axis]), side="right").astype(np.uint8)
    for lines in blocks_across(pooled.shape, axis):
        order = np.argsort(-pooled[lines], axis=axis, kind="stable")
        np.put_along_axis(found[lines], order, np.expand_dims(steps, 1 - axis), axis=axis)
    return found


def recalls_by_depth(fused: np.ndarray, place: np.ndarray, image_of_caption: np.ndarray, size: int) -> np.ndarray:
    """R@1, R@5 and R@10 of both directions (first axis) for every pair of choices.

    A query without a right answer among its candidates has missed: before that answer stand all K candidates or more.
    """
    captions, depths = len(image_of_caption), (size - 1, size - 1)
    never = np.iinfo(np.int32).max
    of_image = np.full((len(fused), *depths), never, np.int32)
    of_caption = np.empty((captions, *depths), np.int32)
    for start in range(0, captions, max(1, BLOCK // captions)):
        some = np.arange(start, min(captions, start + max(1, BLOCK // captions)))
        owners = image_of_caption[some]
        own = np.asarray(fused[owners, some])[:, None]
        reasoned = within(one_hot(place[owners, some], size)) > 0
        ahead = (fused[owners] >= own) & (image_of_caption != owners[:, None])
        ranks = np.where(reasoned, 1 + reasoned_among(ahead, place[owners], size), never)
        np.minimum.at(of_image, owners, ranks.astype(np.int32))
        level = own <= fused[:, some].T  # with the caption's own image, which is the 1 of its rank
        of_caption[some] = np.where(reasoned, reasoned_among(level, place[:, some].T, size), never)
    found = [
        100.0 * np.count_nonzero(ranks <= k, axis=0) / len(ranks) for ranks in (of_image, of_caption) for k in RECALLS
    ]
    return np.stack(found)


def reasoned_among(marked: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """For each row how many of the marked pairs are reasoned about, for every pair of choices."""
    rows, columns = marked.nonzero()
    counts = np.bincount(rows * size**2 + place[rows, columns], minlength=len(marked) * size**2)
    return within(counts.reshape(-1, size, size))


def one_hot(place: np.ndarray, size: int) -> np.ndarray:
    """One pair a row, counted at its place."""
    counts: np.ndarray = np.eye(size**2, dtype=np.int64)[place].reshape(-1, size, size)
    return counts


def within(counts: np.ndarray) -> np.ndarray:
    """From pairs counted by place, those that each pair of choices takes: all but those beyond both."""
    beyond = counts[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, ::-1, ::-1]
    inside: np.ndarray = counts.sum(axis=(1, 2), keepdims=True) - beyond[:, 1:, 1:]
    return inside
