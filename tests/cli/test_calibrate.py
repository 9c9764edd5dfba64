"""`tshsr calibrate`, and searches with a minimum probability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.indexed import Small
from tshsr.data.generated import make_scenes
from tshsr.errors import SettingsError
from tshsr.index.collection import Index
from tshsr.retriever import Retriever
from tshsr.scoring.calibration import Calibration


@pytest.fixture
def calibrated(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which the command changes."""
    return shutil.copytree(run, tmp_path / "run")


def test_probabilities_are_fitted_kept_and_measured(calibrated: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "others.txt").write_text("a man rides a horse\n\na dog\n")
    said = tshsr(
        *("calibrate", calibrated, "--data", scenes, "--device", "cpu", "--candidates", "5"),
        *("--others", tmp_path / "others.txt", "--picture", tmp_path / "a.svg", "--json", tmp_path / "a.json"),
    )
    assert said.code == 0, said.err
    assert "calibration.json: log-odds " in said.out
    assert "in a collection of 6 pictures; fitted on scenes, split dev, 5 candidates a caption." in said.out
    assert "calibration on scenes, split test: 10 pictures" in said.out
    assert "ten shown results" in said.out
    values = json.loads((tmp_path / "a.json").read_text())
    assert list(values["refusals"]) == ["captions of test", "the same, their picture removed", "others.txt"]
    assert values["refusals"]["others.txt"]["queries"] == 2
    assert values["after"]["shown"]["pairs"] == 50 * 5
    assert values["calibration"]["pictures"] == 6
    assert (tmp_path / "a.svg").read_text().startswith("<svg xmlns=")
    found = Calibration.load(calibrated)
    assert found is not None
    retriever = Retriever.from_pretrained(calibrated)
    assert retriever.calibration == found
    assert Retriever.from_pretrained(calibrated, which="last").calibration is None
    retriever.save_pretrained(tmp_path / "saved")
    kept = Retriever.from_pretrained(tmp_path / "saved").calibration
    assert kept is not None
    assert (kept.low, kept.intercept) == (found.low, found.intercept)


def test_what_cannot_be_calibrated_is_refused(calibrated: Path, scenes: Path, tmp_path: Path) -> None:
    start = ("calibrate", calibrated, "--data", scenes, "--device", "cpu")
    assert refused(*start, "--candidates", "1") == (
        "tshsr: --candidates is 1; expected at least 2, a right and a wrong one."
    )
    assert refused("calibrate", "owner/name", "--data", scenes) == (
        "tshsr: owner/name is no folder; a calibration is kept beside the weights. Download the model first, or name "
        "the folder of a run."
    )
    (tmp_path / "empty.txt").write_text("\n")
    assert "empty.txt has no captions; expected one per line." in refused(*start, "--others", tmp_path / "empty.txt")
    assert "expected one caption per line" in refused(*start, "--others", tmp_path / "missing.txt")
    few = make_scenes(tmp_path / "few", train=1, dev=2, test=1, processes=1)
    said = refused("calibrate", calibrated, "--data", few, "--device", "cpu")
    assert said == "tshsr: few, split test has one picture; a calibration needs wrong results, too."
    assert Calibration.load(calibrated) is None, "nothing is fitted that cannot be measured"
    before = sorted(calibrated.rglob("*"))
    assert "--split dev and --test dev share 6 pictures, and probabilities must be measured on others" in refused(
        *start, "--split", "dev", "--test", "val"
    )
    (tmp_path / "file").touch()
    for option in ("--json", "--picture"):
        assert "Not a directory" in refused(*start, option, tmp_path / "file" / "out")
    assert sorted(calibrated.rglob("*")) == before


def test_collections_of_one_name_are_told_apart(calibrated: Path, scenes: Path, tmp_path: Path) -> None:
    others = [tmp_path / name / "captions.txt" for name in ("coco", "flickr")]
    for path in others:
        path.parent.mkdir()
        path.write_text("a man rides a horse\n")
    start = ("calibrate", calibrated, "--data", scenes, "--device", "cpu", "--candidates", "5", "--quiet")
    refusals = tshsr(*start, "--others", *others, "--json", "-").json()["refusals"]
    assert list(refusals)[2:] == [str(path) for path in others]


@pytest.fixture
def with_probabilities(small: Small, index_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A calibrated run, and an index of it."""
    folder = shutil.copytree(small.run, tmp_path / "run")
    said = tshsr("calibrate", folder, "--data", small.store, "--split", "train", "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    return folder, index_folder


def test_results_have_probabilities_and_unlikely_ones_are_left_out(with_probabilities: tuple[Path, Path]) -> None:
    folder, index = with_probabilities
    start = ("search", index, "a red dog", "--run", folder, "--device", "cpu")
    said = tshsr(*start)
    assert "probability" in said.out.splitlines()[0]
    results = tshsr(*start, "--json", "-").json()["results"]
    chances = [result["probability"] for result in results]
    assert chances == sorted(chances, reverse=True)
    opened = Index.open(index, run=str(folder))
    calibration = opened.retriever.calibration
    assert calibration is not None
    middle = (chances[3] + chances[4]) / 2
    assert len(opened.search("a red dog", min_probability=middle)) == 4
    assert opened.search("a red dog", min_probability=middle)[0].probability == chances[0]
    assert "Nothing matches: no result has a probability of 1 or more." in tshsr(*start, "--min-probability", "1").out
    assert (
        refused(*start, "--min-probability", "2") == "tshsr: the minimum probability is 2.0; expected a number in 0..1."
    )


def test_captions_of_a_picture_have_probabilities(with_probabilities: tuple[Path, Path], small: Small) -> None:
    from tshsr.features.extractor import PictureRegions

    folder, index = with_probabilities
    batch = small.split().regions.read([0])
    regions = PictureRegions(batch.regions[0].numpy(), batch.boxes[0].numpy())
    found = Index.open(index, run=str(folder)).search_picture(regions, 3)
    assert all(result.probability is not None for result in found)
    without = Index.open(index).search_picture(regions, 3)
    assert [(result.id, result.probability) for result in without] == [(result.id, None) for result in found]


def test_a_minimum_probability_needs_a_calibration(index: Index) -> None:
    with pytest.raises(SettingsError, match="has no calibration, so that its results have scores and no probabilities"):
        index.search("a red dog", min_probability=0.1)
    assert index.search("a red dog")[0].probability is None
