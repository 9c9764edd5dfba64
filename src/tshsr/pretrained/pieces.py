"""Captions as word pieces, for a pretrained text encoder that is part of the matcher because some layers are tuned.

Axes: captions | tokens (word pieces, start, end, padding) | words (nodes).
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tshsr.data.batches import UNREAD, CaptionBatch
from tshsr.data.tokens import CaptionTokenizer, CaptionTokens
from tshsr.errors import DataError
from tshsr.files import replacing_folder
from tshsr.pretrained.layers import LAST, Layers
from tshsr.pretrained.text import EncodedCaption, Nodes, TextTokenizer
from tshsr.pretrained.text_network import TextNetwork
from tshsr.pretrained.text_weights import load_text

TEXT_FOLDER = "text"
"""Folder, within a run's, of the configuration of a tuned text encoder and of the files of its tokenizer."""
BLOCK = 4096
"""Captions tokenised per call."""


class WordPieces(CaptionTokens):
    """Word pieces of captions, each with its node, in one array.

    Args:
        encoded: The captions in order, in blocks.
        pad_id: Id of the padding token.
    """

    def __init__(self, encoded: Sequence[Sequence[EncodedCaption]], pad_id: int) -> None:
        self.pad_id = pad_id
        rows = [(*map(np.concatenate, zip(*map(_arrays, block), strict=True)),) for block in encoded]
        ids, nodes = zip(*rows, strict=True) if rows else ([], [])
        self.ids = np.concatenate([np.zeros(0, np.int32), *ids])
        self.nodes = np.concatenate([np.zeros(0, np.int16), *nodes])
        self.lengths = np.array([len(one.spans) for block in encoded for one in block], np.int64)
        self.starts = np.cumsum([0, *(len(one.ids) for block in encoded for one in block)])

    def read(self, rows: np.ndarray) -> CaptionBatch:
        """The captions of these rows, padded with the padding token.

        Raises:
            InputError: Where there is no row.
        """
        counts, lengths = np.diff(self.starts)[rows], self.lengths[rows]
        real = np.arange(max(counts, default=0)) < counts[:, None]
        ids, nodes = np.full(real.shape, self.pad_id, np.int64), np.full(real.shape, UNREAD, np.int64)
        if len(rows):
            places = [slice(self.starts[row], self.starts[row + 1]) for row in rows]
            ids[real] = np.concatenate([self.ids[place] for place in places])
            nodes[real] = np.concatenate([self.nodes[place] for place in places])
        mask = np.arange(max(lengths, default=0)) < lengths[:, None]
        return CaptionBatch(torch.from_numpy(ids), torch.from_numpy(mask), word_of_token=torch.from_numpy(nodes))


def _arrays(one: EncodedCaption) -> tuple[np.ndarray, np.ndarray]:
    return np.array(one.ids, np.int32), np.array(one.word_of_token, np.int16)


class PretrainedTokenizer(CaptionTokenizer, ABC):
    """What frozen and tuned text encoders share: the nodes of captions by the encoder's own tokenizer.

    Attributes:
        fingerprint: Of network and tokenizer, before tuning.
        width: Of a node's state.
        pooled_width: Of a caption's vector.
    """

    tokenizer: TextTokenizer
    network: TextNetwork
    fingerprint: str
    width: int
    pooled_width: int

    def __len__(self) -> int:
        """Number of tokens of the vocabulary."""
        return len(self.tokenizer)

    def words(self, caption: str) -> list[str]:
        """The spelling of each node, as in the caption.

        Raises:
            InputError: Where the caption has no word.
        """
        return self.tokenizer.words(caption)

    def nodes_of_words(self, caption: str) -> list[int]:
        """For each word of a caption the node with its first character; negative where there is none."""
        return self.tokenizer.nodes_of_words(caption)

    def are_known(self, caption: str) -> list[bool]:
        """For each node whether none of its tokens is the one of unknown text."""
        return self.tokenizer.are_known(caption)

    def known_words(self) -> list[str]:
        """Whole words of the vocabulary, of letters and digits only, sorted."""
        return self.tokenizer.known_words()


class PieceTokenizer(PretrainedTokenizer):
    """The tokenizer of a tuned text encoder.

    Args:
        tokenizer: Its tokenizer.
        network: Its network, for the shape alone: parameters may be on the meta device.
        fingerprint: Of the weights before tuning, and of the tokenizer.

    Attributes:
        width: Of the states of the network.
        pooled_width: Of a caption's vector.
    """

    def __init__(self, tokenizer: TextTokenizer, network: TextNetwork, fingerprint: str) -> None:
        self.tokenizer, self.fingerprint = tokenizer, fingerprint
        self.network = network.to("meta")
        self.width, self.pooled_width = network.width, network.pooled_width

    @classmethod
    def load(cls, weights: str, nodes: Nodes, layers: Layers = LAST) -> PieceTokenizer:
        """Of an encoder by any name of `locate_text_weights`.

        Raises:
            DataError: Where it can't be loaded.
            SettingsError: Where transformers is not installed.
        """
        tokenizer, network = load_text(weights, nodes, layers)
        return cls(tokenizer, network, f"{network.fingerprint}-{tokenizer.fingerprint}")

    @classmethod
    def open(cls, folder: Path, nodes: Nodes, fingerprint: str, layers: Layers = LAST) -> PieceTokenizer:
        """Of the files in a run's folder.

        Raises:
            DataError: Where they can't be loaded.
            SettingsError: Where transformers is not installed.
        """
        path = folder / TEXT_FOLDER
        if not path.is_dir():
            raise DataError(f"{path} is missing: the configuration and the tokenizer of the run's text encoder.")
        with torch.device("meta"):
            network = TextNetwork.empty(str(path), layers)
        return cls(TextTokenizer(str(path), nodes), network, fingerprint)

    def encode(self, captions: Sequence[str]) -> WordPieces:
        """Word pieces of each caption.

        Raises:
            InputError: Where a caption has no word.
        """
        starts = range(0, len(captions), BLOCK)
        blocks = [self.tokenizer.encode(captions[start : start + BLOCK], first=start) for start in starts]
        return WordPieces(blocks, self.tokenizer.pad_id)

    def encode_kept(self, captions: Sequence[str], kept: Sequence[np.ndarray]) -> WordPieces:
        """Word pieces of each caption without the nodes that its mask excludes.

        Raises:
            InputError: Where a caption has no word.
        """
        rows = zip(captions, kept, strict=True)
        remains = [self.tokenizer.without(caption, mask.tolist()) for caption, mask in rows]
        return WordPieces([self.tokenizer.encode(remains, part=True)], self.tokenizer.pad_id)

    def identity(self) -> str:
        """The tokenizer's fingerprint and the kind of nodes."""
        return f"{self.tokenizer.fingerprint} {self.tokenizer.nodes}"

    def save_into(self, folder: Path) -> None:
        """Write `text/` into a run's folder, atomically.

        Raises:
            DataError: Where the disk is full or the folder cannot be written.
        """
        with replacing_folder(folder / TEXT_FOLDER) as partial:
            self.tokenizer.save(partial)
            self.network.save_config(partial)
