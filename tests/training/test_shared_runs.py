"""Runs by two processes: equal to those of one, logged by one, resumed by another number, and after a loss."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.support.shared_runs import RUNS, WHOLE, resume, train_all, train_until_lost
from tests.support.small_runs import log, run, small_split, weights
from tests.support.together import ended, together
from tshsr.data.dataset import Split
from tshsr.training.checkpoints import load_tensors
from tshsr.training.state import load_match_zscores

pytestmark = pytest.mark.slow  # processes start, and wait for each other
CLOSE = {"rtol": 1e-3, "atol": 1e-5}
"""float32 over several steps of Adam."""


class Runs(NamedTuple):
    """Folders of the runs of one process, and of two."""

    one: Path
    two: Path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


@pytest.fixture(scope="module")
def runs(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    train_all(data, folder / "one")
    (folder / "two").mkdir()
    shutil.copytree(folder / "one" / "half", folder / "two" / "begun")
    together(2, train_all, folder, data, folder / "two")
    return Runs(folder / "one", folder / "two")


def assert_alike(one: Path, two: Path) -> None:
    """Both runs have the same logged values and weights, but for rounding."""
    lines = [[{**line, "seconds": 0} for line in log(out)] for out in (one, two)]
    assert [line.keys() for line in lines[0]] == [line.keys() for line in lines[1]]
    for first, second in zip(*lines, strict=True):
        for name, value in first.items():
            assert second[name] == (pytest.approx(value, rel=1e-3, abs=1e-5) if isinstance(value, float) else value)
    for which in ("last", "best"):
        tensors = [load_tensors(out / which / "model.safetensors") for out in (one, two)]
        torch.testing.assert_close(tensors[0], tensors[1], **CLOSE)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one(name: str, runs: Runs) -> None:
    assert_alike(runs.one / name, runs.two / name)


def test_noisy_pairs_are_found_as_by_one_process(runs: Runs) -> None:
    one, two = (load_match_zscores(folder / "noisy pairs", captions=20) for folder in runs)
    assert one is not None
    assert two is not None
    torch.testing.assert_close(one, two, **CLOSE)


def test_a_run_goes_on_with_another_number_of_processes(data: tuple[Split, Split], runs: Runs, tmp_path: Path) -> None:
    assert_alike(runs.one / "candidates", runs.two / "begun")
    out = shutil.copytree(runs.two / "half", tmp_path / "run")
    run(WHOLE, data, out, resume=True)
    assert_alike(runs.one / "candidates", out)


def test_one_process_writes_and_speaks(runs: Runs) -> None:
    assert (runs.two / "events-1").read_text() == "0"
    assert int((runs.two / "events-0").read_text()) > 10
    for name in RUNS:
        names = [sorted(path.name for path in (folder / name).iterdir()) for folder in runs]
        assert names[0] == names[1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_lost_process_ends_the_run_with_a_sentence_and_it_resumes(
    data: tuple[Split, Split], runs: Runs, tmp_path: Path
) -> None:
    (code, errors), (lost, _) = ended(2, train_until_lost, tmp_path, data, tmp_path / "run", 3)
    assert lost == -signal.SIGKILL
    assert code == 1
    sentence = errors.strip().splitlines()[-1]
    assert sentence.startswith("tshsr.errors.ProcessError: process 0 of 2 lost another one (")
    assert sentence.endswith("); the messages of the others say why. Run this again; training continues with --resume.")
    together(2, resume, tmp_path, data, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(runs.two / "candidates")
