"""Candidate negatives of a batch: the hardest by v·t and random ones; only these and the positives are scored.

Axes: images | captions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def candidate_pairs(
    pooled: Float[Tensor, "images captions"],
    image_of_caption: Int[Tensor, " captions"],
    *,
    count: int,
    seed: int,
    mine: bool = True,
) -> tuple[Bool[Tensor, "images captions"], Bool[Tensor, "images captions"]]:
    """Choose `count` negatives per image and per caption: half (rounded down) mined, half random, or all random.

    Mined: the hardest by v·t, which usually include the hardest by the full score. Random: mostly pairs that v·t
    separates easily; without them in training their full scores exceed those of positives, and R@10 falls below that
    of v·t (docs/log.md).

    Args:
        pooled: v·t of every pair; no gradient flows through the choice.
        image_of_caption: For each caption the row of its image.
        count: Negatives per image and per caption.
        seed: Seed of the random half.
        mine: False: all random, an unbiased sample for the warm-up, where mined negatives collapse the network
            (docs/log.md).

    Returns:
        Disjoint masks of the mined and of the random negatives.
    """
    positives = image_of_caption[None, :] == torch.arange(pooled.shape[0], device=pooled.device)[:, None]
    # Drawn on the CPU: the same on every device.
    noise = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(seed)).to(pooled.device)
    hard = count // 2 if mine else 0
    mined = best_of_rows_and_columns(pooled.detach().float(), ~positives, hard)
    return mined, best_of_rows_and_columns(noise, ~(positives | mined), count - hard)


def best_of_rows_and_columns(
    score: Float[Tensor, "images captions"], allowed: Bool[Tensor, "images captions"], count: int
) -> Bool[Tensor, "images captions"]:
    """Mark the `count` largest allowed scores of every row and of every column."""
    score = score.masked_fill(~allowed, -torch.inf)
    chosen = torch.zeros_like(allowed)
    for axis in (0, 1):
        best = score.topk(min(count, score.shape[axis]), dim=axis).indices
        chosen.scatter_(axis, best, value=True)
    return chosen & allowed
