"""What the baselines with streams share: each stream turns q·c into a score, and the fused score is their mean.

Axes: pairs (leading, broadcast) | queries (who looks) | context (what they look at) | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.alignment import similarities
from tshsr.batches import CaptionBatch, ImageBatch
from tshsr.config import EncoderConfig
from tshsr.encoders import RegionEncoder, build_word_encoder, start_with_xavier
from tshsr.models.matcher import ItemEncoding, Matcher, Scores, StreamTrace
from tshsr.models.tshsr import cosine, products, sides


class ScoringStream(nn.Module, ABC):
    """One stream: queries look at the context, and all looks together give one score.

    Attributes:
        compares_items: Whether a score needs the wide vectors themselves; products of them are enough otherwise.
    """

    compares_items: bool = True

    @abstractmethod
    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The score of each pair."""

    @abstractmethod
    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """The same, with all that an explanation needs."""

    @abstractmethod
    def numbers_per_pair(self, queries: int, context: int) -> int:
        """Estimate of the numbers that scoring a pair holds at once."""


class StreamMatcher(Matcher):
    """Encoders, poolings for `v·t`, and one or two streams.

    Args:
        encoder: Settings of the encoders.
        streams: By name: `word_stream`, `region_stream`.
        region_pooling: Makes v of regions.
        word_pooling: Makes t of words.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        streams: Mapping[str, ScoringStream],
        region_pooling: nn.Module,
        word_pooling: nn.Module,
    ) -> None:
        super().__init__()
        self.region_encoder = RegionEncoder(encoder)
        self.word_encoder = build_word_encoder(encoder)
        start_with_xavier(self.region_encoder)
        self.region_pooling = region_pooling
        self.word_pooling = word_pooling
        self.streams = nn.ModuleDict(streams)

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Regions in the joint space, and v."""
        regions = self.region_encoder(batch)
        return encoding(regions, batch.mask, self.region_pooling(regions, batch.mask))

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Words in the joint space, and t."""
        words = self.word_encoder(batch)
        return encoding(words, batch.mask, self.word_pooling(words, batch.mask))

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """The score of each stream, their mean as `fused`, and `pooled` (v·t)."""
        similarity = similarities(images.items, captions.items)
        scores = {name: stream(*sides(name, similarity, images, captions)) for name, stream in self._streams()}
        return named(scores, cosine(images.pooled, captions.pooled))

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Every image against every caption; the side that is looked at leads, so nothing is copied for a pair."""
        similarity = products(images, captions)
        scores: Scores = {}
        for name, stream in self._streams():
            if name == "word_stream":
                order = similarity.permute(0, 2, 3, 1)
                scores[name] = stream(order, captions.unsqueeze(0), images.unsqueeze(1))
            else:
                order = similarity.permute(2, 0, 1, 3)
                scores[name] = stream(order, images.unsqueeze(0), captions.unsqueeze(1)).T
        return named(scores, images.pooled @ captions.pooled.T)

    def grid(self, images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions regions words"]:
        """q·c of all regions with all words, by pairs."""
        return products(images, captions).transpose(1, 2).contiguous()

    def narrow(self, encoding: ItemEncoding) -> ItemEncoding:
        """Without the wide vectors, where no stream compares them."""
        wide = any(stream.compares_items for _, stream in self._streams())
        return encoding if wide else encoding.without_items()

    def score_listed(
        self, images: ItemEncoding, captions: ItemEncoding, met: Float[Tensor, "pairs regions words"] | None = None
    ) -> Scores:
        """Pairs one by one, with their part of the grid."""
        if met is None:
            return self.score_pairs(images, captions)
        few = captions.trimmed()
        similarity = met[..., : few.mask.shape[-1]]
        scores = {name: stream(*sides(name, similarity, images, few)) for name, stream in self._streams()}
        return named(scores, cosine(images.pooled, few.pooled))

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """What each stream did with the pairs."""
        similarity = similarities(images.items, captions.items)
        return {name: stream.trace(*sides(name, similarity, images, captions)) for name, stream in self._streams()}

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Peak of temporaries: what the greedier stream holds at once, beside the similarities of the pair."""
        sizes = {"word_stream": (words, regions), "region_stream": (regions, words)}
        held = max(stream.numbers_per_pair(*sizes[name]) for name, stream in self._streams())
        return (held + regions * words) * self.region_encoder.projection.weight.element_size()

    def _streams(self) -> Iterator[tuple[str, ScoringStream]]:
        """The streams by name, as what they are."""
        for name, stream in self.streams.items():
            if isinstance(stream, ScoringStream):
                yield name, stream


def named(streams: Scores, pooled: Float[Tensor, "*pairs"]) -> Scores:
    """The scores that the interface asks for."""
    return {**streams, "fused": torch.stack(list(streams.values())).mean(dim=0), "pooled": pooled}


def encoding(
    items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"], pooled: Float[Tensor, "rows dim"]
) -> ItemEncoding:
    """One side as the interface asks for it."""
    return ItemEncoding(items, mask, pooled, similarities(items, items), padded=not bool(mask.all()))
