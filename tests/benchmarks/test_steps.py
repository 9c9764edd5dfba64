"""benchmarks.steps: the first steps of rows of the race, and their table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rows, steps, tables
from benchmarks.rows import with_settings
from tests.support import tiny
from tests.support.data_files import random_regions, write_precomp
from tshsr.config.recipes import recipe
from tshsr.errors import SettingsError


def test_the_first_steps_of_rows_are_measured_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, split in enumerate(("train", "dev")):
        write_precomp(tmp_path / "data", split, random_regions(16, seed=number), each=2)
    monkeypatch.setattr(rows, "recipe", lambda name: with_settings(recipe(name), tiny.RECIPE_CHANGES))
    monkeypatch.setattr(steps, "RESULTS", tmp_path)
    monkeypatch.setattr(steps, "update_readme", lambda: None)
    arguments = ["--data", str(tmp_path / "data"), "--recipes", "flickr8k", "--entries", "chan", "--steps", "3"]
    monkeypatch.setattr("sys.argv", ["steps", *arguments])
    steps.main()
    values: dict[str, Any] = json.loads((tmp_path / "steps-flickr8k.json").read_text(encoding="utf-8"))
    assert values["command"] == "python -m benchmarks.steps --data DIR --recipes flickr8k --entries chan --steps 3"
    ours, chan = values["race_steps"]
    assert (ours["model"], chan["model"]) == ("tshsr", "chan")
    for row in (ours, chan):
        assert row["step_seconds"] > 0
        assert row["first_loss"] == row["last_loss"], "both means are of all three steps"
        assert 0 < row["first_fused"] < row["first_loss"], "one of several losses"
    table = tables.table_of(values)
    assert "| CHAN, hard alignment | 6 |" in table
    assert f"{chan['step_seconds'] / ours['step_seconds']:.2f} |" in table


def test_a_single_step_is_refused() -> None:
    with pytest.raises(SettingsError, match="--steps is 1; expected 2 or more: a step is timed from the end of an"):
        steps.measure(steps.Steps(steps=1))


@pytest.mark.parametrize("name", ["chann", "rcar"])
def test_a_row_that_is_no_single_network_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^there is no single network '{name}'; the rows are vse-mean, "):
        steps.rows_of([name])
