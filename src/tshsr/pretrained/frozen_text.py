"""A frozen text network as the tokenizer of a run: captions -> states of their words, kept for long lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from tshsr.data.batches import UNREAD
from tshsr.data.text import check_caption
from tshsr.errors import DataError
from tshsr.pretrained.layers import LAST, Layers
from tshsr.pretrained.names import TEXT_WEIGHTS
from tshsr.pretrained.pieces import PretrainedTokenizer
from tshsr.pretrained.text import EncodedCaption, Nodes, TextTokenizer, token_batch
from tshsr.pretrained.text_network import TextNetwork, node_states
from tshsr.pretrained.text_weights import load_text
from tshsr.pretrained.token_store import StateBlock, TokenManifest, TokenStates, TokenStore, captions_hash
from tshsr.system import current_begin

KEPT_FROM = 1000
"""Captions from which on states are kept on disk; shorter lists are computed at each use."""
BATCH_TOKENS = 1024
"""Most tokens of a batch, with padding."""


class FrozenText(PretrainedTokenizer):
    """Tokenizer and network of a text encoder that is not trained.

    Args:
        weights: A short name of `TEXT_WEIGHTS`, a folder, or a name on the hub.
        nodes: words: the pieces of a word are one node; pieces: each piece is one.
        device: Where the network computes.
        layers: Those that a node's state is made of.
        fingerprint: Of the encoder that a run was trained with; empty for any.

    Raises:
        DataError: Where the weights can't be loaded, or are others than those of the fingerprint.
        SettingsError: Where transformers is not installed, or the network has fewer layers.

    Attributes:
        width: Of a node's state, of all its layers together.
        pooled_width: Of a caption's vector; 0 where the last layer is left out.
        fingerprint: Of network and tokenizer.
    """

    def __init__(
        self,
        weights: str,
        nodes: Nodes = "words",
        device: torch.device | str = "cpu",
        *,
        layers: Layers = LAST,
        fingerprint: str = "",
    ) -> None:
        self.weights, self.device = weights, device
        self.tokenizer, network = _load(weights, nodes, layers, run=fingerprint)
        self.fingerprint = f"{network.fingerprint}-{self.tokenizer.fingerprint}"
        if fingerprint not in ("", self.fingerprint):
            raise DataError(
                f"the text encoder {weights} has the fingerprint {self.fingerprint}, the run was trained with "
                f"{fingerprint}; name the weights that it was trained with."
            )
        self.network = network.to(device)
        self.width, self.pooled_width = network.width, network.pooled_width

    def to(self, device: torch.device | str) -> None:
        """Move the network to a device."""
        self.device = device
        self.network.to(device)

    def identity(self) -> str:
        """The fingerprint, the layers where they are not the last one alone, and what the nodes are."""
        return f"{self._states_name}-{self.tokenizer.nodes}"

    @property
    def _states_name(self) -> str:
        """Fingerprint of the states: that of the encoder, and the layers where they are not the last one alone."""
        return self.fingerprint + self.network.layers.name(self.network.depth)

    def save_into(self, folder: Path) -> None:
        """Nothing: the settings of a run name the weights and their fingerprint."""

    def encode(self, captions: Sequence[str]) -> TokenStates:
        """States of captions; those of a long list come from the token store.

        Raises:
            InputError: Where a caption has no word.
            DataError: Where the token store cannot be written.
        """
        if len(captions) < KEPT_FROM:
            return TokenStates(self.compute(captions, 0))
        for number, caption in enumerate(captions):
            check_caption(caption, number)
        sizes = len(captions), self.width, self.pooled_width
        wanted = TokenManifest(self._states_name, self.tokenizer.nodes, captions_hash(captions), *sizes)
        progress = current_begin()("reading captions with the text network", "captions")
        return TokenStore(captions, wanted, self.compute, progress).open()

    def encode_kept(self, captions: Sequence[str], kept: Sequence[np.ndarray]) -> TokenStates:
        """States of captions without some of their nodes, as if these had never been written; never kept on disk."""
        pairs = zip(captions, kept, strict=True)
        remains = [self.tokenizer.without(caption, mask.tolist()) for caption, mask in pairs]
        return TokenStates(self.compute(remains, 0, part=True))

    @torch.inference_mode()
    def compute(self, captions: Sequence[str], first: int, *, part: bool = False) -> StateBlock:
        """States and vectors of captions.

        Args:
            first: The first caption's place in its list, for messages.
            part: Whether the captions are remains of others, which may be punctuation alone.

        Raises:
            InputError: Where a caption has no word.
            DataError: Where a state is not finite in half precision.
        """
        encoded = self.tokenizer.encode(captions, first=first, part=part)
        lengths = np.array([len(one.spans) for one in encoded], np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        states = np.zeros((starts[-1], self.width), np.float16)
        pooled = np.zeros((len(encoded), self.pooled_width), np.float32)
        for rows in batches(encoded):
            batch = token_batch([encoded[row] for row in rows], self.tokenizer.pad_id).to(self.device)
            if batch.word_of_token is None:
                continue
            found, whole = self.network(batch.tokens, batch.word_of_token != UNREAD)
            nodes = node_states(found, batch.word_of_token, batch.mask.shape[1]).cpu().numpy()
            for row, values in zip(rows, nodes, strict=True):
                states[starts[row] : starts[row + 1]] = values[: lengths[row]]
            pooled[rows] = whole.float().cpu().numpy()
        if not (np.isfinite(states).all() and np.isfinite(pooled).all()):
            raise DataError(f"{self.weights} gives states beyond half precision; expected values below 65,504.")
        return StateBlock(lengths, states, pooled)


def _load(weights: str, nodes: Nodes, layers: Layers, *, run: str) -> tuple[TextTokenizer, TextNetwork]:
    """Tokenizer and network.

    Args:
        run: Fingerprint of the encoder that a run was trained with; empty outside a run.
    """
    try:
        return load_text(weights, nodes, layers)
    except DataError as error:
        if not run or weights in TEXT_WEIGHTS:
            raise
        raise DataError(
            f"the run reads captions with the frozen text encoder {weights} (fingerprint {run}), no part of it: "
            f"{str(error).rstrip('.')}; or name its folder on this machine as text_weights in the run's config.json."
        ) from error


def batches(encoded: Sequence[EncodedCaption]) -> Iterator[list[int]]:
    """Rows of captions of similar length, at most `BATCH_TOKENS` tokens with padding a batch."""
    rows: list[int] = []
    for row in sorted(range(len(encoded)), key=lambda row: len(encoded[row].ids)):
        if rows and (len(rows) + 1) * len(encoded[row].ids) > BATCH_TOKENS:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows
