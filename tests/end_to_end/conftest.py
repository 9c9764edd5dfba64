"""Scenes and a run that the tests of the command line share."""

from pathlib import Path

import pytest

from tests.command_line import TINY, tshsr
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
