"""IMRAM (Chen et al. 2020): iterative matching with recurrent attention memory, from its published description.

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | dim (joint space, D).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.config.models import ImramConfig
from tshsr.models.attention import attend, attention_weights, similarities, unit
from tshsr.models.base import ItemEncoding, StreamTrace
from tshsr.models.encoders import init_xavier
from tshsr.models.roles import Role, RoleMatcher, RoleStream
from tshsr.models.scan import CosineStream
from tshsr.models.streams import stream_sharpness


class Imram(RoleMatcher):
    """score = mean of the stream scores: half the published sum with both streams, the same ranking.

    Where ranking starts at a joint encoder's (`pooled_vectors` frozen or adapter), v·t is part of every stream's score.
    """

    def __init__(self, config: ImramConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.streams = nn.ModuleDict(
            {name: MemoryStream(name, config, sharpness) for name, sharpness in stream_sharpness(config).items()}
        )


class MemoryStream(CosineStream, RoleStream):
    """One stream; all steps share the weights of the memory.

        w_k = attention of x_k over the context (`attention_weights`),   c_k = sum_c w_kc c          x_1 = q
        g   = sigmoid( Wg [x_k ; c_k] + bg ),    o = tanh( Wo [x_k ; c_k] + bo )
        x_k+1 = l2( g * x_k + (1 - g) * o )                                                    not after the last step
        score = mean_q sum_k cos( q, c_kq )

    Steps differ in what is attended to; each compares it with the query as it was encoded.

    Args:
        name: `word_stream` or `region_stream`.
        inverse_temperature: Lambda.
    """

    def __init__(self, name: str, config: ImramConfig, inverse_temperature: float) -> None:
        super().__init__(config.encoder, "mean", 1.0)
        self.name, self.steps, self.dim = name, config.steps, config.encoder.dim
        self.inverse_temperature = inverse_temperature
        refines = config.steps > 1
        # Rows: Wg, then Wo; the part of the query with the biases, and that of the context.
        self.from_query = nn.Linear(self.dim, 2 * self.dim) if refines else None
        self.from_context = nn.Linear(self.dim, 2 * self.dim, bias=False) if refines else None
        init_xavier(self)

    def project(self, items: Float[Tensor, "*rows dim"], role: Role) -> Float[Tensor, "*rows _"]:
        """[Wg ; Wo] of the role's part of [x ; c]; the items where nothing is refined."""
        layer = self.from_query if role == "queries" else self.from_context
        projected: Tensor = items if layer is None else layer(items)
        return projected

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The score of each pair without v·t."""
        found = (self.cosines(weights, similarity, context) for weights in self.looks(similarity, queries, context))
        return self.aggregated(torch.stack(list(found)).sum(dim=0), queries)

    def looks(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Iterator[Float[Tensor, "*pairs queries context"]]:
        """The attention weights of each step.

        Args:
            similarity: q·c, the input of the first attention.
        """
        states, given = queries.items, self.projected(context, "context")
        for step in range(self.steps):
            weights = attention_weights(
                similarity,
                query_mask=queries.real,
                context_mask=context.real,
                inverse_temperature=self.inverse_temperature,
            )
            yield weights
            if self.from_query is not None and step + 1 < self.steps:
                own = self.from_query(states) if step else self.projected(queries, "queries")
                found = attend(weights.to(own.dtype), given)
                opening, new = (own + found).chunk(2, dim=-1)
                states = unit(torch.lerp(torch.tanh(new), states.to(own.dtype), torch.sigmoid(opening)))
                similarity = similarities(states, context.items)

    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """The mean of w over the steps."""
        return torch.stack(list(self.looks(similarity, queries, context))).mean(dim=0)

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """The mean of w over the steps, and the sum of the steps' cosines of each query as its term."""
        looks = list(self.looks(similarity, queries, context))
        cosines = torch.stack([self.cosines(weights, similarity, context) for weights in looks]).sum(dim=0)
        return self.traced(torch.stack(looks).mean(dim=0), cosines, queries, context)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Eight wide rows per query where it is refined, and six matrices of attention."""
        return (8 * self.dim * queries if self.from_query is not None else 0) + 6 * queries * context
