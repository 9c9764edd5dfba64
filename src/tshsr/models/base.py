"""The interface that every method implements: encode each side once, then score pairs of encodings.

Axes: pairs (leading axes of both sides, broadcast) | regions | words | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.attention import similarities

Scores = dict[str, Tensor]
"""Scores by name: `fused` always; `pooled`, `word_stream`, `region_stream`, `level_0`... where the method has them."""


@dataclass(frozen=True)
class ItemEncoding:
    """Encoded images or captions: the items (regions or words) of each, and all that scoring needs of one side alone.

    Attributes:
        items: Unit rows in the joint space; padding is zero.
        mask: True where an item is real.
        pooled: Unit vector of the whole.
        gram: Products of an image's regions, or a caption's words, with each other.
        views: The items as the parts of a network see them, by name.
        padded: Whether the mask holds any padding; False saves the work of masking.
    """

    items: Float[Tensor, "*rows items dim"]
    mask: Bool[Tensor, "*rows items"]
    pooled: Float[Tensor, "*rows _"]
    gram: Float[Tensor, "*rows items items"]
    views: Mapping[str, Float[Tensor, "*rows _ _"]] = field(default_factory=dict)
    padded: bool = True

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.items)

    @property
    def real(self) -> Bool[Tensor, "*rows items"] | None:
        """The mask, or None where nothing is padding."""
        return self.mask if self.padded else None

    def bytes_per_row(self) -> int:
        """What a copy of one row takes."""
        parts = self.items, self.mask, self.pooled, self.gram, *self.views.values()
        return sum(part.nbytes for part in parts) // max(1, len(self))

    def __getitem__(self, rows: slice | Int[Tensor, " rows"]) -> ItemEncoding:
        """Some of the rows."""
        if isinstance(rows, slice):
            return self.each(lambda part: part[rows])
        return self.each(lambda part: part.index_select(0, rows))  # its gradient adds whole rows, not single numbers

    def to(self, device: torch.device | str) -> ItemEncoding:
        """The same encoding on another device."""
        return self.each(lambda part: part.to(device))

    def at(self, dtype: torch.dtype) -> ItemEncoding:
        """The same in another precision, but for what is few: Gram matrices, and pooled vectors, as v·t would tie."""
        lowered = self.each(lambda part: part.to(dtype) if part.is_floating_point() else part)
        return replace(lowered, pooled=self.pooled, gram=self.gram)

    def unsqueeze(self, axis: int) -> ItemEncoding:
        """A new leading axis (0 or 1), so that two encodings broadcast against each other."""
        return self.each(lambda part: part.unsqueeze(axis))

    def each(self, change: Callable[[Tensor], Tensor]) -> ItemEncoding:
        """The encoding with every tensor changed."""
        views = {name: change(view) for name, view in self.views.items()}
        return ItemEncoding(
            change(self.items), change(self.mask), change(self.pooled), change(self.gram), views, self.padded
        )

    def trimmed(self) -> ItemEncoding:
        """Without the trailing items that are padding in every row; waits for a GPU."""
        longest = int(self.mask.flatten(0, -2).any(dim=0).nonzero().max()) + 1
        return self.cut(longest, padded=not bool(self.mask[..., :longest].all()))

    def cut(self, longest: int, *, padded: bool) -> ItemEncoding:
        """The first items of every row, where it is known that the others are padding, and whether any is left."""
        return ItemEncoding(
            self.items[..., :longest, :],
            self.mask[..., :longest],
            self.pooled,
            self.gram[..., :longest, :longest],
            {name: view[..., :longest, :] for name, view in self.views.items()},
            padded=padded,
        )


def join_encodings(parts: Sequence[ItemEncoding]) -> ItemEncoding:
    """One encoding of several, padded to the longest."""
    longest = max(part.mask.shape[-1] for part in parts)

    def padded(part: ItemEncoding) -> ItemEncoding:
        more = longest - part.mask.shape[-1]
        rows = {name: pad(view, (0, 0, 0, more)) for name, view in part.views.items()}
        gram = pad(part.gram, (0, more, 0, more))
        items, mask = pad(part.items, (0, 0, 0, more)), pad(part.mask, (0, more))
        return ItemEncoding(items, mask, part.pooled, gram, rows, part.padded or more > 0)

    wide = [padded(part) for part in parts]
    return ItemEncoding(
        torch.cat([part.items for part in wide]),
        torch.cat([part.mask for part in wide]),
        torch.cat([part.pooled for part in wide]),
        torch.cat([part.gram for part in wide]),
        {name: torch.cat([part.views[name] for part in wide]) for name in wide[0].views},
        padded=any(part.padded for part in wide),
    )


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
        has_global_node: Whether the first base node is the global one.
        node_contributions: What each base node adds in each level; sums to `contributions`.
        pooled_meetings: What each query with each context item adds to `pooled`; sums to it. None where it is zero.
    """

    attention: Float[Tensor, "*pairs queries context"]
    node_weights: Float[Tensor, "*pairs levels nodes"]
    contributions: Float[Tensor, "*pairs levels"]
    pooled: Float[Tensor, "*pairs"]
    bias: Float[Tensor, ""]
    score: Float[Tensor, "*pairs"]
    has_global_node: bool
    node_contributions: Float[Tensor, "*pairs levels nodes"]
    pooled_meetings: Float[Tensor, "*pairs queries context"] | None = None


class Matcher(nn.Module, ABC):
    """A network that scores how well a caption describes an image.

    Attributes:
        compares_places: Whether an encoding of images needs their boxes.
    """

    compares_places: bool = False

    @property
    @abstractmethod
    def score_names(self) -> frozenset[str]:
        """Names of the scores of a pair, the keys of `score_pairs` and `score_all`; `fused` is always among them."""

    @abstractmethod
    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode each image once; cheap beside scoring."""

    @abstractmethod
    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode each caption once; cheap beside scoring."""

    def complete(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        pooled: Float[Tensor, "rows _"],
        boxes: Float[Tensor, "rows items 4"] | None = None,
    ) -> ItemEncoding:
        """An encoding from what cannot be made again, which is what an index keeps.

        Args:
            items: Unit rows in the joint space.
            mask: True where an item is real.
            pooled: Unit vectors of the wholes.
            boxes: Of regions, where they have any; some methods compare places.
        """
        del boxes
        return ItemEncoding(items, mask, pooled, similarities(items, items), padded=not bool(mask.all()))

    @abstractmethod
    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score image-caption pairs; the leading axes of both sides broadcast.

        Equal leading axes score pairs one by one; `images.unsqueeze(1)` against `captions.unsqueeze(0)` scores all.
        """

    def score_listed(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score pairs one by one, without the padding that all their captions share."""
        return self.score_pairs(images, captions.trimmed())

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
