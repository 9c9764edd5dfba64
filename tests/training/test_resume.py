"""Runs are killed (SIGKILL) and resumed until they end; they must end as an uninterrupted run."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import answer_of, forked
from tests.support.resumed import train_together, train_until_killed
from tshsr.training.checkpoints import load_run, load_tensors

needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def end_of(out: Path) -> dict[str, Any]:
    """All that a run leaves, without the seconds."""
    names = ("best/model.safetensors", "last/model.safetensors", "last/optimiser.safetensors", "tokenizer.json")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    state = json.loads((out / "last" / "state.json").read_text())
    return {
        "files": {name: (out / name).read_bytes() for name in (*names, "config.json", "best/state.json")},
        "log": [{**line, "seconds": 0} for line in lines],
        "state": {**state, "seconds": 0},
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("untouched")
    code, said, errors = answer_of(train_until_killed, folder, 0)
    assert (code, said.split()[-1]) == (0, "finished"), errors
    return end_of(folder / "run")


@pytest.mark.slow
@needs_sigkill
def test_a_run_killed_at_any_operation_on_its_files_ends_as_an_untouched_one(
    untouched: dict[str, Any], tmp_path: Path
) -> None:
    dice = random.Random(11)
    kills = 0
    for operations in (dice.randint(1, 40), dice.randint(20, 90), 0):
        code, _, _ = answer_of(train_until_killed, tmp_path, operations)
        kills += code == -signal.SIGKILL
    assert kills == 2
    assert end_of(tmp_path / "run") == untouched


@pytest.mark.slow
@needs_sigkill
def test_a_run_killed_at_any_time_ends_as_an_untouched_one(untouched: dict[str, Any], tmp_path: Path) -> None:
    dice = random.Random()
    for _ in range(2):
        with forked(train_until_killed, tmp_path, 0) as process:
            process.stdout.readline()  # training runs
            time.sleep(dice.uniform(0, 0.4))
    code, _, errors = answer_of(train_until_killed, tmp_path, 0)
    assert code == 0, errors
    assert end_of(tmp_path / "run") == untouched


@pytest.mark.slow
def test_two_processes_share_each_batch(tmp_path: Path) -> None:
    with forked(train_together, tmp_path) as process:
        try:
            errors = process.communicate()[1]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # which ends its workers too; a kill would leave them behind
                process.wait()
    assert process.returncode == 0, errors
    assert (tmp_path / "events1").read_text() == "0"
    assert int((tmp_path / "events0").read_text()) > 10
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("steps", 2), ("epoch", 2), ("steps", 4), ("epoch", 4)]
    assert load_run(tmp_path / "run")[0].training.epochs == 2
    optimiser = load_tensors(tmp_path / "run" / "last" / "optimiser.safetensors")
    assert {int(value) for name, value in optimiser.items() if name.endswith(".step")} == {4}
