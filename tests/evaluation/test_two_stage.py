"""Reports on a two-stage search: candidates, upper bound on recall, recall lost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.members import Member, member
from tests.support.small_runs import small_split
from tshsr.config.models import EncoderConfig, ModelConfig, ScanConfig, SgrafConfig, TwoStreamSgrConfig, VseConfig
from tshsr.data.dataset import Split
from tshsr.errors import InputError, SettingsError
from tshsr.evaluation import run as evaluation
from tshsr.evaluation import two_stage
from tshsr.evaluation.run import score_bytes
from tshsr.evaluation.two_stage import TwoStageSearch, evaluate_two_stage
from tshsr.metrics.recall import score_metrics
from tshsr.metrics.report import PrecisionCheck, Report, Rerank, read_report
from tshsr.models.build import build_matcher
from tshsr.scoring import rerank
from tshsr.scoring.all_pairs import score_split
from tshsr.scoring.candidates import Depth, candidate_rounds, candidates_first, lost, recall_ceiling
from tshsr.scoring.depth import choose_depth
from tshsr.scoring.options import ScoringOptions
from tshsr.system import Progress, no_progress


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Ten images with two captions each."""
    return small_split(tmp_path / "data", "test")


@pytest.fixture
def one(split: Split) -> Member:
    return member("one", split, 1)


def evaluated(search: TwoStageSearch, split: Split, plan: Depth | Split, **options: Any) -> tuple[Report, Any]:
    found = evaluate_two_stage(search, split, plan, **options)
    return found.report(), found.scores


def test_a_report_has_the_numbers_of_candidates(one: Member, split: Split) -> None:
    report, scores = evaluated(TwoStageSearch(one), split, Depth(4, 2))
    full = score_split(one.matcher, one.tokenizer, split)
    *_, scored = candidate_rounds(full["fused"], full["pooled"], Depth(4, 2))
    highest = recall_ceiling(scored, split.image_of_caption)
    assert report.rerank == Rerank(4, 2, int(scored.sum()), 200, *highest)
    assert set(scores) == set(report.scores) == {"fused", "pooled"}
    assert report.scores["fused"] == score_metrics(scores["fused"], split.image_of_caption)
    assert (report.models, report.split, report.images, report.captions) == (("one",), "test", 10, 20)
    assert report.precision is None


def test_the_requested_protocol_is_used(one: Member, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FOLD", 2)  # ten images are COCO's 5,000
    for protocol, chosen in (("auto", "coco-5k"), ("flickr", "flickr"), ("coco-5k", "coco-5k")):
        report, _ = evaluated(TwoStageSearch(one, protocol=protocol), split, Depth(4, 2))
        assert report.protocol == chosen


def test_a_protocol_that_does_not_fit_is_refused_before_anything_is_scored(one: Member, split: Split) -> None:
    with pytest.raises(InputError, match="coco-5k is for 5000 images; the split has 10"):
        TwoStageSearch(one, protocol="coco-5k").check(split)


def test_a_protocol_of_folds_is_refused(one: Member, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FOLD", 5)
    with pytest.raises(SettingsError) as caught:
        TwoStageSearch(one, protocol="coco-1k").check(split)
    assert str(caught.value) == (
        "a two-stage search takes its candidates from all images, coco-1k ranks 1000 at a time; use another protocol."
    )


def test_a_comparison_reports_the_exact_loss(one: Member, split: Split) -> None:
    report, _ = evaluated(TwoStageSearch(one), split, Depth(2, 1), check=True)
    full = score_split(one.matcher, one.tokenizer, split)
    owners = split.image_of_caption
    *_, scored = candidate_rounds(full["fused"], full["pooled"], Depth(2, 1))
    short = score_metrics(candidates_first(full["fused"], full["pooled"], scored), owners)
    expected = lost(score_metrics(full["fused"], owners), short)
    assert report.rerank is not None
    assert report.rerank.lost == {"test": expected}
    assert report.rerank.all_pairs_seconds is not None
    assert report.rerank.all_pairs_seconds > 0
    assert max(map(abs, expected)) > 0, "a search this shallow changes something"


def test_the_depth_is_chosen_on_another_split_and_grows_with_this_one(
    one: Member, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dev = small_split(tmp_path / "other", "dev", images=5)
    full = score_split(one.matcher, one.tokenizer, dev)
    chosen, points = choose_depth(full["fused"], full["pooled"], dev.image_of_caption)
    begun: list[tuple[str, str]] = []

    def begin(what: str, counted: str) -> Progress:
        begun.append((what, counted))
        return no_progress

    report, _ = evaluated(TwoStageSearch(one), split, dev, check=True, begin=begin)
    assert report.rerank is not None
    assert (report.rerank.k_images, report.rerank.k_captions) == (2 * chosen.k_images, 2 * chosen.k_captions)
    assert report.rerank.chosen_on == "dev"
    assert report.rerank.lost["dev"] == points
    assert set(report.rerank.lost) == {"dev", "test"}
    assert begun == [("choosing K on dev", "pairs"), ("reasoning", "pairs"), ("comparing with all", "pairs")]


def test_matrices_of_all_pairs_go_to_the_folder(one: Member, split: Split, tmp_path: Path) -> None:
    dev, folder = small_split(tmp_path / "other", "dev"), tmp_path / "scores"
    folder.mkdir()
    search = TwoStageSearch(one, ScoringOptions(folder=folder))
    report, _ = evaluated(search, split, dev, check=True)
    in_memory, _ = evaluated(TwoStageSearch(one), split, dev, check=True)
    assert report.rerank is not None
    assert in_memory.rerank is not None
    assert report.rerank.lost == in_memory.rerank.lost
    names = {path.stem for path in (folder / "choosing").iterdir()}
    assert names == {path.stem for path in (folder / "comparing").iterdir()} == one.matcher.score_names
    full = score_split(one.matcher, one.tokenizer, split)["fused"]
    np.testing.assert_array_equal(np.load(folder / "comparing" / "fused.npy"), full)


CHECK = PrecisionCheck("bfloat16", True, 10, 20, 0.01, 99.0, 0.0, 1.5)


@pytest.mark.parametrize("used", [True, False])
def test_a_lower_precision_is_measured_first(
    one: Member, split: Split, monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    measured: list[str] = []
    monkeypatch.setattr(rerank, "RESCORED_PER_QUERY", 1)  # more would be all pairs of this small split
    monkeypatch.setattr(
        two_stage,
        "agreed_check",
        lambda retriever, sample, *_: measured.append(sample.name) or replace(CHECK, used=used),
    )
    exact, exact_scores = evaluated(TwoStageSearch(one), split, Depth(4, 2))
    report, scores = evaluated(TwoStageSearch(one, ScoringOptions(dtype=torch.bfloat16)), split, Depth(4, 2))
    assert measured == ["test"]
    assert exact.precision is None
    assert report.precision == (replace(CHECK, used=used),)
    assert np.array_equal(scores["fused"], exact_scores["fused"]) is not used


def test_a_report_with_both_blocks_reads_back_equal(
    one: Member, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_stage, "agreed_check", lambda *_: CHECK)
    report, _ = evaluated(TwoStageSearch(one, ScoringOptions(dtype=torch.bfloat16)), split, Depth(4, 2), check=True)
    report.write(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["rerank"]["reasoned_pairs"] < values["rerank"]["all_pairs"] == 200
    assert len(values["rerank"]["lost"]["test"]) == 6
    assert values["precision"][0]["dtype"] == "bfloat16"


def other(split: Split, make: type[ModelConfig], **settings: object) -> Member:
    """A model of another method on the same data."""
    known = member("other", split, 1)
    encoder = EncoderConfig(dim=8, feature_dim=6, vocabulary=len(known.tokenizer), word_dim=7)
    return replace(known, matcher=build_matcher(make(encoder=encoder, **settings)))


def test_a_method_whose_score_is_the_first_stage_is_refused(split: Split) -> None:
    with pytest.raises(SettingsError) as caught:
        evaluate_two_stage(TwoStageSearch(other(split, VseConfig)), split, Depth(4, 2))
    assert str(caught.value) == (
        "other has the scores fused, pooled: a two-stage search needs v·t (pooled) for its first stage and another "
        "score for its second. Evaluate it without --rerank."
    )


@pytest.mark.parametrize(
    ("make", "settings"),
    [(ScanConfig, {}), (SgrafConfig, {"similarity_dim": 4}), (TwoStreamSgrConfig, {"similarity_dim": 4})],
)
def test_every_method_that_compares_words_and_regions_is_searched(
    split: Split, make: type[ModelConfig], settings: dict
) -> None:
    one = other(split, make, **settings)
    full = score_split(one.matcher, one.tokenizer, split)
    report, scores = evaluated(TwoStageSearch(one), split, Depth(20, 10))
    np.testing.assert_allclose(scores["fused"], full["fused"], atol=1e-5)
    assert report.rerank is not None
    assert report.rerank.reasoned_pairs == 200


def test_images_without_captions_are_refused_before_anything_is_scored(one: Member, split: Split) -> None:
    bare = replace(split, captions=split.captions[:4], image_of_caption=split.image_of_caption[:4])
    begun: list[str] = []
    with pytest.raises(InputError, match="image 2 has no caption"):
        evaluate_two_stage(TwoStageSearch(one), bare, Depth(4, 2), begin=lambda what, _: begun.append(what))
    with pytest.raises(InputError, match="image 2 has no caption"):
        TwoStageSearch(one).choose(bare, split)
    assert not begun


def test_a_search_without_comparison_reports_no_loss(one: Member, split: Split) -> None:
    report, _ = evaluated(TwoStageSearch(one), split, Depth(1, 1))
    assert report.rerank is not None
    assert report.rerank.lost == {}
    assert report.rerank.all_pairs_seconds is None


def test_the_bytes_of_all_matrices_are_known_before_they_are_scored(one: Member, split: Split) -> None:
    full = score_split(one.matcher, one.tokenizer, split)
    whole = sum(matrix.nbytes for matrix in full.values())
    assert one.matcher.score_names == set(full)
    assert score_bytes([one], split) == whole
    assert score_bytes([one, one], split) == 3 * whole, "two models and their means"
    scan = other(split, ScanConfig, streams="word")
    names = scan.matcher.score_names
    assert score_bytes([one, scan], split) == whole + 2 * len(names) * full["fused"].nbytes
