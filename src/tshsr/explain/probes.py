"""Probes of a trained network against known truth: does a word point at its region, does a score bind words together?

Axes: pairs (a caption with an image) | words | regions. All results are shares in 0..1; ties count against the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.data.text import START
from tshsr.data.truth import Truth
from tshsr.errors import DataError
from tshsr.explain.attribution import attention_maps, word_maps
from tshsr.metrics.report import Probes
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever

CHUNK = 128
"""Pairs that are traced or scored at once."""


def measure_probes(retriever: Retriever, split: Split, truth: Truth) -> Probes:
    """Pointing for a method that can be traced, and binding where there are foils.

    Raises:
        DataError: Where the truth is of other data.
    """
    if len(truth.regions_of_word) != len(split.captions):
        raise DataError(
            f"the truth of {split.data}, split {split.name} is of {len(truth.regions_of_word)} captions; the split has "
            f"{len(split.captions)}. Generate the data again."
        )
    pointing = pointing_accuracy(retriever, split, truth)
    if not truth.foils:
        return Probes(pointing=pointing or None)
    wins = foils_beaten(retriever, split, truth)
    binding = {name: float(won.mean()) for name, won in wins.items()}
    kinds = np.array([foil.kind for foil in truth.foils])
    by_kind = {str(kind): float(wins["fused"][kinds == kind].mean()) for kind in np.unique(kinds)}
    return Probes(pointing=pointing or None, binding=binding, binding_by_kind=by_kind)


def pointing_accuracy(
    retriever: Retriever, split: Split, truth: Truth, *, limit: int | None = None, attention: bool = False
) -> dict[str, float]:
    """How often the region that a word points at is one that the word is about, per stream.

    A word of the truth points right where, in its map (`explain.word_maps`) for the caption's own image, a true region
    weighs strictly more than every other region.

    Args:
        retriever: The network and its tokenizer.
        split: Images and captions.
        truth: The true regions of content words.
        limit: Look at the first so many captions; None takes them all.
        attention: Ask `explain.attention_maps` instead.

    Returns:
        Share of words that point right, by stream name; empty for a method that cannot be traced.

    Raises:
        DataError: Where the truth names no word, or a word or region that the caption or image does not have.
    """
    captions = _captions_with_truth(truth, limit)
    hits: dict[str, int] = {}
    total = 0
    for rows in _chunks(captions):
        images, texts = _encode_pairs(
            retriever, split, split.image_of_caption[rows], [split.captions[int(row)] for row in rows]
        )
        first_token = retriever.tokenizer.words(split.captions[int(rows[0])])[0]
        pair, word, true_regions = _truth_of_pairs(truth, rows, images, texts, shift=int(first_token == START))
        total += len(pair)
        for name, trace in retriever.trace(images, texts).items():
            maps_of = attention_maps if attention else word_maps
            maps = maps_of(name, trace, texts.mask, images.mask).cpu()[pair, word]
            hits[name] = hits.get(name, 0) + int(_points_right(maps, true_regions).sum())
    return {name: count / total for name, count in hits.items()}


def pointing_chance(split: Split, truth: Truth, *, limit: int | None = None) -> float:
    """Pointing accuracy of a blind guess: the mean share of regions that are true, over the words of the truth.

    Raises:
        DataError: Where the truth names no word.
    """
    shares: list[float] = []
    for rows in _chunks(_captions_with_truth(truth, limit)):
        regions = split.regions.read(split.image_of_caption[rows]).mask.sum(dim=1).tolist()
        for row, count in zip(rows, regions, strict=True):
            shares += [len(set(true)) / count for true in truth.regions_of_word[int(row)].values()]
    return sum(shares) / len(shares)


def foils_beaten(retriever: Retriever, split: Split, truth: Truth) -> dict[str, Bool[np.ndarray, " foils"]]:
    """Binding: whether the true caption scores strictly higher than each foil for the same image, per score.

    A foil has the words of the true caption (or nearly so), bound together wrongly: only a model that knows which
    attribute belongs to which thing, and which thing is on which side, tells them apart.

    Returns:
        For each foil whether it loses, by score name. A score that is not finite loses.

    Raises:
        DataError: Where the truth has no foils.
    """
    foils = truth.foils
    if not foils:
        raise DataError("the truth has no foils; binding needs at least one. Was the split written without them?")
    wins: dict[str, list[np.ndarray]] = {}
    for rows in _chunks(np.arange(len(foils))):
        chunk = [foils[int(row)] for row in rows]
        numbers = np.array([foil.image for foil in chunk])
        true = [split.captions[foil.caption] for foil in chunk]
        images, texts = _encode_pairs(retriever, split, numbers, true + [foil.text for foil in chunk])
        true_scores = _scores(retriever, images, texts[: len(chunk)])
        foil_scores = _scores(retriever, images, texts[len(chunk) :])
        for name, score in true_scores.items():
            wins.setdefault(name, []).append((score > foil_scores[name]).cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in wins.items()}


def _captions_with_truth(truth: Truth, limit: int | None) -> np.ndarray:
    """The numbers of the captions that have at least one word with true regions."""
    words = truth.regions_of_word[:limit]
    captions = np.array([number for number, regions in enumerate(words) if regions], dtype=np.int64)
    if not len(captions):
        raise DataError(
            f"none of {len(words)} captions has a word with true regions; pointing needs at least one. "
            "Was the split written without its truth?"
        )
    return captions


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _encode_pairs(
    retriever: Retriever, split: Split, numbers: np.ndarray, captions: list[str]
) -> tuple[ItemEncoding, ItemEncoding]:
    """Encodings of images (each read and encoded once, then repeated as `numbers` says) and of captions."""
    unique, place = np.unique(numbers, return_inverse=True)
    images = retriever.encode_images(split, indices=unique)
    return images[torch.from_numpy(place).to(images.items.device)], retriever.encode_captions(captions)


def _truth_of_pairs(
    truth: Truth, captions: np.ndarray, images: ItemEncoding, texts: ItemEncoding, *, shift: int
) -> tuple[list[int], list[int], Bool[Tensor, "pointers regions"]]:
    """For every word with truth: its pair, its token (`shift` after its position), and a mask of its true regions.

    Raises:
        DataError: Where a position or region number is outside of the caption or image.
    """
    words, regions = texts.mask.sum(dim=1).tolist(), images.mask.sum(dim=1).tolist()
    pairs: list[int] = []
    tokens: list[int] = []
    rows: list[Sequence[int]] = []
    for pair, caption in enumerate(captions.tolist()):
        of_word: Mapping[int, Sequence[int]] = truth.regions_of_word[caption]
        for position, true in of_word.items():
            length = words[pair] - 2 * shift
            if not 0 <= position < length or not true or min(true) < 0 or max(true) >= regions[pair]:
                raise DataError(
                    f"the truth of caption {caption} ties word {position} to regions {tuple(true)}; expected a word "
                    f"below {length} and regions below {regions[pair]}. Does the truth belong to this split?"
                )
            pairs.append(pair)
            tokens.append(position + shift)
            rows.append(true)
    mask = torch.zeros(len(rows), images.mask.shape[1], dtype=torch.bool)
    for row, true in enumerate(rows):
        mask[row, list(true)] = True
    return pairs, tokens, mask


def _points_right(
    maps: Float[Tensor, "pointers regions"], true: Bool[Tensor, "pointers regions"]
) -> Bool[Tensor, " pointers"]:
    """Where a true region weighs strictly more than all others: a tie, as in an empty map, is a miss."""
    best_true = maps.masked_fill(~true, -torch.inf).amax(dim=1)
    best_other = maps.masked_fill(true, -torch.inf).amax(dim=1).clamp_min(0.0)
    return best_true > best_other


def _scores(retriever: Retriever, images: ItemEncoding, texts: ItemEncoding) -> dict[str, Tensor]:
    with torch.inference_mode():
        return retriever.matcher.score_pairs(images, texts)
