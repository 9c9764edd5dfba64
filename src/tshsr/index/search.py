"""Second stage of a search: exact scores of the candidates, and the k best results.

Axes: candidates (pictures or captions) | one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch

from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import SettingsError
from tshsr.explain.word_boxes import WordBoxes, boxes_of_words
from tshsr.index.ann import ROW
from tshsr.index.rows import PICTURES, boxes_of, encoding_of, schema_of
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded


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

CANDIDATES = 100
"""Number of candidates of the second stage."""
INTERNAL_COLUMNS = {*schema_of(PICTURES).names, ROW}
"""Columns of pictures other than user metadata."""


def unknown_words(tokenizer: CaptionTokenizer, text: str) -> tuple[str, ...]:
    """The words of a text that are not in the vocabulary, each once."""
    words = zip(tokenizer.words(text), tokenizer.are_known(text), strict=True)
    return tuple(dict.fromkeys(word for word, known in words if not known))


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
