"""Fit learned regions (`scoring.compression.RegionPooling`) so that a trained network's scores change little.

    loss = mean over pairs of a batch of (z(all regions) - z(pooled regions))^2,    z: logit of the fused score

The network is fixed. Scores that are no probabilities, such as SCAN's cosines, are compared as they are.

Axes: images | captions of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss, pad

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.models.base import ItemEncoding, Matcher, join_encodings
from tshsr.models.whole import SHARE
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks, evaluation_mode
from tshsr.scoring.compression import RegionPooling
from tshsr.system import Progress, no_progress

EDGE = 1e-4
"""Scores are kept this far from 0 and 1 before the logit."""


@dataclass(frozen=True)
class PoolingOptions:
    """Settings of a fit.

    Attributes:
        regions: M, learned regions.
        steps: Steps of Adam.
        batch: Images of a step, each with one of its captions.
        images: Images of the fit, spread over the split; their encodings are in memory.
        learning_rate: Of Adam; falls to zero by a cosine.
        seed: Of the order and of the first vectors.
    """

    regions: int = 8
    steps: int = 300
    batch: int = 24
    images: int = 2000
    learning_rate: float = 0.01
    seed: int = 0


def fit_region_pooling(
    matcher: Matcher,
    tokenizer: CaptionTokenizer,
    split: Split,
    options: PoolingOptions,
    *,
    device: torch.device | str | None = None,
    progress: Progress = no_progress,
) -> RegionPooling:
    """Fit on images of a split and their captions; the network's weights do not change.

    Args:
        split: Images with captions, best those that trained the network.
        progress: Called with (steps done, steps in total).

    Raises:
        SettingsError: Where an option is out of range, or the network scores by pooled vectors alone.
        InputError: Where the split has no caption.
    """
    if options.regions < 1:
        raise SettingsError(f"{options.regions} regions were asked for; expected at least 1.")
    for name, least in (("images", 1), ("batch", 1), ("steps", 0)):
        if getattr(options, name) < least:
            raise SettingsError(f"{name} is {getattr(options, name)}; expected {least} or more.")
    if matcher.score_names <= {"fused", "pooled"}:
        raise SettingsError(
            "learned regions are fitted to scores of regions and words, and this method scores by pooled vectors "
            "alone; leave --regions out."
        )
    dice = np.random.default_rng(options.seed)
    captions = first_captions(split, options.images, dice)
    if not len(captions):
        raise InputError(f"{split.data}, split {split.name} has no captions; learned regions are fitted to scores.")
    with evaluation_mode(matcher, device) as place, fixed(matcher):
        pairs = encoded_pairs(matcher, tokenizer, split, captions, place)
        rows = pairs.images.items[pairs.images.mask]
        chosen = dice.choice(len(rows), options.regions, replace=len(rows) < options.regions)
        pooling = RegionPooling(rows[torch.from_numpy(chosen).to(place)])
        optimise(matcher, pooling, pairs, options, dice, progress)
    return pooling.requires_grad_(False)


@dataclass(frozen=True)
class EncodedPairs:
    """Images with one caption each, encoded; boxes where the network compares places."""

    images: ItemEncoding
    boxes: Float[Tensor, "images regions 4"] | None
    captions: ItemEncoding


@torch.no_grad()
def encoded_pairs(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, captions: np.ndarray, device: torch.device
) -> EncodedPairs:
    """Encode captions, and the image of each."""
    images, boxes = [], []
    for rows in blocks(captions, ENCODE_BLOCK):
        batch = split.regions.read(split.image_of_caption[rows])
        images.append(matcher.encode_images(batch.to(device)))
        if matcher.compares_places and batch.boxes is not None:
            boxes.append(batch.boxes)
    joined = join_encodings(images)
    widest = joined.mask.shape[-1]  # each block is as wide as its longest row
    places = [pad(each, (0, 0, 0, widest - each.shape[1])) for each in boxes]
    tokens = tokenizer.encode([split.captions[number] for number in captions])
    texts = [
        matcher.encode_captions(tokens.read(rows).to(device)) for rows in blocks(np.arange(len(tokens)), ENCODE_BLOCK)
    ]
    return EncodedPairs(joined, torch.cat(places).to(device) if places else None, join_encodings(texts))


def first_captions(split: Split, images: int, dice: np.random.Generator) -> np.ndarray:
    """One caption each of at most `images` images, drawn at random, in the order of the split."""
    order = dice.permutation(len(split.captions))
    _, first = np.unique(split.image_of_caption[order], return_index=True)
    chosen: np.ndarray = np.sort(dice.permutation(order[first])[:images])
    return chosen


def optimise(
    matcher: Matcher,
    pooling: RegionPooling,
    pairs: EncodedPairs,
    options: PoolingOptions,
    dice: np.random.Generator,
    progress: Progress,
) -> None:
    """Adam with a cosine schedule on random batches of pairs."""
    optimiser = torch.optim.Adam(pooling.parameters(), options.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, options.steps))
    size = min(options.batch, len(pairs.images))
    for step in range(options.steps):
        chosen = torch.from_numpy(dice.choice(len(pairs.images), size, replace=False)).to(pairs.images.mask.device)
        full, texts = pairs.images[chosen], pairs.captions[chosen].trimmed()
        boxes = None if pairs.boxes is None else pairs.boxes[chosen]
        with torch.no_grad():
            wanted = compared(matcher, full, texts)
        found = compared(matcher, pooled_encoding(matcher, pooling, full, boxes), texts)
        loss = mse_loss(found, wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step + 1, options.steps)


def pooled_encoding(matcher: Matcher, pooling: RegionPooling, full: ItemEncoding, boxes: Tensor | None) -> ItemEncoding:
    """The encoding of pooled regions, with gradients of the learned vectors."""
    few = pooling(full.items, full.mask, boxes)
    shares = full.views.get(SHARE)
    small = matcher.complete(few.items, few.mask, full.pooled, few.boxes, None if shares is None else shares[:, 0, 0])
    return small.weighted(few.weights)


def compared(matcher: Matcher, images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions"]:
    """Fused scores of all pairs as the fit compares them."""
    return logits_of(matcher.score_all(images, captions)["fused"], probabilities=matcher.has_probabilities)


def logits_of(scores: Float[Tensor, "images captions"], *, probabilities: bool) -> Float[Tensor, "images captions"]:
    """Logits of probabilities; other scores as they are, even where all of them happen to lie in 0..1."""
    return torch.logit(scores, eps=EDGE) if probabilities else scores


@contextmanager
def fixed(matcher: Matcher) -> Iterator[None]:
    """Weights without gradients while the block runs."""
    trained = [weight for weight in matcher.parameters() if weight.requires_grad]
    try:
        for weight in trained:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
