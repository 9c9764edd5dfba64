"""An index records its model, and refuses others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tshsr
from tests.support.forked import answer_of, program
from tests.support.indexed import Small, built
from tests.support.small_runs import run, small_config, small_split
from tshsr.errors import CheckpointError, DataError
from tshsr.index.about import INFO_FILE
from tshsr.index.collection import Index


def test_an_index_of_another_model_is_refused(small: Small, index: Index, tmp_path: Path) -> None:
    data = small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev")
    run(small_config(seed=5), data, tmp_path / "other")
    said = "was made with other weights (those of run) than other has now; name the run that made it"
    with pytest.raises(CheckpointError) as caught:
        Index.open(index.folder, run=str(tmp_path / "other"))
    assert said in str(caught.value)
    with pytest.raises(CheckpointError, match="made with other weights"):
        Index.build(index.folder, tshsr.load(tmp_path / "other"), small.split())
    assert len(Index.open(index.folder)) == 12


def test_features_of_another_extractor_are_refused(small: Small, index: Index) -> None:
    with pytest.raises(DataError, match="trained on features of 'small', these are of 'other'"):
        index.add(replace(small.split(), extractor="other"))


def test_a_run_that_moved_is_found_beside_the_index_or_named(small: Small, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(small.run, before / "run")
    Index.build(before / "index", tshsr.load(before / "run"), small.split("test"), run=before / "run")
    before.rename(after)
    assert len(Index.open(after / "index")) == 4
    (after / "run").rename(after / "renamed")
    with pytest.raises(CheckpointError, match=r"made with the run .*before/run, which is gone; name it with --run"):
        Index.open(after / "index")
    assert len(Index.open(after / "index", run=str(after / "renamed"))) == 4


def test_a_folder_without_an_index_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist; make one with tshsr index RUN"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is no index: it has no index\.json"):
        Index.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds something that is no index \(notes.txt\)"):
        built(small, tmp_path)
    (tmp_path / INFO_FILE).write_text("{")
    with pytest.raises(DataError, match=r"index.json is damaged"):
        Index.open(tmp_path)


def test_an_index_without_a_known_run_requires_it(small: Small, tmp_path: Path) -> None:
    Index.build(tmp_path / "index", small.retriever(), small.split("test"))
    with pytest.raises(CheckpointError, match="does not record where its model run is; name the run with --run"):
        Index.open(tmp_path / "index")


def test_a_run_without_lancedb_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['lancedb'] = None; import tshsr; from tshsr import *; "
        "from tshsr.cli.main import main; "
        "sys.exit(main(['search', 'x', 'y']))"
    )
    found, _, said = answer_of(program, code)
    assert found == 2
    assert said == "tshsr: an index needs LanceDB, which is not installed: pip install 'tshsr[search]'.\n"


def test_index_json_is_plain_json(small: Small, index: Index) -> None:
    values = json.loads((index.folder / INFO_FILE).read_text())
    assert values["run"] == str(small.run.resolve())
    assert (values["extractor"], values["settings"]) == ("small", {"windows": 3})
    assert (values["dim"], values["unfinished"]) == (8, None)
