"""Learned regions: the fit lowers the change of scores, and leaves the network as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from tests.support.indexed import Small
from tshsr.config.models import HremConfig, ModelConfig, ScanConfig, TshsrConfig, VseConfig
from tshsr.errors import InputError, SettingsError
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.scoring.compression import RegionPooling, compress
from tshsr.training import region_pooling
from tshsr.training.region_pooling import PoolingOptions, first_captions, fit_region_pooling, logits_of, pooled_encoding

OPTIONS = PoolingOptions(regions=2, steps=60, batch=8, images=12, learning_rate=0.05)


def change(small: Small, pooling: RegionPooling) -> float:
    """Mean squared change of the logits of all pairs."""
    retriever, split = small.retriever(), small.split()
    images, captions = retriever.encode_images(split), retriever.encode_captions(split.captions)
    boxes = split.regions.read(range(12)).boxes
    with torch.inference_mode():
        few = compress(retriever.matcher, images, boxes, pooling=pooling)
    before, after = (logits_of(retriever.score(side, captions), probabilities=True) for side in (images, few))
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


def test_the_fit_compares_what_an_index_gives_back(small: Small) -> None:
    matcher, batch = small.retriever().matcher, small.split().regions.read(range(12))
    with torch.inference_mode():
        full = matcher.encode_images(batch)
        pooling = RegionPooling(full.items[full.mask][:2])
        fitted = pooled_encoding(matcher, pooling, full, batch.boxes)
        stored = compress(matcher, full, batch.boxes, pooling=pooling)
    assert torch.equal(fitted.mask, stored.mask)
    torch.testing.assert_close(fitted.items, stored.items, rtol=0, atol=1e-3)  # float16 in an index
    torch.testing.assert_close(fitted.mean_weights(), stored.mean_weights())


def untrained(small: Small, kind: type[ModelConfig], **settings: object) -> Matcher:
    """A network of another method for the small data."""
    encoder = replace(small.retriever().config.model.encoder, boxes=True)
    return build_matcher(kind(encoder=encoder, **settings)).eval()


def test_cosines_are_compared_as_they_are_whatever_their_signs(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def recorded(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        seen.extend((found.detach(), wanted))
        return mse_loss(found, wanted)

    monkeypatch.setattr(region_pooling, "mse_loss", recorded)
    options = replace(OPTIONS, steps=30, batch=1)
    fit_region_pooling(untrained(small, ScanConfig), small.retriever().tokenizer, small.split(), options)
    assert float(torch.cat(seen).abs().max()) <= 1, "cosines, also in a batch of positive ones"


def test_pictures_with_fewer_regions_than_others_keep_their_boxes(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(region_pooling, "ENCODE_BLOCK", 1)  # each picture is read as wide as it is
    matcher = untrained(small, TshsrConfig, similarity_dim=6, place_term=True)
    pooling = fit_region_pooling(matcher, small.retriever().tokenizer, small.split(), replace(OPTIONS, steps=2))
    assert pooling.vectors.isfinite().all()


def test_methods_without_scores_of_regions_are_refused(small: Small) -> None:
    for matcher in (untrained(small, VseConfig), untrained(small, HremConfig, heads=2)):
        with pytest.raises(SettingsError, match="this method scores by pooled vectors alone; leave --regions out"):
            fit_region_pooling(matcher, small.retriever().tokenizer, small.split(), OPTIONS)


def test_one_caption_of_each_image_is_drawn(small: Small) -> None:
    split = small.split()
    found = first_captions(split, 5, np.random.default_rng(0))
    assert len(set(split.image_of_caption[found].tolist())) == len(found) == 5
    assert found.tolist() == sorted(found)


def test_what_cannot_be_fitted_is_refused(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    with pytest.raises(SettingsError, match="0 regions were asked for; expected at least 1"):
        fit_region_pooling(retriever.matcher, retriever.tokenizer, split, PoolingOptions(regions=0))
    for name, value, least in (("images", 0, 1), ("batch", 0, 1), ("steps", -1, 0)):
        with pytest.raises(SettingsError, match=f"^{name} is {value}; expected {least} or more"):
            fit_region_pooling(retriever.matcher, retriever.tokenizer, split, replace(OPTIONS, **{name: value}))
    empty = replace(split, captions=(), image_of_caption=np.empty(0, np.int64))
    with pytest.raises(InputError, match="has no captions; learned regions are fitted to scores"):
        fit_region_pooling(retriever.matcher, retriever.tokenizer, empty, OPTIONS)
