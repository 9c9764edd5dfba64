"""A training step over a frozen text encoder's states against one over the GRU, of the same recipe.

    python -m benchmarks.text

Both read the same random images and captions of the same real lengths, in turns in one process; a step is reading the
batch, forward, backward and update. States are random, of the widths of BERT and MiniLM: the time depends on shapes
alone, and the encoder itself reads each caption only once, before training.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.tables import RESULTS
from benchmarks.training import REGIONS, VOCABULARY
from tshsr.bench.speed import LENGTHS
from tshsr.config.models import EncoderConfig
from tshsr.config.recipes import recipe
from tshsr.config.run import RunConfig
from tshsr.data.batches import ImageBatch
from tshsr.data.tokens import CaptionTokens, TokenIds
from tshsr.files import write_text
from tshsr.models.build import build_matcher
from tshsr.pretrained.token_store import StateBlock, TokenStates
from tshsr.system import keep_freed_memory, provenance
from tshsr.training.objective import Objective

LOG = logging.getLogger("benchmarks.text")
GRU, FROZEN = "gru", "frozen"


@dataclass(frozen=True)
class Case:
    """A recipe with the widths of its inputs: of a region's features, and of a node's state."""

    recipe: str
    features: int
    width: int
    dim: int | None = None


CASES = (Case("tshsr-flickr30k", 2048, 768), Case("tshsr-flickr8k", 256, 384))


@dataclass(frozen=True)
class Settings:
    """Sizes."""

    repeats: int = 9
    """Timed steps of each kind; medians are reported."""
    batch: int = 128
    """Captions of a step."""


def main() -> None:
    """Time the steps and write the results file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    settings = tyro.cli(Settings, description=__doc__)
    rows = [time_case(case, settings) for case in CASES]
    command = f"python -m benchmarks.text --repeats {settings.repeats} --batch {settings.batch}"
    values = {"command": command, **provenance(), "text_steps": rows}
    write_text(RESULTS / "text.json", json.dumps(values, indent=2) + "\n")


def time_case(case: Case, settings: Settings) -> dict[str, Any]:
    """Seconds of a step of each kind, in turns, and the ratio of the two in each round."""
    config = recipe(case.recipe)
    captions = random_captions(settings.batch, case.width)
    steps = {kind: Step(network_config(config, case, kind), case, captions[kind]) for kind in (GRU, FROZEN)}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(settings.repeats + 1):  # the first round warms up
        for kind in (GRU, FROZEN) if number % 2 else (FROZEN, GRU):
            spent = steps[kind].run(number)
            if number:
                seconds[kind].append(spent)
        LOG.info("%s: round %d", case.recipe, number)
    ratios = [frozen / gru for frozen, gru in zip(seconds[FROZEN], seconds[GRU], strict=True)]
    return {
        "recipe": case.recipe,
        "batch": settings.batch,
        "width": case.width,
        "seconds": {kind: statistics.median(each) for kind, each in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "parameters": {kind: step.parameters for kind, step in steps.items()},
    }


def network_config(config: RunConfig, case: Case, kind: str) -> RunConfig:
    """The recipe with the widths of the data, and with the GRU or a frozen encoder."""
    encoder: EncoderConfig = replace(
        config.model.encoder, feature_dim=case.features, vocabulary=VOCABULARY, boxes=False, text="gru"
    )
    if case.dim is not None:
        encoder = replace(encoder, dim=case.dim)
    if kind == FROZEN:
        encoder = replace(encoder, text="pretrained", text_weights="any", text_width=case.width)
    return replace(config, model=replace(config.model, encoder=encoder))


def random_captions(count: int, width: int) -> dict[str, CaptionTokens]:
    """The same lengths as ids of words and as states in half precision."""
    lengths = np.array([LENGTHS[number % len(LENGTHS)] for number in range(count)], np.int64)
    dice = np.random.default_rng(0)
    nodes = int(lengths.sum())
    states = dice.standard_normal((nodes, width), np.float32).astype(np.float16)
    return {
        GRU: TokenIds(dice.integers(2, VOCABULARY, nodes).astype(np.int32), lengths),
        FROZEN: TokenStates(StateBlock(lengths, states, np.zeros((count, 0), np.float32))),
    }


class Step:
    """A network in training, with its optimiser and a batch."""

    def __init__(self, config: RunConfig, case: Case, captions: CaptionTokens) -> None:
        torch.manual_seed(0)
        self.captions = captions
        self.network = build_matcher(config.model).train()
        self.parameters = sum(values.numel() for values in self.network.parameters())
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.objective = Objective(self.network, config.loss, config.training.candidates)
        generator = torch.Generator().manual_seed(0)
        regions = torch.randn(len(captions), REGIONS, case.features, generator=generator)
        self.images = ImageBatch(regions, torch.ones(len(captions), REGIONS, dtype=torch.bool))

    def run(self, seed: int) -> float:
        """One step; returns its seconds."""
        numbers = torch.arange(len(self.captions))
        start = time.perf_counter()
        batch = self.captions.read(numbers.numpy())
        self.objective(self.images, batch, numbers, hardest=True, seed=seed)["loss"].backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
