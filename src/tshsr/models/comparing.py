"""What the methods that reason over similarity vectors share: a stream whose every look becomes one.

Axes: pairs (leading, broadcast) | queries (who looks) | context (what they look at) | nodes (the global one first, if
there is one, then one a query) | dim (joint space, D) | comparison (k) | width (similarity vector, m).
"""

from __future__ import annotations

from abc import ABC

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tshsr.models.attention import attention_weights, to_unit_sums
from tshsr.models.base import ItemEncoding
from tshsr.models.similarity import SimilarityVector
from tshsr.models.streams import ScoringStream, cosine

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
