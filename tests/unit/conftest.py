"""What several tests share: a small run and an index of a small store; pictures and a place for their store."""

from pathlib import Path

import pytest

from tests.indexed import Small, built, make_small
from tests.picture_files import write_pictures
from tshsr.index import Index


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A trained network and a store of 12 pictures; nobody changes them."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def index(small: Small, tmp_path: Path) -> Index:
    """An index of all of the store."""
    return built(small, tmp_path / "index")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two folders."""
    write_pictures(tmp_path / "pictures", 10)
    return tmp_path / "pictures"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where their store goes."""
    return tmp_path / "store"
