"""All pairs in tiles: exact for any tile, any order of captions, any padding."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.uneven import LENGTHS, batches, tokens
from tshsr.data.batches import pad_sequences
from tshsr.data.tokens import TokenIds
from tshsr.errors import InputError, SettingsError
from tshsr.models.base import ItemEncoding, Scores
from tshsr.models.tshsr import Tshsr
from tshsr.scoring import all_pairs as scoring
from tshsr.scoring.all_pairs import is_out_of_memory, score_all_pairs, score_encoded, similar_lengths, tile_shape
from tshsr.scoring.options import ScoringOptions


@pytest.mark.parametrize("budget", [2**30, 60_000, 15_000])
def test_the_result_does_not_depend_on_the_tile(budget: int) -> None:
    network = tiny.network()
    result = score_all_pairs(network, iter(batches((3, 4))), tokens(), ScoringOptions(byte_budget=budget))
    with torch.no_grad():
        for first, images in zip((0, 3), batches((3, 4)), strict=True):
            for column, row in enumerate(tokens().rows()):
                single = network.score_all(network.encode_images(images), network.encode_captions(pad_sequences([row])))
                for name, scores in single.items():
                    found = result[name][first : first + len(images), column]
                    np.testing.assert_allclose(found, scores[:, 0].numpy(), rtol=1e-6, atol=1e-7)  # stored as float32
    assert {matrix.shape for matrix in result.values()} == {(7, len(LENGTHS))}
    assert {matrix.dtype for matrix in result.values()} == {np.dtype(np.float32)}


def test_more_captions_than_one_encoding_block(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny.network()
    whole = score_all_pairs(network, iter(batches((3,))), tokens())
    monkeypatch.setattr("tshsr.scoring.all_pairs.ENCODE_BLOCK", 3)
    cut = score_all_pairs(network, iter(batches((3,))), tokens())
    np.testing.assert_allclose(cut["fused"], whole["fused"], rtol=1e-6)


def test_progress_counts_every_pair_once() -> None:
    seen: list[tuple[int, int]] = []
    options = ScoringOptions(progress=lambda *pair: seen.append(pair))
    score_all_pairs(tiny.network(), iter(batches((3, 4))), tokens(), options)
    assert seen[-1] == (7 * len(LENGTHS), 7 * len(LENGTHS))


def test_the_mode_of_the_network_is_restored_even_after_an_error() -> None:
    network = tiny.network().train()
    score_all_pairs(network, iter(batches((2,))), tokens())
    assert network.training
    with pytest.raises(SettingsError, match="the byte budget is 10; scoring one pair takes about"):
        score_all_pairs(network, iter(batches((2,))), tokens(), ScoringOptions(byte_budget=10))
    assert network.training


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(InputError, match="there are no captions to score"):
        score_all_pairs(tiny.network(), iter(batches((2,))), TokenIds.of([]))


def test_a_tile_stays_in_its_budget_and_its_block() -> None:
    for cost, images, captions, budget in [(1000, 256, 256, 10**6), (5, 3, 1000, 10**3), (10**6, 256, 256, 10**6)]:
        tall, wide = tile_shape(cost, images, captions, budget)
        assert 1 <= tall <= images
        assert 1 <= wide <= captions
        assert tall * wide * cost <= budget


def torch_on_a_gpu() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def torch_on_a_cpu() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you")


def running_out_above(pairs: int, network: Tshsr, error: Callable[[], Exception], seen: list[int]) -> Tshsr:
    """The network on a machine with memory for `pairs` pairs at once."""
    enough = network.score_all

    def score_all(images: ItemEncoding, captions: ItemEncoding) -> Scores:
        seen.append(len(images) * len(captions))
        if seen[-1] > pairs:
            raise error()
        return enough(images, captions)

    network.score_all = score_all  # type: ignore[method-assign]
    return network


@pytest.mark.parametrize("error", [torch_on_a_gpu, torch_on_a_cpu, MemoryError])
@pytest.mark.parametrize("pairs", [7, 2, 1])
def test_where_memory_runs_out_smaller_tiles_give_the_same_scores(
    pairs: int, error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    network, seen = tiny.network(), []
    expected = score_all_pairs(network, iter(batches((3, 4))), tokens())
    found = score_all_pairs(running_out_above(pairs, network, error, seen), iter(batches((3, 4))), tokens())
    assert max(seen) > pairs
    for name, matrix in expected.items():
        np.testing.assert_allclose(found[name], matrix, rtol=1e-6, atol=1e-7)
    assert f"memory ran out ({type(error()).__name__}); continuing with tiles of" in caplog.messages[0]


def test_a_tile_that_did_not_fit_is_tried_only_once() -> None:
    seen: list[int] = []
    network = running_out_above(4, tiny.network(), torch_on_a_gpu, seen)
    images = network.encode_images(tiny.images(8, 5))
    captions = network.encode_captions(tiny.captions((4,) * 32))
    score_encoded(network, images, captions, byte_budget=2**30)
    assert seen[:7] == [256, 128, 64, 32, 16, 8, 4]
    first = seen.index(4)
    assert sum(each for each in seen[first:] if each <= 4) == 256, "every pair once"
    assert sum(each > 4 for each in seen) < 256 // 4, "halves of a half that did not fit are tried, whole tiles never"


def test_a_lowered_budget_holds_for_all_further_tiles() -> None:
    seen: list[int] = []
    network = running_out_above(8, tiny.network(), torch_on_a_gpu, seen)
    images = network.encode_images(tiny.images(4, 5))
    captions = network.encode_captions(tiny.captions((4,) * 4 + (6,) * 8))  # two tiles, as padding keeps them apart
    score_encoded(network, images, captions)
    assert seen[:3] == [16, 8, 8]
    assert max(seen[3:]) <= 8


def test_other_errors_and_a_pair_that_does_not_fit_are_raised() -> None:
    network = running_out_above(0, tiny.network(), torch_on_a_cpu, [])
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        score_all_pairs(network, iter(batches((3,))), tokens())
    network = running_out_above(0, tiny.network(), lambda: RuntimeError("a bug"), [])
    with pytest.raises(RuntimeError, match="a bug"):
        score_all_pairs(network, iter(batches((3,))), tokens())


def test_a_failed_allocation_on_a_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("lengths", [sorted([8] * 30 + [9] * 40 + [12] * 25 + [35]), list(range(1, 60)), [7] * 20, [3]])
def test_captions_of_a_tile_have_similar_lengths(lengths: list[int]) -> None:
    left = 0
    while left < len(lengths):
        count = similar_lengths(lengths[left:])
        assert count >= 1
        tile = lengths[left : left + count]
        assert max(tile) * count <= scoring.PADDING * sum(tile)
        left += count


def test_tiles_leave_out_what_is_padding_in_all_of_their_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    network, shapes = tiny.network(), []
    whole = network.score_all

    def score_all(images: ItemEncoding, captions: ItemEncoding) -> Scores:
        shapes.append((captions.mask.shape[-1], captions.padded, int(captions.mask.sum()), captions.mask.numel()))
        return whole(images, captions)

    monkeypatch.setattr(network, "score_all", score_all)
    lengths = (2, 2, 2, 5, 5, 9, 9, 9, 9, 40)
    score_encoded(network, network.encode_images(tiny.images(3, 5)), network.encode_captions(tiny.captions(lengths)))
    assert [shape[0] for shape in shapes] == [2, 5, 9, 40]
    assert not any(padded for _, padded, _, _ in shapes), "and so nothing is masked"
    assert sum(numbers for *_, numbers in shapes) == sum(lengths)
