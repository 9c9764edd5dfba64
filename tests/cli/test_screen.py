"""Progress and messages on the screen, and values of options."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.support.scripted import write_split
from tshsr.cli.main import show_warning
from tshsr.cli.options import parse, read_bytes
from tshsr.cli.score import image_number
from tshsr.cli.screen import Bar, Screen, bars, duration
from tshsr.cli.search import Search
from tshsr.cli.watching import Bars, Lines, watching
from tshsr.data.dataset import Split
from tshsr.errors import DataError, SettingsError
from tshsr.evaluation.run import evaluate_scores
from tshsr.system import begin_no_progress, current_begin
from tshsr.training.events import Evaluated, Event, Saved, Scoring, StepDone, VectorsLoaded, Warned


def events() -> list[Event]:
    """A training of two epochs with two steps each."""
    report = evaluate_scores(
        {"fused": np.eye(2)}, np.arange(2), protocol="flickr", data="d", split="dev", models=["m"], seconds=1.0
    )
    found: list[Event] = [VectorsLoaded("glove.txt", 6980, 7012, 0.9958)]
    for step in (1, 2, 3, 4):
        epoch = (step + 1) // 2
        found.append(StepDone(epoch, step, 4, {"loss": float(step)}, 0.1, 0.01))
        if step % 2 == 0:
            found += [Scoring(epoch, 2, 4), Scoring(epoch, 4, 4), Evaluated(epoch, report, best=step == 2)]
            found.append(Saved("last", step, Path("run")))
    return [*found, Warned("the scores have hardly any spread.")]


def show(terminal: bool, quiet: bool = False) -> str:
    """Output of a training."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, highlight=False)
    screen = Screen(out=console, notes=console)
    with watching(screen, 2, quiet=quiet) as watch:
        assert isinstance(watch, Bars if terminal and not quiet else Lines)
        for event in events():
            watch(event)
    return file.getvalue()


LONG_NAME = f"photographs/{'summer-' * 30}1.jpg"


def test_a_table_has_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table(("picture", "file"), [(LONG_NAME, LONG_NAME)])
    assert capsys.readouterr().out.splitlines()[-1].split() == [LONG_NAME, LONG_NAME]
    narrow = Screen(out=Console(file=io.StringIO(), force_terminal=True, width=40, highlight=False))
    narrow.table(("picture", "score"), [(LONG_NAME, "0.1234")])
    assert LONG_NAME in "".join(narrow.out.file.getvalue().replace("0.1234", "").split())  # type: ignore[attr-defined]


def test_a_job_below_reports_to_the_command_that_runs_it() -> None:
    file = io.StringIO()
    lines, terminal = (Console(file=file, force_terminal=one, width=120, highlight=False) for one in (False, True))
    for screen in (Screen(out=lines, notes=lines), Screen(out=terminal, notes=terminal)):
        for quiet in (False, True):
            for block in (screen.progress(quiet=quiet), watching(screen, 2, quiet=quiet)):
                file.truncate(file.seek(0))
                with block:
                    current_begin()("reading captions", "captions")(5, 5)
                assert ("reading captions" in file.getvalue()) is not quiet
    assert current_begin() is begin_no_progress


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_warning(UserWarning("caption 3 is cut."), UserWarning, "file.py", 7)
    assert capsys.readouterr().err == "tshsr: warning: caption 3 is cut.\n"


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_without_a_terminal_or_quietly_each_epoch_is_a_line(terminal: bool, quiet: bool) -> None:
    lines = show(terminal, quiet).splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "word vectors: 6",
        "epoch 1 of 2: loss 1.500",
        "after epoch 1: dev rSum 600.0 (R@1 100.0 image to text",
        "epoch 2 of 2: loss 3.500",
        "after epoch 2: dev rSum 600.0 (R@1 100.0 image to text",
        "warning: the scores have hardly any spread.",
    ]
    assert lines[0] == "word vectors: 6,980 of 7,012 words, 99.6 % of the tokens"
    assert lines[2].endswith("the best so far")
    assert not lines[4].endswith("the best so far")
    assert "about" in lines[1]


def test_a_terminal_gets_bars_and_the_lines_of_evaluations() -> None:
    text = show(terminal=True)
    assert "epoch 2, loss 4.000" in text
    assert "after epoch 1: dev rSum 600.0" in text
    assert "word vectors: 6,980 of 7,012 words" in text
    assert "warning: the scores" in text


@dataclass
class Clock:
    """A clock set by a test."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Log:
    """Output of a screen that is no terminal."""

    clock: Clock = field(default_factory=Clock)
    file: io.StringIO = field(default_factory=io.StringIO)

    def screen(self) -> Screen:
        console = Console(file=self.file, force_terminal=False, width=80, highlight=False)
        return Screen(out=console, notes=console, clock=self.clock)

    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


def test_without_a_terminal_a_long_job_has_lines_with_percentage_time_left_and_end() -> None:
    log = Log()
    with log.screen().progress(quiet=False) as begin:
        progress = begin("scoring", "pairs")
        for done in range(1, 11):
            log.clock.now += 9
            progress(500_000 * done, 5_000_000)
    assert log.lines() == [
        "scoring: 20 % of 5,000,000 pairs, about 1 min 12 s left",
        "scoring: 40 % of 5,000,000 pairs, about 54 s left",
        "scoring: 60 % of 5,000,000 pairs, about 36 s left",
        "scoring: 80 % of 5,000,000 pairs, about 18 s left",
        "scoring: 5,000,000 pairs in 1 min 30 s",
    ]


def test_a_job_of_hours_gets_a_line_a_minute() -> None:
    log = Log()
    with log.screen().progress(quiet=False) as begin:
        progress = begin("reading", "images")
        for second in range(1, 7200):
            log.clock.now += 1
            progress(second, 7200)
    lines = log.lines()
    assert lines[0] == "reading: 0 % of 7,200 images, about 1 h 59 min left"
    assert len(lines) < 7200 / 60 + 30, "a line every ten seconds would be 720"
    assert lines[-1].startswith("reading: 99 % of 7,200 images, about ")


def test_a_short_job_is_one_line_and_a_job_that_fails_has_no_end() -> None:
    log = Log()
    with log.screen().progress(quiet=False) as begin:
        begin("scoring", "pairs")(6, 6)
    assert log.lines() == ["scoring: 6 pairs in 0.0 s"]
    with log.screen().progress(quiet=False) as begin:
        begin("scoring", "pairs")(3, 6)
    assert len(log.lines()) == 1


def test_the_parts_of_a_job_and_the_models_of_an_ensemble_are_timed_from_where_they_begin() -> None:
    log = Log()
    with log.screen().progress(quiet=False) as begin:
        hashing, reading = begin("hashing", "bytes"), begin("reading", "images")
        log.clock.now += 100
        hashing(8, 8)
        for done in (0, 1, 4, 1, 4):
            log.clock.now += 20 * (done > 0)
            reading(done, 4)
    assert log.lines() == [
        "hashing: 8 bytes in 1 min 40 s",
        "reading: 25 % of 4 images, about 1 min 0 s left",
        "reading: 4 images in 40 s",
        "reading: 25 % of 4 images, about 1 min 0 s left",
        "reading: 4 images in 40 s",
    ]


def test_a_terminal_gets_a_bar_instead_of_lines() -> None:
    file = io.StringIO()
    screen = Screen(notes=Console(file=file, force_terminal=True, width=80))
    with screen.progress(quiet=False) as begin:
        begin("scoring", "pairs")(1, 2)
    assert "scoring pairs" in file.getvalue()
    assert "50%" in file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_quietly_there_is_neither_a_bar_nor_a_line(terminal: bool) -> None:
    log = Log()
    screen = Screen(notes=Console(file=log.file, force_terminal=terminal, width=80), clock=log.clock)
    with screen.progress(quiet=True) as begin:
        progress = begin("scoring", "pairs")
        log.clock.now += 1000
        progress(1, 2)
        progress(2, 2)
    assert log.lines() == []


def test_the_bar_of_the_next_model_has_an_estimate_again() -> None:
    with bars(Console(file=io.StringIO(), force_terminal=True)) as drawn:
        bar = Bar(drawn, "scoring pairs")
        for done in (2, 4):
            bar(done, 4)
        assert drawn.tasks[0].finished
        bar(2, 4)
        assert not drawn.tasks[0].finished
        assert drawn.tasks[0].completed == 2


def step(number: int, loss: float = 1.0) -> StepDone:
    """A step of a training of two epochs with 1,000 steps each."""
    return StepDone(1 + (number - 1) // 1000, number, 2000, {"loss": loss}, 0.1, 10.0)


def test_without_a_terminal_an_epoch_of_hours_gets_a_line_every_minute() -> None:
    log = Log()
    watch = Lines(log.screen(), 2, quiet=False)
    for number in range(1, 16):
        log.clock.now += 10
        watch(step(number, loss=float(number)))
    assert log.lines() == [
        "epoch 1 of 2, step 6 of 2,000: loss 3.500, 10.00 s a step, about 5 h 32 min left",
        "epoch 1 of 2, step 12 of 2,000: loss 6.500, 10.00 s a step, about 5 h 31 min left",
    ]


def test_without_a_terminal_a_long_evaluation_in_training_has_progress_lines() -> None:
    log = Log()
    watch = Lines(log.screen(), 2, quiet=False)
    for epoch in (1, 2):
        log.clock.now += 3600
        watch(step(1000 * epoch))
        for done in (1, 2, 3, 4):
            log.clock.now += 15
            watch(Scoring(epoch, done, 4))
    lines = [line for line in log.lines() if not line.startswith("epoch")]
    assert lines == 2 * [
        "evaluating: 25 % of 4 pairs, about 45 s left",
        "evaluating: 50 % of 4 pairs, about 30 s left",
        "evaluating: 75 % of 4 pairs, about 15 s left",
    ]


def test_a_quiet_training_has_lines_of_epochs_and_evaluations_only() -> None:
    log = Log()
    with watching(log.screen(), 2, quiet=True) as watch:
        for number in (998, 999, 1000):
            log.clock.now += 600
            watch(step(number))
        for done in (1, 2):
            log.clock.now += 600
            watch(Scoring(1, done, 2))
    assert [line.partition(":")[0] for line in log.lines()] == ["epoch 1 of 2"]


def test_only_the_first_of_several_processes_writes(
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
def test_durations_in_text(seconds: float, said: str) -> None:
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


def test_words_after_two_dashes_stay_as_they_are() -> None:
    wanted = parse(Search, "tshsr search", ["--min_probability", "0.5", "my_index", "--", "-a_b"])
    assert (wanted.min_probability, wanted.index, wanted.query) == (0.5, "my_index", "-a_b")
