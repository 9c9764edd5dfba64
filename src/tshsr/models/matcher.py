"""The interface that every method implements: encode each side once, then score pairs of encodings.

Axes: pairs (leading axes of both sides, broadcast) | regions | words | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.batches import CaptionBatch, ImageBatch

Scores = dict[str, Tensor]
"""Scores by name: `fused` always; `pooled`, `word_stream`, `region_stream`, `level_0`... where the method has them."""


@dataclass(frozen=True)
class ItemEncoding:
    """Encoded images or captions: the items (regions or words) of each, and one pooled vector.

    Attributes:
        items: Unit rows in the joint space; padding is zero.
        mask: True where an item is real.
        pooled: Unit vector of the whole.
    """

    items: Float[Tensor, "*rows items dim"]
    mask: Bool[Tensor, "*rows items"]
    pooled: Float[Tensor, "*rows dim"]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.items)

    def __getitem__(self, rows: slice | Int[Tensor, " rows"]) -> ItemEncoding:
        """Some of the rows."""
        return ItemEncoding(self.items[rows], self.mask[rows], self.pooled[rows])

    def to(self, device: torch.device | str) -> ItemEncoding:
        """The same encoding on another device."""
        return ItemEncoding(self.items.to(device), self.mask.to(device), self.pooled.to(device))

    def unsqueeze(self, axis: int) -> ItemEncoding:
        """A new leading axis (0 or 1), so that two encodings broadcast against each other."""
        return ItemEncoding(self.items.unsqueeze(axis), self.mask.unsqueeze(axis), self.pooled.unsqueeze(axis))

    def trimmed(self) -> ItemEncoding:
        """Without the trailing items that are padding in every row."""
        longest = int(self.mask.flatten(0, -2).any(dim=0).nonzero().max()) + 1
        return ItemEncoding(self.items[..., :longest, :], self.mask[..., :longest], self.pooled)


@dataclass(frozen=True)
class StreamTrace:
    """What one stream did with a pair, for explanations.

    Attributes:
        attention: How much each query (word or region) took from each context item; rows sum to 1.
        node_weights: One row a level: how much each base node counts in that level's read-out; sums to 1.
            Base nodes are the global node first (where there is one), then the queries.
        contributions: What each level adds to the stream's logit.
        pooled: What the similarity v·t of the pooled vectors adds to the logit.
        bias: The constant of the logit.
        score: sigmoid(contributions.sum() + pooled + bias).
    """

    attention: Float[Tensor, "*pairs queries context"]
    node_weights: Float[Tensor, "*pairs levels nodes"]
    contributions: Float[Tensor, "*pairs levels"]
    pooled: Float[Tensor, "*pairs"]
    bias: Float[Tensor, ""]
    score: Float[Tensor, "*pairs"]
    has_global_node: bool


class Matcher(nn.Module, ABC):
    """A network that scores how well a caption describes an image."""

    @abstractmethod
    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode each image once; cheap beside scoring."""

    @abstractmethod
    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode each caption once; cheap beside scoring."""

    @abstractmethod
    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score image-caption pairs; the leading axes of both sides broadcast.

        Equal leading axes score pairs one by one; `images.unsqueeze(1)` against `captions.unsqueeze(0)` scores all.
        """

    @abstractmethod
    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Estimate of the peak of temporary bytes for scoring one pair, for tiles of a bounded size."""

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """What happened inside: by stream name (`word_stream`, `region_stream`); empty where a method has none."""
        del images, captions
        return {}

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Every image against every caption, at once (`scoring.py` does it in tiles)."""
        return self.score_pairs(images.unsqueeze(1), captions.unsqueeze(0))
