r"""Two-stream hierarchical similarity reasoning network: our instantiation of arXiv 2203.05349.

    regions, words -> encoders -> word stream   (words attend to regions) -> HSR -> score \
                               -> region stream (regions attend to words) -> HSR -> score  > fused score
                               -> pooled v, t                             -> v·t

Axes: pairs (leading, broadcast) | regions | words | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.config.models import TshsrConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import SettingsError
from tshsr.models.attention import similarities
from tshsr.models.base import ItemEncoding, RelatedScores, Scores, StreamTrace
from tshsr.models.concepts import build_knowledge, pooled_width, whole_node
from tshsr.models.context import ContextSimilarity, PairItems
from tshsr.models.encoders import RegionProjection, WordProjection, init_xavier
from tshsr.models.pooling import AttentionPooling, ChannelPooling
from tshsr.models.reasoning import HierarchicalReasoning, ReadOut, ReasoningOutput
from tshsr.models.semantic_graphs import BatchGraph, DualGraph
from tshsr.models.streams import MEAN_SIMILARITY, PLACE, SimilarityVectorStream, StreamMatcher, cosine, stream_sharpness
from tshsr.models.whole import POOLED_WEIGHT, SHARE, starts_at_encoder

POOLINGS: dict[str, type[AttentionPooling | ChannelPooling]] = {"attention": AttentionPooling, "esa": ChannelPooling}
PARTS, PART_WEIGHTS = "parts of pooled items", "weights of pooled items"
"""Names of views, for explanations: the part of each item in v or t, and its mean weight there, one number."""
EXPECTATION_SCALE = 40.0
"""Scale of predicted positions, large enough to learn them within a few epochs (docs/log.md)."""


class TshsrStream(SimilarityVectorStream):
    """One stream of TSHSR: attention, one similarity vector per query, HSR.

        score = sigmoid( sum_l w_l·r_l + gamma v·t + b ),      w_l·r_l: term of level l of HSR( S )

    With `late_weight` gamma is this number, and 0 while training; b is then less gamma `late_centre`. The logit is then
    also less mu m, with mu = `late_mean` and m the mean of all q·c.

    Where ranking starts at a joint encoder's (`pooled_vectors` frozen or adapter), w_l = 0 before the first step.

    Args:
        name: Key of its view in an encoding.
        inverse_temperature: Lambda of the attention.
    """

    def __init__(self, name: str, config: TshsrConfig, inverse_temperature: float) -> None:
        pooled_dim, pooled_from = whole_node(config, global_node=config.global_node)
        super().__init__(
            name,
            dim=config.encoder.dim,
            pooled_dim=pooled_dim,
            comparison_dim=config.comparison_dim,
            width=config.similarity_dim,
            inverse_temperature=inverse_temperature,
            global_node=pooled_dim > 0,
            products=config.products,
            places=config.place_term,
            gated=config.gated_queries,
            pooled_from=pooled_from,
        )
        self.config = config
        self.reasoning = HierarchicalReasoning(
            config.similarity_dim,
            config.reasoning,
            partial(context_similarity, config) if config.reasoning.context_inverse_temperature else None,
            config.similarity_dropout,
        )
        self.bias = nn.Parameter(torch.zeros(()))
        learned = config.pooled_term and not config.late_weight
        self.pooled_weight = nn.Parameter(torch.tensor(POOLED_WEIGHT)) if learned else None
        if starts_at_encoder(config.encoder):
            for read_out in self.reasoning.read_outs:
                if isinstance(read_out, ReadOut):
                    nn.init.zeros_(read_out.weight)
        self.graph = DualGraph(config.similarity_dim) if config.dual_graph else None

    def nodes(
        self,
        similarity: Float[Tensor, "*pairs queries context"],
        attention: Float[Tensor, "*pairs queries context"],
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Bool[Tensor, "*#pairs nodes"] | None]:
        """The similarity vectors S, after a step of `DualGraph` where it is on, and their mask."""
        nodes, mask = super().nodes(similarity, attention, queries, context)
        return (nodes if self.graph is None else self.graph(nodes, mask)), mask

    @property
    def gamma(self) -> Tensor | float:
        """Weight of v·t in the logit; 0 while streams are trained without it."""
        if self.pooled_weight is not None:
            return self.pooled_weight
        late = self.config.pooled_term and not self.training
        return self.config.late_weight if late else 0.0

    @property
    def constant(self) -> Float[Tensor, ""]:
        """The constant of the logit: b, less the term of v·t at its centre where that joins late."""
        if self.pooled_weight is not None:
            return self.bias
        return self.bias - self.gamma * self.config.late_centre

    @property
    def mu(self) -> float:
        """Weight of the mean similarity, which is subtracted from the logit; 0 while training, and without v·t."""
        return self.config.late_mean if self.config.pooled_term and not self.training else 0.0

    def pooled_contribution(
        self, pooled: Float[Tensor, "*pairs"], mean: Float[Tensor, "*pairs"] | None
    ) -> Float[Tensor, "*pairs"]:
        """Gamma v·t - mu m: the term of v·t in the logit, less that of the mean similarity m where there is one."""
        term = self.gamma * pooled
        return term if mean is None else term - self.mu * mean

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs levels"]:
        """Contribution of each level to the logit."""
        nodes, mask = self.nodes(similarity, self.attention(similarity, queries, context), queries, context)
        items = PairItems(similarity, queries, context, self.name)
        reasoning: ReasoningOutput = self.reasoning(nodes, mask, items)
        return reasoning.contributions

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Intermediate values for explanations."""
        attention = self.attention(similarity, queries, context)
        nodes, mask = self.nodes(similarity, attention, queries, context)
        reasoning = self.reasoning(nodes, mask, PairItems(similarity, queries, context, self.name), traced=True)
        if reasoning.node_weights is None or reasoning.node_contributions is None:
            raise RuntimeError("a traced reasoning has node weights and contributions")
        mean = cosine(queries.mean(), context.mean()) if self.config.late_mean else None
        pooled = self.pooled_contribution(cosine(queries.pooled, context.pooled), mean)
        return StreamTrace(
            attention=attention,
            node_weights=reasoning.node_weights,
            contributions=reasoning.contributions,
            pooled=pooled,
            bias=self.constant,
            score=torch.sigmoid(reasoning.contributions.sum(dim=-1) + pooled + self.constant),
            has_global_node=self.global_similarity is not None,
            node_contributions=reasoning.node_contributions,
        )

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Two compared vectors and two similarity vectors per node, six similarity vectors per context node."""
        config = self.config
        per_node = (2 + 3 * config.gated_queries) * self.compared + 2 * config.similarity_dim
        if config.dual_graph:
            per_node += 8 * config.similarity_dim + 2 * (queries + 1)
        seeds = max(config.reasoning.seeds[: config.reasoning.levels], default=0)
        contexts = 6 * config.similarity_dim * seeds
        if config.reasoning.context_inverse_temperature:
            contexts += seeds * (3 * self.compared + 2 * config.similarity_dim + 4 * context + 2 * queries)
        return (queries + 1) * per_node + contexts + 6 * queries * context


def context_similarity(config: TshsrConfig) -> ContextSimilarity:
    """The module of one level that gives context nodes similarity vectors of their own."""
    return ContextSimilarity(
        config.encoder.dim,
        config.comparison_dim,
        config.similarity_dim,
        products=config.products,
        inverse_temperature=config.reasoning.context_inverse_temperature,
    )


class Tshsr(StreamMatcher):
    """TSHSR: both streams and their fusion, trained end to end by one loss.

    With the place term each word w predicts the position of its region: H w·g_r is the score of region r with centre
    and size g_r. The attention-weighted mean of these scores is e in the similarity vector.
    """

    region_pooling: AttentionPooling | ChannelPooling | None
    word_pooling: AttentionPooling | ChannelPooling | None
    has_probabilities = True

    def __init__(self, config: TshsrConfig) -> None:
        super().__init__(config.encoder)
        if config.place_term and not config.encoder.boxes:
            raise SettingsError(
                "model.place-term compares places, and model.encoder.boxes is off; switch it on, or the term off."
            )
        if config.dual_graph and not config.global_node:
            raise SettingsError(
                "model.dual-graph joins local nodes with the global one, and model.global-node is off; switch it on."
            )
        if config.late_weight < 0:
            raise SettingsError(
                f"model.late-weight is {config.late_weight}; expected a positive weight of v·t, or 0 for a learned one."
            )
        if config.late_mean < 0 or (config.late_mean and not config.late_weight):
            raise SettingsError(
                f"model.late-mean is {config.late_mean} with model.late-weight {config.late_weight}; expected 0, or a "
                "positive weight beside a positive late-weight."
            )
        self.from_encoder = starts_at_encoder(config.encoder)
        if self.from_encoder and not config.pooled_term:
            raise SettingsError(
                f"model.encoder.pooled_vectors {config.encoder.pooled_vectors} starts at the ranking by v·t, and "
                "model.pooled-term is off; switch it on."
            )
        self.config = config
        self.trains_pooled_apart = config.late_weight > 0 and config.encoder.pooled_vectors != "frozen"
        self.region_pooling = None if self.from_encoder else POOLINGS[config.pooling](config.encoder.dim)
        self.word_pooling = None if self.from_encoder else POOLINGS[config.pooling](config.encoder.dim)
        self.streams = nn.ModuleDict(
            {name: TshsrStream(name, config, sharpness) for name, sharpness in stream_sharpness(config).items()}
        )
        self.knowledge = build_knowledge(config)
        learned = config.fusion == "learned" and len(self.streams) > 1
        self.compares_places = config.place_term
        self.has_mean_similarity = config.pooled_term and config.late_mean > 0
        self.expectation = nn.Linear(config.encoder.dim, 4) if config.place_term else None
        self.fusion = nn.Parameter(torch.zeros(len(self.streams))) if learned else None
        self.batch_graph = BatchGraph(pooled_width(config), config.neighbours) if config.neighbours else None
        if config.pooling == "esa" and not self.from_encoder:
            self.pooled_regions = RegionProjection(config.encoder)
            init_xavier(self.pooled_regions.projection)
            self.pooled_words = WordProjection(self.word_encoder.width, config.encoder.dim)

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores | None:
        """Scores of v and t rebuilt by `BatchGraph`, and those of concepts; None without either."""
        of_concepts = super().related_scores(images, captions, image_of_caption)
        if self.batch_graph is None:
            return of_concepts
        found: RelatedScores = self.batch_graph(images, captions)
        if of_concepts is None:
            return found
        return RelatedScores({**of_concepts.scores, **found.scores}, of_concepts.penalty + found.penalty)

    @property
    def score_names(self) -> frozenset[str]:
        """The keys of `combine`."""
        return super().score_names | {f"level_{level}" for level in range(self.config.reasoning.levels + 1)}

    def views(
        self, items: Float[Tensor, "rows items dim"], boxes: Float[Tensor, "rows items 4"] | None
    ) -> dict[str, Tensor]:
        """Views of the streams; with the place term also positions of regions, or positions predicted by words."""
        views = super().views(items, boxes)
        if self.expectation is not None:
            views[PLACE] = (
                self.expectation(items) * EXPECTATION_SCALE if boxes is None else place(boxes.to(items.dtype))
            )
        return views

    def combine(self, parts: Mapping[str, Float[Tensor, "*pairs levels"]], pooled: Float[Tensor, "*pairs"]) -> Scores:
        """Scores in 0..1 by name: each stream, each level, `fused`; and `pooled` (v·t, -1..1).

            level_l = sigmoid( w_l·r_l + b ), fused as the streams

        Where ranking starts at a joint encoder's, gamma v·t stands in the levels too: each adds to that ranking.
        """
        mean = parts.get(MEAN_SIMILARITY)
        scores: Scores = {}
        by_stream = []
        for name, stream in self.streams.items():
            if not isinstance(stream, TshsrStream):
                raise TypeError(f"{name} is no stream of TSHSR")
            part, term = parts[name], stream.pooled_contribution(pooled, mean)
            scores[name] = torch.sigmoid(part.sum(dim=-1) + term + stream.constant)
            if self.from_encoder:
                part = part + term[..., None]
            by_stream.append(torch.sigmoid(part + (stream.constant if self.from_encoder else stream.bias)))
        fused_levels = self._fuse(torch.stack(by_stream, dim=-1))
        scores |= {f"level_{level}": fused_levels[..., level] for level in range(fused_levels.shape[-1])}
        scores["fused"] = self._fuse(torch.stack([scores[name] for name in self.streams], dim=-1))
        scores["pooled"] = pooled
        return scores

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """Intermediate values of each stream, with the term of each region and word in v·t.

        v = sum_r a_r x_r,  t = sum_w b_w x_w:      v·t = sum_r sum_w a_r b_w (x_r·x_w)

        With one weight per channel a_r x_r is a product by channel, the part of region r in v (`with_parts`). With
        vectors of the encoders in v and t, or concepts beside them, the rest of v·t is the term of the whole picture
        and caption; all of it where nothing is pooled, or the parts are not known. The regions of an index are rounded
        or pooled further, but v is not: there this term has the difference, elsewhere only the rounding of sums. The
        mean similarity is the sum of x_r·x_w / (regions · words), which are subtracted from these terms.
        """
        traces = super().trace(images, captions)
        found = self._pooled_terms(images, captions)
        shared = similarity_shares(images, captions) if self.has_mean_similarity else None
        for name, stream in self._streams():
            if not isinstance(stream, TshsrStream) or not self.config.pooled_term:
                continue
            if found is None:
                traces[name] = replace(traces[name], pooled_whole=traces[name].pooled)
                continue
            terms, pairs = found
            terms = stream.gamma * terms if shared is None else stream.gamma * terms - stream.mu * shared
            if name == "word_stream":
                terms, pairs = terms.mT, pairs.mT
            rest = traces[name].pooled - terms.sum(dim=(-2, -1))
            traces[name] = replace(traces[name], pooled_terms=terms, pooled_whole=rest, pooled_shares=pairs)
        return traces

    def _pooled_terms(
        self, images: ItemEncoding, captions: ItemEncoding
    ) -> tuple[Float[Tensor, "*pairs regions words"], Float[Tensor, "*pairs regions words"]] | None:
        """Terms of regions and words in v·t, and the products of their weights in v and t, which sum to 1.

        Where the parts of one side are not known, as those of the pictures of an index, its vector is spread evenly
        over its items. None where v and t are not pooled, or parts of neither side or shares are not known.
        """
        parts, weights = [], []
        known = any(PARTS in side.views for side in (images, captions))
        for side, pooling in ((images, self.region_pooling), (captions, self.word_pooling)):
            if pooling is None or (not self._pools_alone() and SHARE not in side.views):
                return None
            if isinstance(pooling, AttentionPooling):
                own = pooling.shares(side.items, side.mask)
                part = own[..., None] * side.items
            elif PARTS in side.views:
                own, part = side.views[PART_WEIGHTS][..., 0], side.views[PARTS]
            elif known and self._pools_alone():
                real = side.mask.to(side.pooled.dtype)
                even = real / real.sum(dim=-1, keepdim=True)
                own, part = even, even[..., None] * side.pooled[..., None, :]
            else:
                return None
            parts.append(part if self._pools_alone() else part * side.views[SHARE])
            weights.append(own / own.sum(dim=-1, keepdim=True))
        return similarities(*parts), weights[0][..., :, None] * weights[1][..., None, :]

    def with_parts(self, encoding: ItemEncoding, batch: ImageBatch | CaptionBatch) -> ItemEncoding:
        """The encoding with the views PARTS and PART_WEIGHTS, where v and t are pooled by channel."""
        if self.pooled_regions is None or self.pooled_words is None:
            return encoding
        if isinstance(batch, ImageBatch):
            items = self.pooled_regions.project(self.region_encoder.inputs(batch), batch.mask)
            pooling = self.region_pooling
        else:
            items = self.pooled_words.project(self.word_encoder.states(batch)[0], batch.mask)
            pooling = self.word_pooling
        if not isinstance(pooling, ChannelPooling):
            raise TypeError(f"{pooling} has no weights by channel")
        weights = pooling.weights(items, batch.mask).mean(dim=-1, keepdim=True)
        views = {**encoding.views, PARTS: pooling.parts(items, batch.mask), PART_WEIGHTS: weights}
        return replace(encoding, views=views)

    def _pools_alone(self) -> bool:
        """Whether pooled vectors are pooled items and nothing else."""
        return self.region_whole is None and self.knowledge is None

    def _fuse(self, scores: Float[Tensor, "*pairs streams"]) -> Float[Tensor, "*pairs"]:
        """Mean of the streams, or their learned convex combination."""
        if self.fusion is None:
            return scores.mean(dim=-1)
        return scores @ torch.softmax(self.fusion.to(scores.dtype), dim=0)


def similarity_shares(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "*pairs regions words"]:
    """The share of each region and word in the mean similarity, x_r·x_w / (regions · words); 0 for padding.

    Pooled regions have their weights in the mean in place of 1 / regions.
    """
    weights = images.mean_weights()[..., :, None] * captions.mean_weights()[..., None, :]
    return similarities(images.items, captions.items) * weights


def place(boxes: Float[Tensor, "rows regions 4"]) -> Float[Tensor, "rows regions 4"]:
    """Centre (-1..1, 0 in the middle of the image) and size minus 1/2 of boxes x1, y1, x2, y2 in 0..1."""
    start, end = boxes[..., :2], boxes[..., 2:]
    return torch.cat([start + end - 1, end - start - 0.5], dim=-1)
