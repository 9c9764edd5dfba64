"""A small run and an index of a small store, that the tests of the index share."""

from pathlib import Path

import pytest

from tests.indexed import Small, built, make_small
from tshsr.index import Index


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A trained network and a store of 12 pictures; nobody changes them."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def index(small: Small, tmp_path: Path) -> Index:
    """An index of all of the store."""
    return built(small, tmp_path / "index")
