"""What the hierarchy and the second stream add: the whole network against networks trained without one of them.

    python -m benchmarks.contributions --data STORE --recipes flickr8k-photos --runs RUNS MORE_RUNS

Reads the finished runs of the race (`benchmarks/results/outcomes`), and from the folders of runs the score matrices,
for the pictures that a network ranks first, and weights, where the race has not counted multiply-adds yet. Rows without
a finished run are left out. Writes `benchmarks/results/contributions-DATA.json` and the tables of docs/results.md.

Axes: runs (networks of one row, by seed) | images | captions | slices (of the captions).
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.contrasts import slice_figures
from benchmarks.race import FRESH_SEEDS, MAX_SEEDS, Race, data_name, known_costs, macs_of, task_of
from benchmarks.rows import ENTRIES, OURS
from benchmarks.runs import RunResult, Task, read_results
from benchmarks.slices import slices_of
from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.bootstrap import RECALLS, RSUM
from tshsr.metrics.comparison import compare
from tshsr.metrics.ranks import QueryRanks, query_ranks
from tshsr.metrics.recall import image_to_text_ranks, text_to_image_ranks
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.contributions")
STREAMS = ("word-stream", "region-stream")
PARTS = {"levels-0": "the hierarchy", "word-stream": "the region stream", "region-stream": "the word stream"}
"""Networks trained without a part, and the part."""
APART = "streams-apart"
"""The ensemble of both streams, trained apart: what two networks give without a common training."""
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
    runs: tuple[Path, ...] = (Path("runs"),)
    """Folders of weights and score matrices; the first one that has a run's is read."""
    resamples: int = 10_000
    """Resamples of the images."""


@dataclass(frozen=True, eq=False)
class Network:
    """The finished runs of one row.

    Attributes:
        name: Of the row.
        ranks: By seed, of every query.
        minutes: Training, median over the seeds.
        parameters: Their number.
        commits: At which the runs were trained.
    """

    name: str
    ranks: Mapping[int, QueryRanks]
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
        DataError: Where the whole network has no finished run, or a matrix is not that of the finished run.
    """
    race = race_of(wanted)
    data, test = data_name(race), open_split(wanted.data, "test")
    networks, macs = {}, {name: cost.macs_per_pair for name, cost in known_costs(data).items()}
    for name in (OURS, *PARTS):
        tasks = [task_of(race, name, seed) for seed in FRESH_SEEDS.get(data, range(MAX_SEEDS))]
        if runs := read_results(tasks):
            networks[name] = network_of(name, runs)
            if name not in macs and (count := counted([task for task, _ in runs], wanted.runs)) is not None:
                macs[name] = count
    if OURS not in networks:
        raise DataError(f"no finished run of {OURS} on {data}; train it first: python -m benchmarks.race.")
    matrices = {
        (name, seed): matrix
        for name, network in networks.items()
        for seed, ranks in network.ranks.items()
        if (matrix := read_matrix(wanted.runs, f"{name}-{data}-seed{seed}", ranks)) is not None
    }
    recipes = f" --recipes {wanted.recipes}" if wanted.recipes else ""
    return {
        "command": f"python -m benchmarks.contributions --data DIR{recipes} --runs RUNS",
        **provenance(),
        "trained_at": sorted({commit for network in networks.values() for commit in network.commits}),
        "data": data,
        "contributions": contributions(networks, matrices, test, macs, wanted.resamples),
    }


def counted(tasks: Sequence[Task], folders: Sequence[Path]) -> float | None:
    """Multiply-adds per pair of a row, from the weights of the first run that a folder has; None without any."""
    found = (macs_of(replace(task, runs=folder)) for task in tasks for folder in folders)
    return next((macs for macs in found if macs is not None), None)


def network_of(name: str, runs: Sequence[tuple[Task, RunResult]]) -> Network:
    """The runs of a row."""
    figures = [result.figures for _, result in runs]
    return Network(
        name,
        {task.seed: result.ranks for task, result in runs},
        statistics.median(each["train_minutes"] for each in figures),
        figures[0]["parameters"],
        tuple(each["commit"] for each in figures),
    )


def read_matrix(folders: Sequence[Path], name: str, ranks: QueryRanks) -> np.ndarray | None:
    """The fused scores of a run, images x captions; None where no folder has them.

    Raises:
        DataError: Where they rank a query differently than the finished run.
    """
    path = next((file for folder in folders if (file := folder / f"{name}.npy").exists()), None)
    if path is None:
        return None
    scores: np.ndarray = np.load(path)
    owner = ranks.image_of_caption
    same = scores.shape == (len(ranks.image_to_text), len(owner)) and (
        np.array_equal(image_to_text_ranks(scores, owner), ranks.image_to_text)
        and np.array_equal(text_to_image_ranks(scores, owner), ranks.text_to_image)
    )
    if not same:
        raise DataError(
            f"{path} does not give the ranks of the finished run in benchmarks/results/outcomes; expected its score "
            "matrix: leave out the folder, or train the run again."
        )
    return scores


def contributions(
    networks: Mapping[str, Network],
    matrices: Mapping[tuple[str, int], np.ndarray],
    test: Split,
    macs: Mapping[str, float],
    resamples: int,
) -> dict[str, Any]:
    """Whole network, every network without a part, both streams apart, and their overlap."""
    whole = networks[OURS]
    parts = [networks[name] for name in PARTS if name in networks]
    slices = slices_of(test.captions, test.image_of_caption)
    described = []
    for part in parts:
        ours, others = (list(network.ranks.values()) for network in (whole, part))
        figures, contrasts = slice_figures(ours, others, slices, resamples=resamples)
        described.append(
            {
                **row_of(part, macs),
                "adds": PARTS[part.name],
                "differences": differences(whole, part, resamples),
                "slices": figures,
                "contrasts": contrasts,
                "cases": cases(whole, part),
                "examples": examples(whole, part, matrices, test),
            }
        )
    apart = apart_of(networks, matrices)
    return {
        "whole": row_of(whole, macs),
        "parts": described,
        "apart": None
        if apart is None
        else {**row_of(apart, macs), "differences": differences(whole, apart, resamples)},
        "slices": [{"group": each.group, "title": each.title, "captions": int(each.captions.sum())} for each in slices],
        "overlap": overlap(networks),
    }


def row_of(network: Network, macs: Mapping[str, float]) -> dict[str, Any]:
    """Quality and cost of a row; the cost of both streams apart is the sum of theirs."""
    sums = [rsum(ranks) for ranks in network.ranks.values()]
    members = STREAMS if network.name == APART else (network.name,)
    known = [macs[name] for name in members if name in macs]
    title = "both streams trained apart, scores averaged" if network.name == APART else ENTRIES[network.name].title
    return {
        "model": network.name,
        "title": title,
        "seeds": sorted(network.ranks),
        "rsum_mean": statistics.mean(sums),
        "rsum_std": statistics.stdev(sums) if len(sums) > 1 else None,
        "macs_per_pair": sum(known) if len(known) == len(members) else None,
        "parameters": network.parameters,
        "train_minutes": network.minutes,
    }


def rsum(ranks: QueryRanks) -> float:
    """Sum of the six recalls, in points."""
    return float(
        sum(100 * np.mean(side <= k) for side in (ranks.image_to_text, ranks.text_to_image) for k in (1, 5, 10))
    )


def differences(whole: Network, part: Network, resamples: int) -> dict[str, dict[str, Any]]:
    """Recalls and rSum of the whole network minus those of the other: paired bootstrap over images and seeds."""
    found = compare(list(whole.ranks.values()), list(part.ranks.values()), resamples=resamples)
    return {
        name: {
            key: value for key, value in asdict(found.differences[name]).items() if key in ("mean", "low", "high", "p")
        }
        for name in FIGURES
    }


def common_seeds(*networks: Network) -> list[int]:
    """The seeds of which all networks have a run."""
    return sorted(set.intersection(*(set(network.ranks) for network in networks)))


def right(network: Network, seeds: Sequence[int]) -> np.ndarray:
    """Whether the picture of a caption is ranked first: seeds x captions."""
    return np.stack([network.ranks[seed].text_to_image == 1 for seed in seeds])


def cases(whole: Network, part: Network) -> dict[str, Any]:
    """Captions whose picture one network ranks first with every common seed, and the other one with none.

    Returns:
        `seeds`, `whole_only`, `part_only`, and `both`, `neither`: the same verdict of both with every seed.
    """
    seeds = common_seeds(whole, part)
    if not seeds:
        return {"seeds": []}
    one, other = (right(network, seeds) for network in (whole, part))
    counts = {
        "whole_only": one.all(axis=0) & ~other.any(axis=0),
        "part_only": other.all(axis=0) & ~one.any(axis=0),
        "both": one.all(axis=0) & other.all(axis=0),
        "neither": ~one.any(axis=0) & ~other.any(axis=0),
    }
    return {"seeds": seeds, **{name: int(found.sum()) for name, found in counts.items()}}


def examples(
    whole: Network, part: Network, matrices: Mapping[tuple[str, int], np.ndarray], test: Split
) -> list[dict[str, Any]]:
    """The `EXAMPLES` cases of `whole_only` in which the network without the part ranks the picture lowest.

    Lowest by the mean rank over the common seeds, then in the order of the captions. The picture ranked first is that
    of the lowest of these seeds.
    """
    seeds = [seed for seed in common_seeds(whole, part) if (part.name, seed) in matrices]
    if not seeds:
        return []
    ranks = np.stack([part.ranks[seed].text_to_image for seed in seeds])
    chosen = np.flatnonzero(right(whole, seeds).all(axis=0) & ~right(part, seeds).any(axis=0))
    order = chosen[np.argsort(-ranks[:, chosen].mean(axis=0), kind="stable")][:EXAMPLES]
    first = matrices[part.name, seeds[0]][:, order].argmax(axis=0)
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


def apart_of(networks: Mapping[str, Network], matrices: Mapping[tuple[str, int], np.ndarray]) -> Network | None:
    """The mean of the scores of both streams, trained apart, by common seed; None without any."""
    if not all(name in networks for name in STREAMS):
        return None
    streams = [networks[name] for name in STREAMS]
    owner = next(iter(streams[0].ranks.values())).image_of_caption
    ranks = {
        seed: query_ranks(np.mean([matrices[name, seed] for name in STREAMS], axis=0), owner)
        for seed in common_seeds(*streams)
        if all((name, seed) in matrices for name in STREAMS)
    }
    if not ranks:
        return None
    minutes, parameters = sum(each.minutes for each in streams), sum(each.parameters for each in streams)
    return Network(APART, ranks, minutes, parameters, ())


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
