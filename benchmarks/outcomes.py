"""What one run of a benchmark came to: its figures and the ranks of its queries, kept so that nothing is done twice.

An outcome is two files in `benchmarks/results/outcomes/DATA`: `NAME-seedS.json` (settings, report, minutes) and
`NAME-seedS.npz` (the rank of every query), from which any two rows can be compared without their weights.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks.tables import RESULTS
from tshsr.config.run import RunConfig, write_config
from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.files import replacing, write_text
from tshsr.metrics.ranks import QueryRanks
from tshsr.metrics.recall import image_to_text_ranks, text_to_image_ranks
from tshsr.metrics.report import Report
from tshsr.system import provenance
from tshsr.training.checks import captions_checksum

LOG = logging.getLogger("benchmarks.quality")
KEPT = RESULTS / "outcomes"


@dataclass(frozen=True)
class Task:
    """One row with one seed on one data set: a network to train, or an ensemble of other tasks.

    Attributes:
        entry: The row.
        data: Name of the data, as recipes end: flickr8k or scenes.
        place: Where the data is.
        seed: The seed.
        runs: Folder of the runs' weights and score matrices.
        config: The run; None for an ensemble.
        members: Whose scores are averaged; empty for a single model.
    """

    entry: str
    data: str
    place: str
    seed: int
    runs: Path
    config: RunConfig | None = None
    members: tuple[Task, ...] = ()

    @property
    def name(self) -> str:
        """What the run and its files are called."""
        return f"{self.entry}-{self.data}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    @property
    def matrix(self) -> Path:
        """The fused scores of the test split."""
        return self.runs / f"{self.name}.npy"

    @property
    def figures(self) -> Path:
        """The kept figures."""
        return KEPT / self.data / f"{self.entry}-seed{self.seed}.json"

    @property
    def ranks(self) -> Path:
        """The kept ranks."""
        return self.figures.with_suffix(".npz")

    @property
    def is_there(self) -> bool:
        """Whether anything is kept, of whatever settings."""
        return self.figures.exists() and self.ranks.exists()

    def settings(self) -> Any:
        """What its outcome must have been made with: the run's settings, or when each member was made."""
        if self.config is not None:
            return json.loads(write_config(self.config))
        return {member.entry: read_figures(member)["time"] for member in self.members}


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        figures: What its JSON file holds.
        ranks: The rank of every query.
    """

    figures: dict[str, Any]
    ranks: QueryRanks

    @property
    def report(self) -> dict[str, Any]:
        """The report on the test split."""
        report: dict[str, Any] = self.figures["report"]
        return report


def is_kept(task: Task) -> bool:
    """Whether an outcome of these very settings is there; that of an ensemble also needs its members' to be theirs."""
    if not task.is_there or not all(is_kept(member) for member in task.members):
        return False
    kept = read_figures(task)["settings"]
    if task.config is not None:  # a setting that has come since then was at its default
        kept = json.loads(write_config(TypeAdapter(RunConfig).validate_python(kept)))
    return bool(kept == task.settings())


def refuse_others(tasks: Iterable[Task], data: str) -> None:
    """Refuse outcomes in the way that were made with other settings or on other data, before hours of work.

    Args:
        tasks: What is to be done.
        data: The captions_checksum of the test split at hand.

    Raises:
        DataError: Names the first one.
    """
    for task in tasks:
        if task.members or not task.is_there:
            continue
        if not is_kept(task):
            folder = f", and {task.folder} if it is there," * task.folder.exists()
            raise DataError(
                f"{task.figures} is of other settings than {task.entry} has now; delete it{folder} to train anew."
            )
        if read_figures(task)["data"] != data:
            raise DataError(
                f"{task.figures} was made on other data than {task.place}; give the data it was made on, or delete it "
                "to train anew."
            )


def kept_of(tasks: Iterable[Task]) -> list[tuple[Task, Outcome]]:
    """The outcomes of the present settings; those of others are told and left out."""
    found = []
    for task in tasks:
        if is_kept(task):
            found.append((task, read_outcome(task)))
        elif task.is_there:
            LOG.warning("%s is of other settings than %s has now: left out of the tables", task.figures, task.entry)
    return found


def keep(task: Task, report: Report, scores: np.ndarray, test: Split, figures: dict[str, Any]) -> None:
    """Write an outcome: ranks first, so that figures never stand alone."""
    task.figures.parent.mkdir(parents=True, exist_ok=True)
    owner = test.image_of_caption
    images, captions = image_to_text_ranks(scores, owner), text_to_image_ranks(scores, owner)
    with replacing(task.ranks) as file:
        # Ranks and rows are at most some thousand: two bytes each.
        small = [each.astype(np.uint16) for each in (images, captions, owner)]
        np.savez_compressed(file, images=small[0], captions=small[1], image_of_caption=small[2])
    bare = replace(report, ranks=None)  # they stand in their own file
    made = {**provenance(), "data": captions_checksum(test), **figures}
    values = {**made, "settings": task.settings(), "report": json.loads(bare.to_json())}
    write_text(task.figures, json.dumps(values, indent=1) + "\n")
    LOG.info("%s: test rSum %.1f", task.name, report.scores["fused"].rsum)


def read_outcome(task: Task) -> Outcome:
    """What was kept of a run."""
    with np.load(task.ranks) as ranks:
        arrays = [ranks[name].astype(np.int64) for name in ("images", "captions", "image_of_caption")]
    return Outcome(read_figures(task), QueryRanks(*arrays))


def read_figures(task: Task) -> dict[str, Any]:
    """What the JSON file of an outcome holds."""
    values: dict[str, Any] = json.loads(task.figures.read_text(encoding="utf-8"))
    return values
