"""The ranks of every query of one evaluation: what a comparison of two models needs, and a report can carry.

Axes: images | captions. Ranks start at 1; a wrong answer with an equal score goes ahead (metrics.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import PlainValidator

from tshsr.config import STRICT
from tshsr.errors import InputError
from tshsr.metrics import check_captioned, check_finite, check_scores, image_to_text_ranks, text_to_image_ranks


def whole_numbers(values: object) -> np.ndarray:
    """A list of whole numbers as int64.

    Raises:
        ValueError: Where it is no such list.
    """
    numbers = np.asarray(values)
    if numbers.ndim != 1 or numbers.dtype.kind != "i":
        raise ValueError("expected a list of whole numbers")
    return numbers.astype(np.int64)


WholeNumbers = Annotated[np.ndarray, PlainValidator(whole_numbers)]


@dataclass(frozen=True, eq=False)
class QueryRanks:
    """Ranks of all queries by one score.

    Attributes:
        image_to_text: int64, for each image the rank of its best-placed caption.
        text_to_image: int64, for each caption the rank of its image.
        image_of_caption: int64, for each caption the row of its image; every image has one.
        folds: Into how many folds of consecutive images the ranking was cut; 1: each query ranked everything.

    Raises:
        InputError: Where lengths do not fit, a rank is below 1, an image has no caption or folds are uneven.
    """

    __pydantic_config__ = STRICT

    image_to_text: WholeNumbers
    text_to_image: WholeNumbers
    image_of_caption: WholeNumbers
    folds: int = 1

    def __post_init__(self) -> None:
        images, captions = len(self.image_to_text), len(self.image_of_caption)
        if not images or len(self.text_to_image) != captions:
            raise InputError(
                f"expected ranks of at least one image and one for each of the {captions} captions; got {images} and "
                f"{len(self.text_to_image)}."
            )
        if min(self.image_to_text.min(), self.text_to_image.min(initial=1)) < 1:
            raise InputError("a rank is below 1; ranks start at 1.")
        outside = captions and not 0 <= self.image_of_caption.min() <= self.image_of_caption.max() < images
        if outside:
            raise InputError(f"image_of_caption names rows outside 0 to {images - 1}, the ranked images.")
        check_captioned(images, self.image_of_caption)
        if self.folds < 1 or images % self.folds:
            raise InputError(f"{images} images cannot be cut into {self.folds} folds of equal size.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueryRanks):
            return NotImplemented
        return self.folds == other.folds and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("image_to_text", "text_to_image", "image_of_caption")
        )

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, as a report keeps them."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


def query_ranks(scores: np.ndarray, image_of_caption: np.ndarray, *, folds: int = 1) -> QueryRanks:
    """Rank every query of a score matrix.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.
        folds: Cut the images into so many folds of consecutive ones; a query ranks its own fold only (COCO 1K: 5).

    Raises:
        InputError: Where shapes do not fit, a score is not finite, an image has no caption, or folds are uneven.
    """
    check_scores(scores, image_of_caption)
    if folds < 1 or len(scores) % folds:
        raise InputError(f"{len(scores)} images cannot be cut into {folds} folds of equal size.")
    check_captioned(len(scores), image_of_caption)
    if folds == 1:
        parts: Sequence[tuple[np.ndarray, np.ndarray]] = [whole_ranks(scores, image_of_caption)]
        columns = [np.arange(len(image_of_caption))]
    else:
        size = len(scores) // folds
        columns = [np.flatnonzero(image_of_caption // size == fold) for fold in range(folds)]
        parts = [fold_ranks(scores, image_of_caption, own, fold * size, size) for fold, own in enumerate(columns)]
    text_to_image = np.empty(len(image_of_caption), dtype=np.int64)
    for own, (_, ranks) in zip(columns, parts, strict=True):
        text_to_image[own] = ranks
    images = np.concatenate([ranks for ranks, _ in parts])
    return QueryRanks(images, text_to_image, image_of_caption.astype(np.int64), folds)


def whole_ranks(scores: np.ndarray, image_of_caption: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both directions among everything."""
    return image_to_text_ranks(scores, image_of_caption), text_to_image_ranks(scores, image_of_caption)


def fold_ranks(
    scores: np.ndarray, image_of_caption: np.ndarray, columns: np.ndarray, start: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of both directions inside one fold."""
    rows = scores[start : start + size]
    check_finite(rows, start)  # also what no fold ranks: a NaN there is a broken model too
    return whole_ranks(rows[:, columns], image_of_caption[columns] - start)
