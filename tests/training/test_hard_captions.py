"""Captions with two words swapped: which swaps are made, and what they add to the loss."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from tests.support.small_runs import (
    COLOURS,
    StopError,
    log,
    run,
    small_config,
    small_split,
    stop_at,
    weights,
    with_loss,
)
from tshsr.config.recipes import recipe
from tshsr.config.run import LossConfig
from tshsr.data.batches import pad_sequences
from tshsr.errors import SettingsError
from tshsr.training.checks import check_training
from tshsr.training.hard_captions import EDGE, Swapped, WordSwaps, exchanged
from tshsr.training.objective import Objective

A, RED, BLUE, BALL, BOX, ABOVE = 1, 2, 3, 4, 5, 6
CAPTION = [A, RED, BALL, ABOVE, A, BLUE, BOX]
KNOWN = [CAPTION, [A, BLUE, BALL], [A, RED, BOX, ABOVE], [ABOVE, A, RED, BOX], [A, BLUE, BALL]]


def test_a_swap_makes_known_bigrams_only() -> None:
    swaps = WordSwaps(KNOWN)
    bigrams = {(left, right) for row in KNOWN for left, right in zip([EDGE, *row], [*row, EDGE], strict=True)}
    expected = []
    for i in range(7):
        for j in range(i + 2, 7):  # brute force: swap, and check every bigram
            row = [EDGE, *exchanged(CAPTION, i, j), EDGE]
            if CAPTION[i] != CAPTION[j] and all(pair in bigrams for pair in pairwise(row)):
                expected.append((i, j))
    assert swaps.positions(CAPTION) == expected
    assert set(expected) == {(1, 5), (2, 6)}, "the colours and the things, and nothing else"


def test_each_of_the_four_new_bigrams_has_to_be_known() -> None:
    caption, new = [1, 2, 3, 4, 5], [[1, 4], [4, 3], [3, 2], [2, 5]]  # of 1 4 3 2 5
    assert WordSwaps([caption, *new]).positions(caption) == [(1, 3)]
    for missing in new:
        assert WordSwaps([caption, *(pair for pair in new if pair != missing)]).positions(caption) == []


def test_a_batch_has_one_swap_of_each_caption_that_has_any_and_the_seed_chooses_it() -> None:
    swaps, batch = WordSwaps(KNOWN), pad_sequences([[A, RED, BALL], CAPTION, [A]])
    swapped = swaps.of_batch(batch, seed=1)
    assert swapped is not None
    assert swapped.rows.tolist() == [1]
    found = {
        tuple(every.captions.tokens[0].tolist()) for seed in range(20) if (every := swaps.of_batch(batch, seed=seed))
    }
    assert found == {tuple(exchanged(CAPTION, 1, 5)), tuple(exchanged(CAPTION, 2, 6))}
    again = swaps.of_batch(batch, seed=1)
    assert again is not None
    assert torch.equal(again.captions.tokens, swapped.captions.tokens)
    assert batch.tokens[1].tolist() == CAPTION, "the true caption stays as it is"


def test_captions_without_a_swap_give_none() -> None:
    assert WordSwaps([[A, RED]]).of_batch(pad_sequences([[A, RED], [A]]), seed=0) is None


@pytest.mark.parametrize("candidates", [0, 2])
@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_the_loss_sets_each_caption_above_itself_with_words_swapped(candidates: int, weighted: bool) -> None:
    network = tiny.network()
    images, captions, owners = tiny.images(3), tiny.captions((4, 3, 6, 2)), torch.tensor([0, 1, 2, 2])
    false = pad_sequences([list(reversed(captions.tokens[row, :3].tolist())) for row in (1, 2)])
    weights = torch.tensor([1.0, 0.5, 0.25, 1.0]) if weighted else None
    config = LossConfig(streams=0.5, levels=0.25, pooled=3.0, swapped=2.0)
    objective = Objective(network, config, candidates)
    given = (images, captions, owners)
    plain = objective(*given, hardest=True, seed=3, weights=weights)
    added = objective(*given, hardest=True, seed=3, weights=weights, swapped=Swapped(torch.tensor([1, 2]), false))
    encoded = network.encode_images(images)
    true, wrong = (
        network.score_pairs(encoded[torch.tensor([1, 2])], network.encode_captions(each))
        for each in (pad_sequences([captions.tokens[1, :3].tolist(), captions.tokens[2, :6].tolist()]), false)
    )
    expected = 0.0
    for name, score in true.items():
        weight = {"fused": 1.0, "pooled": 0.0}.get(name, 0.5 if name.endswith("_stream") else 0.25)
        for row in range(2):
            cost = max(0.0, 0.2 - float(score[row]) + float(wrong[name][row]))
            share = 1 / 4 if weights is None else float(weights[row + 1] / weights.sum())
            expected += weight * cost * share
    assert float(added["swapped"]) == pytest.approx(expected, rel=1e-4)
    assert float(added["loss"] - plain["loss"]) == pytest.approx(2 * expected, rel=1e-3)
    assert plain["swapped"] == 0
    assert "swapped" not in Objective(network, LossConfig(), candidates)(*given, hardest=True, seed=3)


def test_the_loss_reaches_both_captions() -> None:
    network = tiny.network()
    captions, false = pad_sequences([[1, 2, 3], [4, 5]]), [9, 8, 7]
    swapped = Swapped(torch.tensor([0]), pad_sequences([false]))
    config = LossConfig(fused=1e-9, streams=0.0, levels=0.0, pooled=0.0, swapped=1e9, margin=3.0)
    objective = Objective(network, config)
    objective(tiny.images(2), captions, torch.tensor([0, 1]), hardest=True, seed=0, swapped=swapped)["loss"].backward()
    gradient = network.word_encoder.embedding.weight.grad
    assert gradient is not None
    reached = gradient.abs().sum(dim=1) > 1e-6  # the hinge among the true captions weighs 1e-9
    assert reached[[*false, 1, 2, 3]].all(), "the false caption and the true one"
    assert not reached[[4, 5]].any()


def test_a_run_learns_from_swaps_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    train, dev = small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev", images=6)
    things = [("dog", "ball"), ("ball", "dog")]
    texts = [f"a {COLOURS[i % 5]} {things[i % 2][0]} by a {COLOURS[i % 4]} {things[i % 2][1]}" for i in range(20)]
    data = replace(train, captions=tuple(texts)), dev
    config = with_loss(small_config(save_every_steps=2), swapped=2.0, warmup_epochs=1.0)
    run(config, data, tmp_path / "whole")
    with pytest.raises(StopError):
        run(config, data, tmp_path / "killed", listen=stop_at(4))
    run(config, data, tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    steps = [line for line in log(tmp_path / "whole") if line["kind"] == "steps"]
    assert len(steps) >= 2
    assert all(line["swapped"] > 0 for line in steps), "in the warm-up too"


def test_batches_without_a_swap_are_no_matter(tmp_path: Path) -> None:
    train, dev = small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev", images=6)
    texts = ["a red dog by a blue ball", "a blue ball by a red dog", *COLOURS * 4][:20]
    config = with_loss(small_config(batch=2, accumulate=2, epochs=1), swapped=1.0)
    run(config, (replace(train, captions=tuple(texts)), dev), tmp_path / "run")
    assert all("swapped" in line for line in log(tmp_path / "run") if line["kind"] == "steps")


def test_swaps_without_a_score_that_learns_from_them_are_refused(tmp_path: Path) -> None:
    data = small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev", images=6)
    config = with_loss(small_config(), swapped=1.0, fused=0.0, streams=0.0, levels=0.0, pooled=1.0)
    with pytest.raises(SettingsError, match=r"the scores of loss\.fused, loss\.streams, loss\.levels, which weigh 0"):
        run(config, data, tmp_path / "run")


def test_a_weight_on_a_score_that_a_method_does_not_have_is_none(tmp_path: Path) -> None:
    config = with_loss(recipe("vse-scenes"), fused=0.0, streams=1.0, levels=1.0, pooled=1.0)
    with pytest.raises(SettingsError, match=r"the scores of loss\.fused, which weigh 0; set "):
        check_training(config)
