"""What a step's number decides: the learning rate and which negatives count. Pure functions of it."""

from __future__ import annotations

import math
from typing import assert_never

from tshsr.config.run import LossConfig, OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate of one step.

        step       rate * (1 before `decay_epoch`, `decay` from it on)
        cosine     rate * (1 + cos(pi * epoch / epochs)) / 2
        constant   rate

    with epoch = step / steps_per_epoch, and all of it times (step + 1) / warmup_steps during the first `warmup_steps`.

    Args:
        config: Rate and schedule.
        step: Number of the step, from 0.
        steps_per_epoch: Steps of one pass.
        epochs: Passes of the whole run.
    """
    epoch = step / steps_per_epoch
    match config.schedule:
        case "step":
            factor = config.decay if epoch >= config.decay_epoch else 1.0
        case "cosine":
            factor = (1 + math.cos(math.pi * epoch / epochs)) / 2
        case "constant":
            factor = 1.0
        case _:
            assert_never(config.schedule)
    rise = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * factor * rise


def hardest_counts(config: LossConfig, step: int, *, steps_per_epoch: int) -> bool:
    """Whether only the hardest negative counts in this step (from 0), or still the mean over all."""
    return step / steps_per_epoch >= config.warmup_epochs
