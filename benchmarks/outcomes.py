"""What one run of the race came to: its figures and the ranks of its queries, kept so that nothing is done twice.

An outcome is two files in `benchmarks/results/outcomes/DATA`: `NAME-seedS.json` (settings, report, minutes) and
`NAME-seedS.npz` (the rank of every query), from which any two rows can be compared without their weights.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from benchmarks.entries import ENTRIES, Entry
from benchmarks.tables import RESULTS
from tshsr.allocator import keep_freed_memory
from tshsr.config import RunConfig, write_config
from tshsr.data.dataset import Split
from tshsr.data.layouts import find_data, open_split
from tshsr.data.truth import read_truth
from tshsr.errors import DataError
from tshsr.evaluation import evaluate, evaluate_scores
from tshsr.files import replacing, write_text
from tshsr.metrics import image_to_text_ranks, text_to_image_ranks
from tshsr.probes import add_probes
from tshsr.provenance import provenance
from tshsr.reports import Report
from tshsr.retriever import Retriever
from tshsr.training import fit
from tshsr.training.events import Evaluated, Event

LOG = logging.getLogger("benchmarks.quality")
KEPT = RESULTS / "outcomes"


@dataclass(frozen=True)
class Task:
    """One row with one seed on one data set.

    Attributes:
        entry: The row.
        data: Name of the data, as recipes end: flickr8k or scenes.
        place: Where the data is.
        seed: The seed.
        runs: Folder of the runs' weights and score matrices.
    """

    entry: str
    data: str
    place: str
    seed: int
    runs: Path

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

    def member(self, name: str) -> Task:
        """The same seed of another row."""
        return replace(self, entry=name)


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        figures: What its JSON file holds.
        image_ranks: Rank of each image's best caption.
        caption_ranks: Rank of each caption's image.
        image_of_caption: For each caption the row of its image.
    """

    figures: dict[str, Any]
    image_ranks: np.ndarray
    caption_ranks: np.ndarray
    image_of_caption: np.ndarray

    @property
    def report(self) -> dict[str, Any]:
        """The report on the test split."""
        report: dict[str, Any] = self.figures["report"]
        return report


def settle(task: Task, threads: int = 0) -> str:
    """Settle a row of the race: a single model, or an ensemble whose members are settled; returns the task's name.

    Raises:
        DataError: Where an outcome of other settings is in the way, or a member's scores are gone.
    """
    entry = ENTRIES[task.entry]
    if not entry.members:
        return settle_run(task, entry.config(task.data, task.seed), threads)
    if not is_kept(task, list(entry.members)):
        settle_ensemble(task, entry)
    return task.name


def settle_run(task: Task, config: RunConfig, threads: int = 0) -> str:
    """Train, evaluate and keep one run, unless that was done with these very settings; returns its name.

    Args:
        task: Where it is kept.
        config: The run.
        threads: Threads of torch; 0 leaves them.

    Raises:
        DataError: Where an outcome of other settings is in the way.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    if not is_kept(task, json.loads(write_config(config))):
        train_and_keep(task, config)
    return task.name


def settle_all(work: Callable[..., str], each: Sequence[tuple[Any, ...]], jobs: int) -> None:
    """Settle some runs, so many at a time, each in a process of its own with its share of the cores.

    Args:
        work: `settle` or `settle_run`.
        each: Its arguments for every run, without `threads`.
        jobs: How many at a time; 1 stays in this process.
    """
    if jobs == 1:
        for one in each:
            work(*one)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(work, *one, threads) for one in each]):
            LOG.info("%s is settled", done.result())


def is_kept(task: Task, settings: Any) -> bool:
    """Whether the outcome is there.

    Raises:
        DataError: Where it is of other settings.
    """
    if not (task.figures.exists() and task.ranks.exists()):
        return False
    kept = json.loads(task.figures.read_text(encoding="utf-8"))["settings"]
    if isinstance(kept, dict):  # a setting that has come since then was at its default
        kept = json.loads(write_config(TypeAdapter(RunConfig).validate_python(kept)))
    if kept != settings:
        raise DataError(f"{task.figures} is of other settings than {task.entry} has now; delete it to train anew.")
    return True


def train_and_keep(task: Task, config: RunConfig) -> None:
    """Train one network, going on where it was, and evaluate it."""
    train, dev, test = (open_split(task.place, split) for split in ("train", "dev", "test"))
    result = fit(config, train=train, dev=dev, out=task.folder, resume=True, listen=tell(task.name))
    LOG.info("%s: trained in %.1f minutes, dev rSum %.1f", task.name, result.seconds / 60, result.best_rsum)
    retriever = Retriever.from_pretrained(task.folder)
    report, scores = evaluate([retriever], test)
    truth = read_truth(find_data(task.place), test.name)
    report = report if truth is None else add_probes(report, retriever, test, truth)
    np.save(task.matrix, scores["fused"])
    figures = {
        "parameters": sum(weight.numel() for weight in retriever.matcher.parameters()),
        "train_minutes": result.seconds / 60,
        "epochs": config.training.epochs,
        "best_epoch": result.best_epoch,
        "dev_rsum": result.best_rsum,
        "threads": torch.get_num_threads(),
    }
    keep(task, asdict(config), report, scores["fused"], test, figures)


def settle_ensemble(task: Task, entry: Entry) -> None:
    """Average the scores of members of the same seed.

    Raises:
        DataError: Where a member's scores are gone.
    """
    members = [task.member(name) for name in entry.members]
    for member in members:
        if not member.matrix.exists():
            raise DataError(f"{member.matrix} is missing; delete {member.figures} to make it again.")
    start, test = time.perf_counter(), open_split(task.place, "test")
    scores = np.mean([np.load(member.matrix) for member in members], axis=0)
    report = evaluate_scores(
        {"fused": scores},
        test.image_of_caption,
        protocol="auto",
        data=test.data,
        split=test.name,
        models=[member.name for member in members],
        seconds=time.perf_counter() - start,
    )
    parts = [json.loads(member.figures.read_text(encoding="utf-8")) for member in members]
    figures = {name: sum(part[name] for part in parts) for name in ("parameters", "train_minutes")}
    keep(task, list(entry.members), report, scores, test, figures)


def keep(task: Task, settings: Any, report: Report, scores: np.ndarray, test: Split, figures: dict[str, Any]) -> None:
    """Write an outcome: ranks first, so that figures never stand alone."""
    task.figures.parent.mkdir(parents=True, exist_ok=True)
    owner = test.image_of_caption
    images, captions = image_to_text_ranks(scores, owner), text_to_image_ranks(scores, owner)
    with replacing(task.ranks) as file:
        # Ranks and rows are at most some thousand: two bytes each.
        small = [each.astype(np.uint16) for each in (images, captions, owner)]
        np.savez_compressed(file, images=small[0], captions=small[1], image_of_caption=small[2])
    values = {**provenance(), **figures, "settings": settings, "report": json.loads(report.to_json())}
    write_text(task.figures, json.dumps(values, indent=1) + "\n")
    LOG.info("%s: test rSum %.1f", task.name, report.scores["fused"].rsum)


def read_outcome(task: Task) -> Outcome:
    """What was kept of a run."""
    with np.load(task.ranks) as ranks:
        arrays = [ranks[name].astype(np.int64) for name in ("images", "captions", "image_of_caption")]
    return Outcome(json.loads(task.figures.read_text(encoding="utf-8")), *arrays)


def tell(name: str) -> Any:
    """Log every evaluation on dev."""

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            LOG.info("%s, epoch %d: dev rSum %.1f", name, event.epoch, event.report.scores["fused"].rsum)

    return listen
