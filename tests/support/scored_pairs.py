"""Scores of all pairs of a batch, and their comparison."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import Scores
from tshsr.models.tshsr import Tshsr

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def score(network: Tshsr, images: ImageBatch, captions: CaptionBatch) -> Scores:
    """All pairs of a batch."""
    with torch.no_grad():
        return network.score_all(network.encode_images(images), network.encode_captions(captions))


def assert_same(left: Scores, right: Scores) -> None:
    """Equal in float64 up to the order of additions."""
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(
            left[name], right[name], rtol=1e-9, atol=1e-11, msg=lambda text, n=name: f"{n}: {text}"
        )
