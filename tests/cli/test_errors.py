"""Errors of a user: one sentence, exit code 2, no traceback."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tshsr.cli.main
from tests.support.command_line import TINY, refused
from tests.support.command_line import tshsr as call
from tests.support.data_files import random_regions, write_precomp
from tshsr.errors import SettingsError


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Sound data in SCAN's layout, for a test to damage."""
    folder = tmp_path / "scan"
    for seed, split in enumerate(("train", "dev", "test")):
        write_precomp(folder, split, random_regions(4, seed=seed))
    return folder


def train(data: Path, *more: str) -> str:
    """The sentence of a training that is refused."""
    flat = ("--model.encoder.no-boxes", "--model.no-place-term")
    return refused("train", "tshsr-scenes", "--data", data, "--out", data.parent / "run", *TINY, *flat, *more)


def test_an_unknown_command_is_refused_with_the_nearest() -> None:
    assert refused("trian").startswith("tshsr: there is no command 'trian'; did you mean train? The commands are demo,")


def test_an_unknown_recipe_is_refused_with_the_nearest() -> None:
    said = refused("train", "tshsr-flicker30k", "--data", "x", "--out", "y")
    assert "there is no recipe 'tshsr-flicker30k'; did you mean tshsr-flickr30k?" in said


def test_train_without_a_recipe_says_how_it_is_called() -> None:
    assert "expected a recipe first: tshsr train RECIPE --data DIR --out RUN" in refused("train", "--data", "x")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--optimiser.learning-rat", "--optimiser.learning-rate"),
        ("--optimiser.learning_rat", "--optimiser.learning-rate"),
        ("--learning-rate", "--optimiser.learning-rate"),
        ("--model.encoder.no-boxs", "--model.encoder.no-boxes"),
        ("--dta", "--data"),
        ("--seed", "--training.seed"),
        ("--epoch", "--training.epochs"),
        ("--robust", "--loss.robust"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_nearest(given: str, meant: str) -> None:
    said = refused("train", "tshsr-scenes", "--data", "x", "--out", "y", given, "1")
    assert said == f"tshsr: there is no option {given}; did you mean {meant}? See tshsr train tshsr-scenes --help."


def test_a_misspelt_option_is_named_even_where_the_right_one_is_missing() -> None:
    assert "there is no option --dat; did you mean --data?" in refused("train", "tshsr-scenes", "--dat", "x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("score", "RUN, --image and --text are missing"),
        ("score run", "--image and --text are missing"),
        ("score --image x --text y", "RUN is missing"),
        ("explain --image x --device cpu", "RUN is missing"),
        ("train tshsr-scenes", "--data and --out are missing"),
        ("train tshsr-scenes --data x --resume", "--out is missing"),
        ("data info", "DIR is missing"),
        ("data check --quiet", "DIR is missing"),
        ("data convert", "SOURCE and OUT are missing"),
        ("data convert x", "OUT is missing"),
    ],
)
def test_missing_options_are_named_with_a_whole_command_that_shows_them(given: str, said: str) -> None:
    parts = re.fullmatch(r"tshsr: (.*); for example: tshsr (.*)\. See tshsr (.*) --help\.", refused(*given.split()))
    assert parts is not None
    assert parts[1] == said
    assert given.startswith(parts[3])
    example = parts[2]
    assert "missing" not in refused(*shlex.split(example)), "the example has all that is needed (and names no run)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--training.epochs x", "--training.epochs expects a whole number, got 'x'."),
        ("--training.epochs=1.5", "--training.epochs expects a whole number, got '1.5'."),
        ("--training.epochs", "--training.epochs expects one argument."),
        ("--training.epochs --resume", "--training.epochs expects one argument."),
        ("--training.epochs 1 2", "'2' is one argument too many; put a text of several words in quotes."),
        ("--loss.margin abc", "--loss.margin expects a number, got 'abc'."),
        ("--loss.warmup_epochs 1,5", "--loss.warmup-epochs expects a number, got '1,5'."),
        ("--loss.margin a --training.epochs b", "--loss.margin expects a number, got 'a'."),
        ("--model.reasoning.seeds 3 a b", "--model.reasoning.seeds expects a whole number, got 'a'."),
        ("--model.reasoning.seeds", "--model.reasoning.seeds expects at least one argument."),
        ("--model.streams bot", "--model.streams expects both, word or region, got 'bot'; did you mean both?"),
        ("--training.precision fp8", "--training.precision expects no, bf16 or fp16, got 'fp8'."),
        ("--wibble 3", "there is no option --wibble."),
        ("-x", "there is no option -x."),
        ("--resume yes", "'yes' is one argument too many: --resume takes no value."),
        ("--model.encoder.boxes yes", "'yes' is one argument too many: --model.encoder.boxes takes no value."),
        ("--model.encoder.no-boxes=yes", "--model.encoder.no-boxes: ignored explicit argument 'yes'."),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(given: str, said: str) -> None:
    sentence = refused("train", "tshsr-scenes", "--data", "x", "--out", "y", *given.split())
    assert sentence == f"tshsr: {said} See tshsr train tshsr-scenes --help."


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("demo --epochs x", "--epochs expects a whole number, got 'x'."),
        ("demo --out", "--out expects one argument."),
        ("evaluate run --protocol coco-1", "--protocol expects auto, flickr, coco-1k or coco-5k, got 'coco-1'"),
        ("metrics --captions", "--captions expects one argument."),
        ("explain run --image 0 --text", "--text expects one argument."),
        ("score --run x --image 0 --text y", "there is no option --run."),
        ("metrics a.npy --captions x --key y", "--key y names a matrix in an .npz or .pt, and an .npy holds one alone"),
        ("compare a.npy b.npy --captions x --key y", "--key y names a matrix in an .npz or .pt, and an .npy holds one"),
        ("compare a.npy b.npy --captions x --score pooled", "--score pooled is for reports, and A and B are matrices"),
        (
            "knowledge build x --out y --vectors random --vectors-width 100",
            "--vectors-width is 100, which is for a file",
        ),
    ],
)
def test_other_commands_refuse_wrong_values_alike(given: str, said: str) -> None:
    assert refused(*given.split()).startswith(f"tshsr: {said}")


def test_a_value_that_no_training_can_use_is_refused(scan: Path) -> None:
    assert "training.epochs is 0; expected 1 or more." in train(scan, "--training.epochs", "0")
    assert "learning_rate is -1.0; expected a number above 0" in train(scan, "--optimiser.learning-rate", "-1")


def test_one_argument_too_many_is_refused() -> None:
    said = refused("score", "run", "--image", "3", "--text", "a", "dog")
    assert (
        said == "tshsr: 'dog' is one argument too many; put a text of several words in quotes. See tshsr score --help."
    )


def test_missing_data_is_refused(tmp_path: Path) -> None:
    assert "nowhere does not exist" in refused("data", "info", tmp_path / "nowhere")
    assert "nowhere does not exist" in train(tmp_path / "nowhere")
    assert refused("data", "info", "/nowhere") == (
        "tshsr: /nowhere does not exist. Name a folder of data, or the word 'scenes'."
    )
    (tmp_path / "flickr8k").mkdir()
    near = f"flickr8 does not exist; did you mean {tmp_path / 'flickr8k'}? Name a folder"
    assert near in refused("data", "info", tmp_path / "flickr8")
    (tmp_path / "empty").mkdir()
    assert "has no known layout: it holds nothing" in refused("data", "check", tmp_path / "empty")


def cut(path: Path) -> None:
    """Take the end of a file away."""
    path.write_bytes(path.read_bytes()[:-20])


def spoil(path: Path) -> None:
    """Put a NaN into a file of features."""
    regions = np.load(path)
    regions[2, 1, 0] = np.nan
    np.save(path, regions)


def drop_line(path: Path) -> None:
    """Leave the last line out."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def empty_line(path: Path) -> None:
    """Empty the third line."""
    lines = path.read_text().splitlines()
    lines[2] = ""
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("train_ims.npy", cut, "train_ims.npy is truncated: its header promises"),
        ("train_ims.npy", spoil, "train_ims.npy, image row 2, region 1: a feature is not finite"),
        ("train_caps.txt", drop_line, "train_caps.txt: 19 captions for 4 images."),
        ("train_caps.txt", empty_line, "train_caps.txt:3: the line is empty"),
        ("dev_caps.txt", Path.unlink, "has no split 'dev'; it has test, train."),
    ],
)
def test_damaged_data_is_refused(scan: Path, file: str, damage: Callable[[Path], None], message: str) -> None:
    damage(scan / file)
    assert message in train(scan)


def test_data_check_reports_one_problem_in_a_sentence_and_lists_several(scan: Path) -> None:
    spoil(scan / "train_ims.npy")
    assert "image row 2, region 1: a feature is not finite" in refused("data", "check", scan)
    cut(scan / "dev_ims.npy")
    said = call("data", "check", scan)
    assert said.code == 2
    assert "is truncated" in said.out
    assert "not finite" in said.out
    assert said.err.splitlines()[-1] == f"tshsr: {scan} has 2 problems, listed above."


def test_data_without_or_with_an_unknown_action_is_refused() -> None:
    assert "tshsr data expects info, check or convert, got nothing." in refused("data")
    assert "got 'chek'; did you mean check?" in refused("data", "chek", "x")


def test_converting_a_store_is_refused(scenes: Path, tmp_path: Path) -> None:
    assert "is a feature store already" in refused("data", "convert", scenes, tmp_path / "out")


def test_evaluate_refuses_what_it_cannot_do(scenes: Path, run: Path, tmp_path: Path) -> None:
    start = ("evaluate", run, "--data", scenes, "--device", "cpu")
    assert "coco-1k is for a multiple of 1000 images; the split has 10." in refused(*start, "--protocol", "coco-1k")
    assert "has no split 'tset'; it has train, dev, test, all." in refused(*start, "--split", "tset")
    assert "--bytes is 'much'; expected a size like 500M or 2G." in refused(*start, "--bytes", "much")
    assert "scores are saved as .npy" in refused(*start, "--save-scores", tmp_path / "scores.csv")
    assert "--data is missing; for example: tshsr evaluate runs/first --data DIR." in refused("evaluate", run)
    assert "RUN and --data are missing; for example: " in refused("evaluate")
    assert f"{run} is named twice; an ensemble is of different models." in refused(*start[:2], run, *start[2:])
    assert "device 'tpu' is not available; this machine has cpu" in refused(*start[:-1], "tpu")


def test_a_folder_that_is_no_run_is_refused(scenes: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused("evaluate", tmp_path / "none", "--data", scenes)
    assert "config.json" in refused("evaluate", tmp_path, "--data", scenes)


def test_features_of_another_extractor_are_refused(scan: Path, run: Path) -> None:
    message = "small was trained on features of 'scenes-pixels-1', these are of 'precomp-4'"
    assert message in refused("evaluate", run, "--data", scan)
    assert message in refused("score", run, "--data", scan, "--image", "0", "--text", "a dog")


def test_scores_that_do_not_fit_their_captions_are_refused(scenes: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "scores.npy"
    np.save(matrix, np.zeros((10, 49)))
    assert "the scores are of 10 images and 49 captions; scenes, split test has 10 and 50" in refused(
        "metrics", matrix, "--captions", scenes
    )
    assert "--captions is missing; for example: tshsr metrics SCORES.npy --captions FILE." in refused("metrics", matrix)
    assert "is named twice" in refused("metrics", matrix, matrix, "--captions", scenes)
    np.save(matrix, np.full((10, 50), np.nan))
    assert "is nan; every score must be a finite number" in refused("metrics", matrix, "--captions", scenes)


def test_a_split_of_a_picture_file_is_refused(run: Path) -> None:
    said = "tshsr: --split dev is for --data, and --image is a file without it; leave it out."
    assert refused("score", run, "--image", "a.png", "--split", "dev", "--text", "a dog") == said


def test_an_image_that_is_not_there_is_refused_with_the_nearest(scenes: Path, run: Path) -> None:
    pair = ("score", run, "--data", scenes, "--text", "a dog", "--image")
    assert "has no image 'tst-00004'; expected an id such as 'test-00004', or a row number up to 9." in refused(
        *pair, "tst-00004"
    )
    assert "has no image '10'" in refused(*pair, "10")


@pytest.mark.parametrize(
    "command",
    [
        "evaluate run --data x --json",
        "metrics a.npy --captions x --json",
        "compare a.json b.json --json",
        "faithfulness run --data x --json",
        "score run --image 0 --text a --json",
        "explain run --image 0 --text a --json",
        "explain run --image 0 --text a --out",
        "search x a --json",
        "search x a --explain",
        "audit-log x --json",
        "bench --json",
        "data info x --json",
        "calibrate run --data x --picture",
        "composition run --data x --json",
        "knowledge build x --out",
        "knowledge show x --picture",
    ],
)
def test_an_output_file_that_cannot_be_written_is_refused_before_any_work(command: str, tmp_path: Path) -> None:
    words = command.split()
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file' / 'a'}: Not a directory" in refused(*words, tmp_path / "file" / "a")
    said = refused(*words, tmp_path)
    assert said.startswith(f"tshsr: Cannot write {tmp_path}: Is a directory. Name a file for {words[-1]}.")


def test_a_text_without_words_is_refused(scenes: Path, run: Path, tmp_path: Path) -> None:
    for text in ("", "  "):
        assert "caption" in refused("score", run, "--data", scenes, "--image", "0", "--text", text)
    page = tmp_path / "page.html"
    assert "expected a sentence to explain" in refused("explain", run, "--image", "x.png", "--out", page)
    assert not page.exists()


def test_a_file_that_is_no_picture_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no picture")
    assert "is no readable picture" in refused("score", run, "--image", tmp_path / "note.png", "--text", "a dog")
    assert "none.png does not exist" in refused("score", run, "--image", tmp_path / "none.png", "--text", "a dog")


def test_a_picture_for_features_that_cannot_be_made_here_is_refused(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "extractor": "bottom-up"}))
    said = refused("score", other, "--image", "photo.jpg", "--text", "a dog")
    assert "other needs features of 'bottom-up'" in said
    assert "--data DIR" in said


def test_a_folder_with_a_run_is_not_overwritten(scenes: Path, run: Path) -> None:
    said = refused("train", "tshsr-scenes", "--data", scenes, "--out", run, *TINY)
    assert "already holds a run; continue it with --resume" in said


def test_debug_shows_where_an_error_was_raised() -> None:
    with pytest.raises(SettingsError, match="no command 'trian'"):
        call("trian", "--debug")


def test_an_interrupted_training_names_the_option_to_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(words: list[str], screen: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(tshsr.cli.main, "run", interrupt)
    said = call("train", "tshsr-scenes")
    assert said.code == 130
    assert said.err.count("\n") == 1
    assert "--resume" in said.err
    assert "interrupted" in call("evaluate", "x").err


def test_a_fault_of_ours_is_a_sentence_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str], screen: object) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(tshsr.cli.main, "run", fail)
    said = call("demo")
    assert said.code == 1
    assert said.err.startswith("tshsr: internal error: ZeroDivisionError: division by zero (")
    with pytest.raises(ZeroDivisionError):
        call("demo", "--debug")
