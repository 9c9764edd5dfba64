"""Train recipes on a data set, evaluate them on its test split, and write what came out to `benchmarks/results`.

    python -m benchmarks.quality --data DIR --recipes tshsr-flickr8k --seeds 0

Finished runs are kept and not trained again; an interrupted one goes on where it was. The README's table is made from
the file that this writes (`benchmarks/tables.py`).
"""

from __future__ import annotations

import json
import logging
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks.tables import RESULTS, update_readme
from tshsr.allocator import keep_freed_memory
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError
from tshsr.evaluation import evaluate
from tshsr.files import write_text
from tshsr.provenance import provenance
from tshsr.recipes import recipe
from tshsr.reports import Report
from tshsr.retriever import Retriever
from tshsr.training import fit
from tshsr.training.events import Evaluated, Event

LOG = logging.getLogger("benchmarks.quality")


@dataclass(frozen=True)
class Quality:
    """Which recipes, seeds and data."""

    data: Path
    """Folder of the data set, with the splits train, dev and test."""
    recipes: tuple[str, ...] = ("tshsr-flickr8k",)
    """Recipes to train."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each recipe; the table shows mean and deviation."""
    runs: Path = Path("runs")
    """Where runs are kept."""


def main() -> None:
    """Train and evaluate every recipe and seed, then write results and the README's table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    settings = tyro.cli(Quality, description=__doc__)
    if not settings.data.is_dir():
        raise DataError(f"{settings.data} is not a folder; expected a data set with the splits train, dev and test.")
    train, dev, test = (open_split(settings.data, name) for name in ("train", "dev", "test"))
    rows = [row(settings, name, train, dev, test) for name in settings.recipes]
    path = RESULTS / f"quality-{test.data}.json"
    recipes, seeds = " ".join(settings.recipes), " ".join(map(str, settings.seeds))
    command = f"python -m benchmarks.quality --data {test.data} --recipes {recipes} --seeds {seeds}"
    write_text(path, json.dumps({"command": command, **provenance(), "rows": rows}, indent=2) + "\n")
    update_readme()
    LOG.info("wrote %s", path)


def row(settings: Quality, name: str, train: Split, dev: Split, test: Split) -> dict[str, Any]:
    """One recipe over all seeds: a row of the results file, with the report of every seed."""
    reports, minutes, parameters = [], [], 0
    for seed in settings.seeds:
        config = recipe(name)
        config = replace(config, training=replace(config.training, seed=seed))
        out = settings.runs / f"{name}-seed{seed}"
        result = fit(config, train=train, dev=dev, out=out, resume=True, listen=tell)
        retriever = Retriever.from_pretrained(out)
        parameters = sum(weight.numel() for weight in retriever.matcher.parameters())
        LOG.info("%s: trained in %.1f minutes, dev rSum %.1f; scoring test", out, result.seconds / 60, result.best_rsum)
        report, _ = evaluate([retriever], test)
        reports.append(report)
        minutes.append(result.seconds / 60)
    return summarise(name, test.data, settings.seeds, reports) | {
        "parameters": parameters,
        "train_minutes": statistics.mean(minutes),
        "reports": [json.loads(report.to_json()) for report in reports],
    }


def summarise(name: str, data: str, seeds: tuple[int, ...], reports: list[Report]) -> dict[str, Any]:
    """Mean figures of the fused score over the seeds."""
    sums = [report.scores["fused"].rsum for report in reports]
    figures = [
        [side.r1, side.r5, side.r10, other.r1, other.r5, other.r10]
        for report in reports
        for side, other in [(report.scores["fused"].image_to_text, report.scores["fused"].text_to_image)]
    ]
    return {
        "data": data,
        "model": name,
        "seeds": list(seeds),
        "rsum_mean": statistics.mean(sums),
        "rsum_std": statistics.stdev(sums) if len(sums) > 1 else None,
        "r": [statistics.mean(column) for column in zip(*figures, strict=True)],
    }


def tell(event: Event) -> None:
    """Log every evaluation on dev."""
    if isinstance(event, Evaluated):
        LOG.info("epoch %d: dev fused rSum %.1f", event.epoch, event.report.scores["fused"].rsum)


if __name__ == "__main__":
    main()
