"""Seconds to score all pairs of a split of COCO 5K's size on a GPU, into `benchmarks/results/scale-cuda.json`.

    python -m benchmarks.gpu

5,000 images of 36 regions against 25,000 captions of real lengths at D 1024, m 256; random features and weights. The
time includes encoding, scoring every pair, and copying seven score matrices to the host. A first run over a tenth of
the images predicts the time for all; a row with a prediction above the limit, or above the seconds that are left, is
not run on all images. The file is written after every row.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.memory import CAPTIONS_OF_AN_IMAGE, FEATURES, VOCABULARY, batches
from benchmarks.tables import RESULTS
from tshsr.bench.speed import LENGTHS
from tshsr.cli.options import choose_device
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.data.tokens import TokenIds
from tshsr.errors import TshsrError
from tshsr.evaluation.compile import tf32_products
from tshsr.files import write_text
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import score_all_pairs
from tshsr.scoring.options import KernelName, ScoringOptions
from tshsr.system import provenance

LOG = logging.getLogger("benchmarks.gpu")
ROWS: tuple[tuple[str, KernelName], ...] = (
    ("bfloat16", "triton"),
    ("bfloat16", "eager"),
    ("tf32", "eager"),
    ("float32", "eager"),
)
"""Precision and kernel, the fastest first."""


@dataclass(frozen=True)
class Scale:
    """What to measure."""

    images: int = 5000
    """Images; each has five captions."""
    dim: int = 1024
    """Width of the joint space."""
    width: int = 256
    """Width of a similarity vector."""
    budgets: tuple[int, ...] = (2**30, 2**32, 2**34)
    """Byte budgets of a tile that are tried on the first tenth; the fastest one scores all images."""
    limit: float = 90.0
    """Maximum seconds of one run on all images."""
    seconds: float = 150.0
    """Seconds of all rows together: later rows are predicted, or left out."""
    device: str = "cuda"
    """Where."""
    toy: bool = False
    """Captions of two words, to rehearse."""


def main() -> None:
    """Measure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        measure(tyro.cli(Scale, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def measure(wanted: Scale) -> None:
    """Measure every row, and write the results after each.

    Raises:
        SettingsError: Where this machine does not have the device.
    """
    start, device = time.perf_counter(), choose_device(wanted.device)
    encoder = EncoderConfig(dim=wanted.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    torch.manual_seed(0)
    network = Tshsr(TshsrConfig(encoder=encoder, similarity_dim=wanted.width)).eval().to(device)
    generator = np.random.default_rng(0)
    count = wanted.images * CAPTIONS_OF_AN_IMAGE
    captions = [
        generator.integers(1, VOCABULARY, 2 if wanted.toy else LENGTHS[i % len(LENGTHS)]).tolist() for i in range(count)
    ]
    rows: list[dict[str, Any]] = []
    for precision, kernel in ROWS:
        left = wanted.seconds - (time.perf_counter() - start)
        if left < 0:
            LOG.warning("%s, %s is left out: %.0f s are over", precision, kernel, wanted.seconds)
            continue
        try:
            rows.append(row(network, replace(wanted, limit=min(wanted.limit, left)), precision, kernel, captions))
        except TshsrError as error:  # kernels that do not apply must not cost the other rows
            LOG.warning("%s, %s: %s", precision, kernel, error)
            continue
        values = {"command": "python -m benchmarks.gpu", **provenance(), "settings": asdict(wanted), "rows": rows}
        write_text(RESULTS / f"scale-{wanted.device}.json", json.dumps(values, indent=2) + "\n")


def row(network: Tshsr, wanted: Scale, precision: str, kernel: KernelName, captions: list[list[int]]) -> dict[str, Any]:
    """The fastest budget on a tenth of the images, then the whole split where it stays within the limit."""
    few = max(1, wanted.images // 10)
    some = captions[: few * CAPTIONS_OF_AN_IMAGE]
    seconds_of(network, precision, kernel, few, some, wanted.budgets[0])  # warm-up, and compilation of kernels
    tried = {budget: seconds_of(network, precision, kernel, few, some, budget) for budget in wanted.budgets}
    budget = min(tried, key=tried.__getitem__)
    predicted = tried[budget] * (wanted.images / few) ** 2
    found: dict[str, Any] = {
        "precision": precision,
        "kernel": kernel,
        "byte_budget": budget,
        "seconds_of_a_hundredth_by_budget": {str(each): seconds for each, seconds in tried.items()},
        "predicted_seconds": predicted,
        "images": wanted.images,
        "captions": len(captions),
        "seconds": None,
        "pairs_per_s": None,
        "peak_bytes": None,
    }
    LOG.info("%s, %s: %.1f s predicted with a budget of %d MiB", precision, kernel, predicted, budget // 2**20)
    if predicted <= wanted.limit:
        if wanted.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(network, precision, kernel, wanted.images, captions, budget)
        found |= {"seconds": seconds, "pairs_per_s": wanted.images * len(captions) / seconds}
        if wanted.device == "cuda":
            found["peak_bytes"] = torch.cuda.max_memory_allocated()
        LOG.info("%s, %s: %.1f s, %.0f pairs/s", precision, kernel, seconds, found["pairs_per_s"])
    return found


def seconds_of(
    network: Tshsr, precision: str, kernel: KernelName, images: int, captions: list[list[int]], byte_budget: int
) -> float:
    """Seconds of scoring all pairs of the first images and these captions; random features are drawn beforehand."""
    drawn, tokens = list(batches(images)), TokenIds.of(captions)
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    options = ScoringOptions(byte_budget=byte_budget, dtype=dtype, kernel=kernel)
    start = time.perf_counter()
    with tf32_products() if precision == "tf32" else nullcontext():
        score_all_pairs(network, iter(drawn), tokens, options=options)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
