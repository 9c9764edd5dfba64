"""Scenes and a run that the tests of the command line share."""

from pathlib import Path

import numpy as np
import pytest

from tests.command_line import TINY, tshsr
from tests.compared import matrix, scored
from tshsr.data.scenes import make_scenes


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes: 16 to train on, 6 dev, 10 test."""
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", train=16, dev=6, test=10, processes=1)


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them, trained by the command."""
    out = tmp_path_factory.mktemp("runs") / "small"
    said = tshsr("train", "tshsr-scenes", "--data", scenes, "--out", out, *TINY)
    assert said.code == 0, said.err
    return out


@pytest.fixture
def rivals(tmp_path: Path) -> Path:
    """Two runs of a better and two of a worse method, as matrices and as reports."""
    (tmp_path / "captions.txt").write_text("a caption\n" * 200)
    for name, seed, skill in (("a0", 0, 2.6), ("a1", 1, 2.6), ("b0", 2, 2.0), ("b1", 3, 2.0)):
        np.save(tmp_path / f"{name}.npy", matrix(seed, skill))
        said = tshsr("evaluate", *scored(tmp_path, name), "--json", tmp_path / f"{name}.json")
        assert said.code == 0, said.err
    return tmp_path


@pytest.fixture
def start(scenes: Path, run: Path) -> tuple[str | Path, ...]:
    """How an evaluation of the run begins on the command line."""
    return ("evaluate", run, "--data", scenes, "--device", "cpu")
