"""Similarity vectors of context nodes: a phrase or a group of regions is compared with the other side as a whole.

Axes: pairs (leading, broadcast) | seeds (context nodes) | queries | context (the items they attend to) | width (m).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.models.attention import at_least_float32, attend, masked_softmax, to_unit_sums
from tshsr.models.base import ItemEncoding
from tshsr.models.similarity import SimilarityVector


@dataclass(frozen=True)
class PairItems:
    """Both sides of pairs in a stream, from which context nodes form similarity vectors of their own.

    Attributes:
        similarity: q·c.
        queries: The encoded side that attends.
        context: The encoded side attended to.
        view: Name of the projections P q and P c in the encodings' views; the items themselves where it is missing.
    """

    similarity: Float[Tensor, "*pairs queries context"]
    queries: ItemEncoding
    context: ItemEncoding
    view: str

    def compared(self) -> tuple[Float[Tensor, "*#pairs queries compared"], Float[Tensor, "*#pairs context compared"]]:
        """P q and P c."""
        return self.queries.views.get(self.view, self.queries.items), self.context.views.get(
            self.view, self.context.items
        )


class ContextSimilarity(nn.Module):
    """Let context nodes attend to the other side once more, each as one query, and join what they find.

        q_s = l2( sum_p B_sp q_p )                      B: from the queries to the context nodes, rows sum to 1
        a_s = l2( sum_c softmax_c( lambda q_s·c ) c )
        C_s = (A S)_s + Z [ (A S)_s ; s(q_s, a_s) ] + z

    Pooled similarity vectors hold nothing that the level below did not know; s(q_s, a_s) does: several words may agree
    with one region as a phrase although each alone agrees with another. Neither q_s nor a_s is formed in the joint
    space: lengths follow from the Gram matrices, and P q_s is the sum of the P q_p.

    Args:
        dim: Width of the joint space (D).
        comparison_dim: Width of the comparison space (k); 0: the joint space.
        width: Width of a node (m).
        products: As in `SimilarityVector`.
        inverse_temperature: Lambda.
    """

    def __init__(
        self, dim: int, comparison_dim: int, width: int, *, products: bool, inverse_temperature: float
    ) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        self.similarity = SimilarityVector(dim, comparison_dim, width, products=products, projects=False)
        self.join = nn.Linear(2 * width, width)

    def forward(
        self,
        pooled: Float[Tensor, "*pairs seeds width"],
        shares: Float[Tensor, "*pairs seeds queries"],
        items: PairItems,
    ) -> Float[Tensor, "*pairs seeds width"]:
        """C, not of unit length.

        Args:
            pooled: A S, the pooled similarity vectors.
            shares: B; zero for padding.
            items: Both sides of the pairs.
        """
        shares = to_unit_sums(at_least_float32(shares), items.queries.gram)
        cosines = shares @ at_least_float32(items.similarity)
        weights = to_unit_sums(self.attention(cosines, items.context.real), items.context.gram)
        queries, context = items.compared()
        cosine = (weights * cosines).sum(dim=-1).to(queries.dtype) if self.similarity.cosine is not None else None
        own = self.similarity.to_attended(
            attend(shares.to(queries.dtype), queries), weights.to(queries.dtype), context, cosine
        )
        joined: Tensor = pooled + self.join(torch.cat([pooled, own], dim=-1))
        return joined

    def attention(
        self, cosines: Float[Tensor, "*pairs seeds context"], mask: Bool[Tensor, "*#pairs context"] | None
    ) -> Float[Tensor, "*pairs seeds context"]:
        """softmax_c( lambda q_s·c ); rows sum to 1 over the real context items."""
        return masked_softmax(self.inverse_temperature * cosines, None if mask is None else mask[..., None, :])
