"""The demo at small sizes: its files, its output, and the commands that it suggests."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.command_line import Said, refused, tshsr
from tests.support.whole_page import assert_whole
from tshsr.data.generated import make_scenes
from tshsr.demo import Sizes, Stage, demo_config, run_demo
from tshsr.errors import DataError
from tshsr.index.collection import Index
from tshsr.metrics.report import read_report

SMALL = ("--train", "16", "--dev", "6", "--test", "10", "--epochs", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def cache(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the small scenes already (drawing them takes processes of their own)."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(scenes, cache / "tshsr" / "scenes-v1-16-6-10-0")
    return cache


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


@pytest.fixture(scope="module")
def demo(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """A finished demo and its output."""
    out = tmp_path_factory.mktemp("demo") / "my demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        said = tshsr("demo", "--out", out, *SMALL)
    assert said.code == 0, said.err
    return out, said


def test_wrong_settings_are_refused_before_an_earlier_demo_is_removed(demo: tuple[Path, Said], cache: Path) -> None:
    out, _ = demo
    before, drawn = sorted(out.rglob("*")), sorted(cache.rglob("*"))
    assert "training.epochs is 0" in refused("demo", "--out", out, *SMALL, "--epochs", "0")
    assert "dev is 0 scenes; expected at least 1." in refused("demo", "--out", out, *SMALL, "--dev", "0")
    assert (sorted(out.rglob("*")), sorted(cache.rglob("*"))) == (before, drawn)


def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("mine")
    assert f"{tmp_path / 'file'} is a file; name a folder with --out." in refused(
        "demo", "--out", tmp_path / "file", *SMALL
    )
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "cache").exists()


def test_the_demo_writes_a_run_a_report_and_a_page(demo: tuple[Path, Said]) -> None:
    out, _ = demo
    assert {path.name for path in out.iterdir()} == {"run", "index", "report.html", "report.json"}
    values = json.loads((out / "report.json").read_text())
    assert values["version"] == 1
    assert values["protocol"] == "flickr"
    assert (values["images"], values["captions"]) == (10, 50)
    assert set(values["pointing"]) == {"word_stream", "region_stream"}
    assert set(values["binding"]) == set(values["scores"]) >= {"fused", "word_stream", "region_stream", "pooled"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert_whole(page)
    assert "recipe tshsr-scenes" in page
    assert "Regions of the words" in page


def test_the_demo_says_where_the_report_is_and_the_figures(demo: tuple[Path, Said]) -> None:
    out, said = demo
    assert f"The report: {out / 'report.html'}" in said.out
    assert " s in all." in said.out
    rsum = read_report(out / "report.json").scores["fused"].rsum
    assert f"{rsum:.1f}" in next(line for line in said.out.splitlines() if line.startswith("fused"))
    assert [line for line in said.err.splitlines() if line.startswith(("drawing", "training", "evaluating", "writing"))]


def test_the_demo_shows_the_progress_of_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tshsr.data.generated.usable_cores", lambda: 1)
    monkeypatch.setattr("tshsr.demo.run_demo", stop)
    said = tshsr("demo", "--out", tmp_path / "demo", "--train", "1", "--dev", "1", "--test", "1", "--device", "cpu")
    lines = said.err.splitlines()
    assert lines[0] == "drawing 3 scenes, unless they are cached"
    assert lines[1].startswith("drawing: 3 scenes in ")


def stop(*_: object, **__: object) -> None:
    raise DataError("enough")


def test_every_command_that_the_demo_suggests_works(demo: tuple[Path, Said]) -> None:
    _, said = demo
    commands = [shlex.split(line)[1:] for line in said.out.splitlines() if line.startswith("  tshsr ")]
    assert {command[0] for command in commands} == {"search", "explain", "score", "evaluate", "data"}
    for command in commands:
        again = tshsr(*command)
        assert again.code == 0, again.err


def test_the_demo_ends_with_the_command_that_serves_its_index(demo: tuple[Path, Said]) -> None:
    out, said = demo
    assert said.out.splitlines()[-1] == (
        f"Search the scenes on a page: {shlex.join(['tshsr', 'serve', str(out / 'index'), '--open'])}"
    )
    index = Index.open(out / "index")
    assert (len(index), index.captions) == (10, 50)
    (best, *_) = index.search("a circle", k=3)
    assert best.file is not None
    assert index.extractor().name == "scenes-pixels-1"


def test_without_its_library_the_demo_makes_no_index_and_says_how(
    demo: tuple[Path, Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tshsr.demo.find_spec", lambda name: None)
    said = tshsr("demo", "--out", tmp_path / "demo", *SMALL)
    assert said.code == 0, said.err
    assert not (tmp_path / "demo" / "index").exists()
    assert said.out.splitlines()[-1].startswith("To search the scenes on a page: pip install 'tshsr[search,serve]'")


def test_an_index_that_no_demo_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "notes.txt").write_text("mine")
    assert "index holds something that no demo wrote" in refused("demo", "--out", tmp_path, *SMALL)
    assert (tmp_path / "index" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_report_that_no_demo_wrote_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert f"{name} was written by no demo" in refused("demo", "--out", tmp_path, *SMALL)
    assert (tmp_path / name).read_text() == "mine"


def test_a_second_demo_replaces_the_first_and_nothing_else(demo: tuple[Path, Said], tmp_path: Path) -> None:
    out = shutil.copytree(demo[0], tmp_path / "demo")
    (out / "run" / "left over").write_text("from the demo before")
    (out / "notes.txt").write_text("mine")
    before = (out / "run" / "best" / "model.safetensors").read_bytes()
    said = tshsr("demo", "--out", out, *SMALL)
    assert said.code == 0, said.err
    assert not (out / "run" / "left over").exists()
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "run" / "best" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("stage", ["training", "evaluating", "writing"])
def test_a_demo_that_was_stopped_leaves_no_report_and_runs_again(
    demo: tuple[Path, Said], tmp_path: Path, stage: str
) -> None:
    out = shutil.copytree(demo[0], tmp_path / "demo")

    class StopError(Exception):
        pass

    def stop(event: object) -> None:
        if isinstance(event, Stage) and event.name.startswith(stage):
            raise StopError

    config = demo_config(0)
    config = replace(config, training=replace(config.training, epochs=1))
    with pytest.raises(StopError):
        run_demo(out, Sizes(16, 6, 10), config=config, listen=stop)
    assert not (out / "report.json").exists()
    assert not (out / "report.html").exists()
    assert tshsr("demo", "--out", out, *SMALL).code == 0
    assert (out / "report.json").exists()


def test_a_run_that_no_demo_made_is_not_touched(run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    before = sorted(path.name for path in own.iterdir())
    said = refused("demo", "--out", tmp_path, *SMALL)
    assert "holds something that no demo wrote" in said
    assert sorted(path.name for path in own.iterdir()) == before


def test_sizes_that_make_no_demo_are_refused(tmp_path: Path) -> None:
    assert "train is -1 scenes; expected at least 1." in refused("demo", "--out", tmp_path / "demo", "--train", "-1")
    assert not (tmp_path / "demo").exists()


def test_the_seed_chooses_other_scenes_and_weights(cache: Path, tmp_path: Path) -> None:
    make_scenes(cache / "tshsr" / "scenes-v1-16-6-10-7", train=16, dev=6, test=10, seed=7, processes=1)
    said = tshsr("demo", "--out", tmp_path / "demo", *SMALL, "--seed", "7")
    assert said.code == 0, said.err
    assert json.loads((tmp_path / "demo" / "run" / "config.json").read_text())["training"]["seed"] == 7
    assert "scenes-v1-16-6-10-7" in said.out
