"""Multiply-adds of scoring a pair: counted while it is done, so that the figure cannot drift from the code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import Matcher

IN_PLACE = {torch.ops.aten.addmm_: lambda _, left, right, **__: 2 * left[0] * left[1] * right[1]}
"""Products that torch's counter does not know: from the shapes of the arguments to operations."""
TILE = 16
"""Images and captions of the tile that is counted."""


def multiply_adds_of(work: Callable[[], object]) -> float:
    """Multiply-adds of the matrix products of a piece of work."""
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        work()
    return float(counter.get_total_flops()) / 2


@torch.no_grad()
def multiply_adds(matcher: Matcher, *, features: int, regions: int, words: int) -> float:
    """Multiply-adds of the matrix products that scoring one pair of a tile takes; encoding is apart.

    Elementwise work (exponentials, roots, sums) is not counted, as in the figures of the field.

    Args:
        matcher: The network.
        features: Width of its region features.
        regions: Regions of each image.
        words: Words of each caption.
    """
    device = next(matcher.parameters()).device
    boxes = torch.rand(TILE, regions, 4).sort(dim=-1).values
    images = ImageBatch(torch.rand(TILE, regions, features), torch.ones(TILE, regions, dtype=torch.bool), boxes)
    captions = CaptionBatch(torch.ones(TILE, words, dtype=torch.long), torch.ones(TILE, words, dtype=torch.bool))
    training = matcher.training
    matcher.eval()
    try:
        left, right = matcher.encode_images(images.to(device)), matcher.encode_captions(captions.to(device))
        return multiply_adds_of(lambda: matcher.score_all(left, right)) / TILE**2
    finally:
        matcher.train(training)
