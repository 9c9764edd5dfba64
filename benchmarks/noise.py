"""Noisy correspondence: rSum of the plain and of the robust loss with 20, 40 or 60 % wrong training pairs.

    python -m benchmarks.noise --data ../flickr8k --jobs 2                 # everything
    python -m benchmarks.noise --data ../flickr8k --shares 0.4 --seeds 0   # one share of wrong pairs

Both losses train the same network on the same pairs in the same order; dev (clean) chooses the weights. Finished runs
are kept in `benchmarks/results/outcomes`, interrupted ones resume.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.race import check_seeds, covered_seeds, recalls_of
from benchmarks.rows import OURS, with_settings
from benchmarks.runs import RunResult, Task, read_results, run_all
from benchmarks.tables import RESULTS, update_readme
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.errors import TshsrError
from tshsr.files import write_text
from tshsr.metrics.comparison import compare_rsum
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.noise")
DATA = "flickr8k"
SHARES = (0.0, 0.2, 0.4, 0.6)
LOSSES = {"plain": "none", "robust": "mixture"}
"""`loss.robust` by the name of the loss in the table."""


@dataclass(frozen=True)
class Noise:
    """Shares of wrong pairs, seeds and data."""

    data: Path
    """A folder of Flickr8k with the splits train, dev and test."""
    shares: tuple[float, ...] = SHARES
    """Shares of the training pairs that are wrong."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each run: of weights, order and wrong pairs."""
    jobs: int = 1
    """Parallel runs, which share the cores."""
    runs: Path = Path("runs")
    """Folder of weights and score matrices."""
    tables_only: bool = False
    """Train nothing: write the results file from the finished runs."""


def main() -> None:
    """Train and evaluate the missing runs, then write the results file and the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        benchmark(tyro.cli(Noise, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def benchmark(wanted: Noise) -> None:
    """Run the wanted tasks, then write the results file and the table from all finished runs."""
    check_seeds(wanted.seeds, DATA)
    if not wanted.tables_only:
        # Seed by seed, the wanted shares in their order, and the plain loss on clean pairs as baseline.
        shares = dict.fromkeys((0.0, *wanted.shares))
        keys = [(share, loss, seed) for seed in wanted.seeds for share in shares for loss in LOSSES]
        keys = [key for key in keys if key[0] in wanted.shares or key[1] == "plain"]
        run_all([task_of(wanted, *key) for key in keys], wanted.jobs)
    path = RESULTS / f"noise-{DATA}.json"
    write_text(path, json.dumps(results(wanted), indent=1) + "\n")
    update_readme()
    LOG.info("wrote %s", path)


def config_of(share: float, loss: str, seed: int) -> RunConfig:
    """Settings of one loss on one share of wrong pairs; the plain loss on clean pairs has those of the race."""
    settings = {"training.noise": share, "loss.robust": LOSSES[loss], "training.seed": seed}
    return with_settings(recipe(f"{OURS}-{DATA}"), settings)


def task_of(wanted: Noise, share: float, loss: str, seed: int) -> Task:
    """The task of a share, loss and seed; the plain loss on clean pairs is a task of the race."""
    name = OURS if (share, loss) == (0.0, "plain") else f"noise-{100 * share:g}-{loss}"
    return Task(name, DATA, str(wanted.data), seed, wanted.runs, config_of(share, loss, seed))


def results(wanted: Noise) -> dict[str, Any]:
    """One row for each share and loss, from all finished runs."""
    shares = sorted({*SHARES, *wanted.shares})
    runs = {(share, loss): results_by_seed(wanted, share, loss) for share in shares for loss in LOSSES}
    clean = {seed: rsum(result) for seed, result in runs[0.0, "plain"].items()}
    both = [share for share in shares if set(runs[share, "plain"]) & set(runs[share, "robust"])]
    return {
        "command": "python -m benchmarks.noise --data DIR",
        **provenance(),
        "trained_at": sorted({each.figures["commit"] for found in runs.values() for each in found.values()}),
        "recipe": f"{OURS}-{DATA}",
        "noise": [row(*key, found, clean) for key, found in runs.items() if found],
        "gains": [gain(share, runs[share, "plain"], runs[share, "robust"]) for share in both],
    }


def results_by_seed(wanted: Noise, share: float, loss: str) -> dict[int, RunResult]:
    """Finished runs of a share and loss, by seed."""
    tasks = [task_of(wanted, share, loss, seed) for seed in covered_seeds(DATA)]
    return {task.seed: result for task, result in read_results(tasks)}


def rsum(result: RunResult) -> float:
    """The rSum of the fused score on test."""
    value: float = result.report["scores"]["fused"]["rsum"]
    return value


def row(share: float, loss: str, found: dict[int, RunResult], clean: dict[int, float]) -> dict[str, Any]:
    """Means of the fused score over the seeds; `kept`: rSum in percent of the clean rSum of the same seeds."""
    sums = {seed: rsum(result) for seed, result in found.items()}
    both = sorted(set(sums) & set(clean))
    recalls = [recalls_of(result.report["scores"]["fused"]) for result in found.values()]
    return {
        "share": share,
        "loss": loss,
        "seeds": sorted(found),
        "rsum_mean": statistics.mean(sums.values()),
        "rsum_std": statistics.stdev(sums.values()) if len(sums) > 1 else None,
        "kept": 100 * sum(sums[seed] for seed in both) / sum(clean[seed] for seed in both) if both else None,
        "r": [statistics.mean(column) for column in zip(*recalls, strict=True)],
        "best_epochs": [result.figures["best_epoch"] for result in found.values()],
        "train_minutes": statistics.mean(result.figures["train_minutes"] for result in found.values()),
    }


def gain(share: float, plain: dict[int, RunResult], robust: dict[int, RunResult]) -> dict[str, Any]:
    """RSum of the robust minus that of the plain loss: paired bootstrap over images and the common `seeds`."""
    both = sorted(set(plain) & set(robust))
    sides = [[side[seed].ranks for seed in both] for side in (robust, plain)]
    found = compare_rsum(*sides)
    return {"share": share, "seeds": both, "mean": found.mean, "low": found.low, "high": found.high, "p": found.p}


if __name__ == "__main__":
    main()
