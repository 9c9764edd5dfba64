"""Dual semantic graph similarity learning: our instantiation of DSGSL (Tan et al. 2022), known by its abstract.

    abstract                                                          here
    similar samples form a graph that rebuilds the global vector      BatchGraph over v and t, in training alone
    a gate selects salient features of the other modality             ComparisonGate on each query, before comparison
    a dual semantic graph ties local to global features               DualGraph over the nodes of both streams

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | width (similarity vector, m).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.config.models import DsgslConfig
from tshsr.models.attention import at_least_float32
from tshsr.models.base import ItemEncoding, RelatedScores, StreamTrace
from tshsr.models.encoders import init_xavier
from tshsr.models.semantic_graphs import BatchGraph, DualGraph
from tshsr.models.streams import (
    AttentionPooledMatcher,
    LogisticStream,
    SimilarityVectorStream,
    cosine,
    stream_sharpness,
)
from tshsr.models.whole import whole_width


class DsgslStream(SimilarityVectorStream, LogisticStream):
    """One stream: similarity vectors of gated queries and of v, t; steps on both graphs; a filtered sum.

        S     = [ s(v, t) ; s(q'_1, a_1) ; ... ]           q': `similarity.ComparisonGate`
        S     <- DualGraph( S ), in steps with weights of their own
        beta  = sigmoid( u·S_p + a ), normalised to sum 1;     r = sum_p beta_p S_p
        score = sigmoid( w·r + c )

    Where ranking starts at a joint encoder's, the logit has a term gamma v·t, and w = 0 before the first step.

    Args:
        name: Key of its view in an encoding.
        inverse_temperature: Lambda of the attention.
    """

    def __init__(self, name: str, config: DsgslConfig, inverse_temperature: float) -> None:
        width = config.similarity_dim
        super().__init__(
            name,
            dim=config.encoder.dim,
            pooled_dim=whole_width(config.encoder),
            comparison_dim=config.comparison_dim,
            width=width,
            inverse_temperature=inverse_temperature,
            global_node=True,
            gated=config.gated_queries,
        )
        self.graphs = nn.ModuleList(DualGraph(width) for _ in range(config.graph_steps))
        self.opening = nn.Linear(width, 1)
        self.score = nn.Linear(width, 1)
        for layer in (self.graphs, self.opening, self.score):
            init_xavier(layer)
        self.start(config.encoder)

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The logit of each pair without v·t."""
        return self.logit(self._read(similarity, self.attention(similarity, queries, context), queries, context)[0])

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Attention, and weights and terms of the nodes after the graphs, as a single level."""
        attention = self.attention(similarity, queries, context)
        vector, nodes, beta = self._read(similarity, attention, queries, context)
        terms = beta * (nodes @ self.score.weight[0])
        v_t = cosine(queries.pooled, context.pooled)
        return self.single_level(attention, vector, (beta, terms), v_t, has_global_node=True)

    def _read(
        self,
        similarity: Float[Tensor, "*pairs queries context"],
        attention: Float[Tensor, "*pairs queries context"],
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> tuple[Float[Tensor, "*pairs width"], Float[Tensor, "*pairs nodes width"], Float[Tensor, "*pairs nodes"]]:
        """r, the nodes after the graphs, and beta."""
        nodes, mask = self.nodes(similarity, attention, queries, context)
        for graph in self.graphs:
            nodes = graph(nodes, mask)
        beta = self._weights(nodes, mask)
        wide = at_least_float32(nodes)
        return torch.einsum("...n,...nw->...w", beta, wide), wide, beta

    def _weights(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs nodes"]:
        """Beta."""
        beta = torch.sigmoid(at_least_float32(self.opening(nodes).squeeze(-1)))
        if mask is not None:
            beta = beta * mask
        return beta / beta.sum(dim=-1, keepdim=True)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Four wide rows per query with its gate, eight narrow ones per node, matrices of attention and relations."""
        nodes, width = queries + 1, self.score.in_features
        return nodes * (4 * self.compared + 8 * width + 2 * nodes) + 5 * queries * context


class Dsgsl(AttentionPooledMatcher):
    """score = mean of the stream scores; training adds the scores of `BatchGraph`, in loss.relations.

    Scoring never uses the batch graph: the score of a pair is the same in every gallery and every batch.
    """

    has_probabilities = True

    def __init__(self, config: DsgslConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.streams = nn.ModuleDict(
            {name: DsgslStream(name, config, sharpness) for name, sharpness in stream_sharpness(config).items()}
        )
        width = whole_width(config.encoder)
        self.batch_graph = BatchGraph(width, config.neighbours) if config.neighbours else None

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores | None:
        """Scores of the rebuilt v', t' with each other and with v, t; None without neighbours."""
        del image_of_caption
        return None if self.batch_graph is None else self.batch_graph(images, captions)
