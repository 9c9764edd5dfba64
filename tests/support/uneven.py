"""Images and captions of uneven lengths."""

from __future__ import annotations

import torch

from tests.support import tiny
from tshsr.data.batches import ImageBatch
from tshsr.data.tokens import TokenIds

LENGTHS = (3, 9, 1, 4, 4, 12, 2, 7)


def tokens() -> TokenIds:
    """Captions of these lengths."""
    generator = torch.Generator().manual_seed(0)
    return TokenIds.of([torch.randint(1, 20, (length,), generator=generator).tolist() for length in LENGTHS])


def batches(sizes: tuple[int, ...]) -> list[ImageBatch]:
    """A batch of images per size, with one to five regions each."""
    return [tiny.images(size, 5, real=[1 + (i + size) % 5 for i in range(size)], seed=size) for size in sizes]
