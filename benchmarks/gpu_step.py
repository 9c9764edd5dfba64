"""Seconds of a training step of tshsr-flickr30k at full size on a GPU, into `benchmarks/results/step-DEVICE.json`.

    python -m benchmarks.gpu_step

Batch 128, random features, the recipe's candidates and all pairs; float32, TF32 products, and bfloat16 by autocast.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import tyro

from benchmarks.tables import RESULTS
from benchmarks.training import BATCH, VOCABULARY, batch
from tshsr.bench.machine import peak_of, seconds_of
from tshsr.cli.options import choose_device
from tshsr.config.recipes import recipe
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import TshsrError
from tshsr.evaluation.compile import tf32_products
from tshsr.files import write_text
from tshsr.models.build import build_matcher
from tshsr.system import provenance
from tshsr.training.objective import Objective

LOG = logging.getLogger("benchmarks.gpu_step")
RECIPE, FEATURES = "tshsr-flickr30k", 2048


@dataclass(frozen=True)
class Step:
    """What to measure."""

    device: str = "cuda"
    """Where."""
    repeats: int = 5
    """Timed steps of each kind; medians are reported."""
    dim: int = 1024
    """Width of the joint space; smaller to rehearse."""
    batch: int = BATCH
    """Captions of a batch, each with its image."""
    seconds: float = 30.0
    """No kind is begun after that."""


def main() -> None:
    """Measure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        measure(tyro.cli(Step, description=__doc__))
    except TshsrError as error:
        sys.exit(str(error))


def measure(wanted: Step) -> None:
    """Time steps, and write the results file after every kind.

    Raises:
        SettingsError: Where this machine does not have the device.
    """
    rows, start, device = [], time.perf_counter(), choose_device(wanted.device)
    modes: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "float32": nullcontext,
        "tf32": tf32_products,
        "bfloat16": partial(torch.autocast, device, dtype=torch.bfloat16),
    }
    candidates = recipe(RECIPE).training.candidates
    for precision, mode in modes.items():
        for count in (candidates, 0):
            if time.perf_counter() - start > wanted.seconds:
                LOG.warning("%s, %d candidates is left out: %.0f s are over", precision, count, wanted.seconds)
                continue
            rows.append({"precision": precision, "candidates": count, **timed(wanted, mode, count)})
            LOG.info("%s", rows[-1])
            values = {
                "command": "python -m benchmarks.gpu_step",
                **provenance(),
                "recipe": RECIPE,
                "batch": wanted.batch,
            }
            text = json.dumps({**values, "dim": wanted.dim, "gpu_steps": rows}, indent=2)
            write_text(RESULTS / f"step-{wanted.device}.json", text + "\n")


def timed(wanted: Step, mode: Callable[[], AbstractContextManager[Any]], candidates: int) -> dict[str, Any]:
    """Seconds and peak memory of a step; 0 candidates: all pairs."""
    config, device = recipe(RECIPE), torch.device(wanted.device)
    encoder = replace(config.model.encoder, dim=wanted.dim, feature_dim=FEATURES, vocabulary=VOCABULARY)
    torch.manual_seed(0)
    network = build_matcher(replace(config.model, encoder=encoder)).train().to(device)
    optimiser, objective = torch.optim.Adam(network.parameters(), lr=1e-4), Objective(network, config.loss, candidates)
    images, captions = batch(FEATURES, wanted.batch)

    def step(images: ImageBatch, captions: CaptionBatch) -> None:
        with mode():
            losses = objective(images, captions, torch.arange(wanted.batch, device=device), hardest=True, seed=0)
        losses["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()

    work = partial(step, images.to(device), captions.to(device))
    peak = peak_of(work, device)  # also the warm-up
    seconds = [seconds_of(work, device) for _ in range(wanted.repeats)]
    spread = [min(seconds), max(seconds)]
    return {"seconds": statistics.median(seconds), "seconds_spread": spread, "peak_bytes": peak}


if __name__ == "__main__":
    main()
