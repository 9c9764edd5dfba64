"""One folder in which the commands and examples of all pages run, with the results of the tutorial in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def docs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial has been followed, so that guides find its data, runs and index.

    Parallel workers share it: the first one makes it, and the others wait.
    """
    from filelock import FileLock

    from tests.support.documentation import run_blocks
    from tests.support.markdown import DOCS

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "docs"
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        if not done.exists():
            folder.mkdir()
            patch.chdir(folder)
            run_blocks(DOCS / "tutorial.md")
            done.touch()
    return folder
