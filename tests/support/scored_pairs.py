"""Scores of all pairs of a batch, and their comparison."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import ItemEncoding, Matcher, Scores
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


def assert_one_scores_with_all(matcher: Matcher, images: ItemEncoding, captions: ItemEncoding) -> None:
    """One image with all captions, and one caption with all images, score as in the matrix of all pairs."""
    every = matcher.score_all(images, captions)
    for rows, columns in ((slice(1), slice(None)), (slice(None), slice(1))):
        expected = {name: value[rows, columns] for name, value in every.items()}
        some, others = images[rows], captions[columns]
        assert_same(expected, matcher.score_pairs(some.unsqueeze(1), others.unsqueeze(0)))
        assert_same({name: value.flatten() for name, value in expected.items()}, matcher.score_pairs(some, others))
        for name, trace in matcher.trace(some, others).items():
            torch.testing.assert_close(trace.score, expected[name].flatten())
