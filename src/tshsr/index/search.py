"""The second stage: the network reasons about the candidates of a query, exactly, and the best are told.

Axes: pictures (or captions) of the candidates | one query.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from tshsr.errors import InputError, SettingsError
from tshsr.index.ann import ROW
from tshsr.index.results import CaptionResult, Result
from tshsr.index.rows import CAPTIONS, PICTURES, boxes_of, encoding_of, schema_of
from tshsr.index.words import boxes_of_words
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded

CANDIDATES = 100
"""How many pictures, or captions, the network reasons about."""
OWN = {*schema_of(PICTURES, 1).names, *schema_of(CAPTIONS, 1).names, ROW}
"""Columns that are not the user's."""


def check_question(text: str, k: int) -> None:
    """Refuse what cannot be asked.

    Raises:
        InputError: Where the sentence has no word.
        SettingsError: Where no result is wanted.
    """
    if not any(letter.isalnum() for letter in text):
        raise InputError(f"the query has no word: {text!r}; describe what the picture shows, as in 'a dog in snow'.")
    if k < 1:
        raise SettingsError(f"{k} results were asked for; expected at least 1.")


def find_pictures(retriever: Retriever, rows: pa.Table, text: str, caption: ItemEncoding, k: int) -> list[Result]:
    """The best pictures of the candidates for an encoded caption, with the places that answer to its words."""
    if not len(rows):
        return []
    images = encoding_of(retriever.matcher, rows, retriever.device)
    scores, best = ranked(retriever, images, caption, k)
    chosen = rows.take(pa.array(best.tolist()))
    words = boxes_of_words(retriever, images[best.to(retriever.device)], boxes_of(chosen), text, caption)
    facts = chosen.drop_columns([name for name in chosen.column_names if name in OWN]).to_pylist()
    names = chosen.select(["id", "folder", "file"]).to_pylist()
    return [
        Result(name["id"], file_of(name), score, of_words, known)
        for name, score, of_words, known in zip(names, scores, words, facts or [{}] * len(names), strict=True)
    ]


def find_captions(retriever: Retriever, rows: pa.Table, image: ItemEncoding, k: int) -> list[CaptionResult]:
    """The best captions of the candidates for an encoded picture."""
    if not len(rows):
        return []
    captions = encoding_of(retriever.matcher, rows, retriever.device)
    scores, best = ranked(retriever, image, captions, k)
    chosen = rows.select(["id", "caption", "image"]).take(pa.array(best.tolist())).to_pylist()
    return [CaptionResult(**row, score=score) for row, score in zip(chosen, scores, strict=True)]


def ranked(
    retriever: Retriever, images: ItemEncoding, captions: ItemEncoding, k: int
) -> tuple[list[float], torch.Tensor]:
    """The k best scores of one side with the only one of the other side, best first, and whose they are."""
    scores = score_encoded(retriever.matcher, images, captions)["fused"].flatten().float().cpu()
    best = scores.topk(min(k, len(scores)))
    return best.values.tolist(), best.indices


def file_of(row: Mapping[str, Any]) -> str | None:
    """The whole path of a picture's file where it was there, else its name in the data."""
    return str(Path(row["folder"]) / row["file"]) if row["folder"] and row["file"] else row["file"]
