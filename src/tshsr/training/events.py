"""Events of training, for listeners such as the progress display of the command line."""

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
        epoch: 1-based.
        steps: Number of steps of the whole run.
        losses: `loss`, its parts, `spread` of the fused scores and `gradient_norm` before clipping.
    """

    epoch: int
    step: int
    steps: int
    losses: Mapping[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Scoring:
    """Progress of the evaluation after `epoch`: `done` of `pairs` are scored."""

    epoch: int
    done: int
    pairs: int


@dataclass(frozen=True)
class Evaluated:
    """Evaluation on dev after an epoch.

    Attributes:
        epoch: 1-based.
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
class VectorsLoaded:
    """The embedding starts from word vectors.

    Attributes:
        file: As named in the settings.
        found: Words of the vocabulary with a vector.
        words: Words of the vocabulary.
        tokens: Share of the training captions' words with a vector, 0..1.
    """

    file: str
    found: int
    words: int
    tokens: float


@dataclass(frozen=True)
class Warned:
    """Non-fatal problem: one sentence with the remedy."""

    message: str


Event = StepDone | Scoring | Evaluated | Saved | VectorsLoaded | Warned
Listener = Callable[[Event], None]
