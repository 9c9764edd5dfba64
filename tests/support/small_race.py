"""Settings of networks that train in a moment, for the benchmarks that train."""

from __future__ import annotations

SMALL = {
    "model.encoder.dim": 8,
    "model.encoder.word_dim": 6,
    "training.epochs": 1,
    "training.batch": 8,
    "training.minimum_count": 1,
    "training.evaluate_every": 1,
    "optimiser.warmup_steps": 1,
}
