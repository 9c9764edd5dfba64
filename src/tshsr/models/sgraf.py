"""Similarity graph reasoning (SGR) and similarity attention filtration (SAF), after SGRAF (Diao et al. 2021).

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | nodes (the global one first, then one
per query) | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import ConceptsConfig, SgrafConfig, TwoStreamSgrConfig
from tshsr.models.attention import masked_softmax, unit
from tshsr.models.base import ItemEncoding, StreamTrace
from tshsr.models.concepts import has_node, whole_node
from tshsr.models.encoders import init_xavier
from tshsr.models.pooling import MaskedBatchNorm, SelfAttentionPooling
from tshsr.models.similarity import SimilarityVector
from tshsr.models.streams import LogisticStream, SimilarityVectorStream, StreamMatcher, cosine
from tshsr.models.whole import starts_at_encoder


class NodeReasoning(nn.Module, ABC):
    """Reduces the similarity vectors of a pair to one vector of the same width."""

    @abstractmethod
    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs width"]:
        """The reduced vector."""

    @abstractmethod
    def node_weights(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs nodes"]:
        """Weight of each node in the reduced vector; sums to 1."""

    def terms(
        self,
        nodes: Float[Tensor, "*pairs nodes width"],
        node_weights: Float[Tensor, "*pairs nodes"],
        contribution: Float[Tensor, "*pairs 1"],
        weight: Float[Tensor, "1 width"],
    ) -> Float[Tensor, "*pairs nodes"]:
        """Term of each node in `contribution` = weight·vector: its share by node weight (no exact terms exist)."""
        del nodes, weight
        return node_weights * contribution


class GraphStep(nn.Module):
    """One reasoning step over the complete graph of the nodes.

        E  = softmax_j( (Wq S_i + a)·(Wk S_j) )         S' = relu( W ( E S ) + b )

    The bias of the authors' Wk is left out: it adds a constant to each row of logits, which cancels in the softmax.
    As (Wq s + a)·(Wk s') = (Wk^T Wq s + Wk^T a)·s', one matrix replaces two; and as rows of E sum to 1,
    W (E S) + b = E (S W^T + b), so that both become one product [Wk^T Wq ; W] S.

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.update = nn.Linear(width, width)

    def relation(self) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
        """Wk^T Wq and Wk^T a."""
        folded = self.key.weight.T @ self.query.weight
        return folded, self.key.weight.T @ self.query.bias

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Float[Tensor, "*pairs nodes nodes"]]:
        """S' and E."""
        matrix, shift = self.relation()
        both = nn.functional.linear(
            nodes, torch.cat([matrix, self.update.weight]), torch.cat([shift, self.update.bias])
        )
        projected, updates = both.chunk(2, dim=-1)
        edges = masked_softmax(projected @ nodes.mT, None if mask is None else mask[..., None, :])
        return relu(edges @ updates), edges

    def first_node(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> tuple[Float[Tensor, "*pairs width"], Float[Tensor, "*pairs nodes"]]:
        """S' and E of the first node only."""
        projected = nn.functional.linear(nodes[..., :1, :], *self.relation())
        edges = masked_softmax((projected @ nodes.mT).squeeze(-2), mask)
        return relu(self.update(torch.einsum("...n,...nw->...w", edges, nodes))), edges


class GraphReasoning(NodeReasoning):
    """SGR: reasoning steps over the graph; the result is the global (first) node; the last step updates no other.

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(GraphStep(width) for _ in range(steps - 1))
        self.last = GraphStep(width)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs width"]:
        """The global node after the last step."""
        for step in self.steps:
            nodes, _ = step(nodes, mask)
        return self.last.first_node(nodes, mask)[0]

    def node_weights(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs nodes"]:
        """Product of the edge matrices of all steps: weight of each input node in the global node."""
        passed = []
        for step in self.steps:
            nodes, edges = step(nodes, mask)
            passed.append(edges)
        weights = self.last.first_node(nodes, mask)[1]
        for edges in reversed(passed):
            weights = torch.einsum("...i,...ij->...j", weights, edges)
        return weights


class AttentionFiltration(NodeReasoning):
    """SAF: r = l2( sum_p beta_p S_p ),  beta = sigmoid( N( u·S_p + a ) ) normalised,  N: batch normalisation.

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.opening = nn.Linear(width, 1)
        self.norm = MaskedBatchNorm(1)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs width"]:
        """The weighted sum of the nodes; a unit vector."""
        beta = self.node_weights(nodes, mask).to(nodes.dtype)
        return unit(torch.einsum("...n,...nw->...w", beta, nodes))

    def node_weights(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs nodes"]:
        """Beta."""
        opening = self.opening(nodes).squeeze(-1)
        real = torch.ones_like(opening, dtype=torch.bool) if mask is None else mask
        beta = torch.sigmoid(self.norm(opening, real)) * real
        return beta / beta.sum(dim=-1, keepdim=True)

    def terms(
        self,
        nodes: Float[Tensor, "*pairs nodes width"],
        node_weights: Float[Tensor, "*pairs nodes"],
        contribution: Float[Tensor, "*pairs 1"],
        weight: Float[Tensor, "1 width"],
    ) -> Float[Tensor, "*pairs nodes"]:
        """beta_p (weight·S_p) / || sum_p beta_p S_p ||."""
        del contribution
        length = torch.einsum("...n,...nw->...w", node_weights, nodes).norm(dim=-1, keepdim=True)
        terms: Tensor = node_weights * (nodes @ weight[0]) / length.clamp_min(1e-12)
        return terms


class SgrafStream(SimilarityVectorStream, LogisticStream):
    """One stream of SGRAF: similarity vectors S, reduced to one vector, then to a score.

        score = sigmoid( w·reasoning( S ) + b )

    Where ranking starts at a joint encoder's, the logit has a term gamma v·t, and w = 0 before the first step.

    Args:
        name: Key of its view in an encoding.
        reasoning: SGR or SAF.
        inverse_temperature: Lambda of the attention.
    """

    global_similarity: SimilarityVector

    def __init__(
        self,
        name: str,
        config: SgrafConfig | TwoStreamSgrConfig | ConceptsConfig,
        reasoning: NodeReasoning,
        inverse_temperature: float,
    ) -> None:
        width = config.similarity_dim
        pooled_dim, pooled_from = whole_node(config, global_node=not has_node(config))
        super().__init__(
            name,
            dim=config.encoder.dim,
            pooled_dim=pooled_dim,
            comparison_dim=config.comparison_dim,
            width=width,
            inverse_temperature=inverse_temperature,
            global_node=True,
            pooled_from=pooled_from,
        )
        self.reasoning = reasoning
        self.score = nn.Linear(width, 1)
        for similarity in (self.local_similarity, self.global_similarity):
            init_xavier(similarity.projection)  # the view keeps its orthogonal initialisation
        for layer in (self.reasoning, self.score):
            init_xavier(layer)
        self.start(config.encoder)

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The logit of each pair without v·t."""
        nodes, mask = self.nodes(similarity, self.attention(similarity, queries, context), queries, context)
        return self.logit(self.reasoning(nodes, mask))

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Attention, and weights and terms of the nodes, as a single level."""
        attention = self.attention(similarity, queries, context)
        nodes, mask = self.nodes(similarity, attention, queries, context)
        node_weights = self.reasoning.node_weights(nodes, mask)
        vector = self.reasoning(nodes, mask)
        contribution = nn.functional.linear(vector, self.score.weight)
        terms = self.reasoning.terms(nodes, node_weights, contribution, self.score.weight)
        v_t = cosine(queries.pooled, context.pooled)
        return self.single_level(attention, vector, (node_weights, terms), v_t, has_global_node=True)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Two wide and six narrow rows per node, and the matrices of attention and edges."""
        nodes, width = queries + 1, self.score.in_features
        return nodes * (2 * self.compared + 6 * width + 3 * nodes) + 4 * queries * context


class Sgraf(StreamMatcher):
    """The word stream with SGR or SAF; the authors' SGRAF is the ensemble of one run of each."""

    has_probabilities = True

    def __init__(self, config: SgrafConfig) -> None:
        super().__init__(config.encoder)
        init_xavier(self.region_encoder)
        self.config = config
        width = config.similarity_dim
        self.region_pooling, self.word_pooling = build_poolings(config)
        reasoning = GraphReasoning(width, config.steps) if config.reasoning == "sgr" else AttentionFiltration(width)
        stream = SgrafStream("word_stream", config, reasoning, config.inverse_temperature)
        self.streams = nn.ModuleDict({"word_stream": stream})


def build_poolings(
    config: SgrafConfig | TwoStreamSgrConfig,
) -> tuple[SelfAttentionPooling, SelfAttentionPooling] | tuple[None, None]:
    """Initialised poolings of regions and of words of SGRAF; None where v and t are the encoders' own vectors."""
    if starts_at_encoder(config.encoder):
        return None, None
    dim, dropout = config.encoder.dim, config.pooling_dropout
    regions = SelfAttentionPooling(dim, dropout, normalised=True, slots=config.region_slots)
    words = SelfAttentionPooling(dim, dropout, normalised=False)
    for pooling in (regions, words):
        init_xavier(pooling)
    return regions, words


def relu(values: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """max(x, 0), in place without gradients."""
    return torch.relu(values) if torch.is_grad_enabled() else torch.relu_(values)


class TwoStreamSgr(StreamMatcher):
    """SGR in both streams: score = mean of the sigmoid scores of word stream and region stream.

    RCAR (Diao et al. 2023) trains such streams separately and averages their scores; here both share encoders and
    poolings and are trained by one loss. The baseline for two streams without a hierarchy.
    """

    has_probabilities = True

    def __init__(self, config: TwoStreamSgrConfig) -> None:
        temperatures = {
            "word_stream": config.word_inverse_temperature,
            "region_stream": config.region_inverse_temperature,
        }
        super().__init__(config.encoder)
        init_xavier(self.region_encoder)
        self.config = config
        width = config.similarity_dim
        self.region_pooling, self.word_pooling = build_poolings(config)
        self.streams = nn.ModuleDict(
            {
                name: SgrafStream(name, config, GraphReasoning(width, config.steps), temperature)
                for name, temperature in temperatures.items()
            }
        )
