"""Captions with two of their words swapped: negatives of the same words, bound together wrongly.

Negatives from other pictures seldom ask which colour belongs to which thing, so that a network need not learn it.
NegCLIP (Yuksekgonul et al., ICLR 2023) swaps words of one part of speech. Here no tagger is needed: two words change
places where each has been seen, in training, beside the new neighbours that it gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tshsr.data.batches import CaptionBatch, pad_sequences

EDGE = 0
"""Stands before the first and after the last word; no word has the number of padding."""


@dataclass(frozen=True)
class Swapped:
    """Some captions of a batch, each with two words swapped.

    Attributes:
        rows: For each of them the row of the true caption.
        captions: The false ones.
    """

    rows: Int[Tensor, " swapped"]
    captions: CaptionBatch

    def to(self, device: torch.device | str) -> Swapped:
        """The same on another device."""
        return Swapped(self.rows.to(device), self.captions.to(device))


class WordSwaps:
    """Swaps words of captions, so that the new caption still reads like one.

    A swapped caption may happen to be true ("a dog and a cat", or two words for one thing): what such negatives cost
    is small where word order means something, and all there is where it does not.

    Args:
        captions: The token numbers of each training caption.
    """

    def __init__(self, captions: Iterable[Sequence[int]]) -> None:
        self.neighbours = {pair for caption in captions for pair in pairwise((EDGE, *caption, EDGE))}

    def of_batch(self, batch: CaptionBatch, *, seed: int) -> Swapped | None:
        """One random swap of every caption that has any, on the CPU; None where none has."""
        generator = np.random.default_rng(seed)
        rows, swapped = [], []
        for row, (tokens, words) in enumerate(zip(batch.tokens.tolist(), batch.mask.sum(dim=1).tolist(), strict=True)):
            if positions := self.positions(tokens[:words]):
                rows.append(row)
                swapped.append(exchanged(tokens[:words], *positions[generator.integers(len(positions))]))
        if not rows:
            return None
        return Swapped(torch.tensor(rows), pad_sequences(swapped))

    def positions(self, caption: Sequence[int]) -> list[tuple[int, int]]:
        """Pairs of positions whose words may be swapped: they differ, are apart, each has been seen where it comes."""
        row, seen = (EDGE, *caption, EDGE), self.neighbours
        return [
            (i - 1, j - 1)
            for i in range(1, len(caption) - 1)
            for j in range(i + 2, len(caption) + 1)
            if row[i] != row[j]
            and {(row[i - 1], row[j]), (row[j], row[i + 1]), (row[j - 1], row[i]), (row[i], row[j + 1])} <= seen
        ]


def exchanged(words: Sequence[int], first: int, second: int) -> list[int]:
    """The words with those at two positions exchanged."""
    changed = list(words)
    changed[first], changed[second] = changed[second], changed[first]
    return changed
