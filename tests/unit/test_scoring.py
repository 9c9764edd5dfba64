"""All pairs in tiles: exact for any tile, any order of captions, any padding."""

import numpy as np
import pytest
import torch

from tests import tiny
from tshsr.batches import ImageBatch, pad_sequences
from tshsr.errors import InputError, SettingsError
from tshsr.scoring import score_all_pairs, tile_shape

LENGTHS = (3, 9, 1, 4, 4, 12, 2, 7)


def tokens() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(1, 20, (length,), generator=generator).tolist() for length in LENGTHS]


def batches(sizes: tuple[int, ...]) -> list[ImageBatch]:
    return [tiny.images(size, 5, real=[1 + (i + size) % 5 for i in range(size)], seed=size) for size in sizes]


@pytest.mark.parametrize("budget", [2**30, 60_000, 15_000])
def test_the_result_does_not_depend_on_the_tile(budget: int) -> None:
    network = tiny.network()
    result = score_all_pairs(network, iter(batches((3, 4))), tokens(), byte_budget=budget)
    with torch.no_grad():
        for first, images in zip((0, 3), batches((3, 4)), strict=True):
            for column, row in enumerate(tokens()):
                single = network.score_all(network.encode_images(images), network.encode_captions(pad_sequences([row])))
                for name, scores in single.items():
                    found = result[name][first : first + len(images), column]
                    np.testing.assert_allclose(found, scores[:, 0].numpy(), rtol=1e-6, atol=1e-7)  # stored as float32
    assert {matrix.shape for matrix in result.values()} == {(7, len(LENGTHS))}
    assert {matrix.dtype for matrix in result.values()} == {np.dtype(np.float32)}


def test_more_captions_than_one_encoding_block(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network()
    whole = score_all_pairs(network, iter(batches((3,))), tokens())
    monkeypatch.setattr("tshsr.scoring.ENCODE_BLOCK", 3)
    cut = score_all_pairs(network, iter(batches((3,))), tokens())
    np.testing.assert_allclose(cut["fused"], whole["fused"], rtol=1e-6)


def test_progress_counts_every_pair_once() -> None:
    seen: list[tuple[int, int]] = []
    score_all_pairs(tiny.network(), iter(batches((3, 4))), tokens(), progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (7 * len(LENGTHS), 7 * len(LENGTHS))


def test_the_mode_of_the_network_is_put_back_even_after_an_error() -> None:
    network = tiny.network().train()
    score_all_pairs(network, iter(batches((2,))), tokens())
    assert network.training
    with pytest.raises(SettingsError, match="the byte budget is 10; scoring one pair takes about"):
        score_all_pairs(network, iter(batches((2,))), tokens(), byte_budget=10)
    assert network.training


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="there are no captions to score"):
        score_all_pairs(tiny.network(), iter(batches((2,))), [])


def test_a_tile_stays_in_its_budget_and_its_block() -> None:
    for cost, images, captions, budget in [(1000, 256, 256, 10**6), (5, 3, 1000, 10**3), (10**6, 256, 256, 10**6)]:
        tall, wide = tile_shape(cost, images, captions, budget)
        assert 1 <= tall <= images
        assert 1 <= wide <= captions
        assert tall * wide * cost <= budget
