"""Wrong pairs: what the plain and the robust loss keep of the clean rSum when 20, 40 or 60 % of the pairs are wrong.

    python -m benchmarks.noise --data ../flickr8k --jobs 2                 # everything
    python -m benchmarks.noise --data ../flickr8k --shares 0.4 --seeds 0   # one share of wrong pairs

Both losses train the same network on the same pairs, in the same order; dev (clean) chooses the weights, test is looked
at once. What is finished is not done again (`benchmarks/results/outcomes`), what was interrupted goes on where it was.
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

from benchmarks.entries import OURS, changed
from benchmarks.outcomes import Outcome, Task, kept_of
from benchmarks.quality import MOST_SEEDS, recalls_of
from benchmarks.settling import settle_all
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
    try:
        runs(tyro.cli(Noise, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def runs(wanted: Noise) -> None:
    """Settle what is asked for, then write what is known."""
    if not wanted.tables_only:
        # Seed after seed, the shares asked for in their order; every share is set against the clean pairs.
        shares = dict.fromkeys((0.0, *wanted.shares))
        each = [(share, loss, seed) for seed in wanted.seeds for share in shares for loss in LOSSES]
        asked = [one for one in each if one[0] in wanted.shares or one[1] == "plain"]
        settle_all([task_of(wanted, *one) for one in asked], wanted.jobs)
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
    return Task(name, DATA, str(wanted.data), seed, wanted.runs, config_of(share, loss, seed))


def results(wanted: Noise) -> dict[str, Any]:
    """A row a share and loss from everything that is kept."""
    shares = sorted({*SHARES, *wanted.shares})
    kept = {(share, loss): outcomes(wanted, share, loss) for share in shares for loss in LOSSES}
    clean = {seed: rsum(outcome) for seed, outcome in kept[0.0, "plain"].items()}
    both = [share for share in shares if set(kept[share, "plain"]) & set(kept[share, "robust"])]
    return {
        "command": "python -m benchmarks.noise --data DIR",
        **provenance(),
        "trained_at": sorted({each.figures["commit"] for found in kept.values() for each in found.values()}),
        "recipe": f"{OURS}-{DATA}",
        "noise": [row(*key, found, clean) for key, found in kept.items() if found],
        "gains": [gain(share, kept[share, "plain"], kept[share, "robust"]) for share in both],
    }


def outcomes(wanted: Noise, share: float, loss: str) -> dict[int, Outcome]:
    """What is kept of a share and loss, by seed."""
    tasks = [task_of(wanted, share, loss, seed) for seed in range(MOST_SEEDS)]
    return {task.seed: outcome for task, outcome in kept_of(tasks)}


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
    sides = [[side[seed].ranks for seed in both] for side in (robust, plain)]
    found = compare_rsum(*sides)
    return {"share": share, "mean": found.mean, "low": found.low, "high": found.high, "p": found.p}


if __name__ == "__main__":
    main()
