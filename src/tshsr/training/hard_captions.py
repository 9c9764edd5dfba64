"""Hard negative captions: two words of a caption swapped, which binds attributes or roles to the wrong objects.

Captions of other images are seldom hard negatives of this kind. NegCLIP (Yuksekgonul et al., ICLR 2023) swaps words of
one part of speech; here no tagger is needed: two words are swapped where both bigrams of each at its new position occur
in the training captions.
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
"""Boundary token before the first and after the last word: the id of padding, which no word has."""


@dataclass(frozen=True)
class Swapped:
    """Captions of a batch with two words swapped.

    Attributes:
        rows: Row of the original caption of each.
    """

    rows: Int[Tensor, " swapped"]
    captions: CaptionBatch

    def to(self, device: torch.device | str) -> Swapped:
        """Move to another device."""
        return Swapped(self.rows.to(device), self.captions.to(device))


class WordSwaps:
    """Random swaps of two words of a caption such that all new bigrams occur in the training captions.

    A swapped caption may still be true ("a dog and a cat", or synonyms): such false negatives are rare where word order
    carries meaning.

    Args:
        captions: Token ids of each training caption.
    """

    def __init__(self, captions: Iterable[Sequence[int]]) -> None:
        self.bigrams = {pair for caption in captions for pair in pairwise((EDGE, *caption, EDGE))}

    def of_batch(self, batch: CaptionBatch, *, seed: int) -> Swapped | None:
        """One random swap of every caption that allows one, on the CPU; None without any."""
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
        """Pairs of positions with different, non-adjacent words whose swap creates only known bigrams."""
        row, known = (EDGE, *caption, EDGE), self.bigrams
        return [
            (i - 1, j - 1)
            for i in range(1, len(caption) - 1)
            for j in range(i + 2, len(caption) + 1)
            if row[i] != row[j]
            and {(row[i - 1], row[j]), (row[j], row[i + 1]), (row[j - 1], row[i]), (row[i], row[j + 1])} <= known
        ]


def exchanged(words: Sequence[int], first: int, second: int) -> list[int]:
    """Swap the words at two positions."""
    changed = list(words)
    changed[first], changed[second] = changed[second], changed[first]
    return changed
