"""Training from pixels on the command line: train, evaluate, index, search, export of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import TINY, refused, tshsr
from tests.support.pixel_runs import picture_data
from tests.support.tiny_networks import save
from tshsr.data.pictures import read_picture
from tshsr.index.collection import Index
from tshsr.retriever import Retriever

SHORT = ("--model.encoder.vision.cells", "2", "--training.workers", "0")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures` (train, dev), the network `clip` and the run `run`."""
    folder = tmp_path_factory.mktemp("pixels")
    picture_data(folder / "pictures")
    save("clip", folder / "clip")
    said = tshsr(
        *("train", "tshsr-flickr8k", "--data", folder / "pictures", "--out", folder / "run", *TINY, *SHORT),
        *("--model.encoder.vision.weights", folder / "clip"),
    )
    assert said.code == 0, said.err
    return folder


def test_a_run_is_evaluated_on_pictures_and_on_its_own_features_alike(place: Path) -> None:
    options = ("--split", "dev", "--device", "cpu", "--json", "-")
    report = tshsr("evaluate", place / "run", "--data", place / "pictures", *options).json()
    assert report["images"] == 4
    said = tshsr(
        *("features", place / "pictures", "--extractor", place / "run", "--out", place / "store"),
        *("--captions", place / "pictures" / "captions.txt", "--device", "cpu"),
    )
    own = Retriever.from_pretrained(place / "run").features_of
    assert said.out.startswith(f"{place / 'store'}: 12 pictures, features of {own}, 24 captions.")
    again = tshsr("evaluate", place / "run", "--data", place / "store", *options).json()
    assert again["scores"]["fused"] == report["scores"]["fused"]


def test_an_index_of_pictures_is_searched_by_words_and_by_a_picture(place: Path) -> None:
    said = tshsr("index", place / "run", "--data", place / "pictures", "--out", place / "index", "--device", "cpu")
    assert said.out.endswith(f"{place / 'index'} holds 12 pictures and 24 captions.\n")
    assert "p00" in tshsr("search", place / "index", "a disc", "-k", "12").out
    picture = place / "pictures" / "p00.jpg"
    found = tshsr("search", place / "index", "--image", picture, "--json", "-").json()["results"]
    index = Index.open(place / "index")
    (regions,) = index.extractor().extract([read_picture(picture)])
    assert found[0]["caption"] == index.search_picture(regions)[0].caption


def test_one_picture_is_scored_from_its_file_and_from_the_data(place: Path) -> None:
    text = ("--text", "a disc", "--json", "-", "--device", "cpu")
    file = tshsr("score", place / "run", "--image", place / "pictures" / "p00.jpg", *text).json()
    data = ("--data", place / "pictures", "--split", "train", "--image", "p00")
    assert tshsr("score", place / "run", *data, *text).json()["scores"] == pytest.approx(file["scores"], abs=1e-5)


def test_data_of_pictures_says_so(place: Path) -> None:
    out = tshsr("data", "info", place / "pictures").out
    assert "layout pictures" in out
    assert "pictures without features, for training from pixels" in out


def test_an_ensemble_reads_pictures_by_the_network_of_each_run(place: Path) -> None:
    run, second = place / "run", place / "second"
    said = tshsr(
        *("train", "vse-flickr8k", "--data", place / "pictures", "--out", second, *SHORT, "--device", "cpu"),
        *("--model.encoder.vision.weights", place / "clip", "--model.encoder.dim", "8", "--training.epochs", "1"),
        *("--training.minimum-count", "1"),
    )
    assert said.code == 0, said.err
    options = ("--data", place / "pictures", "--split", "dev", "--device", "cpu", "--json", "-", "--save-scores")
    for name, runs in (("a", [run]), ("b", [second]), ("both", [run, second])):
        assert tshsr("evaluate", *runs, *options, place / f"{name}.npy").json()["images"] == 4
    one, other, both = (np.load(place / f"{name}.npy") for name in ("a", "b", "both"))
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)


def test_combinations_that_do_not_work_are_refused(place: Path) -> None:
    run = place / "run"
    message = refused("features", place / "pictures", "--extractor", run, "--cells", "3", "--out", place / "x")
    assert f"--cells is not for runs: {run} has its own." in message
    message = refused("train", "tshsr-flickr8k", "--data", place / "pictures", "--out", place / "y", *TINY)
    assert "holds pictures without region features; make features with tshsr features, or train a vision" in message
