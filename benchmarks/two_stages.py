"""Two-stage search of trained networks: what it loses against scoring all pairs, at 20 times fewer.

    tshsr evaluate RUN --data STORE --split dev --scores-folder DEV_SCORES/NAME        # once for each run of a depth
    python -m benchmarks.two_stages --data STORE --runs RUNS/tshsr-flickr8k-photos-seed101 --dev-scores DEV_SCORES

The depth of a run is chosen on its scores of all pairs of dev (`scoring.depth`), or is that of the first run that has
them. Exact scores of test are those that the race has stored beside each run. Scores of candidates do not depend on the
depth, so the search is repeated on these scores: no time is measured.

Axes: images | captions.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import DataError, TshsrError
from tshsr.files import write_text
from tshsr.metrics.recall import score_metrics
from tshsr.retriever import Retriever
from tshsr.scoring.candidates import Depth, candidate_rounds, candidates_first, lost, recall_ceiling
from tshsr.scoring.depth import choose_depth
from tshsr.scoring.options import DEFAULT_OPTIONS
from tshsr.scoring.rerank import encode_split
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.two_stages")
LADDER = (20, 30, 40, 50, 75, 100)
"""Candidates per query, the same for images and captions, of the second table."""


@dataclass(frozen=True)
class TwoStages:
    """Runs to search with."""

    data: str
    """A folder of data with the splits dev and test."""
    runs: tuple[Path, ...]
    """Folders of runs of one recipe, each beside its matrix of test, NAME.npy."""
    dev_scores: Path
    """Folder with the scores of dev of one run or more: NAME/fused.npy, NAME/pooled.npy."""
    out: str = "flickr8k-photos"
    """The data in the name of the results file."""


def main() -> None:
    """Write the results file and the tables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(TwoStages, description=__doc__)
    try:
        values = results(wanted)
    except TshsrError as error:
        sys.exit(str(error))
    write_text(RESULTS / f"two-stages-{wanted.out}.json", json.dumps(values, indent=1) + "\n")
    update_readme()


def results(wanted: TwoStages) -> dict[str, Any]:
    """Contents of the results file.

    Raises:
        DataError: Where no run has scores of dev, or a run has no matrix of test.
    """
    dev, test = (open_split(wanted.data, name) for name in ("dev", "test"))
    depths = {run.name: chosen for run in wanted.runs if (chosen := depth_of(wanted.dev_scores / run.name, dev, test))}
    if not depths:
        raise DataError(
            f"{wanted.dev_scores} has no scores of dev of these runs; write them with tshsr evaluate RUN --split dev "
            f"--scores-folder {wanted.dev_scores}/NAME."
        )
    first = next(iter(depths))
    rows, ladder = [], []
    for run in wanted.runs:
        LOG.info("%s", run.name)
        fused = exact_scores(run)
        pooled = first_stage(run, test)
        source = run.name if run.name in depths else first
        depth, points = depths[source]
        found = searched(fused, pooled, test.image_of_caption, depth)
        rows.append({"run": run.name, "chosen_by": source, "lost_on_dev": points, **found})
        ladder.append([searched(fused, pooled, test.image_of_caption, Depth(k, k)) for k in LADDER])
    return {
        "command": "python -m benchmarks.two_stages --data DIR --runs RUNS --dev-scores DEV_SCORES",
        **provenance(),
        "data": wanted.out,
        "split": test.name,
        "two_stages": rows,
        "ladder": [means(k, [of_run[number] for of_run in ladder]) for number, k in enumerate(LADDER)],
    }


def depth_of(folder: Path, dev: Split, test: Split) -> tuple[Depth, list[float]] | None:
    """The depth that all pairs of dev choose, scaled to test, and the points lost on dev; None without scores."""
    if not folder.is_dir():
        return None
    fused, pooled = (np.load(folder / f"{name}.npy") for name in ("fused", "pooled"))
    depth, points = choose_depth(fused, pooled, dev.image_of_caption)
    sizes = [(len(split.regions), len(split.captions)) for split in (dev, test)]
    return depth.scaled(*sizes), list(points)


def exact_scores(run: Path) -> np.ndarray:
    """The fused scores of all pairs of test.

    Raises:
        DataError: Where they are missing.
    """
    path = run.with_name(f"{run.name}.npy")
    if not path.exists():
        raise DataError(f"{path} is missing; expected the scores of test that benchmarks.race stores beside a run.")
    scores: np.ndarray = np.load(path)
    return scores


@torch.inference_mode()
def first_stage(run: Path, split: Split) -> np.ndarray:
    """V·t of all pairs of a split: images x captions."""
    retriever = Retriever.from_pretrained(run)
    images, captions = encode_split(
        retriever.matcher, retriever.tokenizer, split, torch.device(retriever.device), DEFAULT_OPTIONS
    )
    pooled = np.empty((len(split.regions), len(split.captions)), np.float32)
    for columns, block in captions:
        pooled[:, columns] = torch.cat([part.pooled @ block.pooled.T for part in images]).float().cpu().numpy()
    return pooled


def searched(fused: np.ndarray, pooled: np.ndarray, image_of_caption: np.ndarray, depth: Depth) -> dict[str, Any]:
    """A two-stage search on known scores, in its two rounds.

    Returns:
        The depth, `pairs` that it scores, `all_pairs`, `times_fewer`, `rsum` and `full_rsum`, `lost` (points by recall,
        as `candidates.lost`) and the shares of queries with a right answer among their candidates.
    """
    scored = np.zeros(fused.shape, dtype=bool)
    known = np.full_like(fused, -np.inf)
    for wanted in candidate_rounds(known, pooled, depth):
        np.copyto(known, fused, where=wanted)
        scored |= wanted
    full, short = (score_metrics(each, image_of_caption) for each in (fused, candidates_first(known, pooled, scored)))
    ceiling = recall_ceiling(scored, image_of_caption)
    return {
        "k_images": depth.k_images,
        "k_captions": depth.k_captions,
        "pairs": int(scored.sum()),
        "all_pairs": scored.size,
        "times_fewer": scored.size / int(scored.sum()),
        "rsum": short.rsum,
        "full_rsum": full.rsum,
        "lost": list(lost(full, short)),
        "ceiling_image_to_text": ceiling[0],
        "ceiling_text_to_image": ceiling[1],
    }


def means(k: int, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One depth, over the runs."""
    return {
        "k": k,
        "times_fewer": float(np.mean([each["times_fewer"] for each in found])),
        "rsum_lost": [each["full_rsum"] - each["rsum"] for each in found],
        "worst_lost": [max(each["lost"]) for each in found],
    }


if __name__ == "__main__":
    main()
