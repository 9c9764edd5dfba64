"""The ranks of all queries of one evaluation: stored in reports, input of comparisons.

Axes: images | captions. Ranks start at 1; ties count against the model (`recall`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import PlainValidator

from tshsr.config.strict import STRICT
from tshsr.errors import InputError
from tshsr.metrics.multi_positive import pair_places
from tshsr.metrics.recall import (
    ScoreMetrics,
    as_arrays,
    check_captioned,
    check_folds,
    cut,
    image_to_text_ranks,
    retrieval_metrics,
    text_to_image_ranks,
)


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
        image_to_text: int64, for each image the rank of its best-ranked caption.
        text_to_image: int64, for each caption the rank of its image.
        image_of_caption: int64, for each caption the row of its image; every image has one.
        folds: Number of folds of consecutive images that were ranked separately; 1: each query ranks all items.
        caption_places: int64, for each caption its position in the ranking of its image, counting the image's other
            captions (`multi_positive`); the best position is the rank of the image. None in older reports.

    Raises:
        InputError: Where lengths do not fit, a rank is below 1, an image has no caption, folds are of unequal size, or
            positions contradict the ranks.
    """

    __pydantic_config__ = STRICT

    image_to_text: WholeNumbers
    text_to_image: WholeNumbers
    image_of_caption: WholeNumbers
    folds: int = 1
    caption_places: WholeNumbers | None = None

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
        check_folds(images, self.folds)
        if self.caption_places is not None:
            check_places(self.caption_places, self.image_to_text, self.image_of_caption)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, QueryRanks):
            return NotImplemented
        return all(np.array_equal(value, getattr(other, name)) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, as in reports; without fields that are None."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if value is not None
        }


def check_places(places: np.ndarray, image_to_text: np.ndarray, image_of_caption: np.ndarray) -> None:
    """Reject positions of captions that contradict the ranks.

    Raises:
        InputError: Names the first image that does not fit.
    """
    if len(places) != len(image_of_caption):
        raise InputError(f"expected a position for each of the {len(image_of_caption)} captions; got {len(places)}.")
    order = np.lexsort((places, image_of_caption))
    place, owner = places[order], image_of_caption[order]
    first = np.diff(owner, prepend=-1) > 0
    wrong = np.where(first, place != image_to_text[owner], np.diff(place, prepend=0) < 1)
    if wrong.any():
        raise InputError(
            f"the captions of image {owner[wrong.argmax()]} need distinct positions, the best equal to the rank of the "
            "image."
        )


def query_ranks(scores: ArrayLike, image_of_caption: ArrayLike, *, folds: int = 1) -> QueryRanks:
    """Rank every query of a score matrix.

    Args:
        scores: Floats, images x captions: an array, which may be memory-mapped, or what numpy reads as one.
        image_of_caption: Whole numbers: for each caption the row of its image.
        folds: Number of folds of consecutive images; each query ranks the items of its fold only (COCO 1K: 5).

    Raises:
        InputError: Where shapes do not fit, a score is not finite, an image has no caption, or folds are of
            unequal size.
    """
    scores, image_of_caption = as_arrays(scores, image_of_caption)
    images = []
    text_to_image, places = np.empty((2, len(image_of_caption)), dtype=np.int64)
    for columns, part, owner in cut(scores, image_of_caption, folds):
        images.append(image_to_text_ranks(part, owner))
        text_to_image[columns] = text_to_image_ranks(part, owner)
        places[columns] = pair_places(part, owner, np.arange(len(columns)))
    return QueryRanks(np.concatenate(images), text_to_image, image_of_caption.astype(np.int64), folds, places)


def metrics_by_fold(ranks: QueryRanks) -> tuple[ScoreMetrics, ...]:
    """Recalls, median and mean rank of both directions, one entry per fold."""
    size = len(ranks.image_to_text) // ranks.folds
    fold_of_caption = ranks.image_of_caption // size
    return tuple(
        ScoreMetrics(
            image_to_text=retrieval_metrics(ranks.image_to_text[fold * size : (fold + 1) * size]),
            text_to_image=retrieval_metrics(ranks.text_to_image[fold_of_caption == fold]),
        )
        for fold in range(ranks.folds)
    )
