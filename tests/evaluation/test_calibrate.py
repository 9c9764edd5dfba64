"""Fitting and measuring probabilities on lists of results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.indexed import Small
from tests.support.small_runs import small_split
from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.evaluation.calibrate import (
    fit_calibration,
    measure_calibration,
    measure_refusals,
    measure_sizes,
    other_captions,
    search_split,
    without_own,
)
from tshsr.scoring.candidate_lists import CandidateLists

PICTURES, CAPTIONS = 400, 2000


def drawn(seed: int) -> tuple[CandidateLists, np.ndarray]:
    """Searches of an overconfident network: all pictures, best first; the right one scores higher on average."""
    dice = np.random.default_rng(seed)
    owner = dice.integers(0, PICTURES, CAPTIONS)
    logits = dice.normal(-2, 2, (CAPTIONS, PICTURES))
    logits[np.arange(CAPTIONS), owner] += dice.normal(7, 2, CAPTIONS)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    order = np.argsort(-scores, axis=1)[:, :60]
    return CandidateLists(order, np.take_along_axis(scores, order, axis=1), PICTURES), owner


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """A split with these captions."""
    data = small_split(tmp_path_factory.mktemp("data"), "dev", PICTURES, each=CAPTIONS // PICTURES)
    return replace(data, image_of_caption=drawn(0)[1])


def test_the_error_of_another_split_is_halved_in_every_population(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = fit_calibration(drawn(0)[0], split, "", probabilities=True)
    assert (calibration.link, calibration.pictures, calibration.candidates) == ("beta", PICTURES, 60)
    lists, owner = drawn(1)
    monkeypatch.setattr("tshsr.evaluation.calibrate.search_split", lambda *_: lists)
    report = measure_calibration(calibration, None, replace(split, image_of_caption=owner), {})  # type: ignore[arg-type]
    for name in ("first", "shown", "candidates"):
        assert report.after[name].error < 0.5 * report.before[name].error, name
        assert report.after[name].brier < report.before[name].brier, name
        assert report.after[name].log_loss < report.before[name].log_loss, name
    assert report.after["candidates"].error < 0.005
    assert list(report.refusals) == ["captions of dev", "the same, their picture removed"]
    own, removed = report.refusals.values()
    assert own.right is not None
    assert removed.right is None
    for least, nothing in own.nothing.items():
        assert nothing <= removed.nothing[least], "less matches where the right picture is gone"
        assert own.right[least] <= 1 - nothing, "an own picture found is a result"


def test_the_prior_of_the_collection_keeps_probabilities_right_in_parts_of_it(split: Split) -> None:
    calibration = fit_calibration(drawn(0)[0], split, "", probabilities=True)
    sizes = measure_sizes(calibration, *drawn(1))
    assert list(sizes) == [40, 80, 200, 400]
    for size in (40, 80, 200):
        fixed, own = sizes[size]
        assert own < 0.5 * fixed, size
    assert sizes[400][0] == sizes[400][1]


def test_without_their_picture_lists_hold_wrong_results_alone() -> None:
    lists, owner = drawn(2)
    found = without_own(lists, owner)
    assert found.scores.shape == (CAPTIONS, 59)
    assert found.pictures == PICTURES - 1
    assert not found.matches(owner).any()
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_refusals_are_counted_by_the_highest_probability(split: Split) -> None:
    calibration = fit_calibration(drawn(0)[0], split, "", probabilities=True)
    lists = CandidateLists(np.array([[0, 1], [1, 0]]), np.array([[0.999999, 0.1], [1e-6, 1e-6]], np.float32), PICTURES)
    found = measure_refusals(calibration, lists, np.array([0, 0]))
    assert (found.queries, found.nothing[0.3], found.right) == (2, 0.5, dict.fromkeys(found.nothing, 0.5))


def test_a_fit_of_a_small_network_uses_its_own_scores(small: Small) -> None:
    split = small.split()
    lists = search_split(small.retriever(), split, 6)
    assert fit_calibration(lists, split, "digest", probabilities=True).weights == "digest"
    one = CandidateLists(lists.images[:, :1], lists.scores[:, :1], 1)
    with pytest.raises(InputError, match="has one picture; a calibration needs wrong results, too"):
        fit_calibration(one, split, "", probabilities=True)


def test_cosines_that_lie_in_0_to_1_are_fitted_by_platts_method(split: Split) -> None:
    lists = drawn(0)[0]
    assert 0 <= lists.scores.min() <= lists.scores.max() <= 1
    calibration = fit_calibration(lists, split, "", probabilities=False)
    assert (calibration.link, calibration.high) == ("platt", 0.0)
    lower, higher = calibration.probability(torch.tensor([-0.4, -0.2]))
    assert lower < higher, "cosines below 0 keep their order"


def test_captions_of_other_collections_are_lines_with_words() -> None:
    assert other_captions(["a dog ", "", "...", "a dog", "a cat"]) == ["a dog", "a cat"]
