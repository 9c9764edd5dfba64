"""Runs by several processes of a group, and the same runs by one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.support.small_runs import run, small_config, with_loss, with_optimiser
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.training import trainer
from tshsr.training.events import Event
from tshsr.training.exchange import sum_gradients

Data = tuple[Split, Split]


def settings(**training: object) -> RunConfig:
    """Settings without dropout, whose masks each process draws for itself."""
    config = small_config(**{"candidates": 2, **training})
    encoder = replace(config.model.encoder, dropout=0.0)
    return with_loss(replace(config, model=replace(config.model, encoder=encoder)), warmup_epochs=1.0, swapped=0.5)


def with_concepts(config: RunConfig) -> RunConfig:
    """The settings with concepts of the training captions, the batch graph and their losses."""
    knowledge = KnowledgeConfig(method="consistent", lexicon="rules", vectors="random", active=3)
    # Adam steps by rounding errors where a gradient is nearly 0: few are in a narrow space, and the steps are short.
    model = replace(config.model, comparison_dim=5, neighbours=1, knowledge=knowledge)
    return with_optimiser(with_loss(replace(config, model=model), relations=0.5), learning_rate=0.001)


RUNS = {
    "candidates": settings(epochs=2, batch=8),
    "accumulated": settings(epochs=2, batch=5, accumulate=2),
    "noisy pairs": with_optimiser(
        with_loss(settings(epochs=3, batch=8, noise=0.4), robust="mixture"), learning_rate=0.001
    ),
    "concepts": with_concepts(settings(epochs=1, batch=8)),
    "half": settings(epochs=1, batch=8),
}
"""By name; 20 captions in batches of 8 are uneven batches, and uneven shares of them."""
WHOLE = RUNS["candidates"]
"""The run that is interrupted: `half` is its first epoch."""


def train_all(data: Data, folder: Path) -> None:
    """Train every run, and continue `half` as begun by another number of processes, in the folder `begun`."""
    events: list[Event] = []
    for name, config in RUNS.items():
        run(config, data, folder / name, listen=events.append)
    if (folder / "begun").exists():
        run(WHOLE, data, folder / "begun", resume=True, listen=events.append)
    (folder / f"events-{os.environ.get('RANK', '0')}").write_text(str(len(events)))


def train_until_lost(data: Data, out: Path, steps: int) -> None:
    """Train; the second process kills itself in a step."""
    done = 0

    def counted(*arguments: object) -> None:
        nonlocal done
        done += 1
        if done == steps and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        sum_gradients(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "sum_gradients", counted)
        run(WHOLE, data, out)


def resume(data: Data, out: Path) -> None:
    """Continue a run."""
    run(WHOLE, data, out, resume=True)
