"""MaxSim: a plain-loop oracle, and padding is invisible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.indexed import Small
from tshsr.models.base import ItemEncoding
from tshsr.scoring import maxsim as module
from tshsr.scoring.maxsim import maxsim, maxsim_all, maxsim_of_regions, score_maxsim


@pytest.fixture
def encoded() -> tuple[ItemEncoding, ItemEncoding]:
    """Three images and three captions, both with padding."""
    network = tiny.network()
    with torch.no_grad():
        return network.encode_images(tiny.images(real=[5, 2, 4])), network.encode_captions(tiny.captions())


def loop(images: ItemEncoding, captions: ItemEncoding, image: int, caption: int) -> float:
    """The score of one pair by loops."""
    total, words = 0.0, 0
    for word in range(captions.mask.shape[1]):
        if captions.mask[caption, word]:
            best = max(
                float(images.items[image, region] @ captions.items[caption, word])
                for region in range(images.mask.shape[1])
                if images.mask[image, region]
            )
            total, words = total + best, words + 1
    return total / words


def test_the_score_is_that_of_a_plain_loop(encoded: tuple[ItemEncoding, ItemEncoding]) -> None:
    wanted = [[loop(*encoded, image, caption) for caption in range(3)] for image in range(3)]
    assert maxsim_all(*encoded).tolist() == pytest.approx(np.array(wanted))
    assert maxsim(*encoded).tolist() == pytest.approx(np.diag(wanted))


def test_padding_is_invisible(encoded: tuple[ItemEncoding, ItemEncoding]) -> None:
    images, captions = encoded
    noise = [torch.where(side.mask[..., None], side.items, torch.full_like(side.items, 9.0)) for side in encoded]
    changed = replace(images, items=noise[0]), replace(captions, items=noise[1])
    assert torch.equal(maxsim_all(*changed), maxsim_all(images, captions))


def test_tiles_do_not_change_scores(
    encoded: tuple[ItemEncoding, ItemEncoding], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = maxsim_all(*encoded)
    monkeypatch.setattr(module, "CACHE_TILE", 1)
    assert torch.allclose(maxsim_all(*encoded), wanted)


def test_a_split_is_scored_in_the_order_of_its_captions(small: Small) -> None:
    retriever, split = small.retriever(), small.split()
    images, captions = retriever.encode_images(split), retriever.encode_captions(split.captions)
    by_regions, by_words = score_maxsim(retriever.matcher, retriever.tokenizer, split)
    assert by_words == pytest.approx(maxsim_all(images, captions).numpy(), abs=1e-6)
    wanted = maxsim_of_regions(images.unsqueeze(1), captions.unsqueeze(0)).numpy()
    assert by_regions == pytest.approx(wanted, abs=1e-6)


def test_regions_as_queries_are_the_same_with_sides_exchanged(encoded: tuple[ItemEncoding, ItemEncoding]) -> None:
    images, captions = encoded
    wanted = [[loop(captions, images, caption, image) for caption in range(3)] for image in range(3)]
    assert maxsim_of_regions(images.unsqueeze(1), captions.unsqueeze(0)).tolist() == pytest.approx(np.array(wanted))
