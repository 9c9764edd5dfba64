"""The only all-pairs loop of the package: exact, tiled in both axes, bounded in memory.

Captions are sorted by length and cut into blocks, so that padding is rare; a tile is a block of images against a block
of captions, as large as the byte budget allows. The result does not depend on the tile beyond float rounding.

Axes: images | captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from tshsr.batches import ImageBatch, pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.tokens import Tokenizer
from tshsr.errors import InputError, SettingsError
from tshsr.models.matcher import ItemEncoding, Matcher, Scores

Progress = Callable[[int, int], None]
"""Called with (pairs done, pairs in all)."""

ENCODE_BLOCK = 256
"""Images or captions encoded at once; encoding is a small part of the work."""

BYTE_BUDGET = 2**30
"""Default bound on a tile's temporaries."""

CACHE_TILE = 2**26
"""On a CPU larger tiles than this only spill out of its caches (docs/log.md has the figures)."""


def score_split(
    matcher: Matcher,
    tokenizer: Tokenizer,
    split: Split,
    *,
    byte_budget: int = BYTE_BUDGET,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Score every image of a split with every caption.

    Args:
        matcher: The network; its mode (train or eval) is put back afterwards.
        tokenizer: The network's tokenizer.
        split: What to score.
        byte_budget: Bound on the temporaries of a tile, in bytes.
        device: Where to compute; None: where the network is.
        progress: Told after every tile.

    Returns:
        By score name a float32 matrix, images x captions.
    """
    tokens = tokenizer.encode(split.captions)
    images = (split.regions.read(rows) for rows in _blocks(np.arange(len(split.regions)), ENCODE_BLOCK))
    return score_all_pairs(matcher, images, tokens, byte_budget=byte_budget, device=device, progress=progress)


@torch.inference_mode()
def score_all_pairs(
    matcher: Matcher,
    images: Iterator[ImageBatch],
    captions: Sequence[list[int]],
    *,
    byte_budget: int = BYTE_BUDGET,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Score every image with every caption, each a row of token numbers; see `score_split`."""
    if not captions:
        raise InputError("there are no captions to score; give at least one.")
    training = matcher.training
    device = next(matcher.parameters()).device if device is None else torch.device(device)
    with torch.inference_mode(mode=False):  # weights moved inside it could not be trained on
        matcher.eval().to(device)
    try:
        encoded = [matcher.encode_images(batch.to(device)) for batch in images]
        order = np.argsort([len(row) for row in captions], kind="stable")
        rows = sum(len(block) for block in encoded)
        result: dict[str, np.ndarray] = {}
        done = 0
        for columns in _blocks(order, ENCODE_BLOCK):
            block = matcher.encode_captions(pad_sequences([captions[i] for i in columns]).to(device))
            for first, picture_block in _starts(encoded):
                for top, left, tile in _tiles(matcher, picture_block, block, byte_budget):
                    _write(result, tile, first + top, columns[left:], shape=(rows, len(captions)))
                done += len(picture_block) * len(columns)
                if progress is not None:
                    progress(done, rows * len(captions))
    finally:
        matcher.train(training)
    return result


@torch.inference_mode()
def score_encoded(
    matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, *, byte_budget: int = BYTE_BUDGET
) -> Scores:
    """Score every encoded image with every encoded caption, in tiles, on their device and in the network's mode."""
    result: Scores = {}
    for top, left, tile in _tiles(matcher, images, captions, byte_budget):
        for name, scores in tile.items():
            matrix = result.setdefault(name, scores.new_empty(len(images), len(captions)))
            matrix[top : top + scores.shape[0], left : left + scores.shape[1]] = scores
    return result


def tile_shape(bytes_per_pair: int, images: int, captions: int, byte_budget: int) -> tuple[int, int]:
    """Images and captions of a tile: about square, within the budget, no larger than the block.

    Raises:
        SettingsError: Where the budget does not hold a single pair.
    """
    if byte_budget < bytes_per_pair:
        raise SettingsError(
            f"the byte budget is {byte_budget}; scoring one pair takes about {bytes_per_pair} bytes. Raise the budget."
        )
    pairs = byte_budget // bytes_per_pair
    tall = min(images, max(1, math.isqrt(pairs)))
    return tall, min(captions, max(1, pairs // tall))


def _tiles(
    matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, byte_budget: int
) -> Iterator[tuple[int, int, dict[str, torch.Tensor]]]:
    """(first image, first caption, scores) of every tile of two blocks."""
    cost = matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1])
    if images.items.device.type == "cpu":
        byte_budget = min(byte_budget, max(CACHE_TILE, cost))
    tall, wide = tile_shape(cost, len(images), len(captions), byte_budget)
    for left in range(0, len(captions), wide):
        part = captions[left : left + wide].trimmed()
        for top in range(0, len(images), tall):
            yield top, left, matcher.score_all(images[top : top + tall], part)


def _write(
    result: dict[str, np.ndarray],
    tile: dict[str, torch.Tensor],
    top: int,
    columns: np.ndarray,
    *,
    shape: tuple[int, int],
) -> None:
    """Put a tile's scores in their places."""
    for name, scores in tile.items():
        matrix = result.setdefault(name, np.empty(shape, np.float32))
        matrix[top : top + scores.shape[0], columns[: scores.shape[1]]] = scores.float().cpu().numpy()


def _blocks(items: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive pieces of an array."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _starts(blocks: Sequence[ItemEncoding]) -> Iterator[tuple[int, ItemEncoding]]:
    """Each block with the number of its first row."""
    first = 0
    for block in blocks:
        yield first, block
        first += len(block)
