"""What `import tshsr` offers, and what the reference documents."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tshsr
from tests.support.forked import answer_of, program
from tests.support.markdown import DOCS, read
from tests.support.small_runs import run, small_config, small_split

REFERENCE = sorted((DOCS / "reference").glob("*.md"))
NEEDS = {
    "search": ("lancedb", "import tshsr; tshsr.Index"),
    "features": ("transformers", "import tshsr; tshsr.open_extractor('grid', weights='.')"),
    "serve": ("fastapi", "from tshsr.cli.main import main; raise SystemExit(main(['serve', '.']))"),
    "ray": ("ray", "from tshsr.engines.ray import ray_engine; ray_engine().__enter__()"),
    "storage": ("upath", "from tshsr.files import place_of; place_of('s3://bucket/store')"),
    "adapters": ("rerankers", "import tshsr.reranking.rerankers"),
    "export": ("onnx", "from tshsr.export.files import check_packages; check_packages()"),
    "triton": (
        "triton",
        "import torch; from tshsr.scoring.fused import with_kernel; from tshsr.models.tshsr import Tshsr; "
        "from tshsr.config.models import EncoderConfig, TshsrConfig; "
        "network = Tshsr(TshsrConfig(encoder=EncoderConfig(dim=8, feature_dim=4, vocabulary=5))); "
        "with_kernel(network, 'triton', torch.device('cuda'))",
    ),
    "eccv": ("eccv_caption", "from tshsr.metrics.coco import annotation_folder; annotation_folder()"),
}
"""For each extra a package of it, and a program that requires it."""


def documented(directive: str) -> list[str]:
    """What the reference documents by one of Sphinx's directives."""
    text = "".join(read(page) for page in REFERENCE)
    return re.findall(rf"^\.\. (?:{directive}):: (\S+)$", text, flags=re.MULTILINE)


def test_every_public_name_is_there() -> None:
    for name in tshsr.__all__:
        assert getattr(tshsr, name) is not None


def test_the_list_of_names_is_the_face() -> None:
    assert sorted(tshsr.__all__) == sorted([*tshsr._MODULES, "__version__", "load"])
    assert dir(tshsr) == sorted(tshsr.__all__)


def test_the_public_names_are_the_documented_ones() -> None:
    names = documented("autofunction|autoclass|autodata|autoexception|data")
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(f"tshsr.{name}" for name in [*tshsr.__all__, *tshsr._EXTRAS])


@pytest.mark.parametrize("module", documented("automodule"))
def test_a_public_module_is_imported_and_documented(module: str) -> None:
    assert importlib.import_module(module).__doc__


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'tshsr' has no attribute 'retriever_of'"):
        tshsr.retriever_of  # noqa: B018


def test_the_version_is_that_of_the_installed_package() -> None:
    assert tshsr.__version__.count(".") == 2


def test_importing_the_package_does_not_load_torch() -> None:
    code = "import sys, tshsr, tshsr.cli.main; print('torch' in sys.modules, 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("extra", NEEDS)
def test_what_needs_an_extra_names_it_in_one_sentence(extra: str, tmp_path: Path) -> None:
    package, code = NEEDS[extra]
    hidden = f"import sys; sys.modules[{package!r}] = None\n{code}"  # as if it were not installed
    code, _, errors = answer_of(program, f"import os; os.chdir({str(tmp_path)!r})\n{hidden}")
    assert code != 0
    sentence = errors.strip().splitlines()[-1]
    assert re.search(rf"pip install 'tshsr\[(\w+,)*{extra}(,\w+)*\]'", sentence), errors
    assert sentence.endswith(".")


def test_a_run_is_loaded_by_its_folder(tmp_path: Path) -> None:
    data = (small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev"))
    run(small_config(epochs=1), data, tmp_path / "run")
    best = tshsr.load(tmp_path / "run")
    assert isinstance(best, tshsr.Retriever)
    assert best.score(data[1], ["a red dog"]).shape == (10, 1)
    assert tshsr.load(tmp_path / "run", which="last").name == "run"
