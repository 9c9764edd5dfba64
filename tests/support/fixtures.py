"""Fixtures that several packages of tests share: a small run, an index, pictures, generated scenes, runs to compare.

Imports stand inside the fixtures: the process that hands tests to the workers loads this module and needs no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.indexed import Small
    from tshsr.index.collection import Index


@pytest.fixture(scope="session")
def storage() -> Iterator[str]:
    """URL of a bucket on an S3-compatible server in this process, found by processes that start later, too."""
    from tests.support.object_storage import bucket

    with bucket() as url:
        yield url


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A trained network and a store of 12 pictures; tests do not change them."""
    from tests.support.indexed import make_small

    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def index_folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of all of the store; tests do not change it."""
    from tests.support.indexed import built

    return built(small, tmp_path_factory.mktemp("index") / "index").folder


@pytest.fixture
def index(index_folder: Path, tmp_path: Path) -> Index:
    """A copy of it."""
    from tshsr.index.collection import Index

    return Index.open(shutil.copytree(index_folder, tmp_path / "index"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two folders."""
    from tests.support.picture_files import write_pictures

    write_pictures(tmp_path / "pictures", 10)
    return tmp_path / "pictures"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Folder for the store of their features."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes: 16 to train on, 6 dev, 10 test."""
    from tshsr.data.generated import make_scenes

    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", train=16, dev=6, test=10, processes=1)


@pytest.fixture(scope="session")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them, trained by the command."""
    from tests.support.command_line import TINY, tshsr

    out = tmp_path_factory.mktemp("runs") / "small"
    said = tshsr("train", "tshsr-scenes", "--data", scenes, "--out", out, *TINY)
    assert said.code == 0, said.err
    return out


@pytest.fixture
def rivals(tmp_path: Path) -> Path:
    """Two runs of a better and two of a worse method, as matrices and as reports."""
    import numpy as np

    from tests.support.command_line import tshsr
    from tests.support.compared import matrix, scored

    (tmp_path / "captions.txt").write_text("a caption\n" * 200)
    for name, seed, skill in (("a0", 0, 2.6), ("a1", 1, 2.6), ("b0", 2, 2.0), ("b1", 3, 2.0)):
        np.save(tmp_path / f"{name}.npy", matrix(seed, skill))
        said = tshsr("metrics", *scored(tmp_path, name), "--json", tmp_path / f"{name}.json")
        assert said.code == 0, said.err
    return tmp_path


@pytest.fixture
def start(scenes: Path, run: Path) -> tuple[str | Path, ...]:
    """The first arguments of an evaluation of the run."""
    return ("evaluate", run, "--data", scenes, "--device", "cpu")
