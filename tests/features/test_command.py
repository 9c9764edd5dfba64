"""`tshsr features`: from JPEG files to a store for training, errors and interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.support.command_line import TINY, refused, tshsr
from tests.support.gated import WORKER_READS, WORKER_STARTS, at_gate
from tests.support.picture_files import drawn, write_pictures, write_rubbish
from tshsr.data.layouts import open_split


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixteen JPEG files, and files that are no pictures."""
    write_pictures(tmp_path / "pictures", 16)
    write_rubbish(tmp_path / "pictures")
    return tmp_path / "pictures"


def test_a_folder_of_pictures_becomes_a_store_for_training_and_search(pictures: Path, tmp_path: Path) -> None:
    lines = []
    for number in range(16):
        name = f"a/p{number:02d}.jpg" if number % 2 else f"p{number:02d}.jpg"
        split = ("train", "train", "dev", "test")[number % 4]
        lines += [f"{name}\tpicture {number} with a disc\t{split}\n", f"{name}\ta box in picture {number}\t{split}\n"]
    (tmp_path / "captions.txt").write_text("".join(lines))
    store, run = tmp_path / "store", tmp_path / "run"
    said = tshsr(
        *("features", pictures, "--extractor", "scenes", "--out", store, "--captions", tmp_path / "captions.txt"),
        *("--workers", "1"),
    )
    assert said.code == 0, said.err
    shown = said.out.splitlines()
    assert shown[0] == f"{store}: 16 pictures, features of scenes-pixels-1, 32 captions."
    assert shown[1] == f"10 files skipped, listed in {store / 'skipped.jsonl'}:"
    assert shown[2].startswith("  cut.jpg: is no readable picture (image file is truncated")
    assert shown[-1] == "  ..."
    assert "extracting: " in said.err
    assert "writing: 16 pictures in " in said.err
    assert "has no problems" in tshsr("data", "check", store).out
    info = tshsr("data", "info", store, "--json", "-").json()
    assert {split["name"]: split["images"] for split in info["splits"]} == {"train": 8, "dev": 4, "test": 4}
    assert tshsr("train", "tshsr-scenes", "--data", store, "--out", run, *TINY).code == 0
    report = tshsr("evaluate", run, "--data", store, "--json", "-", "--device", "cpu").json()
    assert report["images"] == 4
    new = tmp_path / "new.jpg"
    drawn(50, (800, 500)).save(new)
    said = tshsr("score", run, "--image", new, "--text", "a box", "--device", "cpu")
    assert said.code == 0, said.err
    assert "new.jpg" in tshsr("explain", run, "--image", new, "--text", "a box", "--out", tmp_path / "x.html").out


def test_a_second_run_does_only_what_is_new(pictures: Path, tmp_path: Path) -> None:
    command = ("features", pictures, "--extractor", "scenes", "--out", tmp_path / "store", "--workers", "1", "--quiet")
    first = tshsr(*command)
    assert (first.code, first.err) == (0, "")
    drawn(60).save(pictures / "new.webp")
    assert tshsr(*command).out.startswith(
        f"{tmp_path / 'store'}: 17 pictures, 16 of them extracted earlier, features of"
    )


@pytest.mark.parametrize("kind", ["dinov2", "rt-detr"])
def test_networks_make_stores_too(pictures: Path, tmp_path: Path, kind: str) -> None:
    from tests.support.tiny_networks import save  # skips where transformers is missing

    weights, store = save(kind, tmp_path / "weights"), tmp_path / "store"
    options = ("--cells", "3") if kind == "dinov2" else ("--regions", "9", "--overlap", "0.9")
    family = "grid" if kind == "dinov2" else "detector"
    said = tshsr(
        *("features", pictures, "--extractor", family, "--weights", weights, "--out", store, "--dtype", "float16"),
        *(*options, "--batch", "5", "--device", "cpu"),
    )
    assert said.code == 0, said.err
    assert "has no problems" in tshsr("data", "check", store).out
    split = open_split(store, "all")
    assert len(split.regions) == 16
    assert split.regions.regions == 10
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["settings"]["weights"] == str(weights)
    assert manifest["extractor"].startswith(f"{family}-")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--extractor gird", "there is no extractor 'gird'; did you mean grid? The extractors are scenes, grid,"),
        ("--extractor grid", "the extractor grid needs weights: a folder of a network for transformers, or its name"),
        ("--extractor scenes --cells 3", "the extractor scenes has no cells; it has no options and no weights."),
        ("--extractor scenes --batch 0", "--batch is 0; expected at least 1."),
        ("--extractor scenes --workers -1", "--workers is -1; expected at least 1."),
        ("--extractor scenes --cells x", "--cells expects a whole number, got 'x'. See tshsr features --help."),
        ("--extractor scenes --weigths x", "there is no option --weigths; did you mean --weights?"),
        ("--extractor scenes --captions none.txt", "Cannot read none.txt: No such file or directory."),
        ("", "--extractor is missing; for example: tshsr features PICTURES --extractor scenes --out STORE."),
    ],
)
def test_a_wrong_argument_is_one_sentence(tmp_path: Path, options: str, said: str) -> None:
    write_pictures(tmp_path / "pictures", 1)
    assert said in refused("features", tmp_path / "pictures", "--out", tmp_path / "store", *options.split())


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    said = refused("features", tmp_path / "none", "--extractor", "scenes", "--out", tmp_path / "store")
    assert said == f"tshsr: {tmp_path / 'none'} does not exist; name a folder of pictures."
    assert sorted(tmp_path.iterdir()) == []


def features(pictures: Path, store: Path) -> list[str]:
    """The words of a command that reads pictures in one worker process."""
    return ["features", str(pictures), "--extractor", "scenes", "--out", str(store), "--workers", "1"]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Pictures for a worker process."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(8):
        drawn(number, (90, 90)).save(folder / f"{number}.jpg")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("gate", [WORKER_STARTS, WORKER_READS], ids=["starting", "reading"])
def test_ctrl_c_names_the_next_command_which_continues(many: Path, tmp_path: Path, gate: str) -> None:
    with at_gate(tmp_path, gate, features(many, tmp_path / "store")) as process:
        process.interrupt()
        process.open_gate()
        said = process.end()
    assert process.code == 130
    assert said.splitlines()[-1] == "tshsr: interrupted; run the same command again to continue."
    assert "Traceback" not in said
    assert not (tmp_path / "store").exists()
    again = tshsr(*features(many, tmp_path / "store"), "--quiet")
    assert again.out.startswith(f"{tmp_path / 'store'}: 8 pictures")


@pytest.mark.slow
@pytest.mark.parametrize("gate", [WORKER_STARTS, WORKER_READS], ids=["starting", "reading"])
def test_a_killed_command_leaves_no_process_behind(many: Path, tmp_path: Path, gate: str) -> None:
    with at_gate(tmp_path, gate, features(many, tmp_path / "store")) as process:
        children = process.children()
        process.kill()
        process.open_gate()
        _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
