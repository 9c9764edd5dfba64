"""Probabilities from scores: the fit against an oracle, the prior of a collection, the file beside the weights."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from tshsr.errors import CheckpointError, InputError
from tshsr.scoring.calibration import (
    Calibration,
    fit_link,
    fit_logistic,
    log_odds_terms,
    settings_digest,
    weights_digest,
)

FITTED = Calibration("beta", 1.1, 0.4, -4.0, 1000, 100, "data", "dev", "")


def beta_population(seed: int, pairs: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores in 0..1 whose matches follow the map with a = 1.2, b = 0.5, c = -1."""
    dice = np.random.default_rng(seed)
    scores = dice.random(pairs)
    odds = 1.2 * np.log(scores) - 0.5 * np.log1p(-scores) - 1
    return scores, dice.random(pairs) < 1 / (1 + np.exp(-odds))


def test_a_fit_finds_the_map_that_made_the_matches() -> None:
    scores, matches = beta_population(0)
    assert fit_link(scores, matches, "beta") == pytest.approx((1.2, 0.5, -1.0), abs=0.1)


@pytest.mark.parametrize("link", ["beta", "platt"])
def test_the_fit_minimises_the_loss_that_a_loop_computes(link: str) -> None:
    scores, matches = beta_population(1, 300)
    right, wrong = matches.sum(), (~matches).sum()

    def loss(weights: np.ndarray) -> float:
        total = 0.0
        for s, y in zip(scores, matches, strict=True):
            terms = [math.log(s), -math.log(1 - s)] if link == "beta" else [s]
            z = sum(w * term for w, term in zip(weights, terms, strict=False)) + weights[-1]
            target = (right + 1) / (right + 2) if y else 1 / (wrong + 2)
            total += math.log1p(math.exp(-abs(z))) + max(z, 0) - target * z
        return total / len(scores)

    found = fit_logistic(log_odds_terms(scores, link), matches)  # type: ignore[arg-type]
    wanted = minimize(loss, np.zeros(len(found)), method="BFGS").x
    assert found == pytest.approx(wanted, abs=1e-3)


def test_a_probability_is_the_formula() -> None:
    s = 0.3
    odds = 1.1 * math.log(s) - 0.4 * math.log(1 - s) - 4.0 + math.log(999 / 99)
    found = FITTED.probability(torch.tensor([[s, 0.0, 1.0]]), pictures=100)
    assert found.shape == (1, 3)
    assert float(found[0, 0]) == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-5)
    assert torch.isfinite(found).all()
    platt = replace(FITTED, link="platt", low=2.0, high=0.0).probability(torch.tensor(7.0))
    assert float(platt) == pytest.approx(1 / (1 + math.exp(-(2 * 7 - 4))), rel=1e-5)


def test_a_higher_score_never_has_a_lower_probability() -> None:
    found = FITTED.probability(torch.linspace(0, 1, 500))
    assert bool((found.diff() >= 0).all())


def test_the_prior_of_a_smaller_collection_is_bayes_rule() -> None:
    """Of 400 pictures one matches; its score is drawn from one distribution, those of the others from another."""
    s, right, wrong = 0.7, 0.9, 0.02  # the densities of the score s
    known = right / (right + 399 * wrong)
    calibration = replace(FITTED, link="platt", low=0.0, intercept=math.log(known / (1 - known)), pictures=400)
    for pictures in (2, 20, 400, 10_000):
        wanted = right / (right + (pictures - 1) * wrong)
        assert float(calibration.probability(torch.tensor(s), pictures=pictures)) == pytest.approx(wanted, rel=1e-5)
    assert calibration.shift(1) == calibration.shift(2), "a picture alone"


def test_a_weight_that_would_reverse_the_ranking_is_left_out() -> None:
    dice = np.random.default_rng(0)
    scores = dice.random(2000)
    matches = dice.random(2000) < 0.2 + 0.3 * (scores < 0.05)  # high also where scores are lowest
    low, high, _ = fit_link(scores, matches, "beta")
    assert low >= 0
    assert high >= 0
    assert min(low, high) == 0
    assert fit_link(scores, ~(scores > 0.5), "platt")[0] == 0


def test_the_other_weight_is_fitted_again_where_one_is_left_out() -> None:
    dice = np.random.default_rng(0)
    scores = dice.random(2000)
    matches = dice.random(2000) < 0.2 + 0.3 * (scores < 0.05) + 0.2 * scores
    terms = log_odds_terms(scores, "beta")
    assert fit_logistic(terms, matches)[0] < 0
    alone, intercept = fit_logistic(terms[:, 1:], matches)
    assert alone > 0
    assert fit_link(scores, matches, "beta") == pytest.approx((0, alone, intercept))
    assert fit_link(1 - scores, ~matches, "beta") == pytest.approx((alone, 0, -intercept)), "the mirror image"


def test_scores_that_separate_right_from_wrong_have_a_finite_fit() -> None:
    scores = np.concatenate([np.full(50, 0.1), np.full(50, 0.9)])
    fitted = fit_link(scores, scores > 0.5, "beta")
    assert all(map(math.isfinite, fitted))
    calibration = replace(FITTED, low=fitted[0], high=fitted[1], intercept=fitted[2])
    below, above = calibration.probability(torch.tensor([0.1, 0.9])).tolist()
    assert below < 0.05
    assert above > 0.95
    assert all(map(math.isfinite, fit_link(np.full(4, 0.5), np.arange(4) < 2, "beta"))), "all scores alike"


@pytest.mark.parametrize("matches", [[True, True], [False, False]])
def test_a_fit_needs_right_and_wrong_results(matches: list[bool]) -> None:
    with pytest.raises(InputError, match=r"of 2 results match; a calibration needs right and wrong results\."):
        fit_link(np.array([0.1, 0.2]), np.array(matches), "beta")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with weights."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_what_is_saved_is_loaded(model: Path) -> None:
    assert Calibration.load(model) is None
    calibration = replace(FITTED, weights=weights_digest(model))
    calibration.save(model)
    assert Calibration.load(model) == calibration


def test_the_weights_of_a_run_are_its_best(model: Path) -> None:
    flat = weights_digest(model)
    (model / "best").mkdir()
    (model / "best" / "model.safetensors").write_bytes(b"better")
    assert weights_digest(model) != flat
    assert weights_digest(model / "nowhere") == ""


def test_a_calibration_of_other_weights_is_not_used(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    replace(FITTED, weights=weights_digest(model)).save(model)
    (model / "model.safetensors").write_bytes(b"trained on")
    with caplog.at_level(logging.WARNING):
        assert Calibration.load(model) is None
    assert (
        "calibration.json is of other weights than those beside it and is not used; run tshsr calibrate" in caplog.text
    )


def test_a_calibration_of_other_settings_is_not_used(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"recipe": "x", "model": {"late_weight": 40.0, "late_mean": 20.0}}
    (model / "config.json").write_text(json.dumps(settings))
    replace(FITTED, weights=weights_digest(model), settings=settings_digest(model)).save(model)
    (model / "config.json").write_text(json.dumps({"model": {"late_mean": 20.0, "late_weight": 40.0}, "recipe": "y"}))
    assert Calibration.load(model) is not None, "the order and what is not of the network change no score"
    (model / "config.json").write_text(json.dumps({"model": {"late_mean": 0.0, "late_weight": 40.0}}))
    with caplog.at_level(logging.WARNING):
        assert Calibration.load(model) is None
    assert "calibration.json is of other settings than config.json has and is not used; run tshsr cal" in caplog.text
    replace(FITTED, weights=weights_digest(model)).save(model)
    assert Calibration.load(model) is not None, "a file from before settings were stored"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "has version None; expected 1. Delete it and run tshsr calibrate again."),
        ('{"version": 2}', "has version 2; expected 1."),
        ('{"version": 1, "link": "beta"}', "low: Field required; delete it and run tshsr calibrate again."),
    ],
)
def test_a_damaged_file_is_one_sentence(model: Path, text: str, said: str) -> None:
    (model / "calibration.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        Calibration.load(model)
    assert said in str(caught.value)


def test_a_negative_weight_in_a_file_is_refused(model: Path) -> None:
    FITTED.save(model)
    values = json.loads((model / "calibration.json").read_text())
    (model / "calibration.json").write_text(json.dumps({**values, "low": -1.0}))
    with pytest.raises(CheckpointError, match="low: Input should be greater than or equal to 0"):
        Calibration.load(model)


def test_calibrations_of_checkpoints_are_of_their_weights() -> None:
    folders = [path.parent for path in (Path(__file__).parents[2] / "checkpoints").glob("*/calibration.json")]
    for folder in folders:
        assert Calibration.load(folder) is not None, f"run tshsr calibrate {folder} again"


def test_the_published_error_is_less_than_half_of_that_of_the_scores() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    for path in results.glob("calibration-*.json"):
        values = json.loads(path.read_text())
        for name, before in values["before"].items():
            assert values["after"][name]["error"] < 0.5 * before["error"], f"{path.name}: {name}"
