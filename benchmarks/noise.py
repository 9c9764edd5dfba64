"""Wrong pairs: what the plain and the robust loss keep of the clean rSum when 20, 40 or 60 % of the pairs are wrong.

    python -m benchmarks.noise --data ../flickr8k --jobs 2                 # everything
    python -m benchmarks.noise --data ../flickr8k --shares 0.4 --seeds 0   # one share of wrong pairs

Both losses train the same network on the same pairs, in the same order; dev (clean) chooses the weights, test is looked
at once. What is finished is not done again (`benchmarks/results/outcomes`), what was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.entries import OURS, changed
from benchmarks.outcomes import Outcome, Task, is_kept, read_outcome, settle_single
from benchmarks.quality import MOST_SEEDS, ranks_of, recalls_of
from benchmarks.tables import RESULTS, update_readme
from tshsr.allocator import keep_freed_memory
from tshsr.config import RunConfig
from tshsr.files import write_text
from tshsr.provenance import provenance
from tshsr.recipes import recipe
from tshsr.significance import compare_rsum

LOG = logging.getLogger("benchmarks.noise")
DATA = "flickr8k"
SHARES = (0.0, 0.2, 0.4, 0.6)
LOSSES = {"plain": "none", "robust": "mixture"}
"""What the table calls a loss, and its `loss.robust`."""


@dataclass(frozen=True)
class Noise:
    """What to run."""

    data: Path
    """A folder of Flickr8k with the splits train, dev and test."""
    shares: tuple[float, ...] = SHARES
    """Shares of the training pairs that are wrong."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each run, of weights, order and wrong pairs alike."""
    jobs: int = 1
    """Runs at a time; the processors' cores are shared among them."""
    runs: Path = Path("runs")
    """Where weights and score matrices are kept."""
    tables_only: bool = False
    """Train nothing: write the results file from what is finished."""


def main() -> None:
    """Train and evaluate what is missing, then write the results file and the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Noise, description=__doc__)
    if not wanted.tables_only:
        work_off(wanted)
    path = RESULTS / f"noise-{DATA}.json"
    write_text(path, json.dumps(results(wanted), indent=1) + "\n")
    update_readme()
    LOG.info("wrote %s", path)


def config_of(share: float, loss: str, seed: int) -> RunConfig:
    """The run of one loss on one share of wrong pairs; without either it is that of the race."""
    settings = {"training.noise": share, "loss.robust": LOSSES[loss], "training.seed": seed}
    return changed(recipe(f"{OURS}-{DATA}"), settings)


def task_of(wanted: Noise, share: float, loss: str, seed: int) -> Task:
    """Where its outcome is kept: that of the plain loss on clean pairs is the race's."""
    name = OURS if (share, loss) == (0.0, "plain") else f"noise-{100 * share:g}-{loss}"
    return Task(name, DATA, str(wanted.data), seed, wanted.runs)


def work_off(wanted: Noise) -> None:
    """Settle all runs, some at a time: seed after seed, the shares asked for in their order."""
    each = [(share, loss, seed) for seed in wanted.seeds for share in wanted.shares for loss in LOSSES]
    if wanted.jobs == 1:
        for share, loss, seed in each:
            settle(wanted, share, loss, seed)
        return
    threads = max(1, (os.cpu_count() or 1) // wanted.jobs)
    with ProcessPoolExecutor(wanted.jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(settle, wanted, *one, threads) for one in each]):
            LOG.info("%s is settled", done.result())


def settle(wanted: Noise, share: float, loss: str, seed: int, threads: int = 0) -> str:
    """Train, evaluate and keep one run, unless that was done with these very settings; returns its name.

    Args:
        wanted: Where data and runs are.
        share: Of the training pairs that are wrong.
        loss: One of LOSSES.
        seed: The seed.
        threads: Threads of torch; 0 leaves them.

    Raises:
        DataError: Where an outcome of other settings is in the way.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    task, config = task_of(wanted, share, loss, seed), config_of(share, loss, seed)
    if not is_kept(task, json.loads(json.dumps(asdict(config)))):
        settle_single(task, config)
    return task.name


def results(wanted: Noise) -> dict[str, Any]:
    """A row a share and loss from everything that is kept."""
    shares = sorted({*SHARES, *wanted.shares})
    kept = {(share, loss): outcomes(wanted, share, loss) for share in shares for loss in LOSSES}
    clean = {seed: rsum(outcome) for seed, outcome in kept[0.0, "plain"].items()}
    both = [share for share in shares if set(kept[share, "plain"]) & set(kept[share, "robust"])]
    return {
        "command": f"python -m benchmarks.noise --data {DATA}",
        **provenance(),
        "recipe": f"{OURS}-{DATA}",
        "noise": [row(*key, found, clean) for key, found in kept.items() if found],
        "gains": [gain(share, kept[share, "plain"], kept[share, "robust"]) for share in both],
    }


def outcomes(wanted: Noise, share: float, loss: str) -> dict[int, Outcome]:
    """What is kept of a share and loss, by seed."""
    tasks = [task_of(wanted, share, loss, seed) for seed in range(MOST_SEEDS)]
    return {task.seed: read_outcome(task) for task in tasks if task.figures.exists() and task.ranks.exists()}


def rsum(outcome: Outcome) -> float:
    """The rSum of the fused score on test."""
    value: float = outcome.report["scores"]["fused"]["rsum"]
    return value


def row(share: float, loss: str, found: dict[int, Outcome], clean: dict[int, float]) -> dict[str, Any]:
    """Mean figures of the fused score over the seeds, and how much of the clean rSum of the same seeds they are."""
    sums = {seed: rsum(outcome) for seed, outcome in found.items()}
    both = sorted(set(sums) & set(clean))
    recalls = [recalls_of(outcome.report["scores"]["fused"]) for outcome in found.values()]
    return {
        "share": share,
        "loss": loss,
        "seeds": sorted(found),
        "rsum_mean": statistics.mean(sums.values()),
        "rsum_std": statistics.stdev(sums.values()) if len(sums) > 1 else None,
        "kept": 100 * sum(sums[seed] for seed in both) / sum(clean[seed] for seed in both) if both else None,
        "r": [statistics.mean(column) for column in zip(*recalls, strict=True)],
        "best_epochs": [outcome.figures["best_epoch"] for outcome in found.values()],
        "train_minutes": statistics.mean(outcome.figures["train_minutes"] for outcome in found.values()),
    }


def gain(share: float, plain: dict[int, Outcome], robust: dict[int, Outcome]) -> dict[str, Any]:
    """What the robust loss has more than the plain one in rSum: paired bootstrap over images and seeds."""
    both = sorted(set(plain) & set(robust))
    sides = [[ranks_of(side[seed]) for seed in both] for side in (robust, plain)]
    found = compare_rsum(*sides)
    return {"share": share, "mean": found.mean, "low": found.low, "high": found.high, "p": found.p}


if __name__ == "__main__":
    main()
