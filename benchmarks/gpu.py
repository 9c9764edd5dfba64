"""Seconds to score all pairs of a split of COCO 5K's size on a GPU, into `benchmarks/results/scale-cuda.json`.

    python -m benchmarks.gpu

5,000 images of 36 regions against 25,000 captions of real lengths at D 1024, m 256; random features and weights. The
time includes encoding, scoring every pair, and copying seven score matrices to the host. A first run over a tenth of
the images predicts the time for all; a precision with a prediction above the limit is not run on all images.
"""

from __future__ import annotations

import json
import logging
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.memory import CAPTIONS_OF_AN_IMAGE, FEATURES, VOCABULARY, batches
from benchmarks.tables import RESULTS
from tshsr.bench.speed import LENGTHS
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.data.tokens import TokenIds
from tshsr.evaluation.compile import tf32_products
from tshsr.files import write_text
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import score_all_pairs
from tshsr.scoring.options import ScoringOptions
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.gpu")
PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Scale:
    """What to measure."""

    images: int = 5000
    """Images; each has five captions."""
    dim: int = 1024
    """Width of the joint space."""
    width: int = 256
    """Width of a similarity vector."""
    budgets: tuple[int, ...] = (2**28, 2**30, 2**32)
    """Byte budgets of a tile that are tried on the first tenth; the fastest one scores all images."""
    limit: float = 90.0
    """Maximum seconds of one run on all images."""
    device: str = "cuda"
    """Where."""


def main() -> None:
    """Measure every precision and write the results."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    wanted = tyro.cli(Scale, description=__doc__)
    encoder = EncoderConfig(dim=wanted.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    torch.manual_seed(0)
    network = Tshsr(TshsrConfig(encoder=encoder, similarity_dim=wanted.width)).eval().to(wanted.device)
    generator = np.random.default_rng(0)
    count = wanted.images * CAPTIONS_OF_AN_IMAGE
    captions = [generator.integers(1, VOCABULARY, LENGTHS[i % len(LENGTHS)]).tolist() for i in range(count)]
    rows = [row(network, wanted, precision, captions) for precision in PRECISIONS]
    values = {"command": "python -m benchmarks.gpu", **provenance(), "settings": asdict(wanted), "rows": rows}
    write_text(RESULTS / f"scale-{wanted.device}.json", json.dumps(values, indent=2) + "\n")


def row(network: Tshsr, wanted: Scale, precision: str, captions: list[list[int]]) -> dict[str, Any]:
    """The fastest budget on a tenth of the images, then the whole split where it stays within the limit."""
    few = max(1, wanted.images // 10)
    some = captions[: few * CAPTIONS_OF_AN_IMAGE]
    seconds_of(network, precision, few, some, wanted.budgets[0])  # warm-up
    tried = {budget: seconds_of(network, precision, few, some, budget) for budget in wanted.budgets}
    budget = min(tried, key=tried.__getitem__)
    predicted = tried[budget] * (wanted.images / few) ** 2
    found: dict[str, Any] = {
        "precision": precision,
        "byte_budget": budget,
        "seconds_of_a_hundredth_by_budget": {str(each): seconds for each, seconds in tried.items()},
        "predicted_seconds": predicted,
        "images": wanted.images,
        "captions": len(captions),
        "seconds": None,
        "pairs_per_s": None,
        "peak_bytes": None,
    }
    LOG.info("%s: %.1f s predicted with a budget of %d MiB", precision, predicted, budget // 2**20)
    if predicted <= wanted.limit:
        if wanted.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(network, precision, wanted.images, captions, budget)
        found |= {"seconds": seconds, "pairs_per_s": wanted.images * len(captions) / seconds}
        if wanted.device == "cuda":
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
        LOG.info("%s: %.1f s, %.0f pairs/s", precision, seconds, found["pairs_per_s"])
    return found


def seconds_of(network: Tshsr, precision: str, images: int, captions: list[list[int]], byte_budget: int) -> float:
    """Seconds of scoring all pairs of the first images and these captions; random features are drawn beforehand."""
    drawn, tokens = list(batches(images)), TokenIds.of(captions)
    options = ScoringOptions(byte_budget=byte_budget, dtype=torch.bfloat16 if precision == "bfloat16" else None)
    start = time.perf_counter()
    with tf32_products() if precision == "tf32" else nullcontext():
        score_all_pairs(network, iter(drawn), tokens, options=options)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
