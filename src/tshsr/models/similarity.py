"""Similarity vectors: m numbers per pair of vectors in the joint space, in place of one cosine.

Axes: pairs (leading, broadcast) | rows (items of one side) | dim (joint space, D) | comparison (k) | width (m).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.models.attention import attend, may_overwrite, unit, unit_in_place

CHUNK_BYTES = 2**21
"""Bytes of differences that are processed at a time when scoring on a CPU; fits its second-level cache."""


class ComparisonGate(nn.Module):
    """Mix of a compared query and its attended vector, channel by channel, before their comparison (DSGSL).

        g = sigmoid( G x + H (x - y) + b ),     x' = g * x + (1 - g) * y,     x' - y = g * (x - y)

    Channels with g near 0 are filtered out of the comparison. Logits from x - y are those from y: G x + H (x - y) =
    (G + H) x - H y.

    Args:
        width: Width of the comparison space (k).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.difference = nn.Linear(width, width, bias=False)

    def forward(
        self,
        difference: Float[Tensor, "*pairs queries comparison"],
        queries: Float[Tensor, "*#pairs queries comparison"],
        from_query: Float[Tensor, "*#pairs queries comparison"],
    ) -> tuple[Float[Tensor, "*pairs queries comparison"], Float[Tensor, "*pairs queries comparison"]]:
        """Gate x: from x - y, x and G x + b to x' - y and x'."""
        gated = torch.sigmoid(from_query + self.difference(difference)) * difference
        return gated, queries - difference + gated


class SimilarityVector(nn.Module):
    """s(x, y) = l2( W (P (x - y))^2 + V (P x * P y) + u (x·y) + z e + b ),   P: k x D,  W, V: m x k,  u, z: m.

    Squares and products are by element. With P = I, V = 0 and u = 0 this is the similarity vector of SGRAF (Diao et al.
    2021), which compares in all D dimensions of the joint space. k < D dimensions cost less, but approximate the
    distance of x and y; the cosine x·y, which the attention has computed already, restores it. Products beside squared
    differences tell where both vectors have a property, not only where they differ in it. As P is linear, P x and P y
    are computed once per item instead of once per pair, and a weighted sum of y projects to the weighted sum of P y.

    Args:
        dim: Width of the joint space (D).
        comparison_dim: Width of the comparison space (k); 0: P = I and u = 0, as in SGRAF.
        width: Width of the similarity vector (m).
        products: Whether the term V (P x * P y) is added.
        places: Whether the term z e is added, with e the agreement of positions.
        projects: Whether P belongs to this module; False: that of another one, whose projections are compared.
        gated: Whether `to_attended` compares P q after `ComparisonGate`; the cosine remains that of q.
    """

    def __init__(
        self,
        dim: int,
        comparison_dim: int,
        width: int,
        *,
        products: bool = False,
        places: bool = False,
        projects: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.view: nn.Module = nn.Identity()
        self.cosine: nn.Parameter | None = None
        if comparison_dim:
            if projects:
                self.view = nn.Linear(dim, comparison_dim, bias=False)
                # Orthogonal rows, scaled to keep the norm of x - y: the ratio to b inside l2 is then as in SGRAF.
                nn.init.orthogonal_(self.view.weight, gain=(dim / comparison_dim) ** 0.5)
            self.cosine = nn.Parameter(torch.randn(width) / 10)
        self.projection = nn.Linear(comparison_dim or dim, width)
        self.agreement = nn.Parameter(torch.randn(width) / 10) if places else None
        self.product = nn.Linear(comparison_dim or dim, width, bias=False) if products else None
        self.gate = ComparisonGate(comparison_dim or dim) if gated else None

    def project(self, items: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows comparison"]:
        """P x."""
        view: Float[Tensor, "*rows comparison"] = self.view(items)
        return view

    def forward(
        self,
        x: Float[Tensor, "*#pairs comparison"],
        y: Float[Tensor, "*#pairs comparison"],
        cosine: Float[Tensor, "*#pairs"] | None = None,
    ) -> Float[Tensor, "*pairs width"]:
        """s(x, y) from P x, P y and, for k > 0, x·y."""
        return self._vectors(x - y, x, cosine, None)

    def to_attended(
        self,
        queries: Float[Tensor, "*#pairs queries comparison"],
        weights: Float[Tensor, "*pairs queries context"],
        context: Float[Tensor, "*#pairs context comparison"],
        cosine: Float[Tensor, "*pairs queries"] | None = None,
        agreement: Float[Tensor, "*pairs queries"] | None = None,
    ) -> Float[Tensor, "*pairs queries width"]:
        """s(q, sum_c w_qc c) for every query.

        Without gradients, on a CPU, the first axis is processed in chunks that fit the cache, so that temporaries of
        width k exist for one chunk only.

        Args:
            queries: P q.
            weights: w, scaled so that the sums are unit vectors of the joint space.
            context: P c.
            cosine: q·sum_c w_qc c, for k > 0.
            agreement: e, with `places`.
        """
        from_query = None if self.gate is None else self.gate.query(queries)
        if torch.compiler.is_compiling():  # the compiler tiles by itself
            return self._compared((queries, from_query), weights, context, cosine, agreement)
        size = CHUNK_BYTES // max(1, weights[0, ..., 0].numel() * queries.shape[-1] * queries.element_size())
        starts = range(0, len(weights), max(1, size))
        if not may_overwrite(weights) or len(starts) < 2 or weights.device.type != "cpu":
            return self._compared((queries, from_query), weights, context, cosine, agreement)
        vectors = queries.new_empty(*weights.shape[:-1], self.projection.out_features)
        for start in starts:
            chunk = slice(start, start + starts.step)
            q, c = (side if len(side) == 1 else side[chunk] for side in (queries, context))
            q_gate = from_query if from_query is None or len(from_query) == 1 else from_query[chunk]
            q_cosine, q_agreement = (None if each is None else each[chunk] for each in (cosine, agreement))
            self._compared((q, q_gate), weights[chunk], c, q_cosine, q_agreement, out=vectors[chunk])
        return vectors

    def _compared(
        self,
        asking: tuple[Float[Tensor, "*#pairs queries comparison"], Float[Tensor, "*#pairs queries comparison"] | None],
        weights: Float[Tensor, "*pairs queries context"],
        context: Float[Tensor, "*#pairs context comparison"],
        cosine: Float[Tensor, "*pairs queries"] | None,
        agreement: Float[Tensor, "*pairs queries"] | None,
        out: Float[Tensor, "*pairs queries width"] | None = None,
    ) -> Float[Tensor, "*pairs queries width"]:
        """The vectors of all queries; `asking`: P q, and its part of the gate where there is one."""
        queries, from_query = asking
        difference = differences(queries, weights, context)
        if self.gate is not None and from_query is not None:
            difference, queries = self.gate(difference, queries, from_query)
        return self._vectors(difference, queries, cosine, agreement, out)

    def _vectors(
        self,
        difference: Float[Tensor, "*pairs comparison"],
        queries: Float[Tensor, "*#pairs comparison"],
        cosine: Float[Tensor, "*#pairs"] | None,
        agreement: Float[Tensor, "*#pairs"] | None,
        out: Float[Tensor, "*pairs width"] | None = None,
    ) -> Float[Tensor, "*pairs width"]:
        """The vector from d = x - y and x, in place and into `out` if no gradient is recorded."""
        if not may_overwrite(difference):
            return self._vectors_with_gradients(difference, queries, cosine, agreement)
        products = None if self.product is None else (queries - difference).mul_(queries)
        squares, weight = difference.square_(), self.projection.weight
        if out is None:
            out = squares.new_empty(*squares.shape[:-1], len(weight))
        if self.cosine is not None and cosine is not None:
            torch.addcmul(self.projection.bias, cosine[..., None], self.cosine, out=out)
        else:
            out.copy_(self.projection.bias)
        if self.agreement is not None and agreement is not None:
            out.addcmul_(agreement[..., None], self.agreement)
        rows = out.view(-1, len(weight))
        rows.addmm_(squares.reshape(-1, weight.shape[1]), weight.T)
        if self.product is not None and products is not None:
            rows.addmm_(products.reshape(-1, weight.shape[1]), self.product.weight.T)
        return unit_in_place(out)

    def _vectors_with_gradients(
        self,
        difference: Float[Tensor, "*pairs comparison"],
        queries: Float[Tensor, "*#pairs comparison"],
        cosine: Float[Tensor, "*#pairs"] | None,
        agreement: Float[Tensor, "*#pairs"] | None,
    ) -> Float[Tensor, "*pairs width"]:
        """The same result by out-of-place operations, for autograd."""
        vectors = self.projection(difference.square())
        if self.product is not None:
            vectors = vectors + self.product((queries - difference) * queries)
        if self.cosine is not None and cosine is not None:
            vectors = vectors + cosine[..., None] * self.cosine
        if self.agreement is not None and agreement is not None:
            vectors = vectors + agreement[..., None] * self.agreement
        return unit(vectors)


def differences(
    queries: Float[Tensor, "*#pairs queries width"],
    weights: Float[Tensor, "*pairs queries context"],
    context: Float[Tensor, "*#pairs context width"],
) -> Float[Tensor, "*pairs queries width"]:
    """Q - sum_c w_qc c, as one batched product for a list of pairs, or for a grid with the context axis first."""
    # A batched product does not broadcast the context; `len` would make the size a constant of an exported graph.
    whole = context.shape[0] == weights.shape[0]
    if weights.dim() == 3 and whole:
        return torch.baddbmm(queries, weights, context, alpha=-1)
    if weights.dim() == 4 and whole and context.shape[1] == 1 and len(queries) in (1, len(weights)):
        rows = weights.flatten(1, 2)
        return torch.baddbmm(queries.flatten(1, 2), rows, context.squeeze(1), alpha=-1).view(*weights.shape[:-1], -1)
    return queries - attend(weights, context)
