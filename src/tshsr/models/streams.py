"""What the methods with streams share: each stream looks from one side at the other and makes something of every pair.

Axes: pairs (leading, broadcast) | queries (who looks) | context (what they look at) | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.attention import attention_weights, similarities, to_unit_sums
from tshsr.models.base import ItemEncoding, Matcher, Scores, StreamTrace
from tshsr.models.encoders import RegionEncoder, build_word_encoder, some_regions
from tshsr.models.similarity import SimilarityVector


class ScoringStream(nn.Module, ABC):
    """One stream: queries look at the context, and all looks together give one score, or what it is the sum of."""

    def view(self, items: Float[Tensor, "rows items dim"]) -> Float[Tensor, "rows items _"] | None:
        """What the stream wants of the items of one side alone, once; None where that is the items themselves."""
        del items
        return None

    @abstractmethod
    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, ...]:
        """The score of each pair, or its terms (one more axis)."""

    @abstractmethod
    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """The same, with all that an explanation needs."""

    @abstractmethod
    def numbers_per_pair(self, queries: int, context: int) -> int:
        """Estimate of the numbers that scoring a pair holds at once."""


class StreamMatcher(Matcher):
    """Encoders, and one or two streams; a method adds its poolings for `v·t` and its streams.

    Args:
        encoder: Settings of the encoders.

    Attributes:
        region_pooling: Makes v of regions.
        word_pooling: Makes t of words.
        streams: By name: `word_stream`, `region_stream`.
    """

    region_pooling: nn.Module
    word_pooling: nn.Module
    streams: nn.ModuleDict

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        self.region_dropout = encoder.region_dropout
        self.region_encoder = RegionEncoder(encoder)
        self.word_encoder = build_word_encoder(encoder)

    @property
    def score_names(self) -> frozenset[str]:
        """The keys of `combine`."""
        return frozenset({*self.streams, "fused", "pooled"})

    def combine(self, parts: Mapping[str, Tensor], pooled: Float[Tensor, "*pairs"]) -> Scores:
        """Scores by name from what each stream made of the pairs: each stream's, their mean `fused`, and `pooled`."""
        return {**parts, "fused": torch.stack(list(parts.values())).mean(dim=0), "pooled": pooled}

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Regions in the joint space, v, and how each stream sees them."""
        batch = some_regions(batch, self.region_dropout if self.training else 0.0)
        regions = self.region_encoder(batch)
        return self.complete(regions, batch.mask, self.region_pooling(regions, batch.mask), batch.boxes)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Words in the joint space, t, and how each stream sees them."""
        words = self.word_encoder(batch)
        return self.complete(words, batch.mask, self.word_pooling(words, batch.mask))

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Scores by name, as `combine` gives them."""
        similarity = similarities(images.items, captions.items)
        parts = {name: stream(*sides(name, similarity, images, captions)) for name, stream in self._streams()}
        return self.combine(parts, cosine(images.pooled, captions.pooled))

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Every image against every caption; the side that is looked at leads, so nothing is copied for a pair."""
        similarity = products(images, captions)
        parts = {}
        for name, stream in self._streams():
            if name == "word_stream":
                order = similarity.permute(0, 2, 3, 1)
                parts[name] = stream(order, captions.unsqueeze(0), images.unsqueeze(1))
            else:
                order = similarity.permute(2, 0, 1, 3)
                parts[name] = stream(order, images.unsqueeze(0), captions.unsqueeze(1)).transpose(0, 1)
        return self.combine(parts, images.pooled @ captions.pooled.T)

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """What each stream did with the pairs."""
        similarity = similarities(images.items, captions.items)
        return {name: stream.trace(*sides(name, similarity, images, captions)) for name, stream in self._streams()}

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Peak of temporaries: what the greedier stream holds at once, beside the similarities of the pair."""
        sizes = {"word_stream": (words, regions), "region_stream": (regions, words)}
        held = max(stream.numbers_per_pair(*sizes[name]) for name, stream in self._streams())
        return (held + regions * words) * self.region_encoder.projection.weight.element_size()

    def views(
        self, items: Float[Tensor, "rows items dim"], boxes: Float[Tensor, "rows items 4"] | None
    ) -> dict[str, Tensor]:
        """How each stream sees the items, by its name."""
        del boxes
        seen = {name: stream.view(items) for name, stream in self._streams()}
        return {name: view for name, view in seen.items() if view is not None}

    def _streams(self) -> Iterator[tuple[str, ScoringStream]]:
        """The streams by name, as what they are."""
        for name, stream in self.streams.items():
            if isinstance(stream, ScoringStream):
                yield name, stream

    def complete(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        pooled: Float[Tensor, "rows dim"],
        boxes: Float[Tensor, "rows items 4"] | None = None,
    ) -> ItemEncoding:
        """All that scoring needs of one side, from its items, pooled vectors and boxes alone."""
        views = self.views(items, boxes)
        return ItemEncoding(items, mask, pooled, similarities(items, items), views, padded=not bool(mask.all()))


def cosine(v: Float[Tensor, "*#pairs dim"], t: Float[Tensor, "*#pairs dim"]) -> Float[Tensor, "*pairs"]:
    """v·t, the cosine of two pooled unit vectors."""
    return torch.einsum("...d,...d->...", v, t)


def products(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images regions captions words"]:
    """q·c of all regions with all words: one matrix product, of which every pair reads its part."""
    product = images.items.flatten(0, 1) @ captions.items.flatten(0, 1).T
    return product.view(*images.mask.shape, *captions.mask.shape)


def sides(
    name: str, similarity: Float[Tensor, "*pairs regions words"], images: ItemEncoding, captions: ItemEncoding
) -> tuple[Float[Tensor, "*pairs queries context"], ItemEncoding, ItemEncoding]:
    """(q·c, queries, context) of a stream."""
    return (similarity.mT, captions, images) if name == "word_stream" else (similarity, images, captions)


PLACE = "place"
"""Name of the view of places: where a region is, and where a word expects it."""


class ComparingStream(ScoringStream, ABC):
    """A stream that makes similarity vectors of its looks; a method adds what it reasons over them.

        S = [ s(v, t; W_g) ; s(q_1, a_1; W_l) ; ... ; s(q_n, a_n; W_l) ]

    Args:
        name: Under which name its views of an encoding are kept.
        dim: Width of the joint space (D).
        comparison_dim: Width of the space in which vectors are compared (k); 0: the joint space, as in SGRAF.
        width: Width of a similarity vector (m).
        inverse_temperature: Sharpness of the attention.
        global_node: Whether S begins with the similarity vector of the pooled sides.
        places: Whether a look is also told how well places agree (the view `PLACE` of both sides).
    """

    def __init__(
        self,
        name: str,
        *,
        dim: int,
        comparison_dim: int,
        width: int,
        inverse_temperature: float,
        global_node: bool,
        places: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.inverse_temperature = inverse_temperature
        self.narrow, self.places = comparison_dim > 0, places
        self.compared = comparison_dim or dim
        self.local_similarity = SimilarityVector(dim, comparison_dim, width, places=places)
        self.global_similarity = SimilarityVector(dim, comparison_dim, width) if global_node else None

    def view(self, items: Float[Tensor, "rows items dim"]) -> Float[Tensor, "rows items comparison"] | None:
        """How this stream sees the items of one side, where it does not compare them in the joint space."""
        return self.local_similarity.seen(items) if self.narrow else None

    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """How much each query takes from each context item."""
        return attention_weights(
            similarity,
            query_mask=queries.real,
            context_mask=context.real,
            inverse_temperature=self.inverse_temperature,
        )

    def nodes(
        self,
        similarity: Float[Tensor, "*pairs queries context"],
        attention: Float[Tensor, "*pairs queries context"],
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Bool[Tensor, "*#pairs nodes"] | None]:
        """The similarity vectors S and which of them are real (None: all)."""
        weights = to_unit_sums(attention, context.gram)
        near, far = (side.views.get(self.name, side.items) for side in (queries, context))
        attended = (weights * similarity).sum(dim=-1).to(near.dtype) if self.narrow else None
        agreement = None
        if self.places:  # of what is looked at, how much is where its word expects it
            places = queries.views[PLACE].to(attention.dtype), context.views[PLACE].to(attention.dtype)
            agreement = (attention * (places[0] @ places[1].mT)).sum(dim=-1).to(near.dtype)
        local = self.local_similarity.to_attended(near, weights.to(near.dtype), far, attended, agreement)
        if self.global_similarity is None:
            return local, queries.real
        pooled = (self.global_similarity.seen(side.pooled[..., None, :].to(near.dtype)) for side in (queries, context))
        cosine_of_pooled = cosine(queries.pooled, context.pooled)[..., None].to(near.dtype) if self.narrow else None
        whole = self.global_similarity(*pooled, cosine_of_pooled)
        nodes = torch.cat([whole, local], dim=-2)
        if queries.real is None:
            return nodes, None
        return nodes, torch.cat([queries.mask.new_ones((*queries.mask.shape[:-1], 1)), queries.mask], dim=-1)
