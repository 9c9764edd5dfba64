"""The second stage: the network scores each candidate once, and no other pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.members import Member, member
from tests.support.small_runs import small_split
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.data.dataset import Split
from tshsr.models.base import ItemEncoding, Scores
from tshsr.scoring import all_pairs as scoring
from tshsr.scoring import rerank
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.candidates import Depth, candidate_rounds, candidates
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.rerank import TwoStageScores, score_split_rescored, score_two_stage


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Ten images with two captions each."""
    return small_split(tmp_path / "data", "test")


@pytest.fixture
def one(split: Split) -> Member:
    return member("one", split, 1)


def searched(one: Member, split: Split, k_images: int, k_captions: int, **options: Any) -> TwoStageScores:
    return score_two_stage(one.matcher, one.tokenizer, split, Depth(k_images, k_captions), ScoringOptions(**options))


def watched(one: Member, monkeypatch: pytest.MonkeyPatch, most: int = 10**9) -> list[int]:
    """Numbers of pairs of each call of `score_pairs`; above `most` pairs memory runs out."""
    seen: list[int] = []
    score_pairs = one.matcher.score_pairs

    def counting(images: ItemEncoding, captions: ItemEncoding) -> Scores:
        seen.append(len(images))
        if seen[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return score_pairs(images, captions)

    monkeypatch.setattr(one.matcher, "score_pairs", counting)
    return seen


def test_the_network_scores_the_candidates_and_no_other_pairs(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = score_split(one.matcher, one.tokenizer, split)
    seen = watched(one, monkeypatch)
    found = searched(one, split, 4, 2)
    half, wanted = candidate_rounds(full["fused"], full["pooled"], Depth(4, 2))
    np.testing.assert_array_equal(half, candidates(full["pooled"], Depth(2, 1)))
    np.testing.assert_array_equal(found.scored, wanted)
    assert (wanted & half == half).all()
    assert sum(seen) == found.scored.sum() < 200
    np.testing.assert_allclose(found.scores["fused"][found.scored], full["fused"][found.scored], atol=1e-6)
    np.testing.assert_allclose(found.scores["pooled"], full["pooled"], atol=1e-6)
    assert {matrix.dtype for matrix in found.scores.values()} == {np.dtype(np.float32)}


def test_the_others_follow_below_in_the_order_of_the_first_stage(one: Member, split: Split) -> None:
    found = searched(one, split, 4, 2)
    fused, pooled = found.scores["fused"], found.scores["pooled"]
    for scores, first, marks in ((fused, pooled, found.scored), (fused.T, pooled.T, found.scored.T)):
        for line, order, mark in zip(scores, first, marks, strict=True):
            assert line[~mark].max(initial=-np.inf) < line[mark].min()
            np.testing.assert_array_equal(np.argsort(line[~mark]), np.argsort(order[~mark]))


@pytest.mark.parametrize("depth", [(20, 10), (1, 10), (20, 1), (999, 999)])
def test_with_all_as_candidates_it_is_the_score_of_all_pairs(one: Member, split: Split, depth: tuple[int, int]) -> None:
    full = score_split(one.matcher, one.tokenizer, split)
    found = searched(one, split, *depth)
    assert found.scored.all()
    np.testing.assert_allclose(found.scores["fused"], full["fused"], atol=1e-6)


def test_the_result_does_not_depend_on_blocks_and_budget(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = searched(one, split, 4, 2)
    monkeypatch.setattr(scoring, "ENCODE_BLOCK", 3)
    encoded: list[int] = []
    encode = one.matcher.encode_captions
    monkeypatch.setattr(one.matcher, "encode_captions", lambda batch: encoded.append(len(batch)) or encode(batch))
    cut = searched(one, split, 4, 2, byte_budget=30_000)
    np.testing.assert_array_equal(cut.scored, whole.scored)
    np.testing.assert_allclose(cut.scores["fused"], whole.scores["fused"], atol=1e-6)
    assert 20 < sum(encoded) < 60, "three passes: what does not fit the budget is encoded again, the rest is not"
    encoded.clear()
    searched(one, split, 4, 2)
    assert sum(encoded) == 20


def test_where_memory_runs_out_fewer_pairs_at_a_time_give_the_same(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = searched(one, split, 4, 2)
    seen = watched(one, monkeypatch, most=5)
    found = searched(one, split, 4, 2)
    np.testing.assert_allclose(found.scores["fused"], whole.scores["fused"], atol=1e-6)
    assert sum(pairs for pairs in seen if pairs <= 5) == found.scored.sum()
    assert sum(pairs > 5 for pairs in seen) <= 4, "and it is not tried again"
    assert "memory ran out (OutOfMemoryError); continuing with tiles of" in caplog.messages[0]
    watched(one, monkeypatch, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        searched(one, split, 4, 2)


def test_a_budget_bounds_the_pairs_that_are_scored_at_once(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "CACHE_TILE", 2**40)
    seen = watched(one, monkeypatch)
    searched(one, split, 4, 2)
    assert len(seen) == 2, "one tile a round"
    seen.clear()
    searched(one, split, 4, 2, byte_budget=100_000)
    assert len(seen) > 2


def test_progress_counts_the_candidates(one: Member, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "ENCODE_BLOCK", 4)
    calls: list[tuple[int, int]] = []
    found = searched(one, split, 4, 2, progress=lambda *done: calls.append(done))
    total = int(found.scored.sum())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) == 10, "five blocks in each round"


def test_a_lower_precision_is_used_for_the_second_stage_alone(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "RESCORED_PER_QUERY", 1)  # more would be all pairs of this small split
    exact, rough = searched(one, split, 4, 2), searched(one, split, 4, 2, dtype=torch.bfloat16)
    np.testing.assert_array_equal(rough.scores["pooled"], exact.scores["pooled"])
    np.testing.assert_array_equal(rough.scored, exact.scored)
    difference = np.abs(rough.scores["fused"] - exact.scores["fused"])[exact.scored].max()
    assert 0 < difference < 0.02
    assert next(one.matcher.parameters()).dtype == torch.float32


def test_the_mode_of_the_network_is_restored(one: Member, split: Split) -> None:
    one.matcher.train()
    searched(one, split, 1, 1)
    assert one.matcher.training


@pytest.mark.parametrize("in_files", [False, True])
def test_the_best_results_of_bfloat16_are_rescored_in_float32(
    one: Member, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_files: bool
) -> None:
    monkeypatch.setattr(rerank, "RESCORED_PER_QUERY", 2)
    folder = tmp_path if in_files else None
    exact = score_split(one.matcher, one.tokenizer, split)["fused"]
    rough = score_split(one.matcher, one.tokenizer, split, ScoringOptions(dtype=torch.bfloat16))
    options = ScoringOptions(dtype=torch.bfloat16, folder=folder)
    found = score_split_rescored(one.matcher, one.tokenizer, split, options)
    first = candidates(rough["fused"], Depth(2, 2))
    assert 0 < first.sum() < first.size
    np.testing.assert_allclose(found["fused"][first], exact[first], atol=1e-6)
    assert np.abs(rough["fused"] - exact)[first].max() > 1e-4, "else this would show nothing"
    np.testing.assert_array_equal(found["fused"][~first], rough["fused"][~first])
    np.testing.assert_array_equal(found["word_stream"], rough["word_stream"])
    same = score_split_rescored(one.matcher, one.tokenizer, split)["fused"]
    np.testing.assert_array_equal(same, exact)


@pytest.mark.parametrize("block", [256, 3])
def test_bfloat16_with_rescoring_reads_and_encodes_each_item_once(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(scoring, "ENCODE_BLOCK", block)
    monkeypatch.setattr(rerank, "RESCORED_PER_QUERY", 2)
    encoded: dict[str, int] = {"images": 0, "captions": 0}
    for side in encoded:
        encode = getattr(one.matcher, f"encode_{side}")

        def counting(batch: ImageBatch | CaptionBatch, side: str = side, encode: Any = encode) -> ItemEncoding:
            encoded[side] += len(batch)
            return encode(batch)

        monkeypatch.setattr(one.matcher, f"encode_{side}", counting)
    found = score_split_rescored(one.matcher, one.tokenizer, split, ScoringOptions(dtype=torch.bfloat16))
    assert encoded == {"images": 10, "captions": 20}
    monkeypatch.setattr(scoring, "ENCODE_BLOCK", 256)
    whole = score_split_rescored(one.matcher, one.tokenizer, split, ScoringOptions(dtype=torch.bfloat16))
    np.testing.assert_allclose(found["fused"], whole["fused"], atol=0.02)


def test_two_stages_in_bfloat16_rescore_their_best_results(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rerank, "RESCORED_PER_QUERY", 2)
    exact = score_split(one.matcher, one.tokenizer, split)["fused"]
    found = searched(one, split, 10, 6, dtype=torch.bfloat16).scores["fused"]
    monkeypatch.setattr(rerank.PairScorer, "rescore_best", lambda *_, **__: None)
    rough = searched(one, split, 10, 6, dtype=torch.bfloat16)
    best = candidates(rough.scores["fused"], Depth(2, 2)) & rough.scored
    others = rough.scored & ~best
    np.testing.assert_allclose(found[best], exact[best], atol=1e-6)
    assert np.abs(rough.scores["fused"] - exact)[best].max() > 1e-4, "else this would show nothing"
    np.testing.assert_array_equal(found[others], rough.scores["fused"][others])
