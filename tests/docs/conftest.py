"""One folder in which the commands and examples of all pages run, with the results of the tutorial in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.running import run_blocks
from tests.support.markdown import DOCS


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial has been followed, so that guides find its data, runs and index."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_blocks(DOCS / "tutorial.md")
    return folder
