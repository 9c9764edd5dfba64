"""Ranks and recalls of a score matrix (docs/metrics.md).

Axes: images (rows) | captions (columns); `image_of_caption` is the image of each caption.
Ranks start at 1, ties count against the model (an irrelevant item with an equal score ranks ahead), and scores that are
not finite are rejected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike

from tshsr.config.strict import STRICT
from tshsr.errors import InputError

BLOCK = 1 << 22
"""Scores per block: bounds the temporary memory, and lets a block stay in the cache between its two reads."""


@dataclass(frozen=True)
class RetrievalMetrics:
    """One direction of retrieval.

    Attributes:
        r1, r5, r10: R@K: queries with a relevant item among the first K, in percent.
        medr: Median rank; the mean of the two middle ranks of an even number.
    """

    __pydantic_config__ = STRICT

    r1: float
    r5: float
    r10: float
    medr: float
    meanr: float


@dataclass(frozen=True)
class ScoreMetrics:
    """Both directions of retrieval by one score.

    Attributes:
        image_to_text: The image is the query; any of its captions is relevant.
        text_to_image: The caption is the query; its image is relevant.
    """

    __pydantic_config__ = STRICT

    image_to_text: RetrievalMetrics
    text_to_image: RetrievalMetrics

    @property
    def recalls(self) -> tuple[float, ...]:
        """R@1, R@5 and R@10 of image to text, then of text to image."""
        return tuple(
            figure for side in (self.image_to_text, self.text_to_image) for figure in (side.r1, side.r5, side.r10)
        )

    @property
    def rsum(self) -> float:
        """R@1 + R@5 + R@10 of both directions, 0..600."""
        return sum(self.recalls)


def image_to_text_ranks(scores: np.ndarray, image_of_caption: np.ndarray) -> np.ndarray:
    """Rank of the best-ranked relevant caption of each image.

        rank_i = 1 + #{irrelevant c : score_ic >= max over relevant c' of score_ic'}

    The image's other captions are not counted.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: Whole numbers: the row of each column's image.

    Returns:
        int64, one rank per image, from 1.

    Raises:
        InputError: Where shapes do not fit, a score is not finite, or an image has no caption.
    """
    check_scores(scores, image_of_caption)
    check_captioned(len(scores), image_of_caption)
    best = np.full(len(scores), -np.inf, dtype=scores.dtype)
    positive = positive_scores(scores, image_of_caption)
    with np.errstate(invalid="ignore"):  # finite_blocks rejects NaN below, with its position
        np.maximum.at(best, image_of_caption, positive)
    right = np.bincount(image_of_caption[positive == best[image_of_caption]], minlength=len(scores))
    ahead = np.empty(len(scores), dtype=np.int64)
    for start, block in finite_blocks(scores):
        rows = slice(start, start + len(block))
        ahead[rows] = np.count_nonzero(block >= best[rows, None], axis=1)
    return 1 + ahead - right


def text_to_image_ranks(scores: np.ndarray, image_of_caption: np.ndarray) -> np.ndarray:
    """Rank of each caption's image.

        rank_c = 1 + #{irrelevant i : score_ic >= score_jc},   j the image of c

    An image without captions is irrelevant to every caption.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: Whole numbers: the row of each column's image.

    Returns:
        int64, one rank per caption, from 1.

    Raises:
        InputError: Where shapes do not fit or a score is not finite.
    """
    check_scores(scores, image_of_caption)
    positive = positive_scores(scores, image_of_caption)
    ranks = np.zeros(len(positive), dtype=np.int64)  # the relevant image is counted too, so the count is the rank
    for _, block in finite_blocks(scores):
        ranks += np.count_nonzero(block >= positive, axis=0)
    return ranks


def recall_at(ranks: np.ndarray, k: int) -> float:
    """R@k: queries with rank k or better, in percent.

    Raises:
        InputError: Where there are no ranks, a rank is below 1, or k is below 1.
    """
    if k < 1:
        raise InputError(f"R@{k} is undefined: ranks start at 1; give a whole number k of at least 1.")
    if not len(ranks) or np.min(ranks) < 1:
        smallest = np.min(ranks) if len(ranks) else "none"
        raise InputError(f"expected at least one rank, and ranks that start at 1; the smallest is {smallest}.")
    return 100.0 * int(np.count_nonzero(ranks <= k)) / len(ranks)


def retrieval_metrics(ranks: np.ndarray) -> RetrievalMetrics:
    """Recalls, median and mean of the ranks of one direction.

    Raises:
        InputError: Where there are no ranks or a rank is below 1.
    """
    recalls = (recall_at(ranks, 1), recall_at(ranks, 5), recall_at(ranks, 10))
    return RetrievalMetrics(*recalls, medr=float(np.median(ranks)), meanr=float(np.mean(ranks)))


def score_metrics(scores: ArrayLike, image_of_caption: ArrayLike) -> ScoreMetrics:
    """Metrics of both directions, all images ranked together (Flickr30K, COCO 5K).

    Args:
        scores: Floats, images x captions: an array, which may be memory-mapped, or what numpy reads as one.
        image_of_caption: Whole numbers: for each caption the row of its image.

    Raises:
        InputError: Where shapes do not fit, a score is not finite, or an image has no caption.
    """
    scores, image_of_caption = as_arrays(scores, image_of_caption)
    return ScoreMetrics(
        image_to_text=retrieval_metrics(image_to_text_ranks(scores, image_of_caption)),
        text_to_image=retrieval_metrics(text_to_image_ranks(scores, image_of_caption)),
    )


def as_arrays(scores: ArrayLike, image_of_caption: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Checked arrays of lists, tensors of the CPU and whole numbers of any kind.

    Raises:
        InputError: Where they cannot form arrays, or shapes do not fit.
    """
    try:
        matrix, rows = np.asanyarray(scores), np.asanyarray(image_of_caption)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal length, a tensor with a gradient
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"scores or image_of_caption cannot be read as an array ({reason}); give numpy arrays, or lists of equal "
            "length."
        ) from None
    if rows.dtype.kind == "u":
        rows = rows.astype(np.int64)
    check_scores(matrix, rows)
    return matrix, rows


def mean_metrics(folds: Sequence[ScoreMetrics]) -> ScoreMetrics:
    """The mean over folds of every metric; rSum is the mean of the folds' rSums.

    Raises:
        InputError: Where there is no fold.
    """
    if not folds:
        raise InputError("expected at least one fold to take the mean of; got none.")
    return ScoreMetrics(
        image_to_text=mean_direction([fold.image_to_text for fold in folds]),
        text_to_image=mean_direction([fold.text_to_image for fold in folds]),
    )


def mean_direction(metrics: Sequence[RetrievalMetrics]) -> RetrievalMetrics:
    """The mean of each metric of one direction."""
    return RetrievalMetrics(*(fmean(values) for values in zip(*map(astuple, metrics), strict=True)))


def cut(
    scores: np.ndarray, image_of_caption: np.ndarray, folds: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Split a score matrix into folds of consecutive images (COCO 1K: five of 1,000); one fold is the matrix itself.

    Captions are in the fold of their image, in any order of columns.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.

    Yields:
        For each fold its columns in the full matrix, its scores, and for each of its captions the row in the fold.

    Raises:
        InputError: Where shapes do not fit, a score is not finite (in any fold or none), an image has no caption, or
            folds are of unequal size.
    """
    check_scores(scores, image_of_caption)
    check_captioned(len(scores), image_of_caption)
    check_folds(len(scores), folds)
    for _ in finite_blocks(scores):
        pass
    if folds == 1:
        yield np.arange(len(image_of_caption)), scores, image_of_caption
        return
    size = len(scores) // folds
    for start in range(0, len(scores), size):
        columns = np.flatnonzero(image_of_caption // size == start // size)
        yield columns, scores[start : start + size][:, columns], image_of_caption[columns] - start


def check_folds(images: int, folds: int) -> None:
    """Reject folds of unequal size.

    Raises:
        InputError: Where the images are no multiple of the folds.
    """
    if folds < 1 or images % folds:
        raise InputError(f"{images} images cannot be cut into {folds} folds of equal size.")


def positive_scores(scores: np.ndarray, image_of_caption: np.ndarray) -> np.ndarray:
    """The score of each caption with its image."""
    positive: np.ndarray = scores[image_of_caption, np.arange(len(image_of_caption))]
    return positive


def finite_blocks(scores: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The matrix in checked blocks of complete rows: (first row, rows).

    Raises:
        InputError: Where a score is not finite.
    """
    rows = max(1, BLOCK // scores.shape[1])
    for start in range(0, len(scores), rows):
        block = np.asarray(scores[start : start + rows])
        check_finite(block, start)
        yield start, block


def check_finite(block: np.ndarray, first_row: int) -> None:
    """Reject scores that are not finite: NaN for relevant pairs can sort first, which gives R@1 = 100.

    Raises:
        InputError: Names the first such score and its position.
    """
    finite = np.isfinite(block)
    if not finite.all():
        row, column = (int(place) for place in np.argwhere(~finite)[0])
        raise InputError(
            f"the score of image {first_row + row} (row) and caption {column} (column), counted from 0, is "
            f"{block[row, column]}; every score must be a finite number. Fix the model that produced it."
        )


def check_scores(scores: np.ndarray, image_of_caption: np.ndarray) -> None:
    """Reject arrays that are no score matrix, or do not fit the captions.

    Raises:
        InputError: Names the first mismatch.
    """
    if scores.ndim != 2 or 0 in scores.shape or scores.dtype.kind != "f":
        raise InputError(
            f"scores are {scores.dtype} of shape {scores.shape}; expected floats of shape images x captions, not empty."
        )
    images, captions = scores.shape
    if image_of_caption.shape != (captions,) or image_of_caption.dtype.kind != "i":
        raise InputError(
            f"image_of_caption is {image_of_caption.dtype} of shape {image_of_caption.shape}; expected int64, one row "
            f"number for each of the {captions} columns of scores (images x captions: transpose captions x images)."
        )
    (outside,) = np.nonzero((image_of_caption < 0) | (image_of_caption >= images))
    if len(outside):
        raise InputError(
            f"caption {outside[0]} belongs to image {image_of_caption[outside[0]]}, but the scores have rows "
            f"0 to {images - 1}; give each caption the row of its image."
        )


def check_captioned(images: int, image_of_caption: np.ndarray) -> None:
    """Reject images without a caption, which have no relevant item.

    Raises:
        InputError: Names the first image without a caption.
    """
    (uncaptioned,) = np.nonzero(np.bincount(image_of_caption, minlength=images) == 0)
    if len(uncaptioned):
        raise InputError(
            f"image {uncaptioned[0]} has no caption ({len(uncaptioned)} of {images} images have none), so no "
            "caption is relevant to it; leave such images out of the scores."
        )
