"""benchmarks.noise at tiny size: every run once, the results file, and its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import noise, runs, tables
from benchmarks.noise import Noise, config_of, task_of
from benchmarks.rows import with_settings
from tests.support import tiny
from tests.support.data_files import random_regions, write_precomp
from tshsr.config.recipes import recipe
from tshsr.errors import SettingsError
from tshsr.training.checks import check_training

MADE = {
    "hardware": "a machine",
    "versions": {"torch": "2.13.0"},
    "trained_at": ["0123456789abcdef"],
    "command": "do it",
}
ROW = {
    "share": 0.4,
    "loss": "robust",
    "seeds": [0],
    "rsum_mean": 270.04,
    "rsum_std": None,
    "kept": 92.26,
    "r": [10.0, 20.0, 30.04, 10.0, 20.0, 30.0],
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny data and networks; results go to a temporary folder."""
    for number, split in enumerate(("train", "dev", "test")):
        write_precomp(tmp_path / "data", split, random_regions(8, seed=number), each=2)
    small = {**tiny.RECIPE_CHANGES, "training.epochs": 2}
    monkeypatch.setattr(noise, "recipe", lambda name: with_settings(recipe(name), small))
    monkeypatch.setattr(runs, "STORE", tmp_path / "kept")
    for module in (noise, tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(noise, "update_readme", lambda: None)
    return tmp_path / "data"


@pytest.mark.parametrize("loss", noise.LOSSES)
@pytest.mark.parametrize("share", noise.SHARES)
def test_every_run_can_be_trained_and_the_first_is_that_of_the_race(share: float, loss: str) -> None:
    config = config_of(share, loss, seed=3)
    check_training(config)
    assert (config.training.noise, config.training.seed) == (share, 3)
    race = with_settings(recipe("tshsr-flickr8k"), {"training.seed": 3})
    assert (config == race) == (share == 0 and loss == "plain")
    name = task_of(Noise(data=Path("x")), share, loss, 3).name
    assert (name == "tshsr-flickr8k-seed3") == (config == race)


def test_one_command_trains_both_losses_and_nothing_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--data", str(data), "--shares", "0.0", "0.4", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["noise", *given])
    noise.main()
    values = json.loads((tmp_path / "results" / "noise-flickr8k.json").read_text(encoding="utf-8"))
    assert [(row["share"], row["loss"]) for row in values["noise"]] == [
        (share, loss) for share in (0.0, 0.4) for loss in ("plain", "robust")
    ]
    assert [(each["share"], each["seeds"]) for each in values["gains"]] == [(0.0, [0]), (0.4, [0])]
    assert values["noise"][0]["kept"] == 100.0
    sums = [row["rsum_mean"] for row in values["noise"]]
    assert values["noise"][3]["kept"] == pytest.approx(100 * sums[3] / sums[0])
    assert values["gains"][1]["mean"] == pytest.approx(sums[3] - sums[2])
    assert values["commit"]
    text = tables.with_tables("<!-- results noise-flickr8k -->\n<!-- end -->")
    assert text.count("\n| ") == 5

    monkeypatch.setattr(runs, "train", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(sys, "argv", ["noise", *given, "--seeds", "0"])
    noise.main()


def test_a_seed_that_the_table_does_not_cover_is_refused(data: Path) -> None:
    with pytest.raises(SettingsError, match="seed 10 is not in the tables of flickr8k; give seeds from 0 to 9"):
        noise.benchmark(Noise(data=data, seeds=(10,)))


def test_a_row_has_the_share_of_the_clean_rsum_and_the_gain() -> None:
    rows = [{**ROW, "share": 0.4, "loss": "plain", "rsum_mean": 200.0, "kept": None}, ROW]
    gains = [{"share": 0.4, "seeds": [0], "mean": 70.04, "low": 60.0, "high": 80.0, "p": 0.001}]
    lines = tables.table_of({**MADE, "recipe": "r", "noise": rows, "gains": gains}).splitlines()
    recalls = "10.0 | 20.0 | 30.0 | 10.0 | 20.0 | 30.0"
    assert lines[2] == f"| 40% | plain | {recalls} | 200.0 |  |  |"
    assert lines[3] == f"| 40% | robust | {recalls} | 270.0 | 92.3 % | +70.0 [+60.0, +80.0] |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[-1].startswith("Recipe `r`. One seed; in brackets")


@pytest.mark.parametrize(
    ("common", "over"), [([0], "images, of seed 0 alone"), ([0, 1], "images and seeds"), ([], "images and seeds")]
)
def test_the_intervals_are_over_seeds_only_where_both_losses_have_several(common: list[int], over: str) -> None:
    rows = [{**ROW, "loss": "plain", "seeds": [0, 1]}, ROW]
    gains = [{"share": 0.4, "seeds": common, "mean": 1.0, "low": 0.0, "high": 2.0, "p": 0.1}] if common else []
    text = tables.table_of({**MADE, "recipe": "r", "noise": rows, "gains": gains})
    assert f"paired bootstrap over {over}. a machine" in text
    assert "Means over 1 to 2 seeds" in text


def test_the_gains_of_the_stored_file_have_the_seeds_of_both_losses() -> None:
    values = json.loads((tables.RESULTS / "noise-flickr8k.json").read_text(encoding="utf-8"))
    seeds = {(row["share"], row["loss"]): set(row["seeds"]) for row in values["noise"]}
    for each in values["gains"]:
        assert set(each["seeds"]) == seeds[each["share"], "plain"] & seeds[each["share"], "robust"]


def test_without_any_run_the_table_says_so() -> None:
    assert tables.table_of({**MADE, "noise": [], "gains": []}) == "No row of it has been run yet."
