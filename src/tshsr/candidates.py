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
from tshsr.metrics import BLOCK, ScoreMetrics, image_to_text_ranks, text_to_image_ranks

CHOICES = tuple(sorted({round(10 * 1.1**step) for step in range(49)}))
"""The K that `choose_depth` tries for either side, 10 to 970, each a tenth more than the one before: none below 10, as
R@10 has ten places to fill."""

TOLERANCE = 0.1
"""Points that no recall should lose."""

SHARE = 1 / 20
"""Of all pairs, how many a margin of safety may cost: fewer are what two stages are for."""

ROUNDING = 1e-9
"""Points that are no loss."""

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
    caption one right image among a few. What every pair of choices does comes out of one reading of the scores.

        loss = (queries that miss - queries that only hit because what stood before is no candidate) / queries
        risk = (max(0, the same difference) + sqrt(2 their sum)) / queries

    Such queries are few and come and go from split to split like counts of rare events (Poisson): the difference of
    two splits of one size strays by sqrt(2 (missed + gained)), one standard error. Gains here are luck, and not counted
    upon. See `best_place` for what is made of the two.

    Args:
        fused: Scores of all pairs of a split whose answers are known.
        pooled: v·t of all its pairs.
        image_of_caption: For each caption the row of its image.
        tolerance: Points.
        choices: The K to try, smallest first.

    Returns:
        The depth, and the points lost as `lost` orders them. All pairs, and nothing lost, where no choice will do.

    Raises:
        InputError: Where a score is not finite, or an image has no caption.
    """
    size = len(choices) + 1
    place = size * places(pooled, 1, choices).astype(np.uint16) + places(pooled, 0, choices)
    missed, gained = moved_by_depth(fused, place, image_of_caption, size)
    point = 100 / np.repeat(fused.shape, len(RECALLS))[:, None, None]
    loss = point * (missed - gained)
    risk = point * (np.maximum(missed - gained, 0) + np.sqrt(2 * (missed + gained)))
    counts = np.bincount(place.ravel(), minlength=size**2).reshape(1, size, size)
    best = best_place(within(counts)[0], loss.max(axis=0), risk.max(axis=0), tolerance, SHARE * fused.size)
    if best is None:
        return Depth(pooled.shape[1], pooled.shape[0]), (0.0,) * len(loss)
    images, captions = best
    return Depth(choices[images], choices[captions]), tuple(loss[:, images, captions].tolist())


def best_place(
    pairs: np.ndarray, loss: np.ndarray, risk: np.ndarray, tolerance: float, budget: float
) -> tuple[int, int] | None:
    """The depth to take; None where none will do.

    1. The fewest pairs whose risk is within the tolerance, where they are within the budget.
    2. Else, within the budget, the least risk of what loses no more than the tolerance.
    3. Else the fewest pairs that lose no more than the tolerance, nor does any deeper choice: the margin is not to be
       had, and what only luck brings within the tolerance is not taken.

    Args:
        pairs: Pairs by the choices for images (rows) and for captions (columns), which grow.
        loss: Points that the worst recall loses, by the same.
        risk: Points that it may lose on another split.
        tolerance: Points.
        budget: Pairs that a margin may cost.
    """
    fits, safe = (points <= tolerance + ROUNDING for points in (loss, risk))
    deeper = np.flip(np.minimum.accumulate(np.minimum.accumulate(np.flip(fits), axis=0), axis=1))
    affordable = pairs <= budget
    for good, order in ((safe & affordable, pairs), (fits & affordable, np.round(risk, 9)), (deeper, pairs)):
        if good.any():
            (taken,) = np.flatnonzero(good)[np.lexsort((pairs[good], order[good]))[:1]]
            images, captions = divmod(int(taken), pairs.shape[1])
            return images, captions
    return None


def places(pooled: np.ndarray, axis: int, choices: Sequence[int]) -> np.ndarray:
    """For each pair how many choices of K leave it out, by its rank along an axis."""
    found = np.empty(pooled.shape, np.uint8)
    steps = np.searchsorted(choices, np.arange(pooled.shape[axis]), side="right").astype(np.uint8)
    for lines in blocks_across(pooled.shape, axis):
        order = np.argsort(-pooled[lines], axis=axis, kind="stable")
        np.put_along_axis(found[lines], order, np.expand_dims(steps, 1 - axis), axis=axis)
    return found


def moved_by_depth(
    fused: np.ndarray, place: np.ndarray, image_of_caption: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries that each pair of choices moves out of the first 1, 5 and 10 ranks, and those that it moves in.

    A query without a right answer among its candidates has missed: before that answer stand all K candidates or more.

    Args:
        fused: Scores of all pairs.
        place: For each pair its place among the choices for images and for captions, see `places`.
        image_of_caption: For each caption the row of its image.
        size: Choices for either side, and one for what all of them leave out.

    Returns:
        Both int64, recalls (as `lost` orders them) x choices for images x choices for captions.
    """
    full_images, full_captions = (f(fused, image_of_caption) for f in (image_to_text_ranks, text_to_image_ranks))
    never = np.iinfo(np.int32).max
    of_image = np.full((len(fused), size - 1, size - 1), never, np.int32)
    of_captions = np.zeros((2, len(RECALLS), size - 1, size - 1), np.int64)
    step = max(1, BLOCK // max(fused.shape[1], size**2))
    for some in np.split(np.arange(fused.shape[1]), range(step, fused.shape[1], step)):
        owners = image_of_caption[some]
        own = np.asarray(fused[owners, some])[:, None]
        reasoned = within(one_hot(place[owners, some], size)) > 0
        ahead = (fused[owners] >= own) & (image_of_caption != owners[:, None])
        ranks = np.where(reasoned, 1 + reasoned_among(ahead, place[owners], size), never)
        np.minimum.at(of_image, owners, ranks.astype(np.int32))
        level = own <= fused[:, some].T  # with the caption's own image, which is the 1 of its rank
        ranks = np.where(reasoned, reasoned_among(level, place[:, some].T, size), never)
        of_captions += moved(full_captions[some], ranks)
    missed, gained = np.concatenate([moved(full_images, of_image), of_captions], axis=1)
    return missed, gained


def moved(full: np.ndarray, short: np.ndarray) -> np.ndarray:
    """Queries that leave (first) and that join (second) the first 1, 5 and 10 ranks, for every pair of choices."""
    ranks = np.array(RECALLS)[:, None]
    was, now = (full <= ranks)[:, :, None, None], short <= ranks[:, :, None, None]
    return np.stack([np.count_nonzero(was & ~now, axis=1), np.count_nonzero(now & ~was, axis=1)])


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
