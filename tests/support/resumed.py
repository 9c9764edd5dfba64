"""A run that is started or resumed by processes of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.small_runs import small_config, small_split
from tshsr.config.run import RunConfig
from tshsr.training.fit import fit


def config() -> RunConfig:
    """Its settings."""
    return small_config(epochs=4, candidates=2)


def train(config: RunConfig, folder: Path, **more: Any) -> None:
    """Start or resume the run under `folder`, with its data in the same folder."""
    data = folder / f"data-{os.getpid()}"
    splits = {"train": small_split(data, "train"), "dev": small_split(data, "dev", images=6)}
    fit(config, **splits, out=folder / "run", resume=True, device="cpu", **more)
