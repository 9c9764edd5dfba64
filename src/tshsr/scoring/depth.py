"""The smallest depth of a two-stage search whose loss of recall is within a tolerance, chosen on a validation split.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tshsr.metrics.recall import BLOCK, image_to_text_ranks, text_to_image_ranks
from tshsr.scoring.candidates import Depth, Shares, blocks_across

CHOICES = tuple(round(20 * 1.1**step) for step in range(42))
"""Values of K for both sides, 20 to 996 in steps of 10 %; at least 20, because K / 2 must cover R@10."""

TOLERANCE = 0.1
"""Largest loss of a recall, in points."""

BUDGET = 1 / 20
"""Largest share of all pairs under rules 1 and 2 of `best_choice`."""

ROUNDING = 1e-9
"""Float tolerance of a loss, in points."""

RECALLS = (1, 5, 10)


def choose_depth(
    fused: np.ndarray,
    pooled: np.ndarray,
    image_of_caption: np.ndarray,
    *,
    tolerance: float = TOLERANCE,
    choices: Sequence[int] = CHOICES,
) -> tuple[Depth, tuple[float, ...]]:
    """A small depth at which no recall loses more than a tolerance, on this split or on similar ones.

    K is distributed over queries by the scores of their first candidates, as in the search (`Shares.by_best`). Both K
    are chosen jointly, because their effects differ: an image has a few relevant captions among many, a caption one
    relevant image among a few. One pass over the scores evaluates all pairs of choices.

        loss = (missed - gained) / queries
        risk = (max(0, missed - gained) + 2 sqrt(2 (missed + gained))) / queries

    missed: queries that leave the first k ranks; gained: queries that enter them because items ahead of the relevant
    one are no candidates. Both are rare, hence about Poisson: between two splits of one size their difference has the
    standard error sqrt(2 (missed + gained)). Gains are due to chance and do not offset the risk.
    `best_choice` uses both.

    Args:
        fused: Scores of all pairs of the validation split.
        pooled: v·t of all its pairs.
        image_of_caption: For each caption the row of its image.
        tolerance: In points.
        choices: Values of K, ascending.

    Returns:
        The depth, and the points lost in the order of `lost`. All pairs and no loss where no choice qualifies.

    Raises:
        InputError: Where a score is not finite, or an image has no caption.
    """
    size = len(choices) + 1
    shares = Shares.by_best(fused, pooled)
    choice_code = size * choice_index(pooled, 1, choices, shares).astype(np.uint16)
    choice_code += choice_index(pooled, 0, choices, shares)
    missed, gained = moved_by_depth(fused, choice_code, image_of_caption, size)
    point = 100 / np.repeat(fused.shape, len(RECALLS))[:, None, None]
    loss = point * (missed - gained)
    risk = point * (np.maximum(missed - gained, 0) + 2 * np.sqrt(2 * (missed + gained)))
    counts = np.bincount(choice_code.ravel(), minlength=size**2).reshape(1, size, size)
    best = best_choice(within(counts)[0], loss.max(axis=0), risk, tolerance, BUDGET * fused.size)
    if best is None:
        return Depth(pooled.shape[1], pooled.shape[0]), (0.0,) * len(loss)
    images, captions = best
    return Depth(choices[images], choices[captions]), tuple(loss[:, images, captions].tolist())


def best_choice(
    pairs: np.ndarray, loss: np.ndarray, risk: np.ndarray, tolerance: float, budget: float
) -> tuple[int, int] | None:
    """Indices of the chosen K for images and for captions; None where no choice qualifies.

    1. The fewest pairs with every risk within the tolerance, if they are within the budget.
    2. Else, within the budget and with a loss within the tolerance, the least sum of risks. The sum, not the maximum:
       one image that is missed at every depth would mask the losses of captions.
    3. Else the fewest pairs with a loss within the tolerance at this and at every greater depth, which excludes a
       loss that is within the tolerance by chance.

    Args:
        pairs: Number of pairs, choices for images x choices for captions, both ascending.
        loss: Largest loss of a recall in points, same axes.
        risk: Loss of each recall that another split may have, in points, recalls x images x captions.
        tolerance: In points.
        budget: Largest number of pairs of rules 1 and 2.
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


def choice_index(pooled: np.ndarray, axis: int, choices: Sequence[int], shares: Shares) -> np.ndarray:
    """For each pair the number of choices of K that exclude it, by its rank along an axis and its query's share."""
    found = np.empty(pooled.shape, np.uint8)
    ranks = np.expand_dims(np.arange(pooled.shape[axis]), 1 - axis)
    for lines in blocks_across(pooled.shape, axis):
        order = np.argsort(-pooled[lines], axis=axis, kind="stable")
        steps = np.searchsorted(choices, ranks / shares.of_lines(axis, lines), side="right")
        steps = np.minimum(steps, np.searchsorted(choices, pooled.shape[axis])).astype(
            np.uint8
        )  # a K of all items excludes none
        np.put_along_axis(found[lines], order, steps, axis=axis)
    return found


def moved_by_depth(
    fused: np.ndarray, choice_code: np.ndarray, image_of_caption: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries that leave the first 1, 5 and 10 ranks, and those that enter them, for each pair of choices.

    A query without a relevant item among its candidates has missed: at least K items rank ahead of the relevant one.

    Args:
        fused: Scores of all pairs.
        choice_code: For each pair size * `choice_index` for images + `choice_index` for captions.
        image_of_caption: For each caption the row of its image.
        size: Number of choices per side + 1 (for pairs that all choices exclude).

    Returns:
        Both int64, recalls (in the order of `lost`) x choices for images x choices for captions.
    """
    full_images, full_captions = (f(fused, image_of_caption) for f in (image_to_text_ranks, text_to_image_ranks))
    never = np.iinfo(np.int32).max
    of_image = np.full((len(fused), size - 1, size - 1), never, np.int32)
    of_captions = np.zeros((2, len(RECALLS), size - 1, size - 1), np.int64)
    step = max(1, BLOCK // max(fused.shape[1], size**2))
    for columns in np.split(np.arange(fused.shape[1]), range(step, fused.shape[1], step)):
        owners = image_of_caption[columns]
        positive = np.asarray(fused[owners, columns])[:, None]
        is_candidate = within(one_hot(choice_code[owners, columns], size)) > 0
        ahead = (fused[owners] >= positive) & (image_of_caption != owners[:, None])
        ranks = np.where(is_candidate, 1 + candidates_among(ahead, choice_code[owners], size), never)
        np.minimum.at(of_image, owners, ranks.astype(np.int32))
        level = positive <= fused[:, columns].T  # includes the caption's own image, so the count is the rank
        ranks = np.where(is_candidate, candidates_among(level, choice_code[:, columns].T, size), never)
        of_captions += moved(full_captions[columns], ranks)
    missed, gained = np.concatenate([moved(full_images, of_image), of_captions], axis=1)
    return missed, gained


def moved(full: np.ndarray, short: np.ndarray) -> np.ndarray:
    """Queries that leave (first) and that enter (second) the first 1, 5 and 10 ranks, for every pair of choices."""
    ranks = np.array(RECALLS)[:, None]
    was, now = (full <= ranks)[:, :, None, None], short <= ranks[:, :, None, None]
    return np.stack([np.count_nonzero(was & ~now, axis=1), np.count_nonzero(now & ~was, axis=1)])


def candidates_among(marked: np.ndarray, choice_code: np.ndarray, size: int) -> np.ndarray:
    """For each row the number of marked pairs that are candidates, for every pair of choices."""
    rows, columns = marked.nonzero()
    counts = np.bincount(rows * size**2 + choice_code[rows, columns], minlength=len(marked) * size**2)
    return within(counts.reshape(-1, size, size))


def one_hot(choice_code: np.ndarray, size: int) -> np.ndarray:
    """Counts of one pair per row, in the shape of `within`."""
    counts: np.ndarray = np.eye(size**2, dtype=np.int64)[choice_code].reshape(-1, size, size)
    return counts


def within(counts: np.ndarray) -> np.ndarray:
    """Number of candidates for each pair of choices, from counts by `choice_code`: pairs included by either."""
    beyond = counts[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, ::-1, ::-1]
    inside: np.ndarray = counts.sum(axis=(1, 2), keepdims=True) - beyond[:, 1:, 1:]
    return inside
