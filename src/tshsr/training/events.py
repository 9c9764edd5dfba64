"""What training tells while it runs; the command line draws progress from it, and nothing here prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tshsr.metrics.report import Report


@dataclass(frozen=True)
class StepDone:
    """One step of the optimiser.

    Attributes:
        epoch: Which pass over the captions, from 1.
        step: Steps done since the run began.
        steps: Steps of the whole run.
        losses: `loss`, its parts, `spread` of the fused scores and `gradient_norm` before clipping.
        learning_rate: The step's rate.
        seconds: The step's time.
    """

    epoch: int
    step: int
    steps: int
    losses: Mapping[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Scoring:
    """Part of an evaluation is done: `done` of `pairs` are scored, after so many epochs."""

    epoch: int
    done: int
    pairs: int


@dataclass(frozen=True)
class Evaluated:
    """The network after an epoch, on dev.

    Attributes:
        epoch: Epochs done.
        report: The figures.
        best: Whether these weights are the best so far.
    """

    epoch: int
    report: Report
    best: bool


@dataclass(frozen=True)
class Saved:
    """The folder `best` or `last` of the run holds the weights after `step` steps."""

    which: Literal["best", "last"]
    step: int
    folder: Path


@dataclass(frozen=True)
class Warned:
    """Something is wrong that training can go on with: one sentence, with what to do."""

    message: str


Event = StepDone | Scoring | Evaluated | Saved | Warned
Listener = Callable[[Event], None]
