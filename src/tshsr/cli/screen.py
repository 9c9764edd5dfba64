"""Output of the commands: results on stdout; progress, notes and errors on stderr.

Progress is a bar on a terminal and plain lines elsewhere, both with the time left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tshsr.files import write_text
from tshsr.system import Begin, begin_no_progress, progress_to
from tshsr.system import Progress as ProgressCallback

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

UNWRAPPED = 10_000
"""Width of the output in columns where it goes to a file or a pipe: no name in a table is cut or folded."""
SHORT, LONG = 10.0, 60.0
"""Seconds between two progress lines: at first, and after ten minutes."""
MEMORY = 600.0
"""Seconds over which a bar estimates its speed: a block of a large evaluation takes longer than rich's default, 30."""


class PipeConsole(Console):
    """A console that raises where its reader has exited; rich's own ends the process with the exit code 1."""

    def on_broken_pipe(self) -> None:
        """Raise what the write has raised.

        Raises:
            BrokenPipeError: Always.
        """
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    # Under torchrun only the process of rank 0 writes.
    quiet = os.environ.get("RANK", "0") != "0"
    console = PipeConsole(stderr=stderr, highlight=False, quiet=quiet)
    if console.is_terminal:
        return console
    return PipeConsole(stderr=stderr, highlight=False, quiet=quiet, width=UNWRAPPED)


@dataclass(frozen=True)
class Screen:
    """The output of a command.

    Attributes:
        out: Results.
        notes: Everything else.
        clock: Time in seconds, for estimates.
    """

    out: Console = field(default_factory=lambda: _console(stderr=False))
    notes: Console = field(default_factory=lambda: _console(stderr=True))
    clock: Callable[[], float] = time.monotonic

    def say(self, text: str = "") -> None:
        """A line of the result, never wrapped, so that it can be copied."""
        self.out.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line on stderr."""
        self.notes.print(Text(text), soft_wrap=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """A table: the first column is text, the others are numbers."""
        from rich.table import Table

        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(header):
            # Folded where a terminal is narrow: a name that is cut could not be copied.
            table.add_column(Text(name), justify="right" if number else "left", vertical="bottom", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.out.print(table)

    def draws_bars(self, *, quiet: bool) -> bool:
        """Whether progress bars can be drawn."""
        return self.notes.is_terminal and not quiet

    def json(self, text: str, place: str) -> None:
        """Write JSON to a file, or for "-" to stdout.

        Raises:
            DataError: Where the file cannot be written.
        """
        if place == "-":
            self.out.file.write(text.rstrip("\n") + "\n")
        else:
            write_text(Path(place), text.rstrip("\n") + "\n")

    @contextmanager
    def progress(self, *, quiet: bool) -> Iterator[Begin]:
        """Show the progress of a job's stages: bars on a terminal, plain lines elsewhere, nothing where quiet."""
        if self.draws_bars(quiet=quiet):
            with bars(self.notes) as drawn, progress_to(begin := stages(drawn)):
                yield begin
        else:
            with progress_to(begin := begin_no_progress if quiet else PlainLines(self.note, self.clock).begin):
                yield begin


class Bar:
    """The progress bar of one stage, drawn at its first report."""

    def __init__(self, drawn: Progress, activity: str) -> None:
        self.drawn, self.activity = drawn, activity
        self.task: TaskID | None = None
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.task is None:
            self.task = self.drawn.add_task(self.activity, total=total)
        elif done <= self.done:  # the next model of an ensemble: reset the speed estimate
            self.drawn.reset(self.task)
        self.done = done
        self.drawn.update(self.task, completed=done, total=total)

    def remove(self) -> None:
        """Remove the bar; the next report draws a new one."""
        if self.task is not None:
            self.drawn.remove_task(self.task)
        self.task, self.done = None, 0


class PlainLines:
    """Progress as lines, for files and pipes: one at intervals, and one at the end of each stage."""

    def __init__(self, note: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.note, self.clock = note, clock
        self.activity, self.done = "", 0
        self.begun = self.noted = self.reported = clock()

    def begin(self, activity: str, unit: str) -> ProgressCallback:
        """The progress callback of one stage."""
        return partial(self.report, activity, unit)

    def report(self, activity: str, unit: str, done: int, total: int) -> None:
        """Write a line where one is due."""
        # A stage, or the next model, begins where the previous one ended.
        if activity != self.activity or done <= self.done:
            self.begun = self.noted = self.reported
        self.activity, self.done = activity, done
        now = self.reported = self.clock()
        amount = f"{total:,} {unit}"
        if done >= total:
            self.note(f"{activity}: {amount} in {duration(now - self.begun)}")
        elif done and now - self.noted >= pause(now - self.begun):
            self.noted = now
            left = (now - self.begun) / done * (total - done)
            self.note(f"{activity}: {100 * done // total} % of {amount}, about {duration(left)} left")

    def restart(self) -> None:
        """Time the next stage from now."""
        self.activity, self.reported = "", self.clock()


def stages(drawn: Progress) -> Begin:
    """A callback that begins stages, each with a bar of its own."""
    return lambda what, counted: Bar(drawn, f"{what} {counted}")


def pause(elapsed: float) -> float:
    """Seconds until the next line, a tenth of the elapsed time within `SHORT` and `LONG`."""
    return min(max(elapsed / 10, SHORT), LONG)


def bars(console: Console) -> Progress:
    """Bars with a percentage and the time left."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, speed_estimate_period=MEMORY)


def duration(seconds: float) -> str:
    """A time in text: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
