"""Scores of two stages, made up."""

from __future__ import annotations

import numpy as np


def noisy(images: int, each: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fused scores, v·t that follows them with more noise, and the owner of each caption, in no order."""
    dice = np.random.default_rng(seed)
    owners = dice.permutation(np.repeat(np.arange(images), each))
    truth = np.zeros((images, len(owners)))
    truth[owners, np.arange(len(owners))] = 3
    fused = truth + dice.normal(size=truth.shape)
    pooled = fused + noise * dice.normal(size=truth.shape)
    return fused.astype(np.float32), pooled.astype(np.float32), owners
