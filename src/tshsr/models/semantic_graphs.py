"""Graphs of our instantiation of DSGSL (Tan et al. 2022): nodes of a pair, and embeddings of a batch.

The abstract names a dual semantic graph of local and global features for every sample, and a graph of similar samples
whose convolution rebuilds the global representation; the formulas are ours (docs/related.md).

Axes: pairs (leading, broadcast) | nodes (the global one first, then one per query) | width (similarity vector, m) |
rows (images or captions of a batch) | dim (of v and t).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.models.attention import at_least_float32, masked_softmax, unit
from tshsr.models.base import ItemEncoding, RelatedScores


class DualGraph(nn.Module):
    """One step on two graphs: local nodes with each other, and the global node with each local one.

        M_p = sum_q softmax_q( (W S_p)·S_q ) S_q            p, q = 1..n: local graph
        h_p = S_p·(U S_0)                                   edge between local and global node
        S'_p = l2( S_p + relu( L M_p + sigmoid( h_p + d ) (K S_0) + b ) )
        S'_0 = l2( S_0 + relu( O sum_p softmax_p( h_p ) S_p + c ) )

    Both updates are from the nodes before the step.

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relation = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width, bias=False)
        self.opening = nn.Parameter(torch.zeros(()))
        self.local = nn.Linear(width, width)
        self.from_global = nn.Linear(width, width, bias=False)
        self.to_global = nn.Linear(width, width)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs nodes width"]:
        """The new nodes S'.

        Args:
            mask: True where a node is real; None: all. Padding is invisible.
        """
        whole, local = nodes[..., :1, :], nodes[..., 1:, :]
        real = None if mask is None else mask[..., None, 1:]
        relations = masked_softmax(at_least_float32(self.relation(local) @ local.mT), real).to(nodes.dtype)
        edges = at_least_float32(self.edge(whole) @ local.mT)
        gates = torch.sigmoid(edges + self.opening).to(nodes.dtype).mT
        shares = masked_softmax(edges, real).to(nodes.dtype)
        to_local = torch.relu(self.local(relations @ local) + gates * self.from_global(whole))
        to_whole = torch.relu(self.to_global(shares @ local))
        return unit(nodes + torch.cat([to_whole, to_local], dim=-2))


class BatchGraph(nn.Module):
    """Convolution over the nearest neighbours of each embedding in its batch: the rebuilt v' and t'.

        v'_i = l2( v_i + W sum_j softmax_j( v_i·v_j / tau ) v_j )       j: the k rows with the largest v_i·v_j, but i

    For training alone: it depends on the batch. No gradient reaches the choice of neighbours.

    Args:
        dim: Width of v and t.
        neighbours: k, reduced to the rest of the batch where that is smaller.
    """

    TEMPERATURE = 0.1
    """Tau."""

    def __init__(self, dim: int, neighbours: int) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.images, self.captions = (nn.Linear(dim, dim, bias=False) for _ in range(2))

    def forward(self, images: ItemEncoding, captions: ItemEncoding) -> RelatedScores:
        """Scores of v', t' with each other and with v, t."""
        v, t = images.pooled.to(self.images.weight.dtype), captions.pooled.to(self.captions.weight.dtype)
        new_v, new_t = self.rebuilt(self.images, v), self.rebuilt(self.captions, t)
        scores = {"related": new_v @ new_t.T, "related_images": new_v @ t.T, "related_captions": v @ new_t.T}
        return RelatedScores(scores, v.new_zeros(()))

    def rebuilt(self, weight: nn.Module, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        """Embeddings with what their neighbours add."""
        count = min(self.neighbours, len(rows) - 1)
        if count < 1:
            return rows
        similarity = at_least_float32(rows @ rows.T)
        with torch.no_grad():
            others = similarity.clone().fill_diagonal_(-torch.inf)
            chosen = torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, others.topk(count, dim=1).indices, True)
        weights = masked_softmax(similarity / self.TEMPERATURE, chosen).to(rows.dtype)
        added: Tensor = weight(weights @ rows)
        return unit(rows + added)
