"""Lists of results: those of the full matrix."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.indexed import Small
from tshsr.scoring.candidate_lists import candidate_lists


def test_lists_are_those_of_the_full_matrix(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    images, captions = retriever.encode_images(split), retriever.encode_captions(split.captions)
    pooled, fused = (images.pooled @ captions.pooled.T).numpy(), retriever.score(images, captions).numpy()
    found = candidate_lists(retriever.matcher, retriever.tokenizer, split, split.captions, 4)
    assert found.images.shape == found.scores.shape == (24, 4)
    assert found.pictures == 12
    for caption in range(24):
        best = sorted(np.argsort(-pooled[:, caption])[:4], key=lambda image: -fused[image, caption])
        assert found.images[caption].tolist() == best
        assert found.scores[caption] == pytest.approx(fused[best, caption], abs=1e-6)
    assert found.matches(split.image_of_caption).sum() <= 24
    assert found.first(2).images.tolist() == found.images[:, :2].tolist()


def test_more_candidates_than_pictures_are_all_pictures(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    found = candidate_lists(retriever.matcher, retriever.tokenizer, split, ["a red dog"], 100)
    assert sorted(found.images[0].tolist()) == list(range(12))
    assert (np.diff(found.scores[0]) <= 0).all()
