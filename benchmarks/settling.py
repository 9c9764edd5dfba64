"""Settling the runs of a benchmark: train, evaluate and keep each once, so many at a time, going on after a stop."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import numpy as np
import torch

from benchmarks.outcomes import Task, is_kept, keep, read_figures, refuse_others
from tshsr.config.run import RunConfig
from tshsr.data.layouts import find_data, open_split
from tshsr.data.truth import read_truth
from tshsr.evaluation.run import evaluate, evaluate_scores
from tshsr.explain.binding import add_pointing_and_binding
from tshsr.retriever import Retriever
from tshsr.system import keep_freed_memory
from tshsr.training.checks import captions_checksum
from tshsr.training.events import Evaluated, Event
from tshsr.training.fit import fit

LOG = logging.getLogger("benchmarks.quality")


def settle_all(tasks: Sequence[Task], jobs: int) -> None:
    """Settle tasks on one data set: networks, each in a process with its share of the cores, then ensembles.

    Args:
        tasks: What is to be done; what is kept already is not done again.
        jobs: How many networks at a time; 1 stays in this process.

    Raises:
        DataError: Where an outcome of other settings or data is in the way; nothing has been done then.
    """
    refuse_others(tasks, captions_checksum(open_split(tasks[0].place, "test")))
    networks = [task for task in tasks if not task.members]
    if jobs == 1:
        for task in networks:
            settle(task)
    else:
        settle_beside(networks, jobs)
    for task in tasks:
        if task.members:
            settle(task)


def settle_beside(tasks: Sequence[Task], jobs: int) -> None:
    """Settle networks beside each other; the first that fails ends the work once those begun are done."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        begun = [pool.submit(settle, task, threads) for task in tasks]
        try:
            for done in as_completed(begun):
                LOG.info("%s is settled", done.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def settle(task: Task, threads: int = 0) -> str:
    """Settle one task, unless an outcome of these settings is kept; returns its name.

    Args:
        task: What is to be done.
        threads: Threads of torch; 0 leaves them.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    if is_kept(task):
        return task.name
    if task.config is None:
        average(task)
    else:
        train(task, task.config)
    return task.name


def train(task: Task, config: RunConfig) -> None:
    """Train one network, going on where it was, evaluate it and keep what it came to."""
    split, dev, test = (open_split(task.place, name) for name in ("train", "dev", "test"))
    result = fit(config, train=split, dev=dev, out=task.folder, resume=True, listen=tell(task.name))
    LOG.info("%s: trained in %.1f minutes, dev rSum %.1f", task.name, result.seconds / 60, result.best_rsum)
    retriever = Retriever.from_pretrained(task.folder)
    report, scores = evaluate([retriever], test)
    truth = read_truth(find_data(task.place), test.name)
    report = report if truth is None else add_pointing_and_binding(report, retriever, test, truth)
    np.save(task.matrix, scores["fused"])
    figures = {
        "parameters": sum(weight.numel() for weight in retriever.matcher.parameters()),
        "train_minutes": result.seconds / 60,
        "epochs": config.training.epochs,
        "best_epoch": result.best_epoch,
        "dev_rsum": result.best_rsum,
        "threads": torch.get_num_threads(),
    }
    keep(task, report, scores["fused"], test, figures)


def average(task: Task) -> None:
    """Average the scores of members of the same seed; without the members' matrices the ensemble is left out."""
    missing = [member for member in task.members if not member.matrix.exists()]
    for member in missing:
        LOG.warning(
            "%s is left out: %s is missing; delete %s to make it again", task.name, member.matrix, member.figures
        )
    if missing:
        return
    start, test = time.perf_counter(), open_split(task.place, "test")
    scores = np.mean([np.load(member.matrix) for member in task.members], axis=0)
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
    keep(task, report, scores, test, figures)


def tell(name: str) -> Callable[[Event], None]:
    """Log every evaluation on dev."""

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            LOG.info("%s, epoch %d: dev rSum %.1f", name, event.epoch, event.report.scores["fused"].rsum)

    return listen
