"""A tiny data set that can be learned, and a tiny run over it, that the tests of training share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.config.run import OptimiserConfig, RunConfig, TrainingConfig
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.data.regions import RegionFeatures
from tshsr.models.build import build_matcher
from tshsr.training.checkpoints import save_model
from tshsr.training.completion import complete, make_tokenizer
from tshsr.training.events import Event, Listener, StepDone
from tshsr.training.fit import FitResult, fit

COLOURS = ("red", "green", "blue", "white", "black")
THINGS = ("dog", "ball", "house", "boat", "tree")


def small_split(folder: Path, name: str, images: int = 10, *, extractor: str = "small", each: int = 2) -> Split:
    """Images of coloured things: a region's features are noisy codes of the words that the captions use."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng([7, len(name)])
    codes = np.random.default_rng(3).normal(size=(len(COLOURS) + len(THINGS), 6))
    chosen = [(i % 5, (i // 5 + i) % 5) for i in range(images)]
    regions = np.stack([codes[[colour, 5 + thing, 5 + thing]] for colour, thing in chosen])
    path, part = folder / f"{name}_ims.npy", folder / f"{name}-{os.getpid()}.npy"
    np.save(part, (regions + dice.normal(scale=0.05, size=regions.shape)).astype(np.float32))
    part.replace(path)  # several processes of a job may make it at once
    sentences = ("a {} {} here", "one {} {}", "the {} {} again today")
    return Split(
        data="small",
        name=name,
        regions=RegionFeatures.open(path),
        captions=tuple(
            sentences[j % 3].format(COLOURS[colour], THINGS[thing]) for colour, thing in chosen for j in range(each)
        ),
        image_of_caption=np.repeat(np.arange(images), each),
        image_ids=tuple(f"{i}.jpg" for i in range(images)),
        extractor=extractor,
    )


def small_config(**training: Any) -> RunConfig:
    """Settings that train in a second; keywords replace fields of the training settings."""
    settings: Mapping[str, Any] = {"epochs": 2, "batch": 8, "minimum_count": 1, "save_every_steps": 1, **training}
    return RunConfig(
        recipe="small",
        model=TshsrConfig(
            encoder=EncoderConfig(dim=8, word_dim=6, dropout=0.1),
            similarity_dim=6,
            reasoning=ReasoningConfig(levels=1, seeds=(3,)),
        ),
        optimiser=OptimiserConfig(learning_rate=0.01, schedule="constant"),
        training=TrainingConfig(**settings),
    )


def with_optimiser(config: RunConfig, **changes: Any) -> RunConfig:
    """The settings with other optimiser settings."""
    return replace(config, optimiser=replace(config.optimiser, **changes))


def with_loss(config: RunConfig, **changes: Any) -> RunConfig:
    """The settings with other loss settings."""
    return replace(config, loss=replace(config.loss, **changes))


def run(config: RunConfig, data: tuple[Split, Split], out: Path, **more: Any) -> FitResult:
    """Train on the CPU."""
    return fit(config, train=data[0], dev=data[1], out=out, device="cpu", **more)


def save_untrained(out: Path, data: Path) -> Path:
    """A saved network with random weights for the data, where a test needs one and not what it has learned."""
    config, train = small_config(), open_split(data, "train")
    tokenizer = make_tokenizer(config, train)
    config = complete(config, tokenizer, train, train)
    torch.manual_seed(0)
    save_model(out, config, tokenizer, build_matcher(config.model))
    return out


def weights(out: Path, which: str = "last") -> bytes:
    """A run's weights, for comparing bit for bit."""
    return (out / which / "model.safetensors").read_bytes()


def log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class StopError(Exception):
    """Ends training from a listener, as a kill would."""


def stop_at(step: int) -> Listener:
    """A listener that stops training after a step."""

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            raise StopError

    return listen
