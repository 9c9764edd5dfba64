"""The race: every row is a run that can be trained, nothing is done twice, and the results file says what came out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cost, entries, outcomes, quality
from benchmarks.entries import ABLATION, ENTRIES, MODELS, Entry, changed
from benchmarks.outcomes import Task, read_outcome, settle
from tests.data_files import random_regions, write_precomp
from tshsr.config import RunConfig
from tshsr.errors import DataError, SettingsError
from tshsr.metrics import score_metrics
from tshsr.models import build_matcher
from tshsr.recipes import recipe
from tshsr.training.settings import check_training

SINGLE = [entry for entry in (*MODELS, *ABLATION) if not entry.members]
SMALL = {
    "model.encoder.dim": 8,
    "model.encoder.word_dim": 6,
    "training.epochs": 1,
    "training.batch": 8,
    "training.minimum_count": 1,
    "training.evaluate_every": 1,
    "optimiser.warmup_steps": 1,
}


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A row of a race between tiny networks on tiny data; results go elsewhere than into the checkout."""
    for number, split in enumerate(("train", "dev", "test")):
        write_precomp(tmp_path / "data", split, random_regions(8, seed=number), each=2)
    monkeypatch.setattr(entries, "recipe", lambda name: changed(recipe(name), SMALL))
    monkeypatch.setattr(outcomes, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(quality, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(quality, "update_readme", lambda: None)
    monkeypatch.setattr(cost, "IMAGES", 4)
    return Task("saf", "flickr8k", str(tmp_path / "data"), 0, tmp_path / "runs")


@pytest.mark.parametrize("data", ["flickr8k", "scenes"])
@pytest.mark.parametrize("entry", SINGLE, ids=lambda entry: entry.name)
def test_every_row_is_a_run_that_can_be_trained(entry: Entry, data: str) -> None:
    config = entry.config(data, 4)
    assert config.training.seed == 4
    check_training(config)
    build_matcher(changed(config, {"model.encoder.feature_dim": 5, "model.encoder.vocabulary": 9}).model)


@pytest.mark.parametrize("data", ["flickr8k", "scenes"])
def test_all_rows_share_sizes_batches_epochs_and_optimiser(data: str) -> None:
    shared = {
        (config.model.encoder, config.optimiser, replace(config.training, candidates=0))
        for config in (entry.config(data, 0) for entry in SINGLE)
    }
    assert len(shared) == 1


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    whole = ENTRIES["tshsr"].config("flickr8k", 0)
    for entry in ABLATION:
        assert entry.recipe == "tshsr"
        assert entry.config("flickr8k", 0) != whole, entry.name
        assert len(entry.changes) == 1 or entry.name == "levels-3", entry.name


def test_settings_are_replaced_by_dotted_name_and_unknown_ones_refused() -> None:
    config = changed(RunConfig(), {"model.reasoning.levels": 1, "loss.margin": 0.3})
    assert (config.model.reasoning.levels, config.loss.margin) == (1, 0.3)  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="LossConfig has no setting 'marign'"):
        changed(RunConfig(), {"loss.marign": 0.3})


def test_a_run_is_trained_once_and_what_it_came_to_is_kept(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(task)
    outcome = read_outcome(task)
    scores = np.load(task.matrix)
    expected = score_metrics(scores, outcome.image_of_caption)
    assert outcome.report["scores"]["fused"]["rsum"] == pytest.approx(expected.rsum)
    assert np.mean(outcome.image_ranks <= 1) * 100 == expected.image_to_text.r1
    assert np.mean(outcome.caption_ranks <= 5) * 100 == expected.text_to_image.r5
    assert outcome.figures["settings"]["model"]["kind"] == "sgraf"
    assert outcome.figures["parameters"] > 0
    monkeypatch.setattr(outcomes, "fit", lambda *_, **__: pytest.fail("trained again"))
    settle(task)


def test_an_outcome_of_other_settings_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(task)
    monkeypatch.setattr(entries, "recipe", lambda name: changed(recipe(name), {**SMALL, "loss.margin": 0.1}))
    with pytest.raises(DataError, match=r"saf-seed0\.json is of other settings than saf has now; delete it"):
        settle(task)


def test_an_outcome_from_before_a_setting_was_added_is_still_one(task: Task) -> None:
    settle(task)
    values = json.loads(task.figures.read_text(encoding="utf-8"))
    del values["settings"]["training"]["noise"]
    task.figures.write_text(json.dumps(values), encoding="utf-8")
    written = task.figures.stat().st_mtime_ns
    settle(task)
    assert task.figures.stat().st_mtime_ns == written


def test_an_ensemble_averages_the_scores_of_its_members(task: Task) -> None:
    for name in ("sgr", "saf", "sgraf"):
        settle(task.member(name))
    outcome = read_outcome(task.member("sgraf"))
    both = [np.load(task.member(name).matrix) for name in ("sgr", "saf")]
    expected = score_metrics(np.mean(both, axis=0), outcome.image_of_caption)
    assert outcome.report["scores"]["fused"]["rsum"] == pytest.approx(expected.rsum)
    parts = [read_outcome(task.member(name)).figures["parameters"] for name in ("sgr", "saf")]
    assert outcome.figures["parameters"] == sum(parts)


def test_an_ensemble_whose_members_scores_are_gone_says_what_to_do(task: Task) -> None:
    with pytest.raises(DataError, match=r"sgr-flickr8k-seed0\.npy is missing; delete .*sgr-seed0\.json to make it"):
        settle(task.member("sgraf"))


def test_one_command_runs_the_race_and_writes_rows_differences_and_ablation(
    task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["--data", task.place, "--runs", str(task.runs), "--seeds", "0", "1"]
    for more in (["--entries", "sgraf", "tshsr"], ["--entries", "no-gate"], ["--tables-only"]):
        monkeypatch.setattr("sys.argv", ["quality", *arguments, *more])
        quality.main()
    values: dict[str, Any] = json.loads((tmp_path / "results" / "quality-flickr8k.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in values["rows"]] == ["saf", "sgr", "tshsr", "sgraf"]
    by_name = {row["model"]: row for row in values["rows"]}
    for row in values["rows"]:
        assert row["seeds"] == [0, 1]
        assert row["rsum_mean"] == pytest.approx(sum(row["r"]))
        assert row["rsum_std"] >= 0
        assert row["macs_per_pair"] > 0
    parts = [by_name[name]["macs_per_pair"] for name in ("sgr", "saf")]
    assert by_name["sgraf"]["macs_per_pair"] == pytest.approx(sum(parts))
    for lead in values["differences"]:
        assert lead["mean"] == pytest.approx(by_name["tshsr"]["rsum_mean"] - by_name[lead["b"]]["rsum_mean"])
        assert lead["low"] <= lead["mean"] <= lead["high"]
    (change,) = values["ablation"]
    assert (change["a"], change["b"]) == ("no-gate", "tshsr")
    assert change["mean"] == pytest.approx(change["rsum_mean"] - by_name["tshsr"]["rsum_mean"])


def test_costs_that_are_known_stay_when_the_weights_are_gone(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(task)
    known = quality.results(quality.Quality(data=task.place, runs=task.runs))["rows"][0]
    assert known["pairs_per_s"] > 0
    gone = quality.Quality(data=task.place, runs=task.runs / "gone")
    assert quality.results(gone)["rows"][0]["pairs_per_s"] is None
    costs = {"saf": cost.Cost(known["macs_per_pair"], known["pairs_per_s"])}
    monkeypatch.setattr(quality, "known_costs", lambda data: costs)
    assert quality.results(gone)["rows"][0]["pairs_per_s"] == known["pairs_per_s"]


def test_an_unknown_row_is_refused(task: Task) -> None:
    with pytest.raises(SettingsError, match="there is no row 'sgrr'; the rows are vse-mean, "):
        quality.tasks_of(quality.Quality(entries=("sgrr",)))


def test_the_first_seed_of_every_row_comes_before_the_second_of_any() -> None:
    tasks = quality.tasks_of(quality.Quality(entries=("sgraf", "tshsr"), seeds=(0, 1)))
    assert [(each.entry, each.seed) for each in tasks] == [
        (name, seed) for seed in (0, 1) for name in ("sgr", "saf", "sgraf", "tshsr")
    ]
