"""The race: every method with every seed on a data set, then the ablation, by one command.

    python -m benchmarks.quality --data scenes                        # the race on the built-in scenes
    python -m benchmarks.quality --data ../flickr8k --jobs 2          # the race on Flickr8k, two runs at a time
    python -m benchmarks.quality --data ../flickr8k --entries sgr tshsr --seeds 0
    python -m benchmarks.quality --data ../flickr8k --ablation

All methods share encoders, sizes, batches, epochs and optimiser; dev chooses the weights of each run. What
is finished is not done again (`benchmarks/results/outcomes`), what was interrupted goes on where it was. The tables of
the README and of docs/results.md are made from the file that this writes (`benchmarks/tables.py`).
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cost import Cost, cost_of
from benchmarks.entries import ABLATION, ENTRIES, MODELS, OURS, Entry
from benchmarks.outcomes import Outcome, Task, kept_of
from benchmarks.settling import settle_all
from benchmarks.tables import RESULTS, update_readme
from tshsr.errors import SettingsError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.comparison import compare_rsum
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.quality")
FUSED = "fused"
MOST_SEEDS = 10
"""Kept outcomes are looked for up to this seed."""
Kept = Sequence[tuple[Task, Outcome]]
"""What is kept of a row, by seed."""


@dataclass(frozen=True)
class Quality:
    """Which rows, seeds and data."""

    data: str = "scenes"
    """The word scenes, or a folder of Flickr8k with the splits train, dev and test."""
    entries: tuple[str, ...] = ()
    """Rows; without them all of the race (or of the ablation)."""
    ablation: bool = False
    """The ablation's rows instead of the race's."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each row."""
    jobs: int = 1
    """Runs at a time; the processors' cores are shared among them."""
    runs: Path = Path("runs")
    """Where weights and score matrices are kept."""
    tables_only: bool = False
    """Train nothing: write the results file from what is finished."""
    costs: bool = False
    """Measure pairs a second anew; without it those known stay, and rows without any are measured."""


def main() -> None:
    """Train and evaluate what is missing, then write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        race(tyro.cli(Quality, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def race(wanted: Quality) -> None:
    """Settle what is asked for, then write what is known."""
    tasks = tasks_of(wanted)
    if not wanted.tables_only:
        settle_all(tasks, wanted.jobs)
    path = RESULTS / f"quality-{data_name(wanted.data)}.json"
    write_text(path, json.dumps(results(wanted), indent=1) + "\n")
    update_readme()
    LOG.info("wrote %s", path)


def data_name(data: str) -> str:
    """The data's name, as the recipes end and results files are called."""
    return "scenes" if data == "scenes" else "flickr8k"


def tasks_of(wanted: Quality) -> list[Task]:
    """What is to be done, seed after seed, so that every row has its first seed early.

    The ablation compares with the whole network, which is one of its tasks.

    Raises:
        SettingsError: For an unknown row.
    """
    changes = [entry.name for entry in ABLATION if entry.fits(data_name(wanted.data))]
    rows = [OURS, *changes] if wanted.ablation else [entry.name for entry in MODELS]
    chosen = wanted.entries or rows
    for name in chosen:
        if name not in ENTRIES:
            raise SettingsError(f"there is no row {name!r}; the rows are {', '.join(ENTRIES)}.")
        if not ENTRIES[name].fits(data_name(wanted.data)):
            raise SettingsError(f"{name} is a row of {ENTRIES[name].only} and changes nothing elsewhere; leave it out.")
    names = dict.fromkeys(part for name in chosen for part in (*ENTRIES[name].members, name))
    return [task_of(wanted, name, seed) for seed in wanted.seeds for name in names]


def task_of(wanted: Quality, name: str, seed: int) -> Task:
    """A row with a seed."""
    entry, data = ENTRIES[name], data_name(wanted.data)
    config = None if entry.members else entry.config(data, seed)
    members = tuple(task_of(wanted, member, seed) for member in entry.members)
    return Task(name, data, wanted.data, seed, wanted.runs, config, members)


def results(wanted: Quality) -> dict[str, Any]:
    """Rows, differences and ablation from everything that is kept of a data set."""
    data = data_name(wanted.data)
    names = [entry.name for entry in ENTRIES.values() if entry.fits(data)]
    everything = {name: [task_of(wanted, name, seed) for seed in range(MOST_SEEDS)] for name in names}
    found = {name: kept for name, tasks in everything.items() if (kept := kept_of(tasks))}
    known = {} if wanted.costs else known_costs(data)
    costs = {name: cost_of(kept[0][0], known.get(name)) for name, kept in found.items()}
    costs |= {name: together(costs, name) for name in found if ENTRIES[name].members}
    rows = {name: row(ENTRIES[name], data, kept, costs[name]) for name, kept in found.items()}
    ours = found.get(OURS)
    against = {
        name: difference(data, (OURS, ours), (name, kept)) for name, kept in found.items() if ours and name != OURS
    }
    return {
        "command": f"python -m benchmarks.quality --data {'scenes' if data == 'scenes' else 'DIR'}",
        **provenance(),
        "trained_at": sorted({outcome.figures["commit"] for kept in found.values() for _, outcome in kept}),
        "rows": [rows[entry.name] for entry in MODELS if entry.name in rows],
        "differences": [against[entry.name] for entry in MODELS if entry.name in against],
        "ablation": [rows[entry.name] | turned(against[entry.name]) for entry in ABLATION if entry.name in against],
    }


def known_costs(data: str) -> dict[str, Cost]:
    """The costs in the present results file: rows whose weights are not here any more keep theirs."""
    path = RESULTS / f"quality-{data}.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [*values.get("rows", ()), *values.get("ablation", ())]
    return {each["model"]: Cost(each["macs_per_pair"], each["pairs_per_s"]) for each in rows if each.get("pairs_per_s")}


def together(costs: Mapping[str, Cost | None], name: str) -> Cost | None:
    """What an ensemble costs: all of its members, one after the other."""
    parts = [costs.get(member) for member in ENTRIES[name].members]
    whole = [part for part in parts if part is not None]
    return sum(whole[1:], whole[0]) if whole and len(whole) == len(parts) else None


def row(entry: Entry, data: str, kept: Kept, cost: Cost | None) -> dict[str, Any]:
    """Mean figures of the fused score over the seeds, and what they cost."""
    reports = [outcome.report for _, outcome in kept]
    figures = [outcome.figures for _, outcome in kept]
    sums = [report["scores"][FUSED]["rsum"] for report in reports]
    recalls = [recalls_of(report["scores"][FUSED]) for report in reports]
    probes = {
        **{
            block: {name: mean_of(report[block][name] for report in reports) for name in (reports[0].get(block) or {})}
            for block in ("pointing", "binding_by_kind")
        },
        "rsum_by_score": {
            name: mean_of(report["scores"][name]["rsum"] for report in reports) for name in reports[0]["scores"]
        },
    }
    return {
        "data": data,
        "model": entry.name,
        "title": entry.title,
        "ensemble": bool(entry.members),
        "seeds": [task.seed for task, _ in kept],
        "rsum_mean": statistics.mean(sums),
        "rsum_std": statistics.stdev(sums) if len(sums) > 1 else None,
        "r": [statistics.mean(column) for column in zip(*recalls, strict=True)],
        **{name: value for name, value in probes.items() if value},
        "parameters": figures[0]["parameters"],
        "macs_per_pair": None if cost is None else cost.macs_per_pair,
        "pairs_per_s": None if cost is None else cost.pairs_per_s,
        "train_minutes": statistics.median(each["train_minutes"] for each in figures),
    }


def recalls_of(score: dict[str, Any]) -> list[float]:
    """R@1, R@5, R@10 of image to text, then of text to image."""
    return [score[side][name] for side in ("image_to_text", "text_to_image") for name in ("r1", "r5", "r10")]


def mean_of(values: Iterable[float]) -> float | None:
    """The mean, where there is any value."""
    known = list(values)
    return statistics.mean(known) if known else None


def difference(data: str, ours: tuple[str, Kept], other: tuple[str, Kept]) -> dict[str, Any]:
    """What the first row has more than the second in rSum: paired bootstrap over images and seeds."""
    sides = [[outcome.ranks for _, outcome in kept] for _, kept in (ours, other)]
    found = compare_rsum(*sides)
    names = {"data": data, "a": ours[0], "b": other[0]}
    return {**names, "mean": found.mean, "low": found.low, "high": found.high, "p": found.p}


def turned(found: dict[str, Any]) -> dict[str, Any]:
    """A difference seen from the other side: what the change does to ours."""
    names = {"a": found["b"], "b": found["a"], "p": found["p"]}
    return {**names, "mean": -found["mean"], "low": -found["high"], "high": -found["low"]}


if __name__ == "__main__":
    main()
