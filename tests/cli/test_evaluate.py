"""`tshsr evaluate` in 16 bits, compiled, and with matrices in files."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from tests.support.command_line import NAMES, full_disk, refused, tshsr
from tshsr.bench.speed import NAMES as NETWORKS
from tshsr.bench.speed import Name as NetworkName
from tshsr.cli import scores_folder
from tshsr.cli.bench import Bench
from tshsr.cli.compare import Compare
from tshsr.cli.faithfulness import FaithfulnessCommand
from tshsr.cli.index import IndexCommand
from tshsr.cli.metrics import Metrics
from tshsr.data.store import EVERYTHING
from tshsr.errors import DataError, InputError
from tshsr.evaluation.run import evaluate_models
from tshsr.evaluation.score_files import KEY
from tshsr.explain.faithfulness import PAIRS


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, and matrices of any size that are too large for memory."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(scores_folder, "LARGE", 0)
    return place


@pytest.mark.parametrize("more", [(), ("--rerank", "4")])
def test_bfloat16_says_what_it_did_under_the_table_and_in_the_json(start: tuple, tmp_path: Path, more: tuple) -> None:
    page = tmp_path / "report.json"
    said = tshsr(*start, "--dtype", "bfloat16", *more, "--json", page)
    assert said.code == 0, said.err
    (guard,) = json.loads(page.read_text())["precision"]
    assert (guard["dtype"], guard["images"], guard["captions"]) == ("bfloat16", 10, 50)
    assert 0 < guard["max_difference"] < 0.05
    verdict = "used. On" if guard["used"] else "not used, "
    assert f"bfloat16 (small): {verdict}" in said.out
    assert f"it is {guard['speedup']:.2f} times as fast as float32, changes scores by up to" in said.out
    assert "precision" not in tshsr(*start, "--json", "-").json()


def test_tf32_needs_a_gpu(start: tuple) -> None:
    said = "tshsr: {} is for GPUs of NVIDIA's, and the device is cpu; leave it out."
    assert refused(*start, "--dtype", "tf32") == said.format("--dtype tf32")
    assert refused("bench", "--tf32", "--device", "cpu") == said.format("--tf32")


@pytest.mark.parametrize("more", [(), ("--rerank", "4")])
def test_where_nothing_can_be_compiled_the_evaluation_goes_on(
    start: tuple, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, more: tuple
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler")

    expected = tshsr(*start, *more, "--json", "-").json()
    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    values = tshsr(*start, "--compile", *more, "--json", "-").json()
    assert values["scores"] == expected["scores"]
    assert "precision" not in values
    assert "this machine can't compile the scoring (no compiler)" in caplog.text


def test_large_matrices_are_in_a_temporary_folder_that_disappears(
    start: tuple, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []

    def look(*arguments: object, **named: object) -> object:
        result = evaluate_models(*arguments, **named)  # type: ignore[arg-type]
        (folder,) = temporary.iterdir()
        seen.append({path.stem for path in folder.iterdir()})
        return result

    matrices = [tmp_path / f"{name}.npy" for name in ("memory", "files")]
    monkeypatch.setattr(scores_folder, "LARGE", 2**30)
    in_memory = tshsr(*start, "--json", "-", "--save-scores", matrices[0]).json()
    monkeypatch.setattr(scores_folder, "LARGE", 0)
    monkeypatch.setattr("tshsr.evaluation.run.evaluate_models", look)
    in_files = tshsr(*start, "--json", "-", "--save-scores", matrices[1]).json()
    assert seen == [NAMES]
    assert not list(temporary.iterdir())
    assert in_files["scores"] == in_memory["scores"]
    assert matrices[0].read_bytes() == matrices[1].read_bytes(), "saved in rows, wherever they come from"


def test_the_temporary_folder_disappears_after_an_error_too(
    start: tuple, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, _: np.ndarray) -> None:
        raise DataError(f"Cannot write {path}: No space left on device.")

    monkeypatch.setattr("tshsr.evaluation.score_files.save_scores", fail)
    assert "Cannot write" in refused(*start, "--save-scores", tmp_path / "scores.npy")
    assert not list(temporary.iterdir())


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be scored."""

    def too_early(*_: object, **__: object) -> None:
        raise AssertionError("pairs were scored first")

    monkeypatch.setattr("tshsr.evaluation.run.evaluate_models", too_early)


@pytest.mark.usefixtures("unscored")
def test_what_cannot_be_read_or_written_is_refused_before_anything_is_scored(start: tuple, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no,folder,and\nno,ratings,here\n")
    for option, name in (("--save-scores", "scores.npy"), ("--json", "report.json")):
        assert refused(*start, option, tmp_path / "file" / name) == (
            f"tshsr: Cannot write {tmp_path / 'file' / name}: Not a directory. Make room or name another folder, then "
            "run this again."
        )
    assert f"Cannot write {tmp_path}: Is a directory." in refused(*start, "--json", tmp_path)
    assert "line 1: the header names 'no', 'folder' and 'and'; expected the names image, caption, rating" in refused(
        *start, "--judgements", tmp_path / "file"
    )
    assert "none.csv cannot be read" in refused(*start, "--judgements", tmp_path / "none.csv")
    assert "none.txt cannot be read" in refused(*start, "--coco-ids", tmp_path / "none.txt")


def test_what_fails_after_the_scoring_leaves_the_scores(
    start: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise InputError("all judged scores are alike, so there is nothing to correlate.")

    monkeypatch.setattr("tshsr.evaluation.matrix.measure_details", fail)
    more = ("--save-scores", tmp_path / "fused.npy", "--scores-folder", tmp_path / "kept")
    assert "all judged scores are alike" in refused(*start, *more)
    assert np.load(tmp_path / "fused.npy").shape == (10, 50)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {f"{name}.npy" for name in NAMES}


def test_a_report_that_cannot_be_written_is_on_the_screen(
    start: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tshsr.cli.screen.write_text", full_disk)
    said = tshsr(*start, "--json", tmp_path / "report.json")
    assert said.code == 2
    assert "\nfused " in said.out


def test_all_scores_are_kept_in_a_folder_that_is_named(start: tuple, run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    values = tshsr(*start, "--scores-folder", kept, "--save-scores", tmp_path / "fused.npy", "--json", "-").json()
    assert {path.name for path in kept.iterdir()} == {f"{name}.npy" for name in NAMES}
    np.testing.assert_array_equal(np.load(kept / "fused.npy"), np.load(tmp_path / "fused.npy"))
    again = tshsr("metrics", kept / "level_0.npy", "--captions", start[3], "--json", "-").json()
    assert again["scores"]["fused"] == values["scores"]["level_0"]
    assert "is not empty; name a new or an empty folder" in refused(*start, "--scores-folder", kept)
    both = tmp_path / "both"
    twin = shutil.copytree(run, tmp_path / "twin")
    assert tshsr("evaluate", twin, *start[1:], "--scores-folder", both).code == 0
    assert {path.name for path in both.iterdir()} == {"0", "1", *(f"{name}.npy" for name in NAMES)}


@pytest.mark.parametrize(
    ("option", "more"),
    [
        ("--rerank", ("--rerank", "5")),
        ("--dtype", ("--dtype", "bfloat16")),
        ("--compile", ("--compile",)),
        ("--scores-folder", ("--scores-folder", "x")),
        ("--rerank-check", ("--rerank-check",)),
        ("--bytes", ("--bytes", "1M")),
        ("--device", ("--device", "cuda:9")),
        ("--data", ("--data", "scenes")),
    ],
)
def test_a_matrix_is_not_scored_again(option: str, more: tuple[str, ...]) -> None:
    said = refused("metrics", "scores.npy", "--captions", "captions.txt", *more)
    assert said.startswith(f"tshsr: there is no option {option}")
    assert said.endswith(" See tshsr metrics --help.")


def test_a_run_takes_its_captions_from_its_data(start: tuple) -> None:
    for option, value in (("--captions", "c.txt"), ("--key", "sims")):
        assert refused(*start, option, value).startswith(f"tshsr: there is no option {option}")


@pytest.mark.parametrize(
    "more",
    [
        ("run",),
        ("--captions", "c.txt"),
        ("--judgements", "j.csv"),
        ("--coco-ids", "i.txt", "--pmrp", "folder"),
        ("--save-scores", "t.npy"),
    ],
)
def test_nothing_is_evaluated_beside_a_log(more: tuple[str, ...]) -> None:
    said = refused("audit-log", "log.txt", *more)
    wrong = f"there is no option {more[0]}" if more[0].startswith("--") else f"{more[0]!r} is one argument too many"
    assert said.startswith(f"tshsr: {wrong}")


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("--scores s.npy --captions c.txt", "tshsr metrics SCORES.npy --captions FILE"),
        ("--scores=s.npy", "tshsr metrics SCORES.npy --captions FILE"),
        ("--audit-log log.txt", "tshsr audit-log LOG"),
        ("--audit_log log.txt", "tshsr audit-log LOG"),
        ("run --data d --explanations", "tshsr faithfulness RUN --data DIR"),
        ("run --data d --explanations 4 --json r.json", "tshsr faithfulness RUN --data DIR"),
    ],
)
def test_options_that_became_commands_are_refused_with_the_command(given: str, command: str) -> None:
    option = next(word for word in given.split() if word.startswith(("--scores", "--audit", "--expl")))
    name = option.partition("=")[0].replace("_", "-")
    assert refused("evaluate", *given.split()) == (
        f"tshsr: evaluate has no option {name} any more; it is a command: {command}."
    )


def test_defaults_written_in_the_commands_are_those_of_the_library() -> None:
    assert Metrics.key == Compare.key == KEY
    assert IndexCommand.split == EVERYTHING
    assert FaithfulnessCommand.pairs == PAIRS
    assert Bench.names == NETWORKS
    assert get_args(get_args(get_type_hints(Bench)["names"])[0]) == get_args(NetworkName)
