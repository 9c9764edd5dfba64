"""Learned regions: the fit lowers the change of scores, and leaves the network as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.indexed import Small
from tshsr.errors import InputError, SettingsError
from tshsr.scoring.compression import RegionPooling, compress
from tshsr.training.region_pooling import PoolingOptions, first_captions, fit_region_pooling, logits_of

OPTIONS = PoolingOptions(regions=2, steps=60, batch=8, images=12, learning_rate=0.05)


def change(small: Small, pooling: RegionPooling) -> float:
    """Mean squared change of the logits of all pairs."""
    retriever, split = small.retriever(), small.split()
    images, captions = retriever.encode_images(split), retriever.encode_captions(split.captions)
    boxes = split.regions.read(range(12)).boxes
    with torch.inference_mode():
        few = compress(retriever.matcher, images, boxes, pooling=pooling)
    before, after = (logits_of(retriever.score(side, captions)) for side in (images, few))
    return float(((before - after) ** 2).mean())


def test_a_fit_keeps_scores_closer_than_random_vectors(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    weights = {name: each.clone() for name, each in retriever.matcher.state_dict().items()}
    done: list[int] = []
    pooling = fit_region_pooling(
        retriever.matcher, retriever.tokenizer, split, OPTIONS, progress=lambda step, _: done.append(step)
    )
    assert done == list(range(1, 61))
    untrained = fit_region_pooling(
        retriever.matcher, retriever.tokenizer, split, PoolingOptions(regions=2, steps=0, images=12)
    )
    assert change(small, pooling) < 0.9 * change(small, untrained)
    assert all(torch.equal(each, weights[name]) for name, each in retriever.matcher.state_dict().items())
    assert all(weight.requires_grad for weight in retriever.matcher.parameters())
    assert not any(weight.requires_grad for weight in pooling.parameters())
    again = fit_region_pooling(retriever.matcher, retriever.tokenizer, split, OPTIONS)
    assert torch.equal(again.vectors, pooling.vectors), "the same seed"


def test_one_caption_of_each_image_is_drawn(small: Small) -> None:
    split = small.split()
    found = first_captions(split, 5, np.random.default_rng(0))
    assert len(set(split.image_of_caption[found].tolist())) == len(found) == 5
    assert found.tolist() == sorted(found)


def test_what_cannot_be_fitted_is_refused(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    with pytest.raises(SettingsError, match="0 regions were asked for; expected at least 1"):
        fit_region_pooling(retriever.matcher, retriever.tokenizer, split, PoolingOptions(regions=0))
    from dataclasses import replace

    empty = replace(split, captions=(), image_of_caption=np.empty(0, np.int64))
    with pytest.raises(InputError, match="has no captions; learned regions are fitted to scores"):
        fit_region_pooling(retriever.matcher, retriever.tokenizer, empty, OPTIONS)
