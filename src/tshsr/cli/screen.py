"""What the commands show: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tshsr.cli.progress import Bar, PlainLines, bars
from tshsr.files import write_text
from tshsr.system import Begin, begin_no_progress

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
        clock: Seconds that go by, for estimates.
    """

    out: Console = field(default_factory=lambda: _console(stderr=False))
    notes: Console = field(default_factory=lambda: _console(stderr=True))
    clock: Callable[[], float] = time.monotonic

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
    def progress(self, *, quiet: bool) -> Iterator[Begin]:
        """Show how far the parts of a job are: bars on a terminal, elsewhere plain lines, quietly nothing."""
        if quiet:
            yield begin_no_progress
        elif self.lively(quiet=quiet):
            with bars(self.notes) as drawn:
                yield lambda what, counted: Bar(drawn, f"{what} {counted}")
        else:
            yield PlainLines(self.note, self.clock).begin
