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

from tshsr.data.batches import CaptionBatch, ImageBatch, PixelBatch
from tshsr.errors import InputError
from tshsr.models.attention import at_least_float32, similarities
from tshsr.pretrained.vision import VisionEncoder

Scores = dict[str, Tensor]
"""Scores by name: `fused` and `pooled` (v·t) always; `word_stream`, `level_0`... where the method has them."""

MEAN_WEIGHTS = "weights of the items in their mean"
"""View of pooled regions: rows x items x 1."""


@dataclass(frozen=True)
class ItemEncoding:
    """Encoded images or captions: regions or words, and everything that scoring computes from one side alone.

    Attributes:
        items: Unit rows in the joint space; padding is zero.
        mask: True where an item is real.
        pooled: Unit vector of the whole image or caption.
        gram: Products of the items of each row with each other.
        views: Projections of the items, by name of the module that uses them.
        padded: Whether any item is padding; False omits masking.
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
        """The mask; None without padding."""
        return self.mask if self.padded else None

    def mean(self) -> Float[Tensor, "*rows dim"]:
        """The mean of the real items of each row, in float32 at least, as the pooled vectors.

        Of pooled regions, the mean of the regions that were pooled (`weighted`).
        """
        return torch.einsum("...i,...id->...d", self.mean_weights(), at_least_float32(self.items))

    def mean_weights(self) -> Float[Tensor, "*rows items"]:
        """The weight of each item in the mean; 0 for padding."""
        real = at_least_float32(self.mask.to(self.items.dtype))
        if MEAN_WEIGHTS in self.views:
            return at_least_float32(self.views[MEAN_WEIGHTS][..., 0]) * real
        return real / real.sum(dim=-1, keepdim=True).clamp_min(1)

    def weighted(self, weights: Float[Tensor, "*rows items"]) -> ItemEncoding:
        """The same encoding with these weights in the mean."""
        return replace(self, views={**self.views, MEAN_WEIGHTS: weights[..., None]})

    def bytes_per_row(self) -> int:
        """Size of one row in bytes."""
        parts = self.items, self.mask, self.pooled, self.gram, *self.views.values()
        return sum(part.nbytes for part in parts) // max(1, len(self))

    def __getitem__(self, rows: slice | Int[Tensor, " rows"]) -> ItemEncoding:
        """Select rows."""
        if isinstance(rows, slice):
            return self.each(lambda part: part[rows])
        return self.each(lambda part: part.index_select(0, rows))  # its backward pass adds row by row

    def to(self, device: torch.device | str) -> ItemEncoding:
        """The same encoding on another device."""
        return self.each(lambda part: part.to(device))

    def at(self, dtype: torch.dtype) -> ItemEncoding:
        """Convert to another precision, except Gram matrices (small) and pooled vectors (rounding would tie v·t)."""
        lowered = self.each(lambda part: part.to(dtype) if part.is_floating_point() else part)
        return replace(lowered, pooled=self.pooled, gram=self.gram)

    def unsqueeze(self, axis: int) -> ItemEncoding:
        """Insert a leading axis (0 or 1), so that two encodings broadcast against each other."""
        return self.each(lambda part: part.unsqueeze(axis))

    def each(self, change: Callable[[Tensor], Tensor]) -> ItemEncoding:
        """Apply a function to every tensor."""
        views = {name: change(view) for name, view in self.views.items()}
        return ItemEncoding(
            change(self.items), change(self.mask), change(self.pooled), change(self.gram), views, self.padded
        )

    def trimmed(self) -> ItemEncoding:
        """Remove the trailing items that are padding in every row; synchronises a GPU."""
        longest = int(self.mask.flatten(0, -2).any(dim=0).nonzero().max()) + 1
        return self.cut(longest, padded=not bool(self.mask[..., :longest].all()))

    def cut(self, longest: int, *, padded: bool) -> ItemEncoding:
        """Keep the first `longest` items of every row; `padded`: whether these include padding."""
        return ItemEncoding(
            self.items[..., :longest, :],
            self.mask[..., :longest],
            self.pooled,
            self.gram[..., :longest, :longest],
            {name: view[..., :longest, :] for name, view in self.views.items()},
            padded=padded,
        )


def has_padding(mask: Bool[Tensor, "*rows items"]) -> bool:
    """Whether any item is padding; True in an exported graph, which holds for any mask."""
    return torch.compiler.is_compiling() or not bool(mask.all())


def join_encodings(parts: Sequence[ItemEncoding]) -> ItemEncoding:
    """Concatenate encodings, padded to the longest.

    Where some have weights in the mean, as those of an index with pooled regions, the others get theirs.
    """
    if any(MEAN_WEIGHTS in part.views for part in parts):
        parts = [part.weighted(part.mean_weights()) for part in parts]
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
    """Intermediate values of one stream for a pair, for explanations.

    Base nodes are the global node first (where the network has one), then the queries (words or regions).

    Attributes:
        attention: Attention of each query over the context items; rows sum to 1.
        node_weights: Weight of each base node in the read-out of each level; rows sum to 1.
        contributions: Term of each level in the stream's logit.
        pooled: Term of v·t in the logit, less that of the mean similarity where the network subtracts it.
        bias: Constant of the logit.
        score: sigmoid(contributions.sum() + pooled + bias), in SCAN the sum itself.
        has_global_node: Whether the first base node is the global one.
        node_contributions: Term of each base node in each level; rows sum to `contributions`.
        pooled_terms: Term of each query and context item in `pooled`; None where they have none.
        pooled_whole: Term of the whole picture and caption in `pooled`: what the terms of the items leave, such as
            that of the encoders' own vectors; None without a term of v·t.
        pooled_shares: Product of the shares of query and context item in v and t, both of which sum to 1; None where
            `pooled_terms` is.
    """

    attention: Float[Tensor, "*pairs queries context"]
    node_weights: Float[Tensor, "*pairs levels nodes"]
    contributions: Float[Tensor, "*pairs levels"]
    pooled: Float[Tensor, "*pairs"]
    bias: Float[Tensor, ""]
    score: Float[Tensor, "*pairs"]
    has_global_node: bool
    node_contributions: Float[Tensor, "*pairs levels nodes"]
    pooled_terms: Float[Tensor, "*pairs queries context"] | None = None
    pooled_whole: Float[Tensor, "*pairs"] | None = None
    pooled_shares: Float[Tensor, "*pairs queries context"] | None = None


@dataclass(frozen=True)
class RelatedScores:
    """Scores of a training batch by embeddings that depend on the rest of the batch: for the loss alone.

    Attributes:
        scores: Images x captions, by name.
        penalty: Added to their loss.
    """

    scores: Scores
    penalty: Float[Tensor, ""]


class Matcher(nn.Module, ABC):
    """A network that scores how well a caption describes an image.

    Attributes:
        dim: Width of encoded regions and words.
        compares_places: Whether scoring compares positions, so that `complete` needs boxes.
        has_probabilities: Whether all scores but v·t are probabilities, with a logit.
        trains_pooled_apart: Whether only losses of v·t train v and t.
        vision: The network that computes regions from pixels; None for a matcher of stored region features.
    """

    dim: int
    compares_places: bool = False
    has_probabilities: bool = False
    trains_pooled_apart: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.vision: VisionEncoder | None = None

    @property
    @abstractmethod
    def score_names(self) -> frozenset[str]:
        """Names of the scores of a pair, the keys of `score_pairs` and `score_all`, with `fused` and `pooled`."""

    @abstractmethod
    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode each image once; cheap relative to scoring."""

    def encode_pictures(self, batch: ImageBatch | PixelBatch) -> ItemEncoding:
        """Encode images by their regions, which the vision network computes from pixels.

        Raises:
            InputError: Where pixels are given and there is no vision network.
        """
        if isinstance(batch, ImageBatch):
            return self.encode_images(batch)
        if self.vision is None:
            raise InputError("this network encodes region features and has no vision network; give it an ImageBatch.")
        return self.encode_images(self.vision(batch))

    @abstractmethod
    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode each caption once; cheap relative to scoring."""

    def complete(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        pooled: Float[Tensor, "rows _"],
        boxes: Float[Tensor, "rows items 4"] | None = None,
        share: Float[Tensor, " rows"] | None = None,
    ) -> ItemEncoding:
        """Rebuild an encoding from the parts that an index stores.

        Args:
            items: Unit rows in the joint space.
            mask: True where an item is real.
            pooled: Unit vectors of the whole images or captions.
            boxes: Boxes of the regions, for networks with `compares_places`.
            share: Share of the pooled items in `pooled`, for explanations, where that is neither 1 nor 0.
        """
        del boxes, share
        return ItemEncoding(items, mask, pooled, similarities(items, items), padded=has_padding(mask))

    @abstractmethod
    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score image-caption pairs; the leading axes of both sides broadcast.

        Equal leading axes score pairs one by one; `images.unsqueeze(1)` against `captions.unsqueeze(0)` scores all.
        """

    def score_listed(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score pairs one by one, without the trailing padding common to all their captions."""
        return self.score_pairs(images, captions.trimmed())

    @abstractmethod
    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Estimate of the peak temporary memory of scoring one pair; bounds the size of tiles."""

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """Intermediate values by stream name (`word_stream`, `region_stream`); empty for a method without streams."""
        del images, captions
        return {}

    def with_parts(self, encoding: ItemEncoding, batch: ImageBatch | CaptionBatch) -> ItemEncoding:
        """The encoding of a batch with what `trace` needs beside it, to split v·t by regions and words."""
        del batch
        return encoding

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores | None:
        """Scores with the relations among the pairs of a training batch; None for a method without.

        Args:
            image_of_caption: For each caption the row of its image.
        """
        del images, captions, image_of_caption
        return None

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image against every caption in one batch (`scoring.all_pairs` works in tiles)."""
        return self.score_pairs(images.unsqueeze(1), captions.unsqueeze(0))
