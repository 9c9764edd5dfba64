"""Runs of a benchmark: train, evaluate and store each once, some in parallel; resume after an interruption.

A finished run is two files in `benchmarks/results/outcomes/DATA`: `NAME-seedS.json` (settings, report, minutes) and
`NAME-seedS.npz` (the rank of every query, and the image that each caption ranks first), which suffice to compare any
two rows without their weights.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from benchmarks.tables import RESULTS
from tshsr.config.run import RunConfig, config_of, write_config
from tshsr.data.dataset import Split
from tshsr.data.layouts import find_data, open_split
from tshsr.data.truth import read_truth
from tshsr.errors import DataError
from tshsr.evaluation.run import evaluate_models, evaluate_scores
from tshsr.explain.binding import pointing_and_binding
from tshsr.files import replacing, write_text
from tshsr.metrics.ranks import QueryRanks
from tshsr.metrics.recall import image_to_text_ranks, text_to_image_ranks
from tshsr.metrics.report import Report
from tshsr.retriever import Retriever
from tshsr.scoring.options import ScoringOptions
from tshsr.system import keep_freed_memory, provenance
from tshsr.training.checks import captions_checksum
from tshsr.training.events import Evaluated, Event
from tshsr.training.fit import fit

LOG = logging.getLogger("benchmarks.runs")
STORE = RESULTS / "outcomes"


@dataclass(frozen=True)
class Task:
    """One row with one seed on one data set: a network to train, or an ensemble of other tasks.

    Attributes:
        entry: Name of the row.
        data: Name of the data in the names of recipes: flickr8k or scenes.
        place: Folder of the data, or the word scenes.
        runs: Folder of weights and score matrices.
        config: Settings of the run; None for an ensemble.
        members: Tasks whose scores are averaged; empty for a single model.
        late_weight: Of the second member's cosine beside the first one's logit; 0: the average.
    """

    entry: str
    data: str
    place: str
    seed: int
    runs: Path
    config: RunConfig | None = None
    members: tuple[Task, ...] = ()
    late_weight: float = 0.0

    @property
    def name(self) -> str:
        """Name of the run and its files."""
        return f"{self.entry}-{self.data}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.name

    @property
    def matrix(self) -> Path:
        """File of the fused scores of the test split."""
        return self.runs / f"{self.name}.npy"

    @property
    def figures(self) -> Path:
        """File of the stored figures."""
        return STORE / self.data / f"{self.entry}-seed{self.seed}.json"

    @property
    def ranks(self) -> Path:
        """File of the stored ranks."""
        return self.figures.with_suffix(".npz")

    @property
    def exists(self) -> bool:
        """Whether a result is stored, of these or other settings."""
        return self.figures.exists() and self.ranks.exists()

    def settings(self) -> Any:
        """Identity of the result: the settings of the run, or the time stamp of each member."""
        if self.config is not None:
            return json.loads(write_config(self.config))
        weight = {"late_weight": self.late_weight} if self.late_weight else {}
        return {member.entry: read_figures(member)["time"] for member in self.members} | weight


@dataclass(frozen=True)
class RunResult:
    """Stored result of a run.

    Attributes:
        figures: Contents of its JSON file.
        ranks: The rank of every query.
        first_images: The image that each caption ranks first; None in results from before it was stored.
    """

    figures: dict[str, Any]
    ranks: QueryRanks
    first_images: np.ndarray | None = None

    @property
    def report(self) -> dict[str, Any]:
        """The report on the test split."""
        report: dict[str, Any] = self.figures["report"]
        return report


def is_stored(task: Task) -> bool:
    """Whether a result of exactly these settings is stored; for an ensemble, also those of its members."""
    if not task.exists or not all(is_stored(member) for member in task.members):
        return False
    stored = read_figures(task)["settings"]
    if task.config is not None:  # fills settings added since then with their defaults
        try:
            stored = json.loads(write_config(config_of(stored)))
        except ValidationError:  # a setting that no longer exists
            return False
    return bool(stored == task.settings())


def check_stored(tasks: Iterable[Task], test: Split) -> None:
    """Refuse stored results of other settings, captions or regions, before hours of work.

    Args:
        tasks: Tasks to run.
        test: The test split. Regions of a result from before their extractor was stored are not known to be others.

    Raises:
        DataError: Where there are any; the message names the first one.
    """
    data = captions_checksum(test)
    for task in tasks:
        if task.members or not task.exists:
            continue
        if not is_stored(task):
            folder = f", and {task.folder} if it is there," * task.folder.exists()
            raise DataError(
                f"{task.figures} is of other settings than {task.entry} has now; delete it{folder} to train again."
            )
        figures = read_figures(task)
        if figures["data"] != data:
            raise DataError(
                f"{task.figures} was made on other data than {task.place}; give the data it was made on, or delete it "
                "to train again."
            )
        if (extractor := figures.get("extractor", test.extractor)) != test.extractor:
            raise DataError(
                f"{task.figures} was made on regions by {extractor}, {task.place} has regions by {test.extractor}; "
                "give the store it was made on, or delete it to train again."
            )


def read_results(tasks: Iterable[Task]) -> list[tuple[Task, RunResult]]:
    """The stored results of the current settings; logs those of other settings and leaves them out."""
    found = []
    for task in tasks:
        if is_stored(task):
            found.append((task, read_result(task)))
        elif task.exists:
            LOG.warning("%s is of other settings than %s has now: left out of the tables", task.figures, task.entry)
    return found


def store(task: Task, report: Report, scores: np.ndarray, test: Split, figures: dict[str, Any]) -> None:
    """Write a result: ranks first, so that figures never exist without them."""
    task.figures.parent.mkdir(parents=True, exist_ok=True)
    owner = test.image_of_caption
    images, captions = image_to_text_ranks(scores, owner), text_to_image_ranks(scores, owner)
    with replacing(task.ranks) as file:
        # Ranks and rows are below 2^16: two bytes each.
        small = [each.astype(np.uint16) for each in (images, captions, owner, scores.argmax(axis=0))]
        np.savez_compressed(file, images=small[0], captions=small[1], image_of_caption=small[2], first_images=small[3])
    bare = replace(report, ranks=None)  # stored in the .npz file
    made = {**provenance(), "data": captions_checksum(test), "extractor": test.extractor, **figures}
    values = {**made, "settings": task.settings(), "report": json.loads(bare.to_json())}
    write_text(task.figures, json.dumps(values, indent=1) + "\n")
    LOG.info("%s: test rSum %.1f", task.name, report.scores["fused"].rsum)


def read_result(task: Task) -> RunResult:
    """Read a stored result."""
    with np.load(task.ranks) as ranks:
        arrays = [ranks[name].astype(np.int64) for name in ("images", "captions", "image_of_caption")]
        first = ranks["first_images"].astype(np.int64) if "first_images" in ranks else None
    return RunResult(read_figures(task), QueryRanks(*arrays), first)


def read_figures(task: Task) -> dict[str, Any]:
    """Read the JSON file of a stored result."""
    values: dict[str, Any] = json.loads(task.figures.read_text(encoding="utf-8"))
    return values


def run_all(tasks: Sequence[Task], jobs: int) -> None:
    """Run tasks on one data set: networks, each in a process with its share of the cores, then ensembles.

    Args:
        tasks: Tasks to run; stored ones are skipped.
        jobs: Number of parallel networks; 1 trains in this process.

    Raises:
        DataError: Where a result of other settings, captions or regions is stored; no task has been run then.
    """
    check_stored(tasks, open_split(tasks[0].place, "test"))
    networks = [task for task in tasks if not task.members]
    if jobs == 1:
        for task in networks:
            run_task(task)
    else:
        run_in_parallel(networks, jobs)
    for task in tasks:
        if task.members:
            run_task(task)


def run_in_parallel(tasks: Sequence[Task], jobs: int) -> None:
    """Run networks in parallel; after a failure those already started are finished and no other is started."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        begun = [pool.submit(run_task, task, threads) for task in tasks]
        try:
            for done in as_completed(begun):
                LOG.info("%s is done", done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_task(task: Task, threads: int = 0) -> str:
    """Run one task, unless its result is stored; returns its name.

    Args:
        task: The task.
        threads: Number of torch threads; 0 keeps the default.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    if is_stored(task):
        return task.name
    if task.config is None:
        join_members(task)
    else:
        train(task, task.config)
    return task.name


def train(task: Task, config: RunConfig) -> None:
    """Train one network (or resume it), evaluate it and store the result."""
    split, dev, test = (open_split(task.place, name) for name in ("train", "dev", "test"))
    result = fit(config, train=split, dev=dev, out=task.folder, resume=True, listen=log_evaluations(task.name))
    LOG.info("%s: trained in %.1f minutes, dev rSum %.1f", task.name, result.seconds / 60, result.best_rsum)
    retriever = Retriever.from_pretrained(task.folder)
    found = evaluate_models([retriever], test, options=ScoringOptions(device=best_device()))
    truth = read_truth(find_data(task.place), test.name)
    known = None if truth is None else pointing_and_binding(retriever, test, truth)
    report = found.report(known_truth=known)
    np.save(task.matrix, found.scores["fused"])
    figures = {
        "parameters": sum(weight.numel() for weight in retriever.matcher.parameters()),
        "train_minutes": result.seconds / 60,
        "epochs": config.training.epochs,
        "best_epoch": result.best_epoch,
        "dev_rsum": result.best_rsum,
        "threads": torch.get_num_threads(),
    }
    store(task, report, found.scores["fused"], test, figures)


def best_device() -> str:
    """A CUDA device where there is one, as in training."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def joined_scores(scores: Sequence[np.ndarray], late_weight: float) -> np.ndarray:
    """The mean; with `late_weight` Γ, logits of the first, which are probabilities, plus Γ times the second.

    Probabilities at 1 in float32 have the logit of the number below it.
    """
    if not late_weight:
        mean: np.ndarray = np.mean(scores, axis=0)
        return mean
    p, cosine = scores[0].astype(np.float64), scores[1]
    inside = np.clip(p, np.finfo(np.float32).tiny, 1 - np.finfo(np.float32).epsneg)
    return np.log(inside / (1 - inside)) + late_weight * cosine


def join_members(task: Task) -> None:
    """Join the scores of the members, which have the same seed; skips the ensemble where a matrix is missing."""
    missing = [member for member in task.members if not member.matrix.exists()]
    for member in missing:
        LOG.warning(
            "%s is left out: %s is missing; delete %s to make it again", task.name, member.matrix, member.figures
        )
    if missing:
        return
    start, test = time.perf_counter(), open_split(task.place, "test")
    scores = joined_scores([np.load(member.matrix) for member in task.members], task.late_weight)
    report = evaluate_scores(
        {"fused": scores},
        test.image_of_caption,
        protocol="auto",
        data=test.data,
        split=test.name,
        models=[member.name for member in task.members],
        seconds=time.perf_counter() - start,
    )
    parts = [read_figures(member) for member in task.members]
    figures = {name: sum(part[name] for part in parts) for name in ("parameters", "train_minutes")}
    store(task, report, scores, test, figures)


def log_evaluations(name: str) -> Callable[[Event], None]:
    """Listener that logs every evaluation on dev."""

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            LOG.info("%s, epoch %d: dev rSum %.1f", name, event.epoch, event.report.scores["fused"].rsum)

    return listen
