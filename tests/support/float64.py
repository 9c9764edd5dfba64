"""Random inputs, weights and tolerances in float64, where only the order of additions differs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.support import oracles
from tshsr.models.base import ItemEncoding
from tshsr.models.similarity import SimilarityVector

SAME = {"rtol": 1e-9, "atol": 1e-11}  # float64 against Python floats: only the order of additions differs


def real(*shape: int) -> Tensor:
    """Normal random numbers."""
    return torch.randn(*shape, dtype=torch.float64)


def unit_rows(*shape: int) -> Tensor:
    """Random rows of length 1."""
    return nn.functional.normalize(real(*shape), dim=-1)


def as_tensor(values: list) -> Tensor:
    """Values of plain loops as a tensor."""
    return torch.tensor(values, dtype=torch.float64)


def layer(module: nn.Module) -> dict:
    """A linear layer or layer normalisation as nested lists."""
    return {"weight": module.weight.tolist(), "bias": module.bias.tolist()}


def encoded(rows: Tensor) -> ItemEncoding:
    """One image or caption whose items are these."""
    return ItemEncoding(
        rows[None], torch.ones(1, len(rows), dtype=torch.bool), rows.mean(0)[None], (rows @ rows.T)[None]
    )


def plain_similarity(
    similarity: SimilarityVector, x: list[float], y: list[float], agreement: float = 0.0
) -> list[float]:
    """A similarity vector by plain loops: P once on the difference, not on each side."""
    view = similarity.view.weight if isinstance(similarity.view, nn.Linear) else torch.eye(len(x))
    weight, bias = similarity.projection.weight, similarity.projection.bias
    cosine = torch.zeros(len(bias)) if similarity.cosine is None else similarity.cosine
    if similarity.agreement is not None:
        bias = bias + agreement * similarity.agreement
    product = None if similarity.product is None else similarity.product.weight.tolist()
    return oracles.similarity_vector(view.tolist(), weight.tolist(), cosine.tolist(), bias.tolist(), x, y, product)


def shaken(module: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with every weight and statistic moved away from its initial value."""
    module.double().eval()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            value.copy_(torch.rand_like(value) + 0.5 if "variance" in name else 0.5 * torch.randn_like(value))
    return module
