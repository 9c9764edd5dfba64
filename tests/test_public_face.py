"""What `import tshsr` offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tshsr
from tests.support.small_runs import run, small_config, small_split


def test_every_public_name_is_there() -> None:
    for name in tshsr.__all__:
        assert getattr(tshsr, name) is not None


def test_the_list_of_names_is_the_face() -> None:
    assert sorted(tshsr.__all__) == sorted([*tshsr._HOMES, "__version__", "load"])
    assert dir(tshsr) == sorted(tshsr.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'tshsr' has no attribute 'retriever_of'"):
        tshsr.retriever_of  # noqa: B018


def test_the_version_is_that_of_the_installed_package() -> None:
    assert tshsr.__version__.count(".") == 2


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, tshsr, tshsr.cli.main; print('torch' in sys.modules, 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


def test_a_run_is_loaded_by_its_folder(tmp_path: Path) -> None:
    data = (small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev"))
    run(small_config(epochs=1), data, tmp_path / "run")
    best = tshsr.load(tmp_path / "run")
    assert isinstance(best, tshsr.Retriever)
    assert best.score(data[1], ["a red dog"]).shape == (10, 1)
    assert tshsr.load(tmp_path / "run", which="last").name == "run"
