"""Random inputs and weights, and comparisons of scores, that tests of networks share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support import oracles
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import Matcher, Scores
from tshsr.models.similarity import SimilarityVector

SAME = {"rtol": 1e-9, "atol": 1e-11}  # float64 against Python floats: only the order of additions differs

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)
"""Regions or words of up to four images or captions."""


def real(*shape: int) -> Tensor:
    """Random normal values in float64."""
    return torch.randn(*shape, dtype=torch.float64)


def unit_rows(*shape: int) -> Tensor:
    """Random unit rows in float64."""
    return nn.functional.normalize(real(*shape), dim=-1)


def shaken(module: nn.Module) -> nn.Module:
    """The module in float64 and evaluation mode, with random values in all parameters and statistics."""
    module.double().eval()
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            value.copy_(torch.rand_like(value) + 0.5 if "variance" in name else 0.5 * torch.randn_like(value))
    return module


def score(network: Matcher, images: ImageBatch, captions: CaptionBatch) -> Scores:
    """Scores of every image with every caption."""
    with torch.no_grad():
        return network.score_all(network.encode_images(images), network.encode_captions(captions))


def assert_same(left: Scores, right: Scores) -> None:
    """Compare scores by name, up to rounding."""
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], **SAME, msg=lambda text, n=name: f"{n}: {text}")


def plain_similarity(
    similarity: SimilarityVector, x: list[float], y: list[float], agreement: float = 0.0
) -> list[float]:
    """A similarity vector by plain loops: P once on the difference, not on each side."""
    view = similarity.view.weight if isinstance(similarity.view, nn.Linear) else torch.eye(len(x))
    weight, bias = similarity.projection.weight, similarity.projection.bias
    cosine = torch.zeros(len(bias)) if similarity.cosine is None else similarity.cosine
    if similarity.agreement is not None:
        bias = bias + agreement * similarity.agreement
    return oracles.similarity_vector(view.tolist(), weight.tolist(), cosine.tolist(), bias.tolist(), x, y)
