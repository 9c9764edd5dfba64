"""RCAR (Diao et al. 2023): attention regulated by what it found, and aggregation regulated by what it gave.

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | dim (joint space, D) | width
(similarity vector, m).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import RcarConfig
from tshsr.models.attention import at_least_float32, attention_weights, masked_softmax, similarities, to_unit_sums, unit
from tshsr.models.base import ItemEncoding, StreamTrace
from tshsr.models.dropout import Dropout
from tshsr.models.encoders import init_xavier
from tshsr.models.similarity import SimilarityVector
from tshsr.models.streams import LogisticStream, MeanPooledMatcher, cosine, stream_sharpness


class Rcar(MeanPooledMatcher):
    """score = mean of the stream scores.

    The authors train one network per stream; their RCAR is the ensemble of both.
    """

    has_probabilities = True

    def __init__(self, config: RcarConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.streams = nn.ModuleDict(
            {name: RcarStream(config, sharpness) for name, sharpness in stream_sharpness(config).items()}
        )


class AttentionRegulator(nn.Module):
    """Recurrent correspondence regulator: gate g_q and sharpness lambda_q of the next attention of each query.

        g_q      <- clamp( g_q + tanh( G2 tanh( G1 s_q + b1 ) + b2 ), -1, 1 )               G1: 2m x m,  G2: D x 2m
        lambda_q <- relu( lambda_q + l·tanh( L s_q + d ) + e )                              L: m/2 x m

    Args:
        width: Width of a similarity vector (m).
        dim: Width of the joint space (D).
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, dim))
        half = max(1, width // 2)
        self.sharpness = nn.Sequential(nn.Linear(width, half), nn.Tanh(), nn.Linear(half, 1))

    def forward(
        self,
        vectors: Float[Tensor, "*pairs queries width"],
        gate: Float[Tensor, "*pairs queries dim"] | float,
        inverse_temperature: Float[Tensor, "*pairs queries 1"] | float,
    ) -> tuple[Float[Tensor, "*pairs queries dim"], Float[Tensor, "*pairs queries 1"]]:
        """The next gate, and the next sharpness in float32 at least."""
        new_gate = (torch.tanh(self.gate(vectors)) + gate).clamp(-1, 1)
        return new_gate, torch.relu(at_least_float32(self.sharpness(vectors)) + inverse_temperature)


class AggregationRegulator(nn.Module):
    """Recurrent aggregation regulator: the weight of each similarity vector, given the last aggregate r.

        beta = softmax_q( v·( tanh( K s_q + a ) tanh( Q r + b ) ) )           r <- l2( sum_q beta_q s_q )

    The authors add a constant to the logits, which cancels in the softmax.

    Args:
        width: Width of a similarity vector (m).
        dropout: Dropout after either tanh.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.item = nn.Linear(width, width)
        self.whole = nn.Linear(width, width)
        self.weight = nn.Linear(width, 1, bias=False)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        vectors: Float[Tensor, "*pairs queries width"],
        aggregate: Float[Tensor, "*pairs width"],
        mask: Bool[Tensor, "*#pairs queries"] | None,
    ) -> tuple[Float[Tensor, "*pairs width"], Float[Tensor, "*pairs queries"]]:
        """The next r, and beta."""
        items = self.dropout(torch.tanh(self.item(vectors)))
        whole = self.dropout(torch.tanh(self.whole(aggregate)))
        logits = torch.einsum("...qw,...w->...q", items, whole * self.weight.weight[0])
        beta = masked_softmax(at_least_float32(logits), mask).to(vectors.dtype)
        return unit(torch.einsum("...q,...qw->...w", beta, vectors)), beta


@dataclass(frozen=True)
class LastStep:
    """Values of the last step of a stream.

    Attributes:
        attention: Weights of the queries over the context.
        vectors: Similarity vectors.
        node_weights: Beta.
        aggregate: r, a unit vector.
    """

    attention: Float[Tensor, "*pairs queries context"]
    vectors: Float[Tensor, "*pairs queries width"]
    node_weights: Float[Tensor, "*pairs queries"]
    aggregate: Float[Tensor, "*pairs width"]


class RcarStream(LogisticStream):
    """One stream; every step has weights of its own.

        w_q = attention of g_q q over the context with lambda_q (`attention_weights`)     g_q = 1 in the first step
        s_q = l2( W (q - a_q)^2 + b ),  a_q = l2( sum_c w_qc c )
        r   = AggregationRegulator( s, r )                                              r: mean of s_q before the first
        g, lambda = AttentionRegulator( s, g, lambda )                                  not in the last step
        score = sigmoid( w·r + c )

    Where ranking starts at a joint encoder's, the logit has a term gamma v·t, and w = 0 before the first step.

    Args:
        config: Widths and steps.
        inverse_temperature: Lambda of all queries in the first step.
    """

    def __init__(self, config: RcarConfig, inverse_temperature: float) -> None:
        super().__init__()
        width, dim = config.similarity_dim, config.encoder.dim
        self.inverse_temperature, self.dim, self.width = inverse_temperature, dim, width
        steps = range(config.steps)
        self.alignments = nn.ModuleList(SimilarityVector(dim, 0, width) for _ in steps)
        self.aggregations = nn.ModuleList(AggregationRegulator(width, config.pooling_dropout) for _ in steps)
        self.regulators = nn.ModuleList(AttentionRegulator(width, dim) for _ in steps[1:])
        self.score = nn.Linear(width, 1)
        init_xavier(self)
        self.start(config.encoder)

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The logit of each pair without v·t."""
        return self.logit(self.steps(similarity, queries, context).aggregate)

    def steps(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> LastStep:
        """All steps.

        Args:
            similarity: q·c, the input of the first attention.
        """
        gate: Tensor | float = 1.0
        sharpness: Tensor | float = self.inverse_temperature
        attention, vectors = self._aligned(0, similarity, sharpness, queries, context)
        aggregate, weights = self.aggregations[0](vectors, mean_of_queries(vectors, queries.real), queries.real)
        for number, regulator in enumerate(self.regulators, start=1):
            gate, sharpness = regulator(vectors, gate, sharpness)
            gated = similarities(queries.items * gate, context.items)
            attention, vectors = self._aligned(number, gated, sharpness, queries, context)
            aggregate, weights = self.aggregations[number](vectors, aggregate, queries.real)
        return LastStep(attention, vectors, weights, aggregate)

    def _aligned(
        self,
        number: int,
        similarity: Float[Tensor, "*pairs queries context"],
        inverse_temperature: Float[Tensor, "*pairs queries 1"] | float,
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> tuple[Float[Tensor, "*pairs queries context"], Float[Tensor, "*pairs queries width"]]:
        """Attention and similarity vectors of a step."""
        attention = attention_weights(
            similarity, query_mask=queries.real, context_mask=context.real, inverse_temperature=inverse_temperature
        )
        weights = to_unit_sums(attention, context.gram).to(queries.items.dtype)
        alignment = cast(SimilarityVector, self.alignments[number])
        return attention, alignment.to_attended(queries.items, weights, context.items)

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Attention, node weights and terms of the last step, as a single level.

        w·r = sum_q beta_q (w·s_q) / || sum_q beta_q s_q ||.
        """
        last = self.steps(similarity, queries, context)
        length = torch.einsum("...q,...qw->...w", last.node_weights, last.vectors).norm(dim=-1, keepdim=True)
        terms = last.node_weights * (last.vectors @ self.score.weight[0]) / length.clamp_min(1e-12)
        v_t = cosine(queries.pooled, context.pooled)
        nodes = last.node_weights, terms
        return self.single_level(last.attention, last.aggregate, nodes, v_t, has_global_node=False)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Per query the gate, the gated query and two compared vectors, six narrow rows; five attention matrices."""
        return queries * (4 * self.dim + 6 * self.width) + 5 * queries * context


def mean_of_queries(
    vectors: Float[Tensor, "*pairs queries width"], mask: Bool[Tensor, "*#pairs queries"] | None
) -> Float[Tensor, "*pairs width"]:
    """The mean over the real queries."""
    if mask is None:
        return vectors.mean(dim=-2)
    real = mask[..., None].to(vectors.dtype)
    return (vectors * real).sum(dim=-2) / real.sum(dim=-2)
