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
from tshsr.scoring.processes import ALONE, Processes

EDGE = 0
"""Boundary token before the first and after the last word: the id of padding, which no word has."""


@dataclass(frozen=True)
class Swapped:
    """Captions of a batch with two words swapped.

    Attributes:
        rows: Row of the original caption of each.
        captions: The swapped captions; of several processes those that this one encodes.
        sizes: Of several processes the number of swapped captions that each contributes, in order.
    """

    rows: Int[Tensor, " swapped"]
    captions: CaptionBatch
    sizes: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> Swapped:
        """Move to another device."""
        return Swapped(self.rows.to(device), self.captions.to(device), self.sizes)


class WordSwaps:
    """Random swaps of two words of a caption such that all new bigrams occur in the training captions.

    A swapped caption may still be true ("a dog and a cat", or synonyms): such false negatives are rare where word order
    carries meaning.

    Args:
        captions: Token ids of each training caption.
    """

    def __init__(self, captions: Iterable[Sequence[int]]) -> None:
        self.bigrams = {pair for caption in captions for pair in pairwise((EDGE, *caption, EDGE))}

    def of_batch(
        self, batch: CaptionBatch, *, seed: int, total: int | None = None, processes: Processes = ALONE
    ) -> Swapped | None:
        """One random swap of every caption that allows one, on the CPU; None without any.

        The draws do not depend on the number of processes: each knows how many swaps the captions of the others allow.

        Args:
            batch: The captions, or this process's share of them.
            seed: The same in all processes.
            total: Number of captions of the whole batch; None: those given.
            processes: Those that share the batch.
        """
        rows = zip(batch.tokens.tolist(), batch.mask.sum(dim=1).tolist(), strict=True)
        words = [tokens[:length] for tokens, length in rows]
        swaps = [self.positions(caption) for caption in words]
        share = processes.share(len(words) if total is None else total)
        own = torch.tensor([len(each) for each in swaps[: share.sizes[processes.index]]], dtype=torch.int64)
        counts = processes.gather(own.to(processes.device), share.sizes).tolist()
        generator = np.random.default_rng(seed)
        chosen = {row: int(generator.integers(count)) for row, count in enumerate(counts) if count}
        if not chosen:
            return None
        swapped = [
            exchanged(words[row - share.rows.start], *swaps[row - share.rows.start][number])
            for row, number in chosen.items()
            if share.rows.start <= row < share.rows.stop
        ]
        owner = np.repeat(np.arange(processes.count), share.sizes)
        sizes = np.bincount(owner[list(chosen)], minlength=processes.count).tolist()
        return Swapped(torch.tensor(list(chosen)), padded(swapped), tuple(sizes))

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


def padded(captions: list[list[int]]) -> CaptionBatch:
    """A batch of captions, which may be empty."""
    empty = torch.zeros(0, 1, dtype=torch.long)
    return pad_sequences(captions) if captions else CaptionBatch.unchecked(empty, empty.bool())


def exchanged(words: Sequence[int], first: int, second: int) -> list[int]:
    """Swap the words at two positions."""
    changed = list(words)
    changed[first], changed[second] = changed[second], changed[first]
    return changed
