"""The regions of a query's words: for each word of a caption the boxes of a picture with its largest weights.

Axes: pictures (rows) | words | regions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.text import END, START
from tshsr.data.tokens import CaptionTokenizer
from tshsr.explain.attribution import word_maps
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever


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
