"""Similarity vectors: how two vectors of the joint space resemble each other, in m numbers instead of one.

Axes: pairs (leading, broadcast) | dim (joint space) | width (similarity vector, m).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from tshsr.alignment import unit


class SimilarityVector(nn.Module):
    """s(x, y) = l2( W (x - y)^2 + b ), W: m x D, squared element by element (after SGRAF, Diao et al. 2021).

    Args:
        dim: Width of the joint space (D).
        width: Width of the similarity vector (m).
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(dim, width)

    def forward(
        self, x: Float[Tensor, "*#pairs dim"], y: Float[Tensor, "*#pairs dim"]
    ) -> Float[Tensor, "*pairs width"]:
        """Compare x with y; a unit row for each pair."""
        return unit(self.projection((x - y).square()))
