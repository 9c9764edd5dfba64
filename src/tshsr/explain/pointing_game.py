"""Pointing game (Zhang et al. 2018): does the map of a word have its maximum at a region that the word describes?

Axes: pairs (a caption with an image) | words | regions. Results are shares in 0..1; ties count against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.data.truth import Truth
from tshsr.errors import DataError
from tshsr.explain.attribution import attention_maps, word_maps
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever

CHUNK = 128
"""Pairs that are traced or scored together."""


def pointing_accuracy(
    retriever: Retriever, split: Split, truth: Truth, *, limit: int | None = None, attention: bool = False
) -> dict[str, float]:
    """Share of words with a hit, per stream: a true region outweighs every other region in the word's map.

    Maps are those of `attribution.word_maps` for the caption and its own image.

    Args:
        retriever: The network and its tokenizer.
        truth: The true regions of content words.
        limit: Number of captions, the first ones of the split; None takes all.
        attention: Use `attribution.attention_maps` instead.

    Returns:
        By stream name; empty for a method without traces.

    Raises:
        DataError: Where the truth names no word, or a word or region that the caption or image does not have.
    """
    with_truth = _captions_with_truth(truth, limit)
    hits: dict[str, int] = {}
    total = 0
    for rows in chunks(with_truth):
        captions = [split.captions[int(row)] for row in rows]
        images, texts = encode_pairs(retriever, split, split.image_of_caption[rows], captions)
        nodes = [retriever.tokenizer.nodes_of_words(caption) for caption in captions]
        pair, word, true_regions = _truth_of_pairs(truth, rows, images, nodes)
        total += len(pair)
        for name, trace in retriever.trace(images, texts).items():
            maps_of = attention_maps if attention else word_maps
            maps = maps_of(name, trace, texts.mask, images.mask).cpu()[pair, word]
            hits[name] = hits.get(name, 0) + int(_hits(maps, true_regions).sum())
    return {name: count / max(1, total) for name, count in hits.items()}


def pointing_chance(split: Split, truth: Truth, *, limit: int | None = None) -> float:
    """Expected pointing accuracy of a random region: the mean share of true regions, over the words of the truth.

    Raises:
        DataError: Where the truth names no word.
    """
    shares: list[float] = []
    for rows in chunks(_captions_with_truth(truth, limit)):
        regions = split.regions.read(split.image_of_caption[rows]).mask.sum(dim=1).tolist()
        for row, count in zip(rows, regions, strict=True):
            shares += [len(set(true)) / count for true in truth.regions_of_word[int(row)].values()]
    return sum(shares) / len(shares)


def _captions_with_truth(truth: Truth, limit: int | None) -> np.ndarray:
    """Numbers of the captions with true regions for at least one word."""
    words = truth.regions_of_word[:limit]
    captions = np.array([number for number, regions in enumerate(words) if regions], dtype=np.int64)
    if not len(captions):
        raise DataError(
            f"none of {len(words)} captions has a word with true regions; pointing needs at least one. "
            "Was the split written without its truth?"
        )
    return captions


def chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive parts of at most CHUNK rows."""
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def encode_pairs(
    retriever: Retriever, split: Split, numbers: np.ndarray, captions: list[str]
) -> tuple[ItemEncoding, ItemEncoding]:
    """Encode captions and, for each, the image of this number; every image is encoded once."""
    unique, inverse = np.unique(numbers, return_inverse=True)
    images = retriever.encode_images(split, indices=unique, parts=True)
    texts = retriever.encode_captions(captions, parts=True)
    return images[torch.from_numpy(inverse).to(images.items.device)], texts


def _truth_of_pairs(
    truth: Truth, captions: np.ndarray, images: ItemEncoding, nodes: Sequence[Sequence[int]]
) -> tuple[list[int], list[int], Bool[Tensor, "pointers regions"]]:
    """Pair, node and mask of the true regions of every word with truth; words without a node are left out.

    Args:
        nodes: For each caption the node of each word; negative for a word without.

    Raises:
        DataError: Where a position or region number is outside of the caption or image.
    """
    regions = images.mask.sum(dim=1).tolist()
    pairs: list[int] = []
    tokens: list[int] = []
    rows: list[Sequence[int]] = []
    for pair, caption in enumerate(captions.tolist()):
        of_word: Mapping[int, Sequence[int]] = truth.regions_of_word[caption]
        for position, true in of_word.items():
            length = len(nodes[pair])
            if not 0 <= position < length or not true or min(true) < 0 or max(true) >= regions[pair]:
                raise DataError(
                    f"the truth of caption {caption} assigns word {position} to regions {tuple(true)}; expected a word "
                    f"below {length} and regions below {regions[pair]}. Does the truth belong to this split?"
                )
            if nodes[pair][position] >= 0:
                pairs.append(pair)
                tokens.append(nodes[pair][position])
                rows.append(true)
    mask = torch.zeros(len(rows), images.mask.shape[1], dtype=torch.bool)
    for row, true in enumerate(rows):
        mask[row, list(true)] = True
    return pairs, tokens, mask


def _hits(maps: Float[Tensor, "pointers regions"], true: Bool[Tensor, "pointers regions"]) -> Bool[Tensor, " pointers"]:
    """True where a true region outweighs all others; a tie, as in a map of zeros, is a miss."""
    best_true = maps.masked_fill(~true, -torch.inf).amax(dim=1)
    best_other = maps.masked_fill(true, -torch.inf).amax(dim=1).clamp_min(0.0)
    return best_true > best_other
