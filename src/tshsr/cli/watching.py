"""Progress of training: bars on a terminal, else a line for each epoch and evaluation, and one a minute between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import Progress, TaskID

from tshsr.cli.screen import LONG, Bar, PlainLines, Screen, bars, duration, stages
from tshsr.system import begin_no_progress, progress_to
from tshsr.training.events import Evaluated, Event, Saved, Scoring, StepDone, VectorsLoaded, Warned


class Watcher(Protocol):
    """A listener that shows the events of training."""

    def __call__(self, event: Event) -> None:
        """Show one event."""


@contextmanager
def watching(screen: Screen, epochs: int, *, quiet: bool) -> Iterator[Watcher]:
    """Show a training of `epochs` epochs until the block ends."""
    if not screen.draws_bars(quiet=quiet):
        lines = Lines(screen, epochs, quiet=quiet)
        with progress_to(begin_no_progress if quiet else PlainLines(screen.note, screen.clock).begin):
            yield lines
        return
    with bars(screen.notes) as progress, progress_to(stages(progress)):
        yield Bars(screen, progress)


def evaluated(event: Evaluated) -> str:
    """The line of an evaluation."""
    fused = event.report.scores["fused"]
    return (
        f"after epoch {event.epoch}: {event.report.split} rSum {fused.rsum:.1f} "
        f"(R@1 {fused.image_to_text.r1:.1f} image to text, {fused.text_to_image.r1:.1f} text to image)"
        f"{', the best so far' if event.best else ''}"
    )


def vectors_loaded(event: VectorsLoaded) -> str:
    """The line of the word vectors."""
    return f"word vectors: {event.found:,} of {event.words:,} words, {100 * event.tokens:.1f} % of the tokens"


class Bars:
    """A bar over all steps, and one over the pairs of an evaluation."""

    def __init__(self, screen: Screen, progress: Progress) -> None:
        self.screen, self.progress = screen, progress
        self.training: TaskID | None = None
        self.scoring = Bar(progress, "evaluating")

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case StepDone():
                if self.training is None:  # a resumed run begins in its middle
                    self.training = self.progress.add_task("", completed=event.step - 1, total=event.steps)
                what = f"epoch {event.epoch}, loss {event.losses['loss']:.3f}"
                self.progress.update(self.training, completed=event.step, description=what)
            case Scoring():
                self.scoring(event.done, event.pairs)
                if event.done >= event.pairs:
                    self.scoring.remove()
            case Evaluated():
                self.screen.note(evaluated(event))
            case VectorsLoaded():
                self.screen.note(vectors_loaded(event))
            case Warned():
                self.screen.note(f"warning: {event.message}")
            case Saved():
                pass


class Lines:
    """Plain lines, for files and pipes; with --quiet only those of epochs and evaluations."""

    def __init__(self, screen: Screen, epochs: int, *, quiet: bool) -> None:
        self.screen, self.epochs, self.quiet = screen, epochs, quiet
        self.scoring = PlainLines(screen.note, screen.clock)
        self.start = self.noted = screen.clock()
        self.first: int | None = None
        self.loss, self.steps = 0.0, 0

    def __call__(self, event: Event) -> None:
        """Write a line where one is due."""
        match event:
            case StepDone():
                self.step(event)
            case Scoring():
                if event.done < event.pairs and not self.quiet:  # the line of the evaluation follows the last pair
                    self.scoring.report("evaluating", "pairs", event.done, event.pairs)
            case Evaluated():
                self.note(evaluated(event))
            case VectorsLoaded():
                self.note(vectors_loaded(event))
            case Warned():
                self.note(f"warning: {event.message}")
            case Saved():
                pass

    def note(self, line: str) -> None:
        """Write a line."""
        self.screen.note(line)
        self.noted = self.screen.clock()

    def step(self, event: StepDone) -> None:
        """Count a step, and write a line where it ends an epoch or the last line is a minute old."""
        now = self.screen.clock()
        self.scoring.restart()
        if self.first is None:  # a resumed run begins in its middle
            self.first, self.start = event.step - 1, now - event.seconds
        self.loss, self.steps = self.loss + event.losses["loss"], self.steps + 1
        ends = event.step * self.epochs % event.steps == 0
        if not ends and (self.quiet or now - self.noted < LONG):
            return
        pace = (now - self.start) / (event.step - self.first)
        left = duration((event.steps - event.step) * pace)
        step = "" if ends else f", step {event.step:,} of {event.steps:,}"
        self.note(
            f"epoch {event.epoch} of {self.epochs}{step}: loss {self.loss / self.steps:.3f}, {pace:.2f} s a step, "
            f"about {left} left"
        )
        if ends:
            self.loss, self.steps = 0.0, 0
