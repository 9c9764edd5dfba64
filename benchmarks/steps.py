"""The first training steps of every method of the race: does the loss fall, and what does a step cost?

    python -m benchmarks.steps --data STORE --recipes flickr8k-photos
    python -m benchmarks.steps --data STORE --recipes flickr8k-photos --entries tshsr rcar-word chan --steps 40

Each row trains as in `benchmarks.race`, with its recipe, for a number of steps, and nothing of it is kept. A step's
time is processor time of the whole process, which other load of the machine changes little; with several threads it is
the sum over them. HREM's relations are on from the first step. Dev is not read: quality is that of the race.
"""

from __future__ import annotations

import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.rows import ENTRIES, MODELS, OURS
from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import SettingsError, TshsrError
from tshsr.files import write_text
from tshsr.system import keep_freed_memory, provenance
from tshsr.training.events import Event, StepDone
from tshsr.training.fit import fit

LOG = logging.getLogger("benchmarks.steps")
ENDS = 5
"""Steps at the start and at the end whose mean losses are compared."""


@dataclass(frozen=True)
class Steps:
    """Rows, data and number of steps."""

    data: str = "scenes"
    """The word scenes, or a folder with the splits train and dev."""
    recipes: str = "scenes"
    """The data in the names of the recipes."""
    entries: tuple[str, ...] = ()
    """Rows of the race; default: all methods but ensembles. TSHSR is always the first."""
    steps: int = 30
    """Steps of each row."""
    seed: int = 0
    """Seed of each run."""


class EnoughError(Exception):
    """Ends a run after its last wanted step."""


@dataclass
class Listener:
    """Collects losses and times of steps; ends the run.

    Attributes:
        wanted: Number of steps.
        losses: Loss of each step, and the part of it on the method's own score.
        seconds: Processor time from the end of one step to the end of the next.
    """

    wanted: int
    losses: list[tuple[float, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    last: float = 0.0

    def __call__(self, event: Event) -> None:
        """Note a step."""
        if not isinstance(event, StepDone):
            return
        now = time.process_time()
        if self.losses:
            self.seconds.append(now - self.last)
        self.losses.append((event.losses["loss"], event.losses["fused"]))
        self.last = now
        if len(self.losses) >= self.wanted:
            raise EnoughError


def main() -> None:
    """Run the steps of every row, then write the results file and the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    try:
        measure(tyro.cli(Steps, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def measure(wanted: Steps) -> None:
    """Measure all rows.

    Raises:
        SettingsError: For an unknown row, or a single step.
    """
    if wanted.steps < 2:
        raise SettingsError(f"--steps is {wanted.steps}; expected 2 or more: a step is timed from the end of another.")
    names = rows_of(wanted.entries)
    train, dev = (open_split(wanted.data, split) for split in ("train", "dev"))
    rows = [steps_of(name, wanted, train, dev) for name in names]
    place = "scenes" if wanted.data == "scenes" else "DIR"
    command = "python -m benchmarks.steps"
    entries = f" --entries {' '.join(wanted.entries)}" if wanted.entries else ""
    values = {
        "command": f"{command} --data {place} --recipes {wanted.recipes}{entries} --steps {wanted.steps}",
        **provenance(),
        "threads": torch.get_num_threads(),
        "race_steps": rows,
    }
    write_text(RESULTS / f"steps-{wanted.recipes}.json", json.dumps(values, indent=1) + "\n")
    update_readme()


def rows_of(entries: Sequence[str]) -> list[str]:
    """The rows, TSHSR first.

    Raises:
        SettingsError: For an unknown row, or an ensemble, which has no steps of its own.
    """
    single = [entry.name for entry in MODELS if not entry.members]
    for name in entries:
        if name not in ENTRIES or ENTRIES[name].members:
            raise SettingsError(f"there is no single network {name!r}; the rows are {', '.join(single)}.")
    return list(dict.fromkeys([OURS, *(entries or single)]))


def steps_of(name: str, wanted: Steps, train: Split, dev: Split) -> dict[str, Any]:
    """Losses and step times of a row."""
    config = ENTRIES[name].config(wanted.recipes, wanted.seed)
    config = replace(config, training=replace(config.training, save_every_steps=0))
    if config.loss.relations:  # as after its warm-up
        config = replace(config, loss=replace(config.loss, relations_warmup_epochs=0.0))
    listener = Listener(wanted.steps)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(EnoughError):
        fit(config, train=train, dev=dev, out=Path(folder) / "run", device="cpu", listen=listener)
    ends = min(ENDS, len(listener.losses))
    row = {
        "model": name,
        "title": ENTRIES[name].title,
        "candidates": config.training.candidates,
        **{
            f"{end}_{name}": statistics.mean(step[number] for step in part)
            for number, name in enumerate(("loss", "fused"))
            for end, part in (("first", listener.losses[:ends]), ("last", listener.losses[-ends:]))
        },
        "step_seconds": statistics.median(listener.seconds),
    }
    LOG.info("%s: loss %.3f -> %.3f, %.3f s a step", name, row["first_loss"], row["last_loss"], row["step_seconds"])
    return row


if __name__ == "__main__":
    main()
