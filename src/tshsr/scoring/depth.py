"""How few candidates a two-stage search needs to lose next to nothing, chosen on a split whose answers are known.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tshsr.metrics.recall import BLOCK, image_to_text_ranks, text_to_image_ranks
from tshsr.scoring.candidates import Depth, Shares, blocks_across

CHOICES = tuple(round(20 * 1.1**step) for step in range(42))
"""The K that `choose_depth` tries for either side, 20 to 996, each a tenth more than the one before: none below 20, as
half of it must fill the ten places of R@10."""

TOLERANCE = 0.1
"""Points that no recall should lose."""

BUDGET = 1 / 20
"""Of all pairs, how many a margin of safety may cost: fewer are what two stages are for."""

ROUNDING = 1e-9
"""Points that are no loss."""

RECALLS = (1, 5, 10)


def choose_depth(
    fused: np.ndarray,
    pooled: np.ndarray,
    image_of_caption: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    choices: Sequence[int] = CHOICES,
) -> tuple[Depth, tuple[float, ...]]:
    """Few pairs to reason about, and no recall that loses more than a tolerance, here or on other images of this kind.

    All queries have their share of K by the scores of their first candidates, as in the search (`Shares.by_best`). Both
    K are searched together, as they are worth different things: an image has a few right captions among many, a
    caption one right image among a few. What every pair of choices does comes out of one reading of the scores.

        loss = (queries that miss - queries that only hit because what stood before is no candidate) / queries
        risk = (max(0, the same difference) + 2 sqrt(2 their sum)) / queries

    Such queries are few and come and go from split to split like counts of rare events (Poisson): the difference of
    two splits of one size strays by sqrt(2 (missed + gained)), its standard error. Gains here are luck, and not counted
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
    shares = Shares.by_best(fused, pooled)
    place = size * places(pooled, 1, choices, shares).astype(np.uint16) + places(pooled, 0, choices, shares)
    missed, gained = moved_by_depth(fused, place, image_of_caption, size)
    point = 100 / np.repeat(fused.shape, len(RECALLS))[:, None, None]
    loss = point * (missed - gained)
    risk = point * (np.maximum(missed - gained, 0) + 2 * np.sqrt(2 * (missed + gained)))
    counts = np.bincount(place.ravel(), minlength=size**2).reshape(1, size, size)
    best = best_place(within(counts)[0], loss.max(axis=0), risk, tolerance, BUDGET * fused.size)
    if best is None:
        return Depth(pooled.shape[1], pooled.shape[0]), (0.0,) * len(loss)
    images, captions = best
    return Depth(choices[images], choices[captions]), tuple(loss[:, images, captions].tolist())


def best_place(
    pairs: np.ndarray, loss: np.ndarray, risk: np.ndarray, tolerance: float, budget: float
) -> tuple[int, int] | None:
    """The depth to take; None where none will do.

    1. The fewest pairs whose every risk is within the tolerance, where they are within the budget.
    2. Else, within the budget, the least sum of risks of what loses no more than the tolerance: not the least of the
       worst ones, as one image that is missed everywhere would then excuse whatever captions lose.
    3. Else the fewest pairs that lose no more than the tolerance, nor does any deeper choice: the margin is not to be
       had, and what only luck brings within the tolerance is not taken.

    Args:
        pairs: Pairs by the choices for images (rows) and for captions (columns), which grow.
        loss: Points that the worst recall loses, by the same.
        risk: Points that each recall may lose on another split, recalls x images x captions.
        tolerance: Points.
        budget: Pairs that a margin may cost.
    """
    fits, safe = (points <= tolerance + ROUNDING for points in (loss, risk.max(axis=0)))
    deeper = np.flip(np.minimum.accumulate(np.minimum.accumulate(np.flip(fits), axis=0), axis=1))
    affordable = pairs <= budget
    for good, order in (
        (safe & affordable, pairs),
        (fits & affordable, np.round(risk.sum(axis=0), 9)),
        (deeper, pairs),
    ):
        if good.any():
            (taken,) = np.flatnonzero(good)[np.lexsort((pairs[good], order[good]))[:1]]
            images, captions = divmod(int(taken), pairs.shape[1])
            return images, captions
    return None


def places(pooled: np.ndarray, axis: int, choices: Sequence[int], shares: Shares) -> np.ndarray:
    """For each pair how many choices of K leave it out, by its rank along an axis and its query's share."""
    found = np.empty(pooled.shape, np.uint8)
    ranks = np.expand_dims(np.arange(pooled.shape[axis]), 1 - axis)
    for lines in blocks_across(pooled.shape, axis):
        order = np.argsort(-pooled[lines], axis=axis, kind="stable")
        steps = np.searchsorted(choices, ranks / shares.of_lines(axis, lines), side="right")
        steps = np.minimum(steps, np.searchsorted(choices, pooled.shape[axis])).astype(np.uint8)  # all is all
        np.put_along_axis(found[lines], order, steps, axis=axis)
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
