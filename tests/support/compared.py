"""Runs of a better and of a worse method to compare, made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tshsr.metrics.ranks import query_ranks

OWNERS = np.repeat(np.arange(40), 5)


def matrix(seed: int, skill: float) -> np.ndarray:
    """Scores of one run: a base that all runs share, and noise of its own."""
    base = np.random.default_rng(99).normal(size=(40, 200))
    base[OWNERS, np.arange(200)] += skill
    return (base + 0.5 * np.random.default_rng(seed).normal(size=base.shape)).astype(np.float32)


def scored(folder: Path, name: str) -> tuple[str | Path, ...]:
    """The matrix of a run, as `tshsr metrics` takes it."""
    return (folder / f"{name}.npy", "--captions", folder / "captions.txt")


def ranks(folder: Path, *names: str) -> list:
    return [query_ranks(np.load(folder / f"{name}.npy"), OWNERS) for name in names]
