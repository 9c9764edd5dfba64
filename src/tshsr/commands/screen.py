"""What the commands show: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tshsr.files import write_text

Tell = Callable[[int, int], None]
"""Told how much is done, and of how much."""
NARROW = 100
"""Columns that a file or a pipe is written for."""


def _console(*, stderr: bool) -> Console:
    # Under torchrun the first process alone speaks.
    quiet = os.environ.get("RANK", "0") != "0"
    console = Console(stderr=stderr, highlight=False, quiet=quiet)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, quiet=quiet, width=NARROW)


@dataclass(frozen=True)
class Screen:
    """Where a command writes.

    Attributes:
        out: Results.
        notes: Everything else.
    """

    out: Console = field(default_factory=lambda: _console(stderr=False))
    notes: Console = field(default_factory=lambda: _console(stderr=True))

    def say(self, text: str = "") -> None:
        """A line of the result, never broken, so that it can be copied."""
        self.out.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line beside the result."""
        self.notes.print(Text(text), soft_wrap=True)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """A table: the first column is text, the others are figures."""
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for number, name in enumerate(header):
            table.add_column(Text(name), justify="right" if number else "left", vertical="bottom")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.out.print(table)

    def lively(self, *, quiet: bool) -> bool:
        """Whether bars can be drawn."""
        return self.notes.is_terminal and not quiet

    def json(self, text: str, place: str) -> None:
        """JSON into a file, or for "-" on stdout.

        Raises:
            DataError: Where the file cannot be written.
        """
        if place == "-":
            self.out.file.write(text.rstrip("\n") + "\n")
        else:
            write_text(Path(place), text.rstrip("\n") + "\n")

    @contextmanager
    def progress(self, what: str, *, quiet: bool = False) -> Iterator[Tell]:
        """A bar with the time that is left; nothing where it can't be drawn."""
        if not self.lively(quiet=quiet):
            yield untold
            return
        with bars(self.notes) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: advance(progress, task, done, total)


def untold(done: int, total: int) -> None:
    """Show nothing."""
    del done, total


def bars(console: Console) -> Progress:
    """Bars with a share and an estimate."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def advance(progress: Progress, task: TaskID, done: int, total: int) -> None:
    """Move a bar."""
    progress.update(task, completed=done, total=total)


def duration(seconds: float) -> str:
    """A time as people say it: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
