"""Runs are killed (SIGKILL) and resumed until they end; they must end as an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tshsr.training.checkpoints import load_run, load_tensors

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import os, signal, sys
from pathlib import Path
from tests.support.resumed import config, train

folder, operations = Path(sys.argv[1]), int(sys.argv[2])
done = 0

def counted(real):
    def operation(*arguments, **named):
        global done
        done += 1
        if done == operations:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return operation

for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "replace"), (Path, "unlink")):
    setattr(owner, name, counted(getattr(owner, name)))
train(config(), folder, listen=lambda event: print("event", flush=True))
print("finished", flush=True)
"""

needs_sigkill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def start(folder: Path, operations: int = 0) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(folder), str(operations)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


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
    process = start(folder)
    output, _ = process.communicate(timeout=600)
    assert (process.returncode, output.split()[-1]) == (0, "finished")
    return end_of(folder / "run")


@pytest.mark.slow
@needs_sigkill
def test_a_run_killed_at_any_operation_on_its_files_ends_as_an_untouched_one(
    untouched: dict[str, Any], tmp_path: Path
) -> None:
    dice = random.Random(11)
    kills = 0
    for operations in (dice.randint(1, 40), dice.randint(20, 90), 0):
        process = start(tmp_path, operations)
        process.communicate(timeout=600)
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    assert end_of(tmp_path / "run") == untouched


@pytest.mark.slow
@needs_sigkill
def test_a_run_killed_at_any_time_ends_as_an_untouched_one(untouched: dict[str, Any], tmp_path: Path) -> None:
    dice = random.Random()
    for _ in range(2):
        process = start(tmp_path)
        assert process.stdout is not None
        process.stdout.readline()  # training runs
        time.sleep(dice.uniform(0, 0.4))
        process.kill()
        process.communicate(timeout=600)
    process = start(tmp_path)
    process.communicate(timeout=600)
    assert process.returncode == 0
    assert end_of(tmp_path / "run") == untouched


@pytest.mark.slow
def test_two_processes_share_each_batch(tmp_path: Path) -> None:
    child = (
        "import os, sys; from pathlib import Path; from tests.support.resumed import train; "
        "from tests.support.small_runs import small_config; "
        "events = []; train(small_config(epochs=2, batch=10), Path(sys.argv[1]), listen=events.append); "
        "Path(sys.argv[1], 'events' + os.environ['RANK']).write_text(str(len(events)))"
    )
    (tmp_path / "child.py").write_text(child)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*command, str(tmp_path / "child.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        errors = process.communicate(timeout=600)[1]
    finally:
        process.terminate()  # which ends its workers too; a kill would leave them behind
    assert process.returncode == 0, errors
    assert (tmp_path / "events1").read_text() == "0"
    assert int((tmp_path / "events0").read_text()) > 10
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("steps", 2), ("epoch", 2), ("steps", 4), ("epoch", 4)]
    assert load_run(tmp_path / "run")[0].training.epochs == 2
    optimiser = load_tensors(tmp_path / "run" / "last" / "optimiser.safetensors")
    assert {int(value) for name, value in optimiser.items() if name.endswith(".step")} == {4}
