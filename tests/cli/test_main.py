"""Every command on small scenes: files and output."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import tshsr as package
from tests.support.command_line import NAMES, REPORT, TINY, tshsr
from tests.support.data_files import random_regions, write_precomp
from tests.support.whole_page import assert_whole
from tshsr.cli import main as main_module
from tshsr.cli.main import COMMANDS
from tshsr.config.recipes import recipe
from tshsr.data.layouts import open_split
from tshsr.metrics.report import read_report
from tshsr.retriever import Retriever

METRICS = {"image_to_text", "text_to_image", "rsum"}
DIRECTION = {"r1", "r5", "r10", "medr", "meanr"}


def test_without_a_command_the_help_is_shown() -> None:
    said = tshsr()
    assert said.code == 0
    assert all(f"  {name} " in said.out for name in COMMANDS)
    assert tshsr("--help").out == said.out


def test_the_program_ends_with_the_code_and_the_sentence() -> None:
    answer = subprocess.run([sys.executable, "-m", "tshsr", "trian"], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("tshsr: there is no command 'trian'")
    assert answer.stderr.count("\n") == 1


def written_into_a_closed_pipe(*words: str) -> int:
    """The exit code of a command whose output and notes go to a reader that has exited."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as file:
        return subprocess.run([sys.executable, "-m", "tshsr", *words], stdout=file, stderr=file, check=False).returncode


def test_a_closed_pipe_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("Image to text: 50.0, 80.0, 90.0, 1.0, 2.0\n")
    assert written_into_a_closed_pipe("trian") == 141
    assert written_into_a_closed_pipe("--version") == 141
    assert written_into_a_closed_pipe("audit-log", str(tmp_path / "log.txt"), "--json", "-") == 141


def test_letters_that_the_output_lacks_end_no_command() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "tshsr", "evaluate", "--help"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert b"the best by v?t" in answer.stdout


def test_the_version_is_shown() -> None:
    assert tshsr("--version").out == f"tshsr {package.__version__}\n"


@pytest.mark.parametrize(
    "command", [*COMMANDS, "data info", "data check", "data convert", "knowledge build", "knowledge show"]
)
def test_every_command_has_a_help(command: str) -> None:
    said = tshsr(*command.split(), "--help")
    assert said.code == 0
    assert f"usage: tshsr {command}" in said.out
    if command not in ("demo", "bench", "data", "knowledge"):  # the first two need no argument
        assert f"\nexample: tshsr {command} " in said.out


def test_the_help_of_train_lists_recipes_and_the_defaults_of_the_one_that_is_named() -> None:
    said = tshsr("train", "tshsr-flickr8k", "--help")
    assert "tshsr-coco: MSCOCO" in " ".join(said.out.split())
    width = recipe("tshsr-flickr8k").model.encoder.dim
    assert f"Width of the joint space (D). (default: {width})" in " ".join(said.out.split())


def test_train_writes_a_run_with_the_settings_that_were_given(run: Path) -> None:
    settings = json.loads((run / "config.json").read_text())
    assert settings["recipe"] == "tshsr-scenes"
    assert settings["model"]["encoder"]["dim"] == 8
    assert settings["model"]["reasoning"]["seeds"] == [2]
    assert settings["extractor"] == "scenes-pixels-1"
    assert {path.name for path in run.iterdir()} >= {"best", "last", "config.json", "tokenizer.json", "log.jsonl"}


EACH_EPOCH = ("--training.epochs", "2", "--training.evaluate-every", "1")


def test_train_reports_each_epoch_and_the_next_command(scenes: Path, tmp_path: Path) -> None:
    said = tshsr("train", "tshsr-scenes", "--data", scenes, "--out", tmp_path / "run", *TINY, *EACH_EPOCH)
    lines = said.err.splitlines()
    assert lines[0] == "scenes: 16 images, 80 captions to train on"
    assert [line.split(":")[0] for line in lines[1:]] == [
        *("epoch 1 of 2", "after epoch 1", "epoch 2 of 2", "after epoch 2")
    ]
    assert "left" in lines[1]
    assert "dev rSum" in lines[2]
    assert f"Next: tshsr evaluate {tmp_path / 'run'} --data {scenes} --split test" in said.out


def test_resuming_a_finished_run_says_so(scenes: Path, run: Path) -> None:
    said = tshsr("train", "tshsr-scenes", "--data", scenes, "--out", run, *TINY, "--resume")
    assert said.code == 0
    assert "was finished already, after 5 steps; there is nothing to do." in said.out


def test_evaluate_prints_every_score_and_both_probes(scenes: Path, run: Path) -> None:
    said = tshsr("evaluate", run, "--data", scenes, "--device", "cpu")
    assert said.code == 0
    assert "scenes, split test: 10 images, 50 captions; protocol flickr; model small" in said.out
    first_words = [line.split()[0] for line in said.out.splitlines() if line.strip()]
    assert set(first_words) >= NAMES
    assert "pointing (words whose heaviest region is right): word_stream" in said.out
    assert "binding (true captions above their foils): fused" in said.out
    assert "binding by what is swapped (fused): attribute" in said.out


def test_evaluate_shows_progress_on_stderr_and_none_where_quiet(scenes: Path, run: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(run, tmp_path / "twin")
    start = ("evaluate", run, twin, "--data", scenes, "--device", "cpu", "--json", "-")
    said = tshsr(*start)
    assert [line.partition(" in ")[0] for line in said.err.splitlines()] == 2 * ["scoring: 500 pairs"]
    assert said.json()["models"] == ["small", "twin"]
    assert tshsr(*start, "--quiet").err == ""


NONE = "no progress, neither a bar nor lines."
EPOCHS = "no progress but a line for each epoch and each evaluation."


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("evaluate", NONE),
        ("data check", NONE),
        ("data convert", NONE),
        ("train tshsr-scenes", EPOCHS),
        ("demo", EPOCHS),
    ],
)
def test_the_help_says_what_quiet_leaves(command: str, left: str) -> None:
    text = " ".join(tshsr(*command.split(), "--help").out.replace("│", " ").split())
    assert f"--quiet Show {left}" in text


def test_evaluate_writes_the_report_that_the_contract_promises(scenes: Path, run: Path, tmp_path: Path) -> None:
    said = tshsr("evaluate", run, "--data", scenes, "--split", "dev", "--json", "-", "--device", "cpu")
    values = said.json()
    assert set(values) == REPORT | {"seconds", "pointing", "binding", "binding_by_kind"}
    assert set(values["scores"]) == set(values["binding"]) == NAMES
    assert set(values["pointing"]) == {"word_stream", "region_stream"}
    for metrics in values["scores"].values():
        assert set(metrics) == METRICS
        assert set(metrics["image_to_text"]) == set(metrics["text_to_image"]) == DIRECTION
    assert (values["split"], values["images"], values["captions"]) == ("dev", 6, 30)
    (tmp_path / "report.json").write_text(said.out)
    assert read_report(tmp_path / "report.json").models == ("small",)


def test_saved_scores_are_the_models_and_evaluate_alike(scenes: Path, run: Path, tmp_path: Path) -> None:
    matrix, page = tmp_path / "scores.npy", tmp_path / "report.json"
    arguments = ("--data", scenes, "--device", "cpu", "--bytes", "1M", "--save-scores", matrix, "--json", page)
    assert tshsr("evaluate", run, *arguments).code == 0
    scores = np.load(matrix)
    split = open_split(scenes, "test")
    assert scores.dtype == np.float32
    assert scores.shape == (10, 50)
    expected = Retriever.from_pretrained(run).score(split, split.captions)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)
    again = tshsr("metrics", matrix, "--captions", scenes, "--json", "-").json()
    assert again["scores"]["fused"] == json.loads(page.read_text())["scores"]["fused"]


def test_scores_are_evaluated_without_a_model(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", np.eye(4).repeat(2, axis=1))
    (tmp_path / "captions.txt").write_text("".join(f"caption {number}\n" for number in range(8)))
    values = tshsr("metrics", tmp_path / "scores.npy", "--captions", tmp_path / "captions.txt", "--json", "-").json()
    assert set(values) == REPORT | {"seconds"}
    assert values["scores"]["fused"]["rsum"] == 600
    assert values["models"] == ["scores.npy"]


def test_several_runs_are_an_ensemble_and_called_one(scenes: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tshsr("train", "tshsr-scenes", "--data", scenes, "--out", other, *TINY, "--training.seed", "1")
    matrices = [tmp_path / f"{name}.npy" for name in ("first", "second", "both")]
    for runs, matrix in zip(([run], [other], [run, other]), matrices, strict=True):
        said = tshsr("evaluate", *runs, "--data", scenes, "--save-scores", matrix, "--device", "cpu")
    assert "ensemble of 2 models (small, other)" in said.out
    assert "pointing" not in said.out
    first, second, both = (np.load(matrix) for matrix in matrices)
    assert not np.allclose(first, second)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)


def test_a_pair_is_scored_by_id_and_by_row_alike(scenes: Path, run: Path) -> None:
    pair = ("--data", scenes, "--text", "a red circle", "--device", "cpu")
    by_id = tshsr("score", run, "--image", "test-00003", *pair, "--json", "-").json()
    by_row = tshsr("score", run, "--image", "3", *pair, "--json", "-").json()
    assert by_id == by_row
    assert (by_id["model"], by_id["image"], by_id["text"]) == ("small", "test-00003", "a red circle")
    assert set(by_id["scores"]) == NAMES
    split = open_split(scenes, "test")
    expected = Retriever.from_pretrained(run).score(split, "a red circle")[3, 0]
    assert by_id["scores"]["fused"] == pytest.approx(float(expected), abs=1e-6)
    shown = tshsr("score", run, "--image", "3", *pair)
    assert f"fused{by_id['scores']['fused']:.4f}" in shown.out.replace(" ", "")


def test_a_picture_file_is_scored_where_the_extractor_is_built_in(scenes: Path, run: Path) -> None:
    pair = ("--image", scenes / "pictures" / "test-00000.png", "--text", "a red circle", "--device", "cpu")
    values = tshsr("score", run, *pair, "--json", "-").json()
    assert values["image"] == "test-00000.png"
    assert all(-1 <= score <= 1 for score in values["scores"].values())


def test_explain_writes_a_page_with_the_picture_and_every_sentence(scenes: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    said = tshsr(
        *("explain", run, "--data", scenes, "--image", "test-00001", "--text", "a red circle"),
        *("--text", "two blue <stars>", "--out", page, "--device", "cpu"),
    )
    assert said.code == 0, said.err
    text = page.read_text(encoding="utf-8")
    assert_whole(text)
    assert text.count("<article") == 2
    assert "a red circle" in text
    assert "two blue &lt;stars&gt;" in text
    assert "data:image/" in text
    assert f"Open {page}" in said.out
    assert "circle" in [line.split()[0] for line in said.out.splitlines() if line.strip()]


def test_explanations_come_as_data_too(scenes: Path, run: Path, tmp_path: Path) -> None:
    picture = scenes / "pictures" / "test-00000.png"
    said = tshsr(
        *("explain", run, "--image", picture, "--text", "a red circle", "--device", "cpu"),
        *("--out", tmp_path / "page.html", "--json", "-"),
    )
    (explanation,) = said.json()
    assert explanation["words"] == ["a", "red", "circle"]
    assert set(explanation["streams"]) == {"word_stream", "region_stream"}
    assert explanation["boxes"][0] == [0, 0, 1, 1]
    assert len(explanation["boxes"]) == explanation["regions"] == 12


def test_data_info_says_what_is_there(scenes: Path) -> None:
    said = tshsr("data", "info", scenes)
    assert "layout store" in said.out
    assert "scenes-pixels-1" in said.out
    rows = {line.split()[0]: line.split()[1:5] for line in said.out.splitlines()[3:]}
    assert rows == {
        "dev": ["6", "30", "12", "yes"],
        "test": ["10", "50", "12", "yes"],
        "train": ["16", "80", "12", "yes"],
    }
    values = tshsr("data", "info", scenes, "--json", "-").json()
    assert [split["images"] for split in values["splits"]] == [6, 10, 16]


def test_data_check_reads_everything(scenes: Path) -> None:
    said = tshsr("data", "check", scenes)
    assert said.code == 0
    assert "has no problems: dev 6 images, test 10 images, train 16 images" in said.out
    size = sum(file["bytes"] for file in json.loads((scenes / "manifest.json").read_text())["files"].values())
    assert [line.partition(" in ")[0] for line in said.err.splitlines()] == [
        f"hashing: {size:,} bytes",
        "reading: 32 images",
    ]
    assert tshsr("data", "check", scenes, "--quiet").err == ""


def test_data_convert_makes_a_store_that_is_sound(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(3))
    said = tshsr("data", "convert", tmp_path / "scan", tmp_path / "store", "--extractor", "mine")
    assert said.code == 0, said.err
    assert "layout store" in said.out
    assert "features of mine" in said.out
    assert said.err.startswith("converting: 3 images in ")
    assert tshsr("data", "check", tmp_path / "store").code == 0


def test_the_word_scenes_means_the_cached_scenes(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(scenes, tmp_path / "tshsr" / "scenes-v1-3000-500-500-0")
    assert "scenes-v1-3000-500-500-0: layout store" in tshsr("data", "info", "scenes").out


def test_images_of_one_region_train_and_evaluate(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "dev", "test")):
        write_precomp(tmp_path / "scan", split, random_regions(4, regions=1, seed=seed))
    flat = ("--model.encoder.no-boxes", "--model.no-place-term", "--training.batch", "4")
    said = tshsr("train", "tshsr-scenes", "--data", tmp_path / "scan", "--out", tmp_path / "run", *TINY, *flat)
    assert said.code == 0, said.err
    said = tshsr("evaluate", tmp_path / "run", "--data", tmp_path / "scan", "--device", "cpu")
    assert said.code == 0, said.err
    assert "4 images, 20 captions" in said.out


@pytest.mark.skipif(os.name != "posix", reason="no process gets SIGTERM on this system")
@pytest.mark.parametrize("command", main_module.STOPS_WELL)
def test_sigterm_ends_a_job_that_can_be_continued_without_an_error(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["tshsr", command])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own
    monkeypatch.setattr("tshsr.system.keep_freed_memory", lambda: None)
    monkeypatch.setattr(main_module, "run", lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert main_module.main() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == f"tshsr: stopped by SIGTERM; {main_module.RESUMING[command]}\n"


def test_sigterm_ends_other_commands_as_it_ends_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    set_for: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: set_for.append(number))
    main_module.record_interrupts(["search"])
    assert signal.SIGTERM not in set_for
