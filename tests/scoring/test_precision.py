"""A lower precision is measured on a sample before it is used, and used only where it is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import tiny
from tests.support.members import member
from tests.support.small_runs import small_split
from tshsr.evaluation import run as evaluation
from tshsr.evaluation.run import check_precision, evaluate
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.attention import attention_weights, to_unit_sums, unit, unit_in_place
from tshsr.models.base import Scores
from tshsr.scoring import precision
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.precision import cast_matcher, compare_precisions, product_speed, skip_reason, usable_dtype

OWNERS = np.array([0, 0, 1, 2, 3])
EXACT = torch.tensor(
    [[0.9, 0.8, 0.1, 0.1, 0.2], [0.2, 0.1, 0.7, 0.3, 0.3], [0.1, 0.2, 0.3, 0.6, 0.1], [0.3, 0.3, 0.2, 0.2, 0.5]]
)


class Clock:
    """A clock that only scorers advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: list[float], fused: torch.Tensor) -> Callable[[], Scores]:
        """A scorer with these durations, one per call."""
        left = iter(seconds)

        def score() -> Scores:
            self.now += next(left)
            return {"fused": fused}

        return score


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(precision.time, "perf_counter", made)
    return made


def changed(places: dict[tuple[int, int], float]) -> torch.Tensor:
    scores = EXACT.clone()
    for place, value in places.items():
        scores[place] = value
    return scores


def measured(
    clock: Clock, rough: torch.Tensor, *, exact_takes: list[float], rough_takes: list[float]
) -> PrecisionCheck:
    return compare_precisions(
        clock.taking(exact_takes, EXACT), clock.taking(rough_takes, rough), OWNERS, torch.bfloat16
    )


def test_what_is_faster_and_as_good_is_used(clock: Clock) -> None:
    found = measured(clock, changed({(0, 0): 0.75}), exact_takes=[9, 3], rough_takes=[8, 2])
    assert found == PrecisionCheck(
        dtype="bfloat16",
        used=True,
        images=4,
        captions=5,
        max_difference=pytest.approx(0.15, abs=1e-6),
        rank_agreement=pytest.approx(100 * 8 / 9),  # image 0 now ranks its other caption first
        recall_change=0.0,  # which is relevant too
        speedup=1.5,  # of the best times: the first ones warm up
    )


def test_what_is_no_faster_is_not_used(clock: Clock) -> None:
    found = measured(clock, EXACT, exact_takes=[2, 2], rough_takes=[5, 2])
    assert not found.used
    assert (found.speedup, found.max_difference, found.rank_agreement, found.recall_change) == (1.0, 0.0, 100.0, 0.0)


def test_what_moves_a_recall_by_more_than_one_query_is_not_used(clock: Clock) -> None:
    one_image = measured(clock, changed({(1, 0): 0.95}), exact_takes=[2, 2], rough_takes=[1, 1])
    assert one_image.recall_change == pytest.approx(25.0)  # image 1 is wrong now, and so is caption 0 (20 points)
    assert one_image.used
    two_images = measured(clock, changed({(1, 0): 0.95, (2, 0): 0.96}), exact_takes=[2, 2], rough_takes=[1, 1])
    assert two_images.recall_change == pytest.approx(50.0)
    assert not two_images.used
    two_captions = measured(clock, changed({(1, 0): 0.95, (1, 4): 0.6}), exact_takes=[2, 2], rough_takes=[1, 1])
    assert two_captions.recall_change == pytest.approx(40.0)  # captions 0 and 4; of the images 1 alone
    assert not two_captions.used


def test_a_cast_network_is_a_copy_and_in_the_same_precision_the_network_itself() -> None:
    network = tiny.network(torch.float32)
    low = cast_matcher(network, torch.bfloat16)
    assert {weight.dtype for weight in low.parameters() if weight.dim()} == {torch.bfloat16}
    assert {weight.dtype for weight in low.parameters() if not weight.dim()} == {torch.float32}  # gamma, bias
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert cast_matcher(network, None) is network
    assert cast_matcher(network, torch.float32) is network


def test_attention_is_not_rounded_in_bfloat16() -> None:
    similarity = torch.rand(3, 4, 6).to(torch.bfloat16)
    found, exact = (
        attention_weights(values, query_mask=None, context_mask=None, inverse_temperature=9.0)
        for values in (similarity, similarity.float())
    )
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)
    assert to_unit_sums(found, torch.rand(3, 6, 6).to(torch.bfloat16)).dtype == torch.float32


def test_norms_are_not_rounded_in_bfloat16() -> None:
    rows = torch.randn(50, 256).to(torch.bfloat16)
    exact = unit(rows.float()).to(torch.bfloat16)
    with torch.inference_mode():
        found = rows.clone()
        assert unit_in_place(found) is found
    assert torch.equal(found, exact)  # each number rounded once


@pytest.mark.parametrize("faster", [True, False])
def test_an_evaluation_in_bfloat16_reports_the_check_and_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: bool
) -> None:
    split = small_split(tmp_path / "data", "test", images=30)
    one = member("one", split, 1)
    whole = check_precision(one, split, ScoringOptions(dtype=torch.bfloat16))
    assert (whole.images, whole.captions, whole.dtype) == (20, 40, "bfloat16")
    assert 0 < whole.max_difference < 0.05
    monkeypatch.setattr(evaluation, "check_precision", lambda *_: replace(whole, used=faster))
    exact, exact_scores = evaluate([one], split)
    rough, scores = evaluate([one], split, options=ScoringOptions(dtype=torch.bfloat16))
    assert exact.precision is None
    assert rough.precision == (replace(whole, used=faster),)
    assert np.array_equal(scores["fused"], exact_scores["fused"]) is not faster
    np.testing.assert_allclose(scores["fused"], exact_scores["fused"], atol=0.05)
    assert next(one.matcher.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("images", "sample"), [(15, 15), (60, 20), (250, 25), (1500, 100)])
def test_the_sample_is_a_tenth_of_the_images_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, sample: int
) -> None:
    split = small_split(tmp_path / "data", "test", images=images, each=1)
    one = member("one", split, 1)
    seen: list[int] = []
    monkeypatch.setattr(evaluation, "compare_precisions", lambda exact, rough, owners, dtype: seen.append(len(owners)))
    check_precision(one, split, ScoringOptions(dtype=torch.bfloat16))
    assert seen == [sample]


def test_slow_products_skip_a_precision_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cpu, speed = torch.device("cpu"), {"value": 0.125}
    monkeypatch.setattr(precision, "product_speed", lambda *_: speed["value"])
    reason = (
        "bfloat16 is skipped: its matrix products take 8 times as long as those of float32 on this cpu, which has no "
        "instructions for it; use float32."
    )
    assert skip_reason(torch.bfloat16, cpu) == reason
    assert usable_dtype(torch.bfloat16, cpu) is None
    assert caplog.messages == [reason]
    speed["value"] = 0.5
    assert skip_reason(torch.bfloat16, cpu) is None
    assert usable_dtype(torch.bfloat16, cpu) == torch.bfloat16
    assert usable_dtype(None, cpu) is None
    assert len(caplog.messages) == 1


def test_an_evaluation_without_bfloat16_instructions_measures_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    split = small_split(tmp_path / "data", "test", images=30)
    one = member("one", split, 1)
    monkeypatch.setattr(precision, "product_speed", lambda *_: 0.01)
    monkeypatch.setattr(evaluation, "check_precision", lambda *_: pytest.fail("measured a sample"))
    report, scores = evaluate([one], split, options=ScoringOptions(dtype=torch.bfloat16))
    assert report.precision is None
    assert np.array_equal(scores["fused"], evaluate([one], split)[1]["fused"])
    assert [message[:20] for message in caplog.messages] == ["bfloat16 is skipped:"]


def test_the_speed_of_products_is_that_of_the_best_times(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 9, 10, 29, 30, 33, 40, 46, *range(50, 62)])  # float32 takes 9 and 3, bfloat16 19 and 6, then 1
    monkeypatch.setattr(precision, "PRODUCT_REPEATS", 2)
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    measured_speed = product_speed.__wrapped__(torch.bfloat16, torch.device("cpu"))
    assert measured_speed == 0.5
