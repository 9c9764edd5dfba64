"""Transformer layers over a set: the items of one row, or the embeddings of a batch (HREM, Fu et al. 2023).

Axes: rows (images or captions) | items (regions or words) | dim (joint space).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.errors import SettingsError
from tshsr.models.attention import softmax, unit
from tshsr.models.dropout import Dropout
from tshsr.models.pooling import mean_of_items


class SetLayer(nn.Module):
    """One post-norm transformer layer without positions (Vaswani et al. 2017), with a given term in its logits.

        a_ij = softmax_j( q_i·k_j / sqrt(D/h) + B_ij )   in each of h heads
        y    = N1( x + O [ sum_j a_ij v_j ] )            z = N2( y + W2 relu( W1 y + b1 ) + b2 ),   W1: D x D

    with N1 and N2 layer normalisation, and q, k, v, O linear with biases (but none on k, which would cancel).

    Args:
        dim: Width (D).
        heads: Heads h.
        dropout: Dropout on weights and on both updates.

    Raises:
        SettingsError: Where the heads do not divide the width.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise SettingsError(
                f"model.heads is {heads} and vectors are {dim} wide; expected a number of heads that divides the width."
            )
        self.heads = heads
        self.query, self.value, self.output = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_attention, self.norm_update = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self, items: Float[Tensor, "rows items dim"], bias: Float[Tensor, "#rows #items items"]
    ) -> Float[Tensor, "rows items dim"]:
        """The new items z.

        Args:
            bias: B; the lowest number of its type for pairs without attention.
        """
        queries, keys, values = (self._split(part(items)) for part in (self.query, self.key, self.value))
        logits = torch.einsum("rihd,rjhd->rhij", queries, keys) / queries.shape[-1] ** 0.5
        weights = self.dropout(softmax(logits + bias[:, None]))
        mixed = torch.einsum("rhij,rjhd->rihd", weights, values).flatten(2)
        middle = self.norm_attention(items + self.dropout(self.output(mixed)))
        update = self.second(self.dropout(torch.relu(self.first(middle))))
        result: Tensor = self.norm_update(middle + self.dropout(update))
        return result

    def _split(self, items: Float[Tensor, "rows items dim"]) -> Float[Tensor, "rows items heads _"]:
        return items.view(*items.shape[:-1], self.heads, -1)


class FragmentPooling(nn.Module):
    """Fragment-level pooling of HREM.

        pooled = l2( rho M(x) + (1 - rho) mean_i T(x)_i )      M: mean of the two largest values of each channel

    Args:
        dim: Width of the joint space.
        heads: Heads of the transformer layer T.
        share: Rho.
        dropout: Dropout in T.
    """

    def __init__(self, dim: int, heads: int, share: float, dropout: float) -> None:
        super().__init__()
        self.share = share
        self.layer = SetLayer(dim, heads, dropout)

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row."""
        items = items * mask[..., None]
        bias = torch.zeros_like(mask, dtype=items.dtype).masked_fill(~mask, torch.finfo(items.dtype).min)[:, None]
        mixed = mean_of_items(self.layer(items, bias), mask).to(items.dtype)
        return unit(self.share * two_largest(items, mask) + (1 - self.share) * mixed)


def two_largest(items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]) -> Float[Tensor, "rows dim"]:
    """Mean of the two largest values of each channel among the real items; of one item, its values."""
    lowest = torch.finfo(items.dtype).min
    best = items.masked_fill(~mask[..., None], lowest).topk(min(2, items.shape[1]), dim=1).values
    several = (mask.sum(dim=1) > 1)[:, None]
    return torch.where(several, best.mean(dim=1), best[:, 0])
