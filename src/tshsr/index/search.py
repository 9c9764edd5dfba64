"""Second stage of a search: exact scores of the candidates, the k best results, and regions of the query's words.

Axes: candidates (pictures or captions) | one query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.text import END, START, WORD
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.explain.attribution import word_maps
from tshsr.index.ann import ROW
from tshsr.index.rows import CAPTIONS, PICTURES, boxes_of, encoding_of, schema_of
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded


@dataclass(frozen=True)
class WordBoxes:
    """The regions of a picture with the largest weights of a word.

    Attributes:
        word: As spelled in the query.
        boxes: x1, y1, x2, y2 (fractions of the picture) and the weight of each region, heaviest first; empty where
            the pictures were indexed without boxes.
    """

    word: str
    boxes: tuple[tuple[float, float, float, float, float], ...]


@dataclass(frozen=True)
class Result:
    """A picture result.

    Attributes:
        file: Absolute path where the file existed when it was indexed, else its name in the data.
        score: Score of the picture with the query.
        words: Content words of the query with their regions; empty for a method without a trace.
        probability: Of a match, in an index of this size; None for a network without a calibration.
    """

    id: str
    file: str | None
    score: float
    words: tuple[WordBoxes, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    probability: float | None = None


@dataclass(frozen=True)
class CaptionResult:
    """A caption result; `image` is the id of the picture that the caption describes, `probability` as in `Result`."""

    id: str
    caption: str
    image: str
    score: float
    probability: float | None = None


AnyResult = TypeVar("AnyResult", Result, CaptionResult)

FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "some", "another", "there", "which", "who"),
        *("of", "in", "on", "at", "to", "by", "with", "from", "for", "into", "onto", "as", "and", "or", "but", "while"),
        *("is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "do", "does"),
        *("we", "see", "picture", "image", "photo", "photograph"),
        *("it", "its", "he", "his", "him", "she", "her", "they", "their", "them"),
    )
)
"""Words that describe no region, and the openings of descriptions: a picture of, we see."""
MAX_BOXES = 3
"""Maximum number of boxes per word."""
MIN_RELATIVE_WEIGHT = 0.25
"""Boxes below this ratio to the heaviest one are omitted."""


def unknown_words(tokenizer: CaptionTokenizer, text: str) -> tuple[str, ...]:
    """The words of a text that are not in the vocabulary, each once."""
    words = zip(tokenizer.words(text), tokenizer.are_known(text), strict=True)
    return tuple(dict.fromkeys(word for word, known in words if not known))


def content_words(tokenizer: CaptionTokenizer, text: str) -> list[tuple[int, str]]:
    """Position and spelling of the content words: in the vocabulary, no function words, no punctuation."""
    return [
        (position, word)
        for position, (word, known) in enumerate(zip(tokenizer.words(text), tokenizer.are_known(text), strict=True))
        if known
        and word not in (START, END)
        and word.lower() not in FUNCTION_WORDS
        and any(letter.isalnum() for letter in word)
    ]


@torch.inference_mode()
def boxes_of_words(
    retriever: Retriever, images: ItemEncoding, boxes: Sequence[np.ndarray | None], text: str, caption: ItemEncoding
) -> list[tuple[WordBoxes, ...]]:
    """For each picture, the content words of a query with their heaviest regions.

        map_wr = mean over streams of `explain.word_maps`

    Each stream gives every word a distribution over regions: the attention of the word (word stream), or the share of
    the word in the attention of each region (region stream). Their mean is a distribution, too.

    Args:
        boxes: Boxes of each picture, regions x 4, or None.
        caption: Its encoding, one row.

    Returns:
        For each picture, one entry a content word; empty for a network without a trace.
    """
    words = content_words(retriever.tokenizer, text)
    captions = caption[torch.zeros(len(images), dtype=torch.long, device=caption.mask.device)]
    traces = retriever.matcher.trace(images, captions) if words else {}
    if not traces:
        return [()] * len(images)
    maps = torch.stack([word_maps(name, trace, captions.mask, images.mask) for name, trace in traces.items()])
    weights = maps.mean(dim=0).float().cpu()
    return [
        tuple(WordBoxes(word, heaviest(weights[row, position], picture_boxes)) for position, word in words)
        for row, picture_boxes in enumerate(boxes)
    ]


def heaviest(
    weights: Float[Tensor, " regions"], boxes: np.ndarray | None
) -> tuple[tuple[float, float, float, float, float], ...]:
    """The heaviest boxes of a word, with their weights."""
    if boxes is None:
        return ()
    best = weights[: len(boxes)].topk(min(MAX_BOXES, len(boxes)))
    found = []
    for weight, region in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if weight >= MIN_RELATIVE_WEIGHT * float(best.values[0]):
            x1, y1, x2, y2 = boxes[region].tolist()
            found.append((x1, y1, x2, y2, weight))
    return tuple(found)


CANDIDATES = 100
"""Number of candidates of the second stage."""
INTERNAL_COLUMNS = {*schema_of(PICTURES).names, *schema_of(CAPTIONS).names, ROW}
"""Columns other than user metadata."""


MAX_WORDS = 1000
"""Maximum words of a query, far above any caption: the time of a search grows with them."""


def check_query(text: str, k: int) -> None:
    """Refuse a query without words or with too many, or k below 1.

    Raises:
        InputError: Where the query has no word, or too many.
        SettingsError: Where k is below 1.
    """
    if not any(letter.isalnum() for letter in text):
        raise InputError(f"the query has no word: {text!r}; describe what the picture shows, as in 'a dog in snow'.")
    words = sum(1 for _ in re.finditer(WORD, text))
    if words > MAX_WORDS:
        raise InputError(
            f"the query has {words:,} words; expected at most {MAX_WORDS:,}: describe the picture in a few sentences."
        )
    if k < 1:
        raise SettingsError(f"k is {k}; expected at least 1 result.")


def find_pictures(retriever: Retriever, rows: pa.Table, text: str, caption: ItemEncoding, k: int) -> list[Result]:
    """The k best candidate pictures for an encoded caption, with the regions of its words."""
    if not len(rows):
        return []
    images = encoding_of(retriever.matcher, rows, retriever.device)
    scores, best = ranked(retriever, images, caption, k)
    chosen = rows.take(pa.array(best.tolist()))
    words = boxes_of_words(retriever, images[best.to(retriever.device)], boxes_of(chosen), text, caption)
    metadata = chosen.drop_columns([name for name in chosen.column_names if name in INTERNAL_COLUMNS]).to_pylist()
    files = chosen.select(["id", "folder", "file"]).to_pylist()
    return [
        Result(file["id"], file_of(file), score, word_boxes, columns)
        for file, score, word_boxes, columns in zip(files, scores, words, metadata or [{}] * len(files), strict=True)
    ]


def find_captions(retriever: Retriever, rows: pa.Table, image: ItemEncoding, k: int) -> list[CaptionResult]:
    """The k best candidate captions for an encoded picture."""
    if not len(rows):
        return []
    captions = encoding_of(retriever.matcher, rows, retriever.device)
    scores, best = ranked(retriever, image, captions, k)
    chosen = rows.select(["id", "caption", "image"]).take(pa.array(best.tolist())).to_pylist()
    return [CaptionResult(**row, score=score) for row, score in zip(chosen, scores, strict=True)]


def ranked(
    retriever: Retriever, images: ItemEncoding, captions: ItemEncoding, k: int
) -> tuple[list[float], torch.Tensor]:
    """The k best fused scores of the candidates with the query, best first, and their rows."""
    scores = score_encoded(retriever.matcher, images, captions)["fused"].flatten().float().cpu()
    best = scores.topk(min(k, len(scores)))
    return best.values.tolist(), best.indices


def with_probabilities(results: list[AnyResult], retriever: Retriever, pictures: int, least: float) -> list[AnyResult]:
    """The results with their probabilities, without those below the least.

    Args:
        pictures: Pictures of the searched index.
        least: Smallest probability, 0..1; 0 keeps all results.

    Raises:
        SettingsError: Where it is outside 0..1, or above 0 for a network without a calibration.
    """
    calibration = retriever.calibration
    if not 0 <= least <= 1:
        raise SettingsError(f"the minimum probability is {least}; expected a number in 0..1.")
    if calibration is None:
        if least > 0:
            raise SettingsError(
                f"{retriever.name} has no calibration, so that its results have scores and no probabilities; make one "
                "with tshsr calibrate RUN --data DIR."
            )
        return results
    scores = torch.tensor([result.score for result in results])
    probabilities = calibration.probability(scores, pictures=pictures).tolist()
    found = [replace(result, probability=each) for result, each in zip(results, probabilities, strict=True)]
    return [result for result in found if result.probability is not None and result.probability >= least]


def file_of(row: Mapping[str, Any]) -> str | None:
    """Absolute path of a picture's file where it existed, else its name in the data."""
    return str(Path(row["folder"]) / row["file"]) if row["folder"] and row["file"] else row["file"]
