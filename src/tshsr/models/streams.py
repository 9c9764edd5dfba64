"""Base classes of methods with streams. A stream: attention of one side (queries) over the other (context).

Word stream: words attend to regions. Region stream: regions attend to words.

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.config.models import DsgslConfig, EncoderConfig, ImramConfig, RcarConfig, ScanConfig, TshsrConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.attention import at_least_float32, attention_weights, similarities, to_unit_sums, unit
from tshsr.models.base import ItemEncoding, Matcher, RelatedScores, Scores, StreamTrace, has_padding
from tshsr.models.concepts import Knowledge, check_boxes
from tshsr.models.encoders import (
    RegionEncoder,
    RegionProjection,
    WordProjection,
    build_word_encoder,
    drop_regions,
    init_xavier,
)
from tshsr.models.pooling import AttentionPooling, MeanPooling
from tshsr.models.similarity import SimilarityVector
from tshsr.models.whole import POOLED_WEIGHT, SHARE, build_whole, starts_at_encoder, whole_vector


class ScoringStream(nn.Module, ABC):
    """One stream: attention of the queries over the context, reduced to one score per pair or to its terms."""

    def view(self, items: Float[Tensor, "rows items dim"]) -> Float[Tensor, "rows items _"] | None:
        """Projection of the items of one side, computed once per encoding; None: the stream uses the items."""
        del items
        return None

    @abstractmethod
    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, ...]:
        """The score of each pair without v·t, its logit, or its terms along an additional last axis."""

    def finish(self, output: Float[Tensor, "*pairs"], pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The score of each pair from the output of `forward` and v·t."""
        del pooled
        return output

    @abstractmethod
    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Intermediate values for explanations."""

    @abstractmethod
    def floats_per_pair(self, queries: int, context: int) -> int:
        """Estimate of the peak number of temporary values for one pair."""


class LogisticStream(ScoringStream, ABC):
    """A stream that reduces each pair to one vector r:  score = sigmoid( w·r + gamma v·t + c ).

    The term gamma v·t exists where ranking starts at a joint encoder's; there w = 0 before the first step.

    Attributes:
        score: w and c.
        pooled_weight: gamma; None without the term.
    """

    score: nn.Linear
    pooled_weight: nn.Parameter | None

    def start(self, encoder: EncoderConfig) -> None:
        """Add the term gamma v·t and set w to zero, where ranking starts at the encoder's."""
        self.pooled_weight = None
        if starts_at_encoder(encoder):
            self.pooled_weight = nn.Parameter(torch.tensor(POOLED_WEIGHT))
            nn.init.zeros_(self.score.weight)

    def logit(self, vector: Float[Tensor, "*pairs width"]) -> Float[Tensor, "*pairs"]:
        """w·r + c, in float32 at least: one number per pair, and rounding to bfloat16 would tie scores."""
        read, weight, bias = map(at_least_float32, (vector, self.score.weight, self.score.bias))
        return nn.functional.linear(read, weight, bias).squeeze(-1)

    def finish(self, output: Float[Tensor, "*pairs"], pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The score of each pair, 0..1, from its logit without v·t."""
        return torch.sigmoid(output if self.pooled_weight is None else output + self.pooled_weight * pooled)

    def single_level(
        self,
        attention: Float[Tensor, "*pairs queries context"],
        vector: Float[Tensor, "*pairs width"],
        nodes: tuple[Float[Tensor, "*pairs nodes"], Float[Tensor, "*pairs nodes"]],
        v_t: Float[Tensor, "*pairs"],
        *,
        has_global_node: bool,
    ) -> StreamTrace:
        """Intermediate values as a single level.

        Args:
            vector: r.
            nodes: Weight and term of each node; the terms sum to w·r.
            v_t: v·t.
        """
        contribution = nn.functional.linear(vector, self.score.weight)
        pooled = torch.zeros_like(contribution[..., 0])
        if self.pooled_weight is not None:
            pooled = self.pooled_weight * v_t
        return StreamTrace(
            attention=attention,
            node_weights=nodes[0][..., None, :],
            contributions=contribution,
            pooled=pooled,
            bias=self.score.bias[0],
            score=torch.sigmoid(contribution[..., 0] + pooled + self.score.bias[0]),
            has_global_node=has_global_node,
            node_contributions=nodes[1][..., None, :],
            pooled_whole=None if self.pooled_weight is None else pooled,
        )


GridScoring = Callable[[ScoringStream, Tensor, ItemEncoding, ItemEncoding], Tensor]
"""Outputs of a stream, rows x others x ..., from q·c (rows x others x queries x context), its queries (the others) and
its context (the rows)."""


def scores_of_grid(
    stream: ScoringStream,
    similarity: Float[Tensor, "rows others queries context"],
    queries: ItemEncoding,
    context: ItemEncoding,
) -> Float[Tensor, "rows others *levels"]:
    """Outputs of a stream by its modules."""
    scores: Tensor = stream(similarity, queries.unsqueeze(0), context.unsqueeze(1))
    return scores


class StreamMatcher(Matcher):
    """Encoders and one or two streams; subclasses add the streams and the poolings for `v·t`.

    Attributes:
        region_pooling: From regions to v, or to their part in it; None where v is the image encoder's own vector.
        word_pooling: Likewise from words to t.
        pooled_regions: From the inputs of the region encoder to what is pooled; None: the encoded regions.
        pooled_words: From the states of the word encoder to what is pooled; None: the encoded words.
        region_whole: From pooled regions and the image encoder's own vector to v; None for pooled regions alone.
        word_whole: Likewise to t.
        knowledge: Concepts beside v and t; None without.
        has_mean_similarity: Whether `combine` is given the part MEAN_SIMILARITY.
        streams: By name: `word_stream`, `region_stream`.
    """

    region_pooling: nn.Module | None
    word_pooling: nn.Module | None
    streams: nn.ModuleDict

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        self.dim, self.region_dropout = encoder.dim, encoder.region_dropout
        self.region_encoder = RegionEncoder(encoder)
        self.word_encoder = build_word_encoder(encoder)
        self.pooled_regions: RegionProjection | None = None
        self.pooled_words: WordProjection | None = None
        self.region_whole, self.word_whole = build_whole(encoder)
        self.knowledge: Knowledge | None = None
        self.has_mean_similarity = False

    @property
    def score_names(self) -> frozenset[str]:
        """The keys of `combine`."""
        return frozenset({*self.streams, "fused", "pooled"})

    def combine(self, parts: Mapping[str, Tensor], pooled: Float[Tensor, "*pairs"]) -> Scores:
        """Scores by name from the outputs of the streams: each stream, their mean as `fused`, and `pooled`."""
        scores = {name: stream.finish(parts[name], pooled) for name, stream in self._streams()}
        return {**scores, "fused": torch.stack(list(scores.values())).mean(dim=0), "pooled": pooled}

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode regions, v and the views of the streams."""
        batch = drop_regions(batch, self.region_dropout if self.training else 0.0)
        check_boxes(self.knowledge, batch.boxes)
        inputs = self.region_encoder.inputs(batch)
        regions = self.region_encoder.rows(inputs, batch.mask)
        pooled = regions if self.pooled_regions is None else self.pooled_regions.project(inputs, batch.mask)
        v, share = whole_vector(self.region_whole, self.region_pooling, pooled, batch.mask, batch.pooled)
        v, share = self._with_concepts(regions, batch.mask, v, share, batch.boxes)
        return self.complete(regions, batch.mask, v, batch.boxes, share)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode words, t and the views of the streams."""
        states, own = self.word_encoder.states(batch)
        words = self.word_encoder.rows(states, batch.mask)
        pooled = words if self.pooled_words is None else self.pooled_words.project(states, batch.mask)
        t, share = whole_vector(self.word_whole, self.word_pooling, pooled, batch.mask, own)
        t, share = self._with_concepts(words, batch.mask, t, share)
        return self.complete(words, batch.mask, t, share=share)

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores | None:
        """Scores and divergence of concepts; None without."""
        return None if self.knowledge is None else self.knowledge.related(images, captions, image_of_caption)

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score pairs; names as in `combine`."""
        similarity = similarities(images.items, captions.items)
        parts = {
            name: stream(*queries_and_context(name, similarity, images, captions)) for name, stream in self._streams()
        }
        parts |= self._mean_similarity(images, captions, cosine)
        return self.combine(parts, cosine(images.pooled, captions.pooled))

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image against every caption."""
        return self.scores_by(scores_of_grid, images, captions)

    def scores_by(self, outputs: GridScoring, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score every image against every caption, with the outputs of each stream computed by a function.

        The context side's rows are axis 0 of its grid, which avoids copies per pair.
        """
        similarity = all_similarities(images, captions)
        parts = {}
        for name, stream in self._streams():
            if name == "word_stream":
                parts[name] = outputs(stream, similarity.permute(0, 2, 3, 1), captions, images)
            else:
                parts[name] = outputs(stream, similarity.permute(2, 0, 1, 3), images, captions).transpose(0, 1)
        parts |= self._mean_similarity(images, captions, all_products)
        return self.combine(parts, all_products(images.pooled, captions.pooled))

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """Intermediate values of each stream."""
        similarity = similarities(images.items, captions.items)
        return {
            name: stream.trace(*queries_and_context(name, similarity, images, captions))
            for name, stream in self._streams()
        }

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Temporaries of the larger stream, plus the similarities of the pair."""
        sizes = {"word_stream": (words, regions), "region_stream": (regions, words)}
        peak = max(stream.floats_per_pair(*sizes[name]) for name, stream in self._streams())
        return (peak + regions * words) * self.region_encoder.projection.weight.element_size()

    def views(
        self, items: Float[Tensor, "rows items dim"], boxes: Float[Tensor, "rows items 4"] | None
    ) -> dict[str, Tensor]:
        """Projections of the items, by the name of their stream."""
        del boxes
        views = {name: stream.view(items) for name, stream in self._streams()}
        return {name: view for name, view in views.items() if view is not None}

    def _mean_similarity(
        self, images: ItemEncoding, captions: ItemEncoding, products: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The part MEAN_SIMILARITY, where the method has it, but not in training: mean region times mean word."""
        if not self.has_mean_similarity or self.training:
            return {}
        return {MEAN_SIMILARITY: products(images.mean(), captions.mean())}

    def _with_concepts(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        pooled: Float[Tensor, "rows _"],
        share: Float[Tensor, " rows"] | None,
        boxes: Float[Tensor, "rows items 4"] | None = None,
    ) -> tuple[Float[Tensor, "rows _"], Float[Tensor, " rows"] | None]:
        """The pooled vectors with concepts beside them, where there are any, and the share of pooled items in them."""
        if self.knowledge is None:
            return pooled, share
        together, kept = self.knowledge.add(items, mask, pooled, boxes)
        if share is None and self.region_pooling is not None:
            share = torch.ones_like(pooled[:, 0])
        return together, None if share is None else kept * share

    def _streams(self) -> Iterator[tuple[str, ScoringStream]]:
        """Names and streams, typed as ScoringStream."""
        for name, stream in self.streams.items():
            if isinstance(stream, ScoringStream):
                yield name, stream

    def complete(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        pooled: Float[Tensor, "rows _"],
        boxes: Float[Tensor, "rows items 4"] | None = None,
        share: Float[Tensor, " rows"] | None = None,
    ) -> ItemEncoding:
        """Build an encoding from items, pooled vectors, boxes and shares."""
        views = self.views(items, boxes)
        if share is not None:
            views[SHARE] = share[:, None, None].expand(*mask.shape, 1)
        return ItemEncoding(items, mask, pooled, similarities(items, items), views, padded=has_padding(mask))


class MeanPooledMatcher(StreamMatcher):
    """A method whose v and t, for first-stage retrieval, are means of regions and of words."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__(encoder)
        init_xavier(self.region_encoder)
        from_encoder = starts_at_encoder(encoder)
        self.region_pooling, self.word_pooling = (None if from_encoder else MeanPooling() for _ in range(2))


class AttentionPooledMatcher(StreamMatcher):
    """A method whose v and t are pooled from regions and words by attention."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__(encoder)
        init_xavier(self.region_encoder)
        from_encoder, dim = starts_at_encoder(encoder), encoder.dim
        self.region_pooling, self.word_pooling = (None if from_encoder else AttentionPooling(dim) for _ in range(2))


def stream_names(streams: Literal["both", "word", "region"]) -> tuple[str, ...]:
    """Names of the streams of a setting."""
    return ("word_stream", "region_stream") if streams == "both" else (f"{streams}_stream",)


def stream_sharpness(config: TshsrConfig | ScanConfig | RcarConfig | DsgslConfig | ImramConfig) -> dict[str, float]:
    """Lambda of the attention of each stream of a method, by name."""
    both = {"word_stream": config.word_inverse_temperature, "region_stream": config.region_inverse_temperature}
    return {name: both[name] for name in stream_names(config.streams)}


def cosine(v: Float[Tensor, "*#pairs dim"], t: Float[Tensor, "*#pairs dim"]) -> Float[Tensor, "*pairs"]:
    """v·t, the cosine of two pooled unit vectors."""
    return torch.einsum("...d,...d->...", v, t)


def all_products(v: Float[Tensor, "images dim"], t: Float[Tensor, "captions dim"]) -> Float[Tensor, "images captions"]:
    """v·t of all pairs."""
    return v @ t.T


def all_similarities(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images regions captions words"]:
    """Cosines of all regions with all words, as one matrix product."""
    product = images.items.flatten(0, 1) @ captions.items.flatten(0, 1).T
    return product.view(*images.mask.shape, *captions.mask.shape)


def queries_and_context(
    name: str, similarity: Float[Tensor, "*pairs regions words"], images: ItemEncoding, captions: ItemEncoding
) -> tuple[Float[Tensor, "*pairs queries context"], ItemEncoding, ItemEncoding]:
    """Cosines q·c, queries and context of a stream."""
    return (similarity.mT, captions, images) if name == "word_stream" else (similarity, images, captions)


MEAN_SIMILARITY = "mean_similarity"
"""Name of the part of a pair with the mean similarity of all its regions with all its words."""
PLACE = "place"
"""Name of the view with positions: that of a region, or the one that a word predicts for its region."""


class SimilarityVectorStream(ScoringStream, ABC):
    """A stream with one similarity vector per query; subclasses reduce these vectors to a score.

        S = [ s(v, t; W_g) ; s(q_1, a_1; W_l) ; ... ; s(q_n, a_n; W_l) ]          a_q: attended context of query q

    Args:
        name: Key of its view in an encoding.
        dim: Width of the joint space (D).
        pooled_dim: Width of v and t, or of the part of the pooled vectors that the global node compares.
        comparison_dim: Width of the comparison space (k); 0: the joint space, as in SGRAF.
        width: Width of a similarity vector (m).
        inverse_temperature: Lambda of the attention.
        global_node: Whether S begins with the similarity vector of the pooled vectors.
        products: Whether local similarity vectors include products beside squared differences.
        places: Whether local similarity vectors include the position term (views `PLACE`).
        gated: Whether local similarity vectors compare gated queries (`similarity.ComparisonGate`).
        pooled_from: First column of that part.
    """

    def __init__(
        self,
        name: str,
        *,
        dim: int,
        pooled_dim: int,
        comparison_dim: int,
        width: int,
        inverse_temperature: float,
        global_node: bool,
        products: bool = False,
        places: bool = False,
        gated: bool = False,
        pooled_from: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.pooled_part = slice(pooled_from, pooled_from + pooled_dim)
        self.inverse_temperature = inverse_temperature
        self.narrow, self.places = comparison_dim > 0, places
        self.compared = comparison_dim or dim
        self.local_similarity = SimilarityVector(
            dim, comparison_dim, width, products=products, places=places, gated=gated
        )
        self.global_similarity = SimilarityVector(pooled_dim, comparison_dim, width) if global_node else None

    def view(self, items: Float[Tensor, "rows items dim"]) -> Float[Tensor, "rows items comparison"] | None:
        """Projection P x of the items; None where vectors are compared in the joint space."""
        return self.local_similarity.project(items) if self.narrow else None

    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """Attention weights of the queries over the context."""
        return attention_weights(
            similarity, query_mask=queries.real, context_mask=context.real, inverse_temperature=self.inverse_temperature
        )

    def nodes(
        self,
        similarity: Float[Tensor, "*pairs queries context"],
        attention: Float[Tensor, "*pairs queries context"],
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Bool[Tensor, "*#pairs nodes"] | None]:
        """The similarity vectors S and their mask (None: all are real)."""
        weights = to_unit_sums(attention, context.gram)
        q, c = (side.views.get(self.name, side.items) for side in (queries, context))
        attended = (weights * similarity).sum(dim=-1).to(q.dtype) if self.narrow else None
        agreement = None
        if self.places:  # attention-weighted mean of the agreement of positions with predicted positions
            places = queries.views[PLACE].to(attention.dtype), context.views[PLACE].to(attention.dtype)
            agreement = (attention * (places[0] @ places[1].mT)).sum(dim=-1).to(q.dtype)
        local = self.local_similarity.to_attended(q, weights.to(q.dtype), c, attended, agreement)
        if self.global_similarity is None:
            return local, queries.real
        wholes = [self.whole(side.pooled) for side in (queries, context)]
        pooled = (self.global_similarity.project(whole[..., None, :].to(q.dtype)) for whole in wholes)
        cosine_of_pooled = cosine(*wholes)[..., None].to(q.dtype) if self.narrow else None
        global_node = self.global_similarity(*pooled, cosine_of_pooled)
        nodes = torch.cat([global_node, local], dim=-2)
        if queries.real is None:
            return nodes, None
        return nodes, torch.cat([queries.mask.new_ones((*queries.mask.shape[:-1], 1)), queries.mask], dim=-1)

    def whole(self, pooled: Float[Tensor, "*rows _"]) -> Float[Tensor, "*rows _"]:
        """What the global node compares: pooled vectors, or a part of them as unit vectors."""
        part = pooled[..., self.pooled_part]
        return pooled if part.shape == pooled.shape else unit(part)
