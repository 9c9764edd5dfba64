"""Progress and words on the screen."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.scripted import write_split
from tshsr.commands.choices import image_number, read_bytes
from tshsr.commands.parsing import sentence
from tshsr.commands.screen import Screen, duration
from tshsr.commands.watching import Bars, Lines, watching
from tshsr.data.dataset import Split
from tshsr.errors import DataError, SettingsError
from tshsr.evaluation import evaluate_scores
from tshsr.training import Evaluated, Event, Saved, Scoring, StepDone, Warned


def events() -> list[Event]:
    """A training of two epochs with two steps each."""
    report = evaluate_scores(
        {"fused": np.eye(2)}, np.arange(2), protocol="flickr", data="d", split="dev", models=["m"], seconds=1.0
    )
    told: list[Event] = []
    for step in (1, 2, 3, 4):
        epoch = (step + 1) // 2
        told.append(StepDone(epoch, step, 4, {"loss": float(step)}, 0.1, 0.01))
        if step % 2 == 0:
            told += [Scoring(epoch, 2, 4), Scoring(epoch, 4, 4), Evaluated(epoch, report, best=step == 2)]
            told.append(Saved("last", step, Path("run")))
    return [*told, Warned("the scores have hardly any spread.")]


def show(terminal: bool, quiet: bool = False) -> str:
    """What a training writes."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, highlight=False)
    screen = Screen(out=console, notes=console)
    with watching(screen, 2, quiet=quiet) as watch:
        assert isinstance(watch, Bars if terminal and not quiet else Lines)
        for event in events():
            watch(event)
    return file.getvalue()


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_without_a_terminal_or_quietly_each_epoch_is_a_line(terminal: bool, quiet: bool) -> None:
    lines = show(terminal, quiet).splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "epoch 1 of 2: loss 1.500",
        "after epoch 1: dev rSum 600.0 (R@1 100.0 image to text",
        "epoch 2 of 2: loss 3.500",
        "after epoch 2: dev rSum 600.0 (R@1 100.0 image to text",
        "warning: the scores have hardly any spread.",
    ]
    assert lines[1].endswith("the best so far")
    assert not lines[3].endswith("the best so far")
    assert "about" in lines[0]


def test_a_terminal_gets_bars_and_the_lines_of_evaluations() -> None:
    text = show(terminal=True)
    assert "epoch 2, loss 4.000" in text
    assert "after epoch 1: dev rSum 600.0" in text
    assert "warning: the scores" in text


def test_progress_is_told_to_a_terminal_alone() -> None:
    for terminal in (False, True):
        file = io.StringIO()
        screen = Screen(notes=Console(file=file, force_terminal=terminal, width=80))
        with screen.progress("scoring") as tell:
            tell(1, 2)
        assert ("scoring" in file.getvalue()) == terminal


def test_only_the_first_of_several_processes_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        Screen().say(f"process {rank}")
    assert capsys.readouterr().out == "process 0\n"


def test_a_long_line_is_never_broken(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().say("word " * 100)
    Screen().note("[bold]no markup[/bold] :smile:")
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert said.err == "[bold]no markup[/bold] :smile:\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (9.9, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")]
)
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("text", "size"), [("12", 12), ("500M", 500 * 2**20), ("1.5GiB", 1536 * 2**20), ("2 kb", 2048)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1M", "1X", "G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a size like 500M or 2G"):
        read_bytes(text)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Images named 0.png, 1.png, 2.png."""
    return write_split(tmp_path, ["a", "b", "c"], [0, 1, 2])


def test_an_image_is_found_by_id_before_its_row(split: Split) -> None:
    assert image_number(split, "2.png") == 2
    assert image_number(split, "1") == 1


def test_an_image_that_is_not_there_is_refused(split: Split) -> None:
    for image in ("3", "-1", "3.png", "²"):
        with pytest.raises(DataError, match=r"expected an id such as '\d.png', or a row number up to 2"):
            image_number(split, image)


@pytest.mark.parametrize(
    "box",
    [
        " Invalid choice \n --------- \n  invalid choice 'bot' for\n  --model. \n ----- \n For more \n",
        "╭─ Invalid choice ───╮\n│ Invalid choice 'bot' for │\n│ --model. │\n│ ──────── │\n│ For more │\n╰──────╯\n",
        "\x1b[31m╭─\x1b[0m Invalid choice \x1b[31m─╮\n│\x1b[0m invalid choice 'bot' for --model. \x1b[31m│\n╰───╯\n",
    ],
)
def test_the_message_is_taken_out_of_a_box(box: str) -> None:
    assert sentence(box) == "invalid choice 'bot' for --model."


def test_an_empty_box_still_makes_a_sentence() -> None:
    assert sentence("") == "these arguments cannot be read."
