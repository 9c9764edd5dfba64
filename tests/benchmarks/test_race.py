"""benchmarks.race: every row can be trained, finished runs are kept, and the results file has their means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import race, rows, runs
from benchmarks.race import Race, task_of
from benchmarks.rows import ABLATION, ENTRIES, MODELS, Entry, with_settings
from benchmarks.runs import RunResult, Task, is_stored, joined_scores, read_result, run_all, run_task
from tests.support import tiny
from tests.support.data_files import random_regions, write_precomp
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import with_knowledge
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.errors import DataError, SettingsError
from tshsr.metrics.comparison import compare
from tshsr.metrics.ranks import QueryRanks
from tshsr.metrics.recall import score_metrics
from tshsr.models.build import build_matcher
from tshsr.training.checks import check_training
from tshsr.training.graphs import with_placeholders

PARTS_OF_DSGSL = ("dsgsl-graphs", "dsgsl-batch", "dsgsl-all")
"""Rows that need several settings: graphs with a global node, a batch graph with its loss."""
SINGLE = [entry for entry in (*MODELS, *ABLATION) if not entry.members]


@pytest.fixture
def tiny_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Race:
    """A race of tiny networks on tiny data; results go to a temporary folder."""
    write_splits(tmp_path / "data", seed=0)
    monkeypatch.setattr(rows, "recipe", lambda name: with_settings(recipe(name), tiny.RECIPE_CHANGES))
    monkeypatch.setattr(runs, "STORE", tmp_path / "kept")
    monkeypatch.setattr(race, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(race, "update_readme", lambda: None)
    monkeypatch.setattr(race, "COST_IMAGES", 4)
    return Race(data=str(tmp_path / "data"), runs=tmp_path / "runs")


@pytest.fixture
def task(tiny_race: Race) -> Task:
    """A row of it."""
    return task_of(tiny_race, "saf", 0)


def write_splits(folder: Path, seed: int) -> None:
    """Tiny data with the three splits of a race."""
    for number, split in enumerate(("train", "dev", "test")):
        write_precomp(folder, split, random_regions(8, seed=seed + number), each=2)


def run(monkeypatch: pytest.MonkeyPatch, wanted: Race, *more: str) -> None:
    """The command."""
    monkeypatch.setattr("sys.argv", ["race", "--data", wanted.data, "--runs", str(wanted.runs), *more])
    race.main()


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        pytest.param(entry, data, id=f"{entry.name}-{data}")
        for data in ("flickr8k", "flickr8k-photos", "scenes")
        for entry in SINGLE
        if entry.applies_to(data)
    ],
)
def test_every_row_is_a_run_that_can_be_trained(entry: Entry, data: str) -> None:
    config = entry.config(data, 4)
    assert config.training.seed == 4
    check_training(config)
    sizes = {"feature_dim": 5, "vocabulary": 9, "text_width": 3}
    sized = with_settings(config, {f"model.encoder.{name}": size for name, size in sizes.items()}).model
    build_matcher(with_placeholders(sized))


@pytest.mark.parametrize("data", ["flickr8k", "flickr8k-photos", "scenes"])
def test_all_rows_share_sizes_batches_epochs_and_optimiser(data: str) -> None:
    shared = [  # the projection of the regions is part of VSE
        (
            replace(config.model.encoder, region_projection="linear"),
            config.optimiser,
            replace(config.training, candidates=0),
        )
        for config in (
            entry.config(data, 0)
            for entry in SINGLE
            if entry.name not in ("boxes", "places", "no-region-dropout")
            and not entry.name.startswith(("text-", "few-"))
        )
    ]
    assert all(settings == shared[0] for settings in shared)


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    for entry, data in product(ABLATION, ("flickr8k", "flickr8k-photos", "scenes")):
        if entry.members or entry.name.startswith(("few-", "knowledge-")):
            continue
        assert entry.recipe == "tshsr" or entry.name.endswith("-narrow")
        base = ENTRIES[entry.against or entry.recipe]
        changes = entry.config(data, 0) != base.config(data, 0)
        assert changes or entry.regions or not entry.applies_to(data), f"{entry.name} is no change on {data}"
        several = ("levels-3", "places", "equal-losses", "text-gru", "text-glove", "no-mean", "former", *PARTS_OF_DSGSL)
        changed = {name for name, value in entry.changes.items() if base.changes.get(name) != value}
        assert len(changed) + bool(entry.regions) == 1 or entry.name in several, entry.name


@pytest.mark.parametrize(
    ("name", "base"), [("few-captions-progressive", "few-captions"), ("few-captions-cvse", "few-captions-vse")]
)
def test_rows_on_few_captions_differ_from_their_base_in_concepts_alone(name: str, base: str) -> None:
    assert ENTRIES[name].against == base
    first, second = (ENTRIES[each].config("flickr8k-photos", 0) for each in (base, name))
    assert first.training == second.training
    assert first.training.captions_share == 0.1
    assert with_knowledge(second.model, **vars(KnowledgeConfig())) == first.model
    assert replace(second.loss, relations=0.0, relations_warmup_epochs=0.0) == first.loss
    assert second.loss.relations_warmup_epochs == first.training.epochs / 4


def test_a_row_with_another_base_is_compared_with_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def difference(data: str, first: tuple[str, str], second: tuple[str, str]) -> dict[str, Any]:
        assert (data, first, second) == ("scenes", ("few-captions", "A"), ("few-captions-progressive", "B"))
        return {
            "a": first[0],
            "b": second[0],
            "mean": -2.0,
            "low": -3.0,
            "high": -1.0,
            "p": 0.01,
            "paired": False,
            "seed_deviation": 0.5,
        }

    monkeypatch.setattr(race, "difference", difference)
    entry, found = ENTRIES["few-captions-progressive"], {"few-captions": "A", "few-captions-progressive": "B"}
    row = race.other_base("scenes", entry, found)  # type: ignore[arg-type]
    assert (row["mean"], row["low"], row["high"]) == (2.0, 1.0, 3.0), "what concepts add"
    assert (row["against"], row["seed_deviation"]) == ("a tenth of the training captions", 0.5)
    assert race.other_base("scenes", entry, {}) == race.other_base("scenes", ENTRIES["few-captions"], found) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seeds", "others", "expected"),
    [
        (range(5), (4, 3, 2, 1, 0), True),
        (range(4), range(4), False),
        (range(5), range(6), False),
        (range(5), range(1, 6), False),
    ],
)
def test_runs_are_paired_from_five_equal_seeds(seeds: Sequence[int], others: Sequence[int], expected: bool) -> None:
    assert race.are_paired(seeds, others) is expected


def test_rows_of_equal_weights_are_compared_on_common_seeds_in_pairs(tiny_race: Race) -> None:
    generator = np.random.default_rng(0)
    owner = np.repeat(np.arange(8), 2)

    def runs_of(name: str, seeds: Sequence[int]) -> tuple[str, list[Any]]:
        ranks = [QueryRanks(generator.integers(1, 9, 8), generator.integers(1, 17, 16), owner) for _ in seeds]
        tasks = [task_of(tiny_race, "saf", seed) for seed in seeds]
        return name, [(one, RunResult({}, each)) for one, each in zip(tasks, ranks, strict=True)]

    whole, part = runs_of("tshsr", range(5)), runs_of("no-mean", range(1, 4))
    found = race.difference("flickr8k-photos", whole, part)
    sides = [result.ranks for _, result in whole[1][1:4]], [result.ranks for _, result in part[1]]
    expected = compare(*sides, pairs=True)
    assert (found["mean"], found["low"], found["high"]) == (expected.rsum.mean, expected.rsum.low, expected.rsum.high)
    assert (found["paired"], found["seed_deviation"]) == (True, expected.seed_deviation)
    other = race.difference("flickr8k-photos", whole, ("no-gate", part[1]))
    assert not other["paired"]
    assert other["mean"] != found["mean"]


def test_settings_are_replaced_by_dotted_name_and_unknown_ones_refused() -> None:
    config = with_settings(RunConfig(), {"model.reasoning.levels": 1, "loss.margin": 0.3})
    assert (config.model.reasoning.levels, config.loss.margin) == (1, 0.3)  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="LossConfig has no setting 'marign'"):
        with_settings(RunConfig(), {"loss.marign": 0.3})


def test_a_run_is_trained_once_and_what_it_came_to_is_stored(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    run_task(task)
    result = read_result(task)
    scores = np.load(task.matrix)
    expected = score_metrics(scores, result.ranks.image_of_caption)
    assert result.report["scores"]["fused"]["rsum"] == pytest.approx(expected.rsum)
    assert np.mean(result.ranks.image_to_text <= 1) * 100 == expected.image_to_text.r1
    assert np.mean(result.ranks.text_to_image <= 5) * 100 == expected.text_to_image.r5
    assert result.first_images is not None
    assert scores[result.first_images, np.arange(scores.shape[1])] == pytest.approx(scores.max(axis=0))
    assert result.figures["settings"]["model"]["kind"] == "sgraf"
    assert result.figures["parameters"] > 0
    monkeypatch.setattr(runs, "fit", lambda *_, **__: pytest.fail("trained again"))
    run_task(task)


def test_a_result_of_other_settings_is_refused_before_anything_is_done(
    tiny_race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_task(task_of(tiny_race, "saf", 0))
    monkeypatch.setattr(
        rows, "recipe", lambda name: with_settings(recipe(name), {**tiny.RECIPE_CHANGES, "loss.margin": 0.1})
    )
    monkeypatch.setattr(runs, "fit", lambda *_, **__: pytest.fail("trained"))
    now = [task_of(tiny_race, name, 0) for name in ("sgr", "saf")]
    stale = (
        r"saf-seed0\.json is of other settings than saf has now; delete it, and \S*saf-flickr8k-seed0 if it is there,"
    )
    with pytest.raises(DataError, match=stale):
        run_all(now, jobs=1)
    with pytest.raises(SystemExit, match=stale):
        run(monkeypatch, tiny_race, "--entries", "sgr", "saf", "--seeds", "0")


def test_a_result_of_other_settings_is_left_out_of_the_tables(
    tiny_race: Race, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("sgr", "saf", "sgraf"):
        run_task(task_of(tiny_race, name, 0))
    monkeypatch.setitem(ENTRIES, "saf", Entry("saf", "SAF", "saf", {"loss.margin": 0.1}))
    assert [row["model"] for row in race.results(tiny_race)["rows"]] == ["sgr"]
    for name in ("saf", "sgraf"):
        assert f"{name}-seed0.json is of other settings than {name} has now: left out" in caplog.text
    sgr = task_of(tiny_race, "sgr", 0)
    values = read_result(sgr).figures
    values["settings"]["training"]["a_setting_of_then"] = 1
    sgr.figures.write_text(json.dumps(values), encoding="utf-8")
    assert race.results(tiny_race)["rows"] == []
    assert "sgr-seed0.json is of other settings than sgr has now: left out" in caplog.text


def test_a_result_made_on_other_data_is_refused(tiny_race: Race, tmp_path: Path) -> None:
    run_task(task_of(tiny_race, "saf", 0))
    write_splits(tmp_path / "other", seed=7)
    for split in ("train", "dev", "test"):
        (tmp_path / "other" / f"{split}_caps.txt").write_text("another caption\n" * 16, encoding="utf-8")
    elsewhere = task_of(replace(tiny_race, data=str(tmp_path / "other")), "saf", 0)
    with pytest.raises(DataError, match=r"saf-seed0\.json was made on other data than \S*other; give the data it was"):
        run_all([elsewhere], jobs=1)


def test_a_result_made_on_other_regions_is_refused(tiny_race: Race, tmp_path: Path) -> None:
    """Captions and settings are the same: only the extractor tells the stores apart."""
    run_task(task_of(tiny_race, "saf", 0))
    write_splits(tmp_path / "other", seed=0)
    (tmp_path / "other" / "extractor.txt").write_text("other", encoding="utf-8")
    elsewhere = task_of(replace(tiny_race, data=str(tmp_path / "other")), "saf", 0)
    with pytest.raises(
        DataError, match=r"saf-seed0\.json was made on regions by \S+, \S*other has regions by other; give"
    ):
        run_all([elsewhere], jobs=1)
    figures = read_result(elsewhere).figures
    del figures["extractor"]
    elsewhere.figures.write_text(json.dumps(figures), encoding="utf-8")
    run_all([elsewhere], jobs=1)  # a result from before extractors were stored


def test_rows_of_equal_regions_have_one_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "STORE", tmp_path / "kept")
    for name in ("windows", "grid"):
        write_precomp(tmp_path / name, "test", random_regions(2))
        (tmp_path / name / "extractor.txt").write_text(name, encoding="utf-8")

    def checked(store: str, row: str) -> list[Task]:
        wanted = Race(str(tmp_path / store), "flickr8k-photos", entries=(row,), seeds=(100,))
        tasks = race.tasks_of(wanted)
        race.check_regions(wanted, tasks)
        return tasks

    for store, row in (("windows", "esa"), ("grid", "regions-grid")):
        (task,) = checked(store, row)
        task.figures.parent.mkdir(parents=True, exist_ok=True)
        task.figures.write_text(json.dumps({"extractor": store}), encoding="utf-8")
        task.ranks.touch()
    assert checked("windows", "vse")
    with pytest.raises(
        DataError, match=r"store for vse \(.* defaults\); \S+grid has .* by grid, \S+esa\S+, of these .* by w"
    ):
        checked("grid", "vse")
    with pytest.raises(
        DataError, match=r"store for regions-whole \(.*none\); .* \S+esa\S+, of other options, by windows"
    ):
        checked("windows", "regions-whole")


def test_a_result_from_before_first_images_were_stored_is_still_read(task: Task) -> None:
    run_task(task)
    with np.load(task.ranks) as stored:
        older = {name: stored[name] for name in ("images", "captions", "image_of_caption")}
    np.savez_compressed(task.ranks, **older)
    assert read_result(task).first_images is None


def test_a_result_from_before_a_setting_was_added_is_still_valid(task: Task) -> None:
    run_task(task)
    values = json.loads(task.figures.read_text(encoding="utf-8"))
    del values["settings"]["training"]["noise"]
    task.figures.write_text(json.dumps(values), encoding="utf-8")
    written = task.figures.stat().st_mtime_ns
    run_task(task)
    assert task.figures.stat().st_mtime_ns == written


@pytest.mark.parametrize("data", ["flickr8k", "flickr8k-photos", "scenes"])
def test_results_of_earlier_versions_are_still_those_of_their_rows(data: str) -> None:
    wanted = Race("scenes" if data == "scenes" else "folder", "" if data == "scenes" else data)
    stored = sorted((runs.STORE / data).glob("*-seed*.json"))
    assert len(stored) > 20
    names = {path.stem.rpartition("-seed")[0]: int(path.stem.rpartition("-seed")[2]) for path in stored}
    tasks = [task_of(wanted, name, seed) for name, seed in names.items() if name in ENTRIES]
    assert [task.name for task in tasks if not is_stored(task)] == []


def test_tables_of_a_folder_that_is_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, tiny_race: Race) -> None:
    with pytest.raises(SystemExit, match=r"nowhere does not exist"):
        run(monkeypatch, replace(tiny_race, data="nowhere"), "--tables-only")
    assert not (race.RESULTS / "quality-flickr8k.json").exists()


def test_an_ensemble_averages_the_scores_of_its_members_and_is_made_again_with_them(tiny_race: Race) -> None:
    sgr, saf, both = (task_of(tiny_race, name, 0) for name in ("sgr", "saf", "sgraf"))
    run_all([sgr, saf, both], jobs=1)
    result = read_result(both)
    mean = np.mean([np.load(member.matrix) for member in (sgr, saf)], axis=0)
    expected = score_metrics(mean, result.ranks.image_of_caption)
    assert result.report["scores"]["fused"]["rsum"] == pytest.approx(expected.rsum)
    parts = [read_result(member).figures["parameters"] for member in (sgr, saf)]
    assert result.figures["parameters"] == sum(parts)
    values = {**read_result(sgr).figures, "time": "another time"}
    sgr.figures.write_text(json.dumps(values), encoding="utf-8")
    assert not is_stored(both)
    run_task(both)
    assert is_stored(both)
    sgr.figures.unlink()
    assert not is_stored(both)


def test_a_dual_encoder_joins_the_logits_of_an_ensemble_and_probabilities_of_one_stay_finite() -> None:
    p, cosine = np.float32([[0.5, 0.9], [0.0, 1.0]]), np.float32([[0.1, -0.2], [0.3, 0.4]])
    found = joined_scores([p, cosine], 30.0)
    assert found[0] == pytest.approx([3.0, np.log(9) - 6], abs=1e-5)
    assert np.isfinite(found).all()
    assert found[1, 0] < found[0, 1] < found[1, 1]
    assert joined_scores([p, cosine], 0.0) == pytest.approx((p + cosine) / 2)


def test_an_ensemble_without_the_scores_of_its_members_is_left_out(
    tiny_race: Race, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = [task_of(tiny_race, name, 0) for name in ("sgr", "saf", "sgraf")]
    run_all(tasks[:2], jobs=1)
    tasks[0].matrix.unlink()
    run_all(tasks, jobs=1)
    assert not tasks[2].exists
    assert "sgraf-flickr8k-seed0 is left out: " in caplog.text
    assert "sgr-seed0.json to make it again" in caplog.text


@pytest.mark.slow
def test_one_command_runs_the_race_and_writes_rows_differences_and_ablation(
    tiny_race: Race, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for more in (["--entries", "sgraf", "tshsr"], ["--entries", "no-gate"], ["--tables-only"]):
        run(monkeypatch, tiny_race, "--seeds", "0", "1", *more)
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


def test_known_costs_stay_when_the_weights_are_deleted(
    tiny_race: Race, task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_task(task)
    gone = replace(tiny_race, runs=tiny_race.runs / "gone")
    assert race.results(gone)["rows"][0]["pairs_per_s"] is None
    (tmp_path / "results").mkdir()
    run(monkeypatch, tiny_race, "--tables-only")
    known = race.results(gone)["rows"][0]
    assert known["pairs_per_s"] > 0
    assert race.results(tiny_race)["rows"][0]["pairs_per_s"] == known["pairs_per_s"]
    assert race.results(replace(gone, costs=True))["rows"][0] == known, "nothing to measure it with"
    assert race.results(replace(tiny_race, costs=True))["rows"][0]["pairs_per_s"] != known["pairs_per_s"]


def test_multiply_adds_stay_where_a_rate_is_to_be_measured(
    tiny_race: Race, task: Task, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_task(task)
    (tmp_path / "results").mkdir()
    run(monkeypatch, tiny_race, "--tables-only")
    path = tmp_path / "results" / "quality-flickr8k.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    macs = values["rows"][0]["macs_per_pair"]
    values["rows"][0]["pairs_per_s"] = None
    path.write_text(json.dumps(values), encoding="utf-8")
    (gone,) = race.results(replace(tiny_race, runs=tiny_race.runs / "gone"))["rows"]
    assert (gone["macs_per_pair"], gone["pairs_per_s"]) == (macs, None)
    (measured,) = race.results(tiny_race)["rows"]
    assert measured["macs_per_pair"] == macs
    assert measured["pairs_per_s"] > 0


def test_the_rate_of_an_ensemble_is_unknown_where_that_of_a_member_is() -> None:
    assert race.Cost(1.0, 2.0) + race.Cost(3.0, 2.0) == race.Cost(4.0, 1.0)
    assert race.Cost(1.0, None) + race.Cost(3.0, 2.0) == race.Cost(3.0, 2.0) + race.Cost(1.0, None)
    assert race.Cost(1.0, 2.0) + race.Cost(3.0, None) == race.Cost(4.0, None)


def test_the_minutes_of_an_ensemble_are_those_of_the_rows_of_its_members(
    tiny_race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = {"r1": 1.0, "r5": 2.0, "r10": 3.0}
    report = {"scores": {"fused": {"image_to_text": side, "text_to_image": side, "rsum": 12.0}}}
    figures = {"report": report, "parameters": 1, "commit": "c", "hardware": "h"}
    by_seed = {"sgr": (1.0, 2.0, 30.0), "saf": (4.0,), "sgraf": (34.0,)}
    ranks = QueryRanks(np.ones(1, int), np.ones(1, int), np.zeros(1, int))

    def read(tasks: Sequence[Task]) -> list[tuple[Task, RunResult]]:
        minutes = by_seed.get(tasks[0].entry, ())
        return [
            (task, RunResult({**figures, "train_minutes": each}, ranks))
            for task, each in zip(tasks, minutes, strict=False)
        ]

    monkeypatch.setattr(race, "read_results", read)
    minutes = {row["model"]: row["train_minutes"] for row in race.results(tiny_race)["rows"]}
    assert minutes == {"sgr": 2.0, "saf": 4.0, "sgraf": 6.0}


def test_a_known_rate_is_dropped_when_the_network_takes_other_multiply_adds(task: Task) -> None:
    run_task(task)
    found = race.cost_of(task, None)
    assert found is not None
    same, other = replace(found, pairs_per_s=7.0), replace(found, macs_per_pair=7.0)
    assert race.cost_of(task, same) == same
    again = race.cost_of(task, other)
    assert again is not None
    assert again.macs_per_pair == found.macs_per_pair
    gone = replace(task, runs=task.runs / "gone")
    assert (race.cost_of(gone, same), race.cost_of(gone, None)) == (same, None)


def test_an_unknown_row_is_refused(task: Task) -> None:
    with pytest.raises(SettingsError, match="there is no row 'sgrr'; the rows are vse-mean, "):
        race.tasks_of(Race(entries=("sgrr",)))
    with pytest.raises(SettingsError, match="boxes is a row of flickr8k and changes nothing elsewhere; leave it out"):
        race.tasks_of(Race(entries=("boxes",)))
    with pytest.raises(SettingsError, match="the rows esa, regions-grid are of different regions; run those of each"):
        race.tasks_of(Race(recipes="flickr8k-photos", entries=("esa", "regions-grid")))


@pytest.mark.parametrize(("data", "covered"), [("scenes", "0 to 9"), ("flickr8k-photos", "100 to 109")])
def test_the_seeds_are_those_of_the_tables(data: str, covered: str) -> None:
    wanted = Race(recipes=data, entries=("esa",))
    first = int(covered.split()[0])
    assert [each.seed for each in race.tasks_of(wanted)] == [first, first + 1, first + 2]
    with pytest.raises(SettingsError, match=f"seed 12 is not in the tables of {data}; give seeds from {covered}"):
        race.tasks_of(replace(wanted, seeds=(first, 12)))


def test_the_first_seed_of_every_row_comes_before_the_second_of_any() -> None:
    tasks = race.tasks_of(Race(entries=("sgraf", "tshsr"), seeds=(0, 1)))
    assert [(each.entry, each.seed) for each in tasks] == [
        (name, seed) for seed in (0, 1) for name in ("sgr", "saf", "sgraf", "tshsr")
    ]


def test_the_ensemble_of_rcar_trains_its_two_streams_apart() -> None:
    tasks = race.tasks_of(Race(recipes="flickr8k-photos", entries=("rcar", "chan"), seeds=(100,)))
    assert [each.entry for each in tasks] == ["rcar-word", "rcar-region", "rcar", "chan"]
    streams = [each.config.model.streams for each in tasks if each.config is not None]  # type: ignore[union-attr]
    assert streams == ["word", "region", "word"]


def test_the_ablation_trains_the_whole_network_first() -> None:
    tasks = race.tasks_of(Race(ablation=True, seeds=(0,)))
    assert [each.entry for each in tasks] == [
        "tshsr",
        *(entry.name for entry in ABLATION if entry.applies_to("scenes")),
    ]
    assert {"no-places", "no-swaps"} < {each.entry for each in tasks}


def test_the_ablation_on_photographs_runs_chosen_rows_and_others_by_name() -> None:
    photos = Race(data="x", recipes="flickr8k-photos", ablation=True, seeds=(100,))
    entries = {each.entry for each in race.tasks_of(photos)}
    assert entries == {"tshsr", *rows.BY_DEFAULT["flickr8k-photos"]}
    assert all(ENTRIES[name].applies_to("flickr8k-photos") for name in entries)
    assert [each.entry for each in race.tasks_of(replace(photos, entries=("seeds-half",)))] == ["seeds-half"]
