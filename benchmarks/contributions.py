"""What the hierarchy and the second stream add: the whole network against networks trained without one of them.

    python -m benchmarks.contributions --data STORE --recipes flickr8k-photos

Reads the finished runs of the race (`benchmarks/results/outcomes`) and the multiply-adds of its results file; needs no
weights. Rows without a finished run are left out. Writes `benchmarks/results/contributions-DATA.json` and the tables of
docs/results.md.

Axes: runs (networks of one row, by seed) | images | captions | slices (of the captions).
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tyro

from benchmarks.contrasts import slice_figures
from benchmarks.race import Race, are_paired, covered_seeds, data_name, known_costs, task_of
from benchmarks.rows import APART, ENTRIES, OURS, STREAMS
from benchmarks.runs import RunResult, Task, read_results
from benchmarks.slices import slices_of
from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.bootstrap import RECALLS, RSUM
from tshsr.metrics.comparison import Difference, compare
from tshsr.metrics.ranks import QueryRanks
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.contributions")
PARTS = {"levels-0": "the hierarchy", "word-stream": "the region stream", "region-stream": "the word stream"}
"""Networks trained without a part, and the part."""
FIGURES = (*(figure.name for figure in RECALLS), RSUM.name)
EXAMPLES = 3
"""Examples of each network without a part."""


@dataclass(frozen=True)
class Contributions:
    """Runs to read."""

    data: str
    """A folder of data with the split test, or the word scenes."""
    recipes: str = ""
    """The data in the names of the recipes, such as flickr8k-photos; default: scenes, or flickr8k for a folder."""
    resamples: int = 10_000
    """Resamples of the images."""


@dataclass(frozen=True, eq=False)
class Network:
    """The finished runs of one row.

    Attributes:
        name: Of the row.
        ranks: By seed, of every query.
        first_images: By seed, the image that each caption ranks first; without the runs that have not stored it.
        minutes: Training, median over the seeds.
        parameters: Their number.
        commits: At which the runs were trained.
    """

    name: str
    ranks: Mapping[int, QueryRanks]
    first_images: Mapping[int, np.ndarray]
    minutes: float
    parameters: int
    commits: tuple[str, ...]


def main() -> None:
    """Write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        wanted = tyro.cli(Contributions, description=__doc__)
        path = RESULTS / f"contributions-{data_name(race_of(wanted))}.json"
        write_text(path, json.dumps(results(wanted), indent=1) + "\n")
    except TshsrError as error:
        sys.exit(str(error))
    update_readme()
    LOG.info("wrote %s", path)


def race_of(wanted: Contributions) -> Race:
    """The race whose runs are read."""
    return Race(data=wanted.data, recipes=wanted.recipes)


def results(wanted: Contributions) -> dict[str, Any]:
    """Contents of the results file.

    Raises:
        DataError: Where the whole network has no finished run.
    """
    race = race_of(wanted)
    data, test = data_name(race), open_split(wanted.data, "test")
    networks = {}
    for name in (OURS, *PARTS, APART):
        tasks = [task_of(race, name, seed) for seed in covered_seeds(data)]
        if runs := read_results(tasks):
            networks[name] = network_of(name, runs)
    if OURS not in networks:
        raise DataError(f"no finished run of {OURS} on {data}; train it first: python -m benchmarks.race.")
    macs = {name: cost.macs_per_pair for name, cost in known_costs(data).items()}
    recipes = f" --recipes {wanted.recipes}" if wanted.recipes else ""
    return {
        "command": f"python -m benchmarks.contributions --data DIR{recipes}",
        **provenance(),
        "trained_at": sorted({commit for network in networks.values() for commit in network.commits}),
        "data": data,
        "contributions": contributions(networks, test, macs, wanted.resamples),
    }


def network_of(name: str, runs: Sequence[tuple[Task, RunResult]]) -> Network:
    """The runs of a row."""
    figures = [result.figures for _, result in runs]
    return Network(
        name,
        {task.seed: result.ranks for task, result in runs},
        {task.seed: result.first_images for task, result in runs if result.first_images is not None},
        statistics.median(each["train_minutes"] for each in figures),
        figures[0]["parameters"],
        tuple(each["commit"] for each in figures),
    )


def contributions(
    networks: Mapping[str, Network], test: Split, macs: Mapping[str, float], resamples: int
) -> dict[str, Any]:
    """Whole network, every network without a part, both streams apart, and their overlap."""
    whole = networks[OURS]
    parts = [networks[name] for name in PARTS if name in networks]
    minutes = {name: network.minutes for name, network in networks.items()}
    slices = slices_of(test.captions, test.image_of_caption)
    described = []
    for part in parts:
        sides, pairs = sides_of(whole, part)
        figures, contrasts = slice_figures(*sides, slices, resamples=resamples, pairs=pairs)
        described.append(
            {
                **row_of(part, macs, minutes),
                "adds": PARTS[part.name],
                **differences(whole, part, resamples),
                "slices": figures,
                "contrasts": contrasts,
                "cases": cases(whole, part),
                "examples": examples(whole, part, test),
            }
        )
    apart = networks.get(APART)
    return {
        "whole": row_of(whole, macs, minutes),
        "parts": described,
        "apart": None if apart is None else {**row_of(apart, macs, minutes), **differences(whole, apart, resamples)},
        "slices": [{"group": each.group, "title": each.title, "captions": int(each.captions.sum())} for each in slices],
        "overlap": overlap(networks),
    }


def row_of(network: Network, macs: Mapping[str, float], minutes: Mapping[str, float]) -> dict[str, Any]:
    """Quality and cost of a row; an ensemble's multiply-adds and minutes are the sums of its members'."""
    sums = [rsum(ranks) for ranks in network.ranks.values()]
    members = ENTRIES[network.name].members or (network.name,)
    known = [macs[name] for name in members if name in macs]
    return {
        "model": network.name,
        "title": ENTRIES[network.name].title,
        "seeds": sorted(network.ranks),
        "rsum_mean": statistics.mean(sums),
        "rsum_std": statistics.stdev(sums) if len(sums) > 1 else None,
        "macs_per_pair": sum(known) if len(known) == len(members) else None,
        "parameters": network.parameters,
        "train_minutes": sum(minutes[name] for name in members),
    }


def rsum(ranks: QueryRanks) -> float:
    """Sum of the six recalls, in points."""
    return float(
        sum(100 * np.mean(side <= k) for side in (ranks.image_to_text, ranks.text_to_image) for k in (1, 5, 10))
    )


def sides_of(whole: Network, part: Network) -> tuple[tuple[list[QueryRanks], list[QueryRanks]], bool]:
    """Runs of both networks in the order of seeds, and whether they are paired."""
    ours, others = ([network.ranks[seed] for seed in sorted(network.ranks)] for network in (whole, part))
    return (ours, others), are_paired(list(whole.ranks), list(part.ranks))


def differences(whole: Network, part: Network, resamples: int) -> dict[str, Any]:
    """Recalls and rSum of the whole network minus those of the other: paired bootstrap over images and seeds.

    Returns:
        `differences` by figure; `paired`: whether seeds are; `by_seed`: rSum for each common seed; and `unpaired`, the
        difference in rSum without pairs of seeds.
    """
    sides, pairs = sides_of(whole, part)
    found, unpaired = (compare(*sides, resamples=resamples, pairs=each) for each in (pairs, False))
    return {
        "differences": {name: interval_of(found.differences[name]) for name in FIGURES},
        "paired": pairs,
        "by_seed": {str(seed): rsum(whole.ranks[seed]) - rsum(part.ranks[seed]) for seed in common_seeds(whole, part)},
        "unpaired": interval_of(unpaired.rsum),
    }


def interval_of(difference: Difference) -> dict[str, Any]:
    """A difference, its interval and p."""
    return {key: value for key, value in asdict(difference).items() if key in ("mean", "low", "high", "p")}


def common_seeds(*networks: Network) -> list[int]:
    """The seeds of which all networks have a run."""
    return sorted(set.intersection(*(set(network.ranks) for network in networks)))


def right(network: Network, seeds: Sequence[int]) -> np.ndarray:
    """Whether the picture of a caption is ranked first: seeds x captions."""
    return np.stack([network.ranks[seed].text_to_image == 1 for seed in seeds])


def cases(whole: Network, part: Network) -> dict[str, Any]:
    """Captions by which of both networks is right: ranks the picture first with more than half of the common seeds.

    Returns:
        `seeds`, `whole_only`, `part_only`, `both` and `neither`.
    """
    seeds = common_seeds(whole, part)
    if not seeds:
        return {"seeds": []}
    one, other = (right(network, seeds).mean(axis=0) > 0.5 for network in (whole, part))
    counts = {"whole_only": one & ~other, "part_only": other & ~one, "both": one & other, "neither": ~one & ~other}
    return {"seeds": seeds, **{name: int(found.sum()) for name, found in counts.items()}}


def examples(whole: Network, part: Network, test: Split) -> list[dict[str, Any]]:
    """The `EXAMPLES` captions that the whole network ranks right with the most common seeds more than the other one.

    Among equal ones those whose picture the other network ranks lowest, by the mean over the common seeds, then in the
    order of the captions. The picture ranked first is that of the lowest of these seeds that has stored it; no examples
    where none has.
    """
    seeds = common_seeds(whole, part)
    stored = [seed for seed in seeds if seed in part.first_images]
    if not stored:
        return []
    ranks = np.stack([part.ranks[seed].text_to_image for seed in seeds])
    more = right(whole, seeds).sum(axis=0) - right(part, seeds).sum(axis=0)
    order = [caption for caption in np.lexsort((-ranks.mean(axis=0), -more)) if more[caption] > 0][:EXAMPLES]
    first = part.first_images[stored[0]][order]
    return [
        {
            "caption": test.captions[caption],
            "image": test.image_ids[test.image_of_caption[caption]],
            "rank": float(ranks[:, caption].mean()),
            "ranked_first": test.image_ids[image],
            "its_caption": test.captions[int(np.flatnonzero(test.image_of_caption == image)[0])],
        }
        for caption, image in zip(order, first, strict=True)
    ]


def overlap(networks: Mapping[str, Network]) -> dict[str, Any] | None:
    """Captions by which stream, trained alone, ranks their picture first, and by whether the whole network does.

    Returns:
        `seeds`, and by `both`, `word`, `region`, `neither` the captions and those that the whole network has right,
        means over the common seeds; None without a common seed.
    """
    if not all(name in networks for name in STREAMS):
        return None
    seeds = common_seeds(*(networks[name] for name in (OURS, *STREAMS)))
    if not seeds:
        return None
    whole, word, region = (right(networks[name], seeds) for name in (OURS, *STREAMS))
    kinds = {"both": word & region, "word": word & ~region, "region": region & ~word, "neither": ~word & ~region}
    counts = {
        kind: {"captions": float(found.sum(axis=1).mean()), "whole_right": float((found & whole).sum(axis=1).mean())}
        for kind, found in kinds.items()
    }
    return {"seeds": seeds, **counts}


if __name__ == "__main__":
    main()
