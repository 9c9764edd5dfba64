"""Training on the screen: bars on a terminal, else a line for each epoch and each evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import Progress, TaskID

from tshsr.commands.screen import Screen, advance, bars, duration
from tshsr.training import Evaluated, Event, Saved, Scoring, StepDone, Warned


class Watcher(Protocol):
    """Shows what training tells."""

    def __call__(self, event: Event) -> None:
        """Take in one event."""


@contextmanager
def watching(screen: Screen, epochs: int, *, quiet: bool) -> Iterator[Watcher]:
    """Show a training of so many epochs until the block ends."""
    if not screen.lively(quiet=quiet):
        yield Lines(screen, epochs)
        return
    with bars(screen.notes) as progress:
        yield Bars(screen, progress)


def evaluated(event: Evaluated) -> str:
    """The line of an evaluation."""
    fused = event.report.scores["fused"]
    return (
        f"after epoch {event.epoch}: {event.report.split} rSum {fused.rsum:.1f} "
        f"(R@1 {fused.image_to_text.r1:.1f} image to text, {fused.text_to_image.r1:.1f} text to image)"
        f"{', the best so far' if event.best else ''}"
    )


class Bars:
    """A bar over all steps, and one over the pairs of an evaluation."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        self.screen, self.progress = screen, progress
        self.training: TaskID | None = None
        self.scoring: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case StepDone():
                if self.training is None:  # a resumed run begins in its middle
                    self.training = self.progress.add_task("", completed=event.step - 1, total=event.steps)
                what = f"epoch {event.epoch}, loss {event.losses['loss']:.3f}"
                self.progress.update(self.training, completed=event.step, description=what)
            case Scoring():
                if self.scoring is None:
                    self.scoring = self.progress.add_task("evaluating")
                advance(self.progress, self.scoring, event.done, event.pairs)
                if event.done >= event.pairs:
                    self.progress.remove_task(self.scoring)
                    self.scoring = None
            case Evaluated():
                self.screen.note(evaluated(event))
            case Warned():
                self.screen.note(f"warning: {event.message}")
            case Saved():
                pass


class Lines:
    """Plain lines: for files, pipes and --quiet."""

    def __init__(self, screen: Screen, epochs: int) -> None:
        self.screen, self.epochs = screen, epochs
        self.start = time.monotonic()
        self.first: int | None = None
        self.loss, self.steps = 0.0, 0

    def __call__(self, event: Event) -> None:
        """Write a line where one is due."""
        match event:
            case StepDone():
                self.step(event)
            case Evaluated():
                self.screen.note(evaluated(event))
            case Warned():
                self.screen.note(f"warning: {event.message}")
            case Saved() | Scoring():
                pass

    def step(self, event: StepDone) -> None:
        """Count a step, and write the line of the epoch that it ends."""
        if self.first is None:  # a resumed run begins in its middle
            self.first, self.start = event.step - 1, time.monotonic() - event.seconds
        self.loss, self.steps = self.loss + event.losses["loss"], self.steps + 1
        if event.step * self.epochs % event.steps:
            return
        pace = (time.monotonic() - self.start) / (event.step - self.first)
        left = (event.steps - event.step) * pace
        self.screen.note(
            f"epoch {event.epoch} of {self.epochs}: loss {self.loss / self.steps:.3f}, {pace:.2f} s a step, "
            f"about {duration(left)} left"
        )
        self.loss, self.steps = 0.0, 0
