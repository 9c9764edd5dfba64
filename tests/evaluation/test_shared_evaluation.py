"""Several processes score their shares, and the joined scores and reports are those of one process."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.support.shared_evaluation import ALONE, COMMANDS, evaluate_all, report_of
from tests.support.together import together
from tshsr.errors import SettingsError
from tshsr.evaluation.run import evaluate
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.processes import Processes
from tshsr.scoring.storage import PARTS

pytestmark = pytest.mark.slow  # processes start, and wait for each other


class Folders(NamedTuple):
    """Results of one process, and of two."""

    one: Path
    two: Path


@pytest.fixture(scope="module")
def folders(scenes: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(run, folder / "run")
    shutil.copytree(run, folder / "run-again")
    start = ("evaluate", str(folder / "run"), "--data", str(scenes), "--device", "cpu")
    evaluate_all(start, folder / "one")
    together(2, evaluate_all, folder, start, folder / "two")
    return Folders(folder / "one", folder / "two")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_report_and_the_scores_are_those_of_one_process(name: str, folders: Folders) -> None:
    one, two = (report_of(folder / f"{name}.json") for folder in folders)
    assert one == two
    one, two = (np.load(folder / f"{name}.npy") for folder in folders)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ALONE)
def test_without_the_joining_they_would_not_be(name: str, folders: Folders) -> None:
    one, two = (folder / f"{name}.npy" for folder in folders)
    assert one.read_bytes() == (folders.one / f"{ALONE[name][0]}.npy").read_bytes()
    assert not two.exists() or (np.load(one) != np.load(two)).mean() > 0.1


@pytest.mark.parametrize("name", ["all scores", "scores of dev", "rescored scores", "pictures"])
def test_a_folder_of_scores_holds_what_that_of_one_process_holds(name: str, folders: Folders) -> None:
    one, two = (folder / name for folder in folders)
    files = sorted(path.relative_to(one) for path in one.rglob("*.npy"))
    assert files
    assert sorted(path.relative_to(two) for path in two.rglob("*.npy")) == files
    assert not list(two.rglob(PARTS))
    for file in files:
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_only_the_first_process_speaks(folders: Folders) -> None:
    one, first, second = (
        json.loads((folder / f"said-{rank}.json").read_text())
        for folder, rank in ((folders.one, 0), (folders.two, 0), (folders.two, 1))
    )
    assert all(said == ["", ""] for said in second.values())
    tables = [[out.splitlines()[2:9] for out, _ in said.values()] for said in (one, first)]
    assert tables[0] == tables[1]


def test_pictures_that_are_decoded_are_shared(folders: Folders) -> None:
    reads = [json.loads((folders.two / f"read-{rank}.json").read_text()) for rank in range(2)]
    assert sorted(reads[0] + reads[1]) == [*range(20)]
    assert min(map(len, reads)) == 8


def test_several_processes_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"process 1 of 2 finds no folder None; several processes join their scores"
    ):
        ScoringOptions(processes=Processes(1, 2))
    options = ScoringOptions(folder=tmp_path, processes=Processes(1, 2))
    with pytest.raises(SettingsError, match=r"evaluate reports in a single process, options\.processes has 2; call"):
        evaluate([], None, options=options)  # type: ignore[arg-type]
