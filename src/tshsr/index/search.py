"""The second stage: the network reasons about the candidates of a query, exactly, and the best are told.

Axes: pictures (or captions) of the candidates | one query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.text import END, START, UNKNOWN, WORD, Tokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.explain.attribution import word_maps
from tshsr.index.ann import ROW
from tshsr.index.rows import CAPTIONS, PICTURES, boxes_of, encoding_of, schema_of
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded


@dataclass(frozen=True)
class WordBoxes:
    """Where a picture answers to a word.

    Attributes:
        word: As the query spells it.
        boxes: x1, y1, x2, y2 (fractions of the picture) and the weight of each region, heaviest first, a few of them;
            empty where the pictures were indexed without boxes.
    """

    word: str
    boxes: tuple[tuple[float, float, float, float, float], ...]


@dataclass(frozen=True)
class Result:
    """A picture that was found.

    Attributes:
        id: Its name in the index.
        file: Its file: the whole path where the file was there when it was indexed, else the name that the data gave.
        score: The network's score of the picture with the query.
        words: The content words of the query, with their places; empty for a method that cannot be traced.
        metadata: What the user has told about the picture, by column.
    """

    id: str
    file: str | None
    score: float
    words: tuple[WordBoxes, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionResult:
    """A sentence that was found for a picture.

    Attributes:
        id: Its name in the index.
        caption: The sentence.
        image: The name of the picture that it was written for.
        score: The network's score of the sentence with the picture.
    """

    id: str
    caption: str
    image: str
    score: float


FUNCTION_WORDS = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "some", "another", "there", "which", "who"),
        *("of", "in", "on", "at", "to", "by", "with", "from", "for", "into", "onto", "as", "and", "or", "but", "while"),
        *("is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "do", "does"),
        *("we", "see", "picture", "image", "photo", "photograph"),
        *("it", "its", "he", "his", "him", "she", "her", "they", "their", "them"),
    )
)
"""Words that no place in a picture answers to, and those by which people begin: a picture of, we see."""
BOXES = 3
"""Boxes of a word, at most."""
SHARE = 0.25
"""A box is told where its weight is this share of the heaviest one's."""


def unknown_words(tokenizer: Tokenizer, text: str) -> tuple[str, ...]:
    """The words of a text that the tokenizer has no number for, each once."""
    unknown = tokenizer.rules.token_to_id(UNKNOWN)
    numbers = tokenizer.encode([text])[0]
    words = zip(tokenizer.words(text), numbers, strict=True)
    return tuple(dict.fromkeys(word for word, number in words if number == unknown))


def content_words(tokenizer: Tokenizer, text: str) -> list[tuple[int, str]]:
    """Place and spelling of the words that a picture can answer to: known ones, no function words, no punctuation."""
    unknown = tokenizer.rules.token_to_id(UNKNOWN)
    numbers = tokenizer.encode([text])[0]
    return [
        (place, word)
        for place, (word, number) in enumerate(zip(tokenizer.words(text), numbers, strict=True))
        if number != unknown
        and word not in (START, END)
        and word.lower() not in FUNCTION_WORDS
        and any(letter.isalnum() for letter in word)
    ]


@torch.inference_mode()
def boxes_of_words(
    retriever: Retriever,
    images: ItemEncoding,
    boxes: Sequence[np.ndarray | None],
    text: str,
    caption: ItemEncoding,
) -> list[tuple[WordBoxes, ...]]:
    """For each picture the content words of a query with their heaviest regions.

        map_wr = mean over streams of `explain.word_maps`

    Both streams give every word a distribution over regions: in the word stream what the word looks at, in the region
    stream the regions that look at the word. Their mean is one too, and no stream outvotes the other.

    Args:
        retriever: The network.
        images: The pictures.
        boxes: For each picture its boxes, regions x 4, or None.
        text: The query.
        caption: Its encoding, one row.

    Returns:
        For each picture one entry a content word; nothing for a network that cannot be traced.
    """
    words = content_words(retriever.tokenizer, text)
    captions = caption[torch.zeros(len(images), dtype=torch.long, device=caption.mask.device)]
    traces = retriever.matcher.trace(images, captions) if words else {}
    if not traces:
        return [()] * len(images)
    maps = torch.stack([word_maps(name, trace, captions.mask, images.mask) for name, trace in traces.items()])
    weights = maps.mean(dim=0).float().cpu()
    return [
        tuple(WordBoxes(word, heaviest(weights[row, place], of_picture)) for place, word in words)
        for row, of_picture in enumerate(boxes)
    ]


def heaviest(
    weights: Float[Tensor, " regions"], boxes: np.ndarray | None
) -> tuple[tuple[float, float, float, float, float], ...]:
    """The few heaviest boxes of a word, with their weights."""
    if boxes is None:
        return ()
    best = weights[: len(boxes)].topk(min(BOXES, len(boxes)))
    found = []
    for weight, region in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if weight >= SHARE * float(best.values[0]):
            x1, y1, x2, y2 = boxes[region].tolist()
            found.append((x1, y1, x2, y2, weight))
    return tuple(found)


CANDIDATES = 100
"""How many pictures, or captions, the network reasons about."""
OWN = {*schema_of(PICTURES, 1).names, *schema_of(CAPTIONS, 1).names, ROW}
"""Columns that are not the user's."""


MAX_WORDS = 1000
"""Longest query: the time of a search grows with its words, and no caption comes near."""


def check_question(text: str, k: int) -> None:
    """Refuse queries that no search can answer, or only in minutes.

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
