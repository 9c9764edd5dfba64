"""Which pairs of a batch are worth reasoning about: the positives, those that v·t finds hard, and a random few.

Axes: images | captions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def candidate_pairs(
    pooled: Float[Tensor, "images captions"], image_of_caption: Int[Tensor, " captions"], *, count: int, seed: int
) -> Bool[Tensor, "images captions"]:
    """Mark the pairs to score: every positive, and per image and per caption `count` negatives.

    Half of them (rounded up) are the hardest by v·t, where the reasoned score finds its hardest negatives as a rule;
    the others are random, so that the mean over candidates still stands for the batch while the network is fresh.

    Args:
        pooled: v·t of every pair; no gradient flows through the choice.
        image_of_caption: For each caption the row of its image.
        count: Negatives per image and per caption.
        seed: Seed of the random half; the same seed chooses the same pairs.
    """
    own = image_of_caption[None, :] == torch.arange(pooled.shape[0], device=pooled.device)[:, None]
    # Drawn on the CPU: the same pairs on every device.
    noise = torch.rand(pooled.shape, generator=torch.Generator().manual_seed(seed)).to(pooled.device)
    chosen = own.clone()
    for score, number in ((pooled.detach().float(), (count + 1) // 2), (noise, count // 2)):
        masked = score.masked_fill(chosen, -torch.inf)
        for axis in (0, 1):
            best = masked.topk(min(number, masked.shape[axis]), dim=axis).indices
            chosen.scatter_(axis, best, value=True)
    return chosen
