"""Effect of bfloat16 scoring on the recalls of trained networks, into `benchmarks/results/precision-flickr8k.json`.

    python -m benchmarks.precision --data ../flickr8k --runs runs

Scores all of test in float32 and in bfloat16, without the guard of `tshsr evaluate --dtype`. The networks are those of
`benchmarks/race.py`; `benchmarks/speed.py` measures the speed of both.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.rows import ENTRIES
from benchmarks.tables import RESULTS, update_readme
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.errors import TshsrError
from tshsr.files import write_text
from tshsr.metrics.recall import image_to_text_ranks, score_metrics, text_to_image_ranks
from tshsr.retriever import Retriever
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.rerank import score_split_rescored
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.precision")
DATA = "flickr8k"
MODELS = ("tshsr", "sgr", "saf", "two-stream-sgr", "scan-word")


@dataclass(frozen=True)
class Precision:
    """Networks and data."""

    data: Path
    """A folder of Flickr8k with the split test."""
    runs: Path = Path("runs")
    """Folder of the weights of `benchmarks.race`."""
    models: tuple[str, ...] = MODELS
    """Rows of the race, single models; seed 0 of each."""


def main() -> None:
    """Measure, and write the results file and the table."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        benchmark(tyro.cli(Precision, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def benchmark(wanted: Precision) -> None:
    """Measure every network, then write the results file and the table."""
    split = open_split(str(wanted.data), "test")
    rows = [measured(name, wanted.runs / f"{name}-{DATA}-seed0", split) for name in wanted.models]
    values = {"command": "python -m benchmarks.precision --data DIR", **provenance(), "precision": rows}
    write_text(RESULTS / f"precision-{DATA}.json", json.dumps(values, indent=1) + "\n")
    update_readme()


def measured(name: str, run: Path, split: Split) -> dict[str, Any]:
    """The fused scores of one run in both precisions."""
    retriever = Retriever.from_pretrained(run)
    full, reduced = (
        np.asarray(
            score_split_rescored(retriever.matcher, retriever.tokenizer, split, ScoringOptions(dtype=dtype))["fused"]
        )
        for dtype in (None, torch.bfloat16)
    )
    LOG.info("%s: scored", name)
    return {"model": name, "title": ENTRIES[name].title, **compared(full, reduced, split.image_of_caption)}


def compared(full: np.ndarray, reduced: np.ndarray, image_of_caption: np.ndarray) -> dict[str, Any]:
    """Recalls in both precisions, and the queries whose result changed.

    Args:
        full: Scores in float32, images x captions.
        reduced: The same in bfloat16.
        image_of_caption: For each caption the row of its image.
    """
    before, after = (score_metrics(scores, image_of_caption) for scores in (full, reduced))
    moved = []
    for ranks in (image_to_text_ranks, text_to_image_ranks):
        old, new = ranks(full, image_of_caption), ranks(reduced, image_of_caption)
        moved += [[int(((old <= k) & (new > k)).sum()), int(((old > k) & (new <= k)).sum())] for k in (1, 5, 10)]
    best = np.concatenate([full.argmax(axis=axis) == reduced.argmax(axis=axis) for axis in (1, 0)])
    return {
        "recalls": list(before.recalls),
        "recalls_16": list(after.recalls),
        "rsum": before.rsum,
        "rsum_16": after.rsum,
        "lost_and_gained": moved,
        "rank_agreement": 100 * float(best.mean()),
        "max_difference": float(np.abs(full - reduced).max()),
        "distinct_share": len(np.unique(reduced)) / reduced.size,
    }


if __name__ == "__main__":
    main()
