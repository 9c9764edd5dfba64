"""Which places in a picture answer to which word of a query.

Axes: pictures | words | regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.text import END, START, UNKNOWN, Tokenizer
from tshsr.explain.attribution import word_maps
from tshsr.index.results import WordBoxes
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever

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
