"""Captions as a network reads them, and the interface of what makes them from text.

A node is what regions align with: a word of the vocabulary, or a word (or word piece) of a pretrained encoder.

Axes: captions | words (nodes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from tshsr.data.batches import CaptionBatch


class CaptionTokens(ABC):
    """Encoded captions, read as batches.

    Attributes:
        lengths: Number of nodes of each caption, int64.
    """

    lengths: np.ndarray

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.lengths)

    @abstractmethod
    def read(self, rows: np.ndarray) -> CaptionBatch:
        """The captions of these rows, padded to the longest, on the CPU.

        Raises:
            InputError: Where there is no row.
        """


class TokenIds(CaptionTokens):
    """Ids of a vocabulary, one per node, in one array.

    Args:
        ids: All captions in one row, int32.
        lengths: Number of ids of each caption.
    """

    def __init__(self, ids: np.ndarray, lengths: np.ndarray) -> None:
        self.ids, self.lengths = ids, lengths
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> TokenIds:
        """From the ids of each caption."""
        return cls(
            np.array([number for row in rows for number in row], np.int32), np.array([*map(len, rows)], np.int64)
        )

    @classmethod
    def joined(cls, parts: Iterable[TokenIds]) -> TokenIds:
        """The captions of all parts, in order."""
        parts = [cls.of([]), *parts]
        return cls(np.concatenate([part.ids for part in parts]), np.concatenate([part.lengths for part in parts]))

    def rows(self) -> Iterator[list[int]]:
        """The ids of every caption."""
        for start, stop in pairwise(self.starts.tolist()):
            yield self.ids[start:stop].tolist()

    def read(self, rows: np.ndarray) -> CaptionBatch:
        """The captions of these rows; padding is 0.

        Raises:
            InputError: Where there is no row.
        """
        lengths = self.lengths[rows]
        mask = np.arange(max(lengths, default=0)) < lengths[:, None]
        tokens = np.zeros(mask.shape, np.int64)
        if len(rows):
            tokens[mask] = np.concatenate([self.ids[self.starts[row] : self.starts[row + 1]] for row in rows])
        return CaptionBatch(torch.from_numpy(tokens), torch.from_numpy(mask))


class CaptionTokenizer(ABC):
    """What turns captions into the tokens that a network reads."""

    @property
    def ends(self) -> int:
        """Number of nodes at either end of every caption that stand for its start and its end, and for no word."""
        return 0

    @abstractmethod
    def encode(self, captions: Sequence[str]) -> CaptionTokens:
        """Encode captions.

        Raises:
            InputError: Where a caption has no word.
        """

    @abstractmethod
    def encode_kept(self, captions: Sequence[str], kept: Sequence[np.ndarray]) -> CaptionTokens:
        """Encode captions without some of their nodes, as if these had never been written.

        Args:
            captions: Texts, each with at least one node kept.
            kept: For each caption a mask of its nodes.

        Raises:
            InputError: Where a caption has no word.
        """

    @abstractmethod
    def words(self, caption: str) -> list[str]:
        """The spelling of each node of a caption.

        Raises:
            InputError: Where the caption has no word.
        """

    def nodes_of_words(self, caption: str) -> list[int]:
        """The node of each word of a caption, words being those of `data.text.WordRules`; negative for a word without.

        Raises:
            InputError: Where the caption has no word.
        """
        return [*range(self.ends, len(self.words(caption)) - self.ends)]

    @abstractmethod
    def are_known(self, caption: str) -> list[bool]:
        """For each node of a caption whether the vocabulary has it.

        Raises:
            InputError: Where the caption has no word.
        """

    @abstractmethod
    def known_words(self) -> list[str]:
        """Words of the vocabulary, of letters and digits only, sorted."""

    @abstractmethod
    def identity(self) -> str:
        """A text that is equal for tokenizers of equal output."""

    def to(self, device: torch.device | str) -> None:
        """Move to the device of the network, for tokenizers that compute states; no-op for others."""
        del device

    @abstractmethod
    def save_into(self, folder: Path) -> None:
        """Write the files that a run needs to open it again, atomically.

        Raises:
            DataError: Where the disk is full or the folder cannot be written.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Number of tokens of the vocabulary."""


def by_length(tokens: CaptionTokens) -> np.ndarray:
    """Caption indices, shortest caption first."""
    return np.argsort(tokens.lengths, kind="stable")
