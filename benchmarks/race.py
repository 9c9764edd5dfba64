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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import tyro

from benchmarks.runs import RunResult, Task, read_results, run_all
from benchmarks.tables import RESULTS, update_readme
from tshsr.bench.speed import multiply_adds_of
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.data.layouts import open_split
from tshsr.data.tokens import by_length
from tshsr.errors import SettingsError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.comparison import compare_rsum
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded
from tshsr.system import keep_freed_memory, provenance

LOG = logging.getLogger("benchmarks.race")
FUSED = "fused"
MAX_SEEDS = 10
"""The results file covers the seeds below this."""
FRESH_SEEDS = {"flickr8k-photos": range(100, 110)}
"""Data whose results file covers other seeds: those that chose no setting."""
Runs = Sequence[tuple[Task, RunResult]]
"""Finished runs of a row, by seed."""
COST_IMAGES, COST_REPEATS = 100, 5
"""Test images (with all their captions) and repeats of the cost measurement."""


@dataclass(frozen=True)
class Entry:
    """A row: a recipe with some settings changed, or an ensemble of other rows.

    Attributes:
        name: Name of the row, its runs and its files.
        title: Title in the tables.
        recipe: Name of the recipe without that of the data; empty for an ensemble.
        changes: Settings that differ from the recipe's, by dotted name.
        members: Rows whose scores are averaged for each seed; empty for a single model.
        only: Name of the data where the row differs from the recipe; empty: all data.
        regions: Options of `tshsr features` for the store that this row is trained on (`--data`); empty: its defaults.
    """

    name: str
    title: str
    recipe: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    only: str = ""
    regions: str = ""

    def applies_to(self, data: str) -> bool:
        """Whether the row differs from its recipe on this data."""
        return self.only in ("", data)

    def config(self, data: str, seed: int) -> RunConfig:
        """Settings of the run of a single model."""
        config = recipe(f"{self.recipe}-{data}")
        return with_settings(config, {**self.changes, "training.seed": seed})


OURS = "tshsr"
PHOTOS = "flickr8k-photos"
MODELS = (
    Entry(
        "vse-mean",
        "VSE, mean pooling (VSE++)",
        "vse",
        {"model.pooling": "mean", "model.encoder.region_projection": "linear"},
    ),
    Entry("vse-attention", "VSE, attention pooling", "vse", {"model.pooling": "attention"}),
    Entry("vse", "VSE, generalised pooling (VSE∞)", "vse"),
    Entry("esa", "ESA's pooling", "esa"),
    Entry("hrem", "HREM, relations of a batch in training", "hrem"),
    Entry("maxsim-word", "late interaction (MaxSim), word stream", "late-interaction", {"model.streams": "word"}),
    Entry("maxsim-region", "late interaction (MaxSim), region stream", "late-interaction", {"model.streams": "region"}),
    Entry("maxsim", "late interaction (MaxSim), mean of both streams", "late-interaction"),
    Entry("chan", "CHAN, hard alignment", "chan"),
    Entry("scan-word", "SCAN, word stream (t-i)", "scan"),
    Entry("scan-region", "SCAN, region stream (i-t)", "scan", {"model.streams": "region"}),
    Entry("saf", "SAF", "saf"),
    Entry("sgr", "SGR", "sgr"),
    Entry("two-stream-sgr", "SGR in two streams", "two-stream-sgr"),
    Entry("rcar-word", "RCAR, word stream (t-i)", "rcar"),
    Entry("rcar-region", "RCAR, region stream (i-t)", "rcar", {"model.streams": "region"}),
    Entry(OURS, "**TSHSR**, our instantiation", "tshsr"),
    Entry("scan", "SCAN t-i + i-t, ensemble", members=("scan-word", "scan-region")),
    Entry("sgraf", "SGRAF = SGR + SAF, ensemble", members=("sgr", "saf")),
    Entry("rcar", "RCAR = t-i + i-t, ensemble", members=("rcar-word", "rcar-region")),
)
"""The methods: single models, then ensembles of two."""

ABLATION = (
    Entry("levels-0", "no hierarchy: level 0 alone", "tshsr", {"model.reasoning.levels": 0}),
    Entry("levels-1", "one level of reasoning", "tshsr", {"model.reasoning.levels": 1}),
    Entry("levels-3", "three levels", "tshsr", {"model.reasoning.levels": 3, "model.reasoning.seeds": (8, 3, 2)}),
    Entry("seeds-half", "half the seeds (4, 2)", "tshsr", {"model.reasoning.seeds": (4, 2)}),
    Entry("seeds-double", "twice the seeds (16, 6)", "tshsr", {"model.reasoning.seeds": (16, 6)}),
    Entry("no-context", "an update sees no context nodes", "tshsr", {"model.reasoning.context": False}),
    Entry("no-local", "an update sees context nodes alone", "tshsr", {"model.reasoning.local": False}),
    Entry("no-gate", "no gate", "tshsr", {"model.reasoning.gate": False}),
    Entry("word-stream", "word stream alone", "tshsr", {"model.streams": "word"}),
    Entry("region-stream", "region stream alone", "tshsr", {"model.streams": "region"}),
    Entry("learned-fusion", "learned fusion", "tshsr", {"model.fusion": "learned"}),
    Entry("global-node", "with a global node", "tshsr", {"model.global_node": True}),
    Entry("no-pooled-term", "`v·t` not in the logit", "tshsr", {"model.pooled_term": False}),
    Entry("wide-comparison", "comparison in the joint space, as SGRAF", "tshsr", {"model.comparison_dim": 0}),
    Entry(
        "equal-losses",
        "every loss with the weight 1",
        "tshsr",
        {"loss.streams": 1.0, "loss.levels": 1.0, "loss.pooled": 1.0},
        only="flickr8k",
    ),
    Entry("no-stream-loss", "no loss on the streams", "tshsr", {"loss.streams": 0.0}),
    Entry("no-level-loss", "no loss on the levels", "tshsr", {"loss.levels": 0.0}),
    Entry("no-pooled-loss", "no loss on `v·t`", "tshsr", {"loss.pooled": 0.0}),
    Entry("no-places", "no place term", "tshsr", {"model.place_term": False}, only="scenes"),
    Entry("no-swaps", "no swapped captions", "tshsr", {"loss.swapped": 0.0}, only="scenes"),
    Entry("boxes", "box geometry", "tshsr", {"model.encoder.boxes": True}, only="flickr8k"),
    Entry(
        "places",
        "box geometry and the place term",
        "tshsr",
        {"model.encoder.boxes": True, "model.place_term": True},
        only="flickr8k",
    ),
    Entry(
        "swaps", "swapped captions, at half the weight of the others", "tshsr", {"loss.swapped": 0.5}, only="flickr8k"
    ),
    Entry("saf-narrow", "SAF, compared as here", "saf", {"model.comparison_dim": 64}, only="flickr8k"),
    Entry("sgr-narrow", "SGR, compared as here", "sgr", {"model.comparison_dim": 64}, only="flickr8k"),
    Entry(
        "two-stream-sgr-narrow",
        "SGR in two streams, compared as here",
        "two-stream-sgr",
        {"model.comparison_dim": 64},
        only="flickr8k",
    ),
    Entry(
        "pooled-context",
        "context nodes pool similarity vectors alone",
        "tshsr",
        {"model.reasoning.context_inverse_temperature": 0.0},
        only=PHOTOS,
    ),
    Entry("no-products", "squared differences alone", "tshsr", {"model.products": False}, only=PHOTOS),
    Entry("hinge", "hinge in place of InfoNCE on the scores", "tshsr", {"loss.scores": "hinge"}, only=PHOTOS),
    Entry("no-late-interaction", "no loss on late interaction", "tshsr", {"loss.late_interaction": 0.0}, only=PHOTOS),
    Entry(
        "no-similarity-dropout",
        "no dropout on similarity vectors",
        "tshsr",
        {"model.similarity_dropout": 0.0},
        only=PHOTOS,
    ),
    Entry("no-region-dropout", "no region dropout", "tshsr", {"model.encoder.region_dropout": 0.0}, only=PHOTOS),
    Entry("text-last-layer", "words by MiniLM's last layer", "tshsr", {"model.encoder.text_layers": ()}, only=PHOTOS),
    Entry(
        "text-gru",
        "words by a GRU from scratch",
        "tshsr",
        {"model.encoder.text": "gru", "model.encoder.text_weights": "", "model.encoder.text_layers": ()},
        only=PHOTOS,
    ),
    Entry(
        "text-glove",
        "words by a GRU over GloVe",
        "tshsr",
        {
            "model.encoder.text": "gru",
            "model.encoder.text_weights": "",
            "model.encoder.text_layers": (),
            "model.encoder.word_vectors": "glove-50d",
            "model.encoder.word_dim": 50,
        },
        only=PHOTOS,
    ),
    Entry(
        "text-tuned",
        "the last two layers of MiniLM tuned",
        "tshsr",
        {"model.encoder.text_tuned_layers": 2},
        only=PHOTOS,
    ),
    Entry("regions-whole", "whole picture alone", "tshsr", only=PHOTOS, regions="--windows none"),
    Entry(
        "regions-grid", "whole picture and grid of one pass", "tshsr", only=PHOTOS, regions="--windows none --cells 6"
    ),
    Entry(
        "regions-pooled",
        "whole picture, grid and windows of one pass",
        "tshsr",
        only=PHOTOS,
        regions="--windows pooled --cells 6",
    ),
)
"""The ablation: each row changes one thing in TSHSR; the last ones give its comparison to the other methods."""

ENTRIES = {entry.name: entry for entry in (*MODELS, *ABLATION)}


def with_settings(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The settings with some replaced, by dotted name.

    Raises:
        TypeError: Where there is no such setting.
    """
    for name, value in changes.items():
        config = cast(RunConfig, with_setting(config, name.split("."), value))
    return config


def with_setting(settings: Any, path: list[str], value: Any) -> Any:
    """Replace the value at a path of attribute names."""
    first, *rest = path
    if not is_dataclass(settings) or isinstance(settings, type) or not hasattr(settings, first):
        raise TypeError(f"{type(settings).__name__} has no setting {first!r}")
    return replace(settings, **{first: with_setting(getattr(settings, first), rest, value) if rest else value})


@dataclass(frozen=True)
class Race:
    """Rows, seeds and data of a race."""

    data: str = "scenes"
    """The word scenes, or a folder of Flickr8k with the splits train, dev and test."""
    recipes: str = ""
    """The data in the names of the recipes, such as flickr8k-photos; default: scenes, or flickr8k for a folder."""
    entries: tuple[str, ...] = ()
    """Rows to run; default: all methods (or all of the ablation)."""
    ablation: bool = False
    """The rows of the ablation instead of those of the methods."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each row."""
    jobs: int = 1
    """Parallel runs, which share the cores."""
    runs: Path = Path("runs")
    """Folder of weights and score matrices."""
    tables_only: bool = False
    """Train nothing: write the results file from the finished runs."""
    costs: bool = False
    """Measure pairs per second of all rows again, not only of rows without a known figure."""


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
        run_all(tasks, wanted.jobs)
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


def tasks_of(wanted: Race) -> list[Task]:
    """The tasks, seed by seed, so that the first seed of every row is available early.

    The full network, to which the ablation compares, is one of its tasks.

    Raises:
        SettingsError: For an unknown row.
    """
    changes = [entry.name for entry in ABLATION if entry.applies_to(data_name(wanted)) and not entry.regions]
    rows = [OURS, *changes] if wanted.ablation else [entry.name for entry in MODELS]
    chosen = wanted.entries or rows
    for name in chosen:
        if name not in ENTRIES:
            raise SettingsError(f"there is no row {name!r}; the rows are {', '.join(ENTRIES)}.")
        if not ENTRIES[name].applies_to(data_name(wanted)):
            raise SettingsError(f"{name} is a row of {ENTRIES[name].only} and changes nothing elsewhere; leave it out.")
    names = dict.fromkeys(part for name in chosen for part in (*ENTRIES[name].members, name))
    return [task_of(wanted, name, seed) for seed in wanted.seeds for name in names]


def task_of(wanted: Race, name: str, seed: int) -> Task:
    """The task of a row and a seed."""
    entry, data = ENTRIES[name], data_name(wanted)
    config = None if entry.members else entry.config(data, seed)
    members = tuple(task_of(wanted, member, seed) for member in entry.members)
    return Task(name, data, wanted.data, seed, wanted.runs, config, members)


def results(wanted: Race) -> dict[str, Any]:
    """Rows, differences and ablation from all finished runs on a data set."""
    data = data_name(wanted)
    names = [entry.name for entry in ENTRIES.values() if entry.applies_to(data)]
    tasks = {name: [task_of(wanted, name, seed) for seed in FRESH_SEEDS.get(data, range(MAX_SEEDS))] for name in names}
    found = {name: runs for name, of_name in tasks.items() if (runs := read_results(of_name))}
    known = {} if wanted.costs else known_costs(data)
    costs = {name: cost_of(runs[0][0], known.get(name)) for name, runs in found.items()}
    costs |= {name: ensemble_cost(costs, name) for name in found if ENTRIES[name].members}
    rows = {name: row(ENTRIES[name], data, runs, costs[name]) for name, runs in found.items()}
    ours = found.get(OURS)
    against = {
        name: difference(data, (OURS, ours), (name, runs)) for name, runs in found.items() if ours and name != OURS
    }
    return {
        "command": command_of(wanted),
        **provenance(),
        "trained_at": sorted({result.figures["commit"] for runs in found.values() for _, result in runs}),
        "rows": [rows[entry.name] for entry in MODELS if entry.name in rows],
        "differences": [against[entry.name] for entry in MODELS if entry.name in against],
        "ablation": [rows[entry.name] | negated(against[entry.name]) for entry in ABLATION if entry.name in against],
    }


def known_costs(data: str) -> dict[str, Cost]:
    """Costs in the existing results file; needed for rows whose weights were deleted."""
    path = RESULTS / f"quality-{data}.json"
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    rows = [*values.get("rows", ()), *values.get("ablation", ())]
    return {each["model"]: Cost(each["macs_per_pair"], each["pairs_per_s"]) for each in rows if each.get("pairs_per_s")}


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
    """RSum of the first row minus that of the second: paired bootstrap over images and seeds."""
    sides = [[result.ranks for _, result in runs] for _, runs in (ours, other)]
    found = compare_rsum(*sides)
    names = {"data": data, "a": ours[0], "b": other[0]}
    return {**names, "mean": found.mean, "low": found.low, "high": found.high, "p": found.p}


def negated(found: dict[str, Any]) -> dict[str, Any]:
    """The same difference with its sides exchanged: effect of the change on the full network."""
    names = {"a": found["b"], "b": found["a"], "p": found["p"]}
    return {**names, "mean": -found["mean"], "low": -found["high"], "high": -found["low"]}


@dataclass(frozen=True)
class Cost:
    """Cost of scoring one pair, without encoding.

    Attributes:
        macs_per_pair: Multiply-adds of the matrix products.
        pairs_per_s: Measured on this machine, median of COST_REPEATS.
    """

    macs_per_pair: float
    pairs_per_s: float

    def __add__(self, other: Cost) -> Cost:
        """Cost of both in sequence."""
        rate = 1 / (1 / self.pairs_per_s + 1 / other.pairs_per_s)
        return Cost(self.macs_per_pair + other.macs_per_pair, rate)


@torch.inference_mode()
def cost_of(task: Task, known: Cost | None) -> Cost | None:
    """Measure the cost of a network on the first test images with all their captions.

    A known rate is kept unless the number of multiply-adds has changed: the load of this machine may be higher now.

    Args:
        task: The run of the network.
        known: Its former measurement.

    Returns:
        The cost; `known` where the weights are missing, or the data has features of another extractor.
    """
    if not (task.folder / "best").exists():
        return known
    keep_freed_memory()
    retriever, test = Retriever.from_pretrained(task.folder), open_split(task.place, "test")
    if retriever.features_of != test.extractor:
        return known
    (columns,) = np.nonzero(test.image_of_caption < COST_IMAGES)
    tokens = retriever.tokenizer.encode([test.captions[column] for column in columns])
    images = retriever.encode_images(test, indices=range(COST_IMAGES))
    captions = retriever.matcher.encode_captions(tokens.read(by_length(tokens)))
    pairs = len(images) * len(captions)
    macs = multiply_adds_of(lambda: score_encoded(retriever.matcher, images, captions)) / pairs
    if known is not None and known.macs_per_pair == macs:
        return known
    seconds = []
    for _ in range(COST_REPEATS):
        start = time.perf_counter()
        score_encoded(retriever.matcher, images, captions)
        seconds.append(time.perf_counter() - start)
    return Cost(macs, pairs / statistics.median(seconds))


if __name__ == "__main__":
    main()
