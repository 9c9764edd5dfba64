"""How far a long job is: bars where they can be drawn, plain lines elsewhere, both with the time that is left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tshsr.system import Progress as ProgressCallback

SHORT, LONG = 10.0, 60.0
"""Seconds between two lines: the former at first, the latter after ten minutes."""
MEMORY = 600.0
"""Seconds that a bar's estimate looks back; a block of a large evaluation takes longer than the usual 30."""


class Bar:
    """One part of a job as a bar, from when it is first told."""

    def __init__(self, drawn: Progress, what: str) -> None:
        self.drawn, self.what = drawn, what
        self.task: TaskID | None = None
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.task is None:
            self.task = self.drawn.add_task(self.what, total=total)
        elif done <= self.done:  # the next model of an ensemble: the speed is measured anew
            self.drawn.reset(self.task)
        self.done = done
        self.drawn.update(self.task, completed=done, total=total)

    def remove(self) -> None:
        """Take the bar away; the next time it is told, it begins anew."""
        if self.task is not None:
            self.drawn.remove_task(self.task)
        self.task, self.done = None, 0


class PlainLines:
    """A job as lines, for files and pipes: now and then one, and one at the end of each of its parts."""

    def __init__(self, note: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.note, self.clock = note, clock
        self.what, self.done = "", 0
        self.begun = self.noted = self.told = clock()

    def begin(self, what: str, counted: str) -> ProgressCallback:
        """One part of the job."""
        return partial(self.tell, what, counted)

    def tell(self, what: str, counted: str, done: int, total: int) -> None:
        """Write a line where one is due."""
        if what != self.what or done <= self.done:  # a part, or the next model, begins where the one before it ended
            self.begun = self.noted = self.told
        self.what, self.done = what, done
        now = self.told = self.clock()
        whole = f"{total:,} {counted}"
        if done >= total:
            self.note(f"{what}: {whole} in {duration(now - self.begun)}")
        elif done and now - self.noted >= pause(now - self.begun):
            self.noted = now
            left = (now - self.begun) / done * (total - done)
            self.note(f"{what}: {100 * done // total} % of {whole}, about {duration(left)} left")

    def rest(self) -> None:
        """What is told next begins now."""
        self.what, self.told = "", self.clock()


def pause(elapsed: float) -> float:
    """Seconds until the next line: a job of hours needs none every ten seconds."""
    return min(max(elapsed / 10, SHORT), LONG)


def bars(console: Console) -> Progress:
    """Bars with a share and an estimate."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, speed_estimate_period=MEMORY)


def duration(seconds: float) -> str:
    """A time as people say it: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
