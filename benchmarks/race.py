"""Quality of every method on a data set, over several seeds, and the ablation of TSHSR.

    python -m benchmarks.race --data scenes                        # all methods on the built-in scenes
    python -m benchmarks.race --data ../flickr8k --jobs 2          # on Flickr8k, two runs at a time
    python -m benchmarks.race --data ../flickr8k --entries sgr tshsr --seeds 0
    python -m benchmarks.race --data ../flickr8k --ablation
    python -m benchmarks.race --data STORE --recipes flickr8k-photos --seeds 100 101 102
    python -m benchmarks.race --data STORE_OF_OTHER_REGIONS --recipes flickr8k-photos --entries regions-grid --seeds 100

All methods share encoders, sizes, batches, epochs and optimiser; dev chooses the weights of each run. Finished runs are
kept in `benchmarks/results/outcomes`, interrupted ones resume. `benchmarks/tables.py` makes the tables of README and
docs/results.md from `benchmarks/results/quality-DATA.json`, which this writes.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.rows import ABLATION, BY_DEFAULT, ENTRIES, MODELS, OURS, Entry
from benchmarks.runs import RunResult, Task, read_figures, read_results, run_all
from benchmarks.tables import RESULTS, update_readme
from tshsr.bench.speed import multiply_adds_of
from tshsr.data.layouts import open_split
from tshsr.data.tokens import by_length
from tshsr.errors import DataError, SettingsError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.comparison import compare
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded
from tshsr.system import keep_freed_memory, provenance

LOG = logging.getLogger("benchmarks.race")
FUSED = "fused"
MAX_SEEDS = 10
"""The results file covers the seeds below this."""
FRESH_SEEDS = {"flickr8k-photos": range(100, 110)}
"""Data whose results file covers other seeds: those that chose no setting."""
SEEDS = 3
"""Seeds of each row by default."""
Runs = Sequence[tuple[Task, RunResult]]
"""Finished runs of a row, by seed."""
PAIRED_FROM = 5
"""Equal seeds of two rows from which their runs are paired."""
COST_IMAGES, COST_REPEATS = 100, 5
"""Test images (with all their captions) and repeats of the cost measurement."""


@dataclass(frozen=True)
class Race:
    """Rows, seeds and data of a race."""

    data: str = "scenes"
    """The word scenes, or a folder of Flickr8k with the splits train, dev and test."""
    recipes: str = ""
    """The data in the names of the recipes, such as flickr8k-photos; default: scenes, or flickr8k for a folder."""
    entries: tuple[str, ...] = ()
    """Rows to run; default: all methods (or those of the ablation that `rows.BY_DEFAULT` has for the data)."""
    ablation: bool = False
    """The rows of the ablation instead of those of the methods."""
    seeds: tuple[int, ...] = ()
    """Seeds of each row; default: the first three that the results file covers."""
    jobs: int = 1
    """Parallel runs, which share the cores."""
    runs: Path = Path("runs")
    """Folder of weights and score matrices."""
    tables_only: bool = False
    """Train nothing: write the results file from the finished runs."""
    costs: bool = False
    """Measure pairs per second of all rows with weights again, not only of rows without a known figure."""


def main() -> None:
    """Train and evaluate the missing runs, then write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        race(tyro.cli(Race, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def race(wanted: Race) -> None:
    """Run the wanted tasks, then write the results file and the tables from all finished runs."""
    tasks = tasks_of(wanted)
    if not wanted.tables_only:
        check_regions(wanted, tasks)
        run_all(tasks, wanted.jobs)
    elif wanted.data != "scenes":  # which would be generated
        open_split(wanted.data, "test")  # a wrong folder is refused before the results of right data are replaced
    path = RESULTS / f"quality-{data_name(wanted)}.json"
    write_text(path, json.dumps(results(wanted), indent=1) + "\n")
    update_readme()
    LOG.info("wrote %s", path)


def command_of(wanted: Race) -> str:
    """The command that makes a results file."""
    place = "scenes" if wanted.data == "scenes" else "DIR"
    recipes = f" --recipes {wanted.recipes}" if wanted.recipes else ""
    return f"python -m benchmarks.race --data {place}{recipes}"


def data_name(wanted: Race) -> str:
    """Name of the data in the names of recipes and results files."""
    return wanted.recipes or ("scenes" if wanted.data == "scenes" else "flickr8k")


def covered_seeds(data: str) -> range:
    """Seeds that the results file covers."""
    return FRESH_SEEDS.get(data, range(MAX_SEEDS))


def check_seeds(seeds: Sequence[int], data: str) -> None:
    """Refuse to train what no results file has.

    Raises:
        SettingsError: For a seed that the results file does not cover.
    """
    covered = covered_seeds(data)
    outside = [seed for seed in seeds if seed not in covered]
    if outside:
        raise SettingsError(
            f"seed {outside[0]} is not in the tables of {data}; give seeds from {covered[0]} to {covered[-1]}."
        )


def tasks_of(wanted: Race) -> list[Task]:
    """The tasks, seed by seed, so that the first seed of every row is available early.

    The full network, to which the ablation compares, is one of its tasks.

    Raises:
        SettingsError: For an unknown row, rows of several stores of regions, or a seed that no table has.
    """
    seeds = wanted.seeds or tuple(covered_seeds(data_name(wanted))[:SEEDS])
    check_seeds(seeds, data_name(wanted))
    changes = [entry.name for entry in ABLATION if entry.applies_to(data_name(wanted)) and not entry.regions]
    changes = [name for name in changes if name in BY_DEFAULT.get(data_name(wanted), changes)]
    methods = [entry.name for entry in MODELS if entry.applies_to(data_name(wanted))]
    rows = [OURS, *changes] if wanted.ablation else methods
    chosen = wanted.entries or rows
    for name in chosen:
        if name not in ENTRIES:
            raise SettingsError(f"there is no row {name!r}; the rows are {', '.join(ENTRIES)}.")
        if not ENTRIES[name].applies_to(data_name(wanted)):
            raise SettingsError(f"{name} is a row of {ENTRIES[name].only} and changes nothing elsewhere; leave it out.")
    if len({ENTRIES[name].regions for name in chosen}) > 1:
        raise SettingsError(f"the rows {', '.join(chosen)} are of different regions; run those of each store alone.")
    names = dict.fromkeys(part for name in chosen for part in (*ENTRIES[name].members, name))
    return [task_of(wanted, name, seed) for seed in seeds for name in names]


def check_regions(wanted: Race, tasks: Sequence[Task]) -> None:
    """Refuse a store whose regions do not fit the finished rows: rows of equal regions have one extractor.

    Results from before their extractor was stored are not checked.

    Raises:
        DataError: Names the first result that does not fit.
    """
    data, regions = data_name(wanted), ENTRIES[tasks[0].entry].regions
    extractor = open_split(wanted.data, "test").extractor
    for entry in (entry for entry in ENTRIES.values() if entry.applies_to(data)):
        for task in (task_of(wanted, entry.name, seed) for seed in covered_seeds(data)):
            found = read_figures(task).get("extractor") if task.exists else None
            if found is not None and (found == extractor) != (entry.regions == regions):
                options = "these options" if entry.regions == regions else "other options"
                raise DataError(
                    f"expected a store for {tasks[0].entry} (tshsr features {regions or 'with its defaults'}); "
                    f"{wanted.data} has regions by {extractor}, {task.figures}, of {options}, by {found}. Give the "
                    "right store, or delete the result if it was made on a wrong one."
                )


def task_of(wanted: Race, name: str, seed: int) -> Task:
    """The task of a row and a seed."""
    entry, data = ENTRIES[name], data_name(wanted)
    config = None if entry.members else entry.config(data, seed)
    members = tuple(task_of(wanted, member, seed) for member in entry.members)
    return Task(name, data, wanted.data, seed, wanted.runs, config, members, entry.late_weight)


def results(wanted: Race) -> dict[str, Any]:
    """Rows, differences and ablation from all finished runs on a data set."""
    data = data_name(wanted)
    names = [entry.name for entry in ENTRIES.values() if entry.applies_to(data)]
    tasks = {name: [task_of(wanted, name, seed) for seed in covered_seeds(data)] for name in names}
    found = {name: runs for name, of_name in tasks.items() if (runs := read_results(of_name))}
    known = known_costs(data)
    costs = {name: cost_of(runs[0][0], known.get(name), measure_again=wanted.costs) for name, runs in found.items()}
    costs |= {name: ensemble_cost(costs, name) for name in found if ENTRIES[name].members}
    rows = {name: row(ENTRIES[name], data, runs, costs[name]) for name, runs in found.items()}
    for name in (name for name in rows if ENTRIES[name].members):
        rows[name]["train_minutes"] = sum(rows[member]["train_minutes"] for member in ENTRIES[name].members)
    ours = found.get(OURS)
    against = {
        name: difference(data, (OURS, ours), (name, runs)) for name, runs in found.items() if ours and name != OURS
    }
    return {
        "command": command_of(wanted),
        **provenance(),
        "trained_at": sorted({result.figures["commit"] for runs in found.values() for _, result in runs}),
        "trained_on": sorted({result.figures["hardware"] for runs in found.values() for _, result in runs}),
        "rows": [rows[entry.name] for entry in MODELS if entry.name in rows],
        "differences": [against[entry.name] for entry in MODELS if entry.name in against],
        "ablation": [
            rows[entry.name] | negated(against[entry.name]) | other_base(data, entry, found)
            for entry in ABLATION
            if entry.name in against
        ],
    }


def other_base(data: str, entry: Entry, found: Mapping[str, Runs]) -> dict[str, Any]:
    """The difference of a row of the ablation from another row than the full network; empty where there is none."""
    if entry.against not in found:
        return {}
    base = difference(data, (entry.against, found[entry.against]), (entry.name, found[entry.name]))
    return {**negated(base), "against": ENTRIES[entry.against].title}


def known_costs(data: str) -> dict[str, Cost]:
    """Costs in the existing results file; needed for rows whose weights were deleted."""
    path = RESULTS / f"quality-{data}.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [*values.get("rows", ()), *values.get("ablation", ())]
    return {
        each["model"]: Cost(each["macs_per_pair"], each["pairs_per_s"])
        for each in rows
        if each["macs_per_pair"] is not None
    }


def ensemble_cost(costs: Mapping[str, Cost | None], name: str) -> Cost | None:
    """Cost of an ensemble: the sum of its members; None where one is unknown."""
    parts = [costs.get(member) for member in ENTRIES[name].members]
    known = [part for part in parts if part is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(parts) else None


def row(entry: Entry, data: str, runs: Runs, cost: Cost | None) -> dict[str, Any]:
    """Means of the fused score over the seeds, and the cost."""
    reports = [result.report for _, result in runs]
    figures = [result.figures for _, result in runs]
    sums = [report["scores"][FUSED]["rsum"] for report in reports]
    recalls = [recalls_of(report["scores"][FUSED]) for report in reports]
    details = {
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
        "seeds": [task.seed for task, _ in runs],
        "rsum_mean": statistics.mean(sums),
        "rsum_std": statistics.stdev(sums) if len(sums) > 1 else None,
        "r": [statistics.mean(column) for column in zip(*recalls, strict=True)],
        **{name: value for name, value in details.items() if value},
        "parameters": figures[0]["parameters"],
        "macs_per_pair": None if cost is None else cost.macs_per_pair,
        "pairs_per_s": None if cost is None else cost.pairs_per_s,
        "train_minutes": statistics.median(each["train_minutes"] for each in figures),
    }


def recalls_of(score: dict[str, Any]) -> list[float]:
    """R@1, R@5, R@10 of image to text, then of text to image."""
    return [score[side][name] for side in ("image_to_text", "text_to_image") for name in ("r1", "r5", "r10")]


def mean_of(values: Iterable[float]) -> float | None:
    """The mean; None without values."""
    known = list(values)
    return statistics.mean(known) if known else None


def difference(data: str, ours: tuple[str, Runs], other: tuple[str, Runs]) -> dict[str, Any]:
    """RSum of the first row minus that of the second: paired bootstrap over images and seeds.

    Rows of the same weights are compared on their common seeds, in pairs.

    Returns:
        `seed_deviation` is the estimated deviation between seeds, of a run or of a pair; None where it is unknown.
    """
    same = ours[0] == OURS and ENTRIES[other[0]].late
    common = set.intersection(*({task.seed for task, _ in runs} for _, runs in (ours, other)))
    kept = [[run for run in runs if not same or run[0].seed in common] for _, runs in (ours, other)]
    pairs = same or are_paired(*([task.seed for task, _ in runs] for runs in kept))
    found = compare(*([result.ranks for _, result in runs] for runs in kept), pairs=pairs)
    names = {"data": data, "a": ours[0], "b": other[0], "paired": pairs, "seed_deviation": found.seed_deviation}
    return {**names, "mean": found.rsum.mean, "low": found.rsum.low, "high": found.rsum.high, "p": found.rsum.p}


def are_paired(seeds: Sequence[int], others: Sequence[int]) -> bool:
    """Whether the runs of two rows are compared seed by seed: with the same seeds, `PAIRED_FROM` or more.

    With fewer the interval has too few degrees of freedom (docs/metrics.md).
    """
    return sorted(seeds) == sorted(others) and len(seeds) >= PAIRED_FROM


def negated(found: dict[str, Any]) -> dict[str, Any]:
    """The same difference with its sides exchanged: effect of the change on the full network."""
    kept = {name: found[name] for name in ("p", "paired", "seed_deviation")}
    return {
        "a": found["b"],
        "b": found["a"],
        **kept,
        "mean": -found["mean"],
        "low": -found["high"],
        "high": -found["low"],
    }


@dataclass(frozen=True)
class Cost:
    """Cost of scoring one pair, without encoding.

    Attributes:
        macs_per_pair: Multiply-adds of the matrix products.
        pairs_per_s: Measured on this machine, median of COST_REPEATS; None where it has to be measured.
    """

    macs_per_pair: float
    pairs_per_s: float | None

    def __add__(self, other: Cost) -> Cost:
        """Cost of both in sequence."""
        macs = self.macs_per_pair + other.macs_per_pair
        if self.pairs_per_s is None or other.pairs_per_s is None:
            return Cost(macs, None)
        return Cost(macs, 1 / (1 / self.pairs_per_s + 1 / other.pairs_per_s))


@torch.inference_mode()
def cost_of(task: Task, known: Cost | None, *, measure_again: bool = False) -> Cost | None:
    """Measure the cost of a network on the first test images with all their captions.

    A known rate is kept unless the number of multiply-adds has changed: the load of this machine may be higher now.

    Args:
        task: The run of the network.
        known: Its former measurement.
        measure_again: Whether to replace a known rate of the same multiply-adds.

    Returns:
        The cost; `known` where the weights are missing, or the data has features of another extractor.
    """
    work = scoring_of(task)
    if work is None:
        return known
    pairs = work().numel()
    macs = multiply_adds_of(work) / pairs
    if not measure_again and known is not None and known.pairs_per_s is not None and known.macs_per_pair == macs:
        return known
    seconds = []
    for _ in range(COST_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return Cost(macs, pairs / statistics.median(seconds))


def scoring_of(task: Task) -> Callable[[], torch.Tensor] | None:
    """Scoring of the first test images with all their captions, encoded before.

    Returns:
        None where the weights are missing, or the data has features of another extractor.
    """
    if not (task.folder / "best").exists():
        return None
    keep_freed_memory()
    retriever, test = Retriever.from_pretrained(task.folder), open_split(task.place, "test")
    if retriever.features_of != test.extractor:
        return None
    (columns,) = np.nonzero(test.image_of_caption < COST_IMAGES)
    tokens = retriever.tokenizer.encode([test.captions[column] for column in columns])
    images = retriever.encode_images(test, indices=range(COST_IMAGES))
    captions = retriever.matcher.encode_captions(tokens.read(by_length(tokens)))
    return lambda: score_encoded(retriever.matcher, images, captions)["fused"]


if __name__ == "__main__":
    main()
