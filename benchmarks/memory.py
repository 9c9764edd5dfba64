"""Peak memory of an evaluation at the size of COCO 5K, into `benchmarks/results/memory.json`.

    python -m benchmarks.memory

5,000 images of 36 regions and 25,000 captions of real lengths at D 1024, m 256: encodings of both sides, seven score
matrices in files, and all their metrics, as in `tshsr evaluate`. Only the network's scoring is left out (v·t replaces
every score, for minutes instead of hours): its temporaries stay within a byte budget, which a test measures.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.tables import RESULTS
from tshsr.bench.machine import resident
from tshsr.bench.speed import LENGTHS
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.data.batches import ImageBatch
from tshsr.data.tokens import TokenIds
from tshsr.evaluation.run import evaluate_scores
from tshsr.files import write_text
from tshsr.models.base import ItemEncoding, Scores
from tshsr.models.tshsr import Tshsr
from tshsr.scoring.all_pairs import ENCODE_BLOCK, score_all_pairs
from tshsr.scoring.options import BYTE_BUDGET, ScoringOptions
from tshsr.system import keep_freed_memory, provenance

LOG = logging.getLogger("benchmarks.memory")
FEATURES, VOCABULARY, REGIONS, CAPTIONS_OF_AN_IMAGE = 2048, 10_000, 36, 5


@dataclass(frozen=True)
class Memory:
    """Size of the evaluation."""

    images: int = 5000
    """Images, with five captions each."""
    dim: int = 1024
    """Width of the joint space."""


class WithoutReasoning(Tshsr):
    """TSHSR with its encodings and score names; every score is v·t."""

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """v·t under every name."""
        pooled = images.pooled @ captions.pooled.T
        return dict.fromkeys(self.score_names, pooled)


def main() -> None:
    """Score, evaluate, and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    wanted = tyro.cli(Memory, description=__doc__)
    encoder = EncoderConfig(dim=wanted.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    network = WithoutReasoning(TshsrConfig(encoder=encoder)).eval()
    generator = np.random.default_rng(0)
    count = wanted.images * CAPTIONS_OF_AN_IMAGE
    captions = [generator.integers(1, VOCABULARY, LENGTHS[i % len(LENGTHS)]).tolist() for i in range(count)]
    before, start = resident("VmHWM"), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        options = ScoringOptions(folder=Path(folder), progress=log_progress)
        scores = score_all_pairs(network, batches(wanted.images), TokenIds.of(captions), options)
        scored = resident("VmHWM")
        report = evaluate_scores(
            scores,
            np.repeat(np.arange(wanted.images), CAPTIONS_OF_AN_IMAGE),
            protocol="flickr",
            data="random",
            split="test",
            models=["v·t"],
            seconds=0.0,
        )
    values = {
        "command": "python -m benchmarks.memory",
        **provenance(),
        "images": wanted.images,
        "captions": count,
        "score_names": len(report.scores),
        "byte_budget": BYTE_BUDGET,
        "bytes_before": before,
        "peak_bytes_scoring": scored,
        "peak_bytes": resident("VmHWM"),
        "bytes_of_matrices": 4 * wanted.images * count * len(network.score_names),
        "seconds": time.perf_counter() - start,
    }
    write_text(RESULTS / "memory.json", json.dumps(values, indent=2) + "\n")
    LOG.info("peak %.2f GiB", resident("VmHWM") / 2**30)


def batches(images: int) -> Iterator[ImageBatch]:
    """Random features, generated lazily."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, images, ENCODE_BLOCK):
        regions = torch.randn(min(ENCODE_BLOCK, images - start), REGIONS, FEATURES, generator=generator)
        yield ImageBatch(regions, torch.ones(regions.shape[:2], dtype=torch.bool))


def log_progress(done: int, total: int) -> None:
    """Log every tenth of the work."""
    if done * 10 // total > (done - ENCODE_BLOCK**2) * 10 // total:
        LOG.info("%d %%, %.2f GiB", 100 * done // total, resident("VmRSS") / 2**30)


if __name__ == "__main__":
    main()
