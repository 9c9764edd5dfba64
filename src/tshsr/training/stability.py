"""Signs that training has gone wrong: every pair scored alike (collapse), or numbers that are no longer finite."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tshsr.config.run import LossConfig, OptimiserConfig
from tshsr.errors import CollapseError, DivergenceError

FLAT = 0.01
"""A spread of fused scores below this share of the margin is collapse: the hinge then lies within a few percent of the
2 * margin that it has when all scores are equal."""

PATIENCE = 100
"""Consecutive flat steps before a warning: a network that is only slow to start leaves the plateau earlier."""


@dataclass
class CollapseWatch:
    """Counts the consecutive steps in which the network scored every pair of the batch alike.

    Attributes:
        loss: The losses; with no weight on a reasoned score there is nothing to watch.
        optimiser: Named in the advice.
        flat_steps: Consecutive flat steps so far.
    """

    loss: LossConfig
    optimiser: OptimiserConfig
    flat_steps: int = 0

    def step(self, spread: float, *, hardest: bool) -> str | None:
        """Count a step; the warning comes once, when patience ends.

        Args:
            spread: Deviation of the fused scores of the batch.
            hardest: Whether the warm-up on the mean over negatives is over.
        """
        watched = hardest and max(self.loss.fused, self.loss.streams, self.loss.levels) > 0
        self.flat_steps = self.flat_steps + 1 if watched and spread < FLAT * self.loss.margin else 0
        return self.sentence() if self.flat_steps == PATIENCE else None

    def epoch(self, rsum: float, chance: float, *, steps_per_epoch: int) -> None:
        """Stop a run that stayed flat for a whole epoch after the warning and ranks at chance.

        Raises:
            CollapseError: In this case.
        """
        lasting = self.flat_steps >= PATIENCE + steps_per_epoch
        # Twice chance; on a few images, where chance alone is high, a tenth of the way to the top.
        if lasting and rsum < min(2 * chance, chance + (600 - chance) / 10):
            raise CollapseError(
                f"{self.sentence()} rSum on dev is {rsum:.1f} (chance is {chance:.1f}): training stops."
            )

    def sentence(self) -> str:
        """What is wrong and what to do."""
        return (
            f"The network has scored every pair alike for {self.flat_steps} steps (collapse: the loss rests at twice "
            f"the margin). Raise loss.warmup_epochs (now {self.loss.warmup_epochs:g}) or lower optimiser.learning_rate "
            f"(now {self.optimiser.learning_rate:g}), and train again."
        )


def chance_rsum(image_of_caption: np.ndarray, images: int) -> float:
    """The expected rSum of a random ranking.

    Image-to-text, an image with c of M captions hits within K with 1 - C(M - c, K) / C(M, K);
    text-to-image with K / images.
    """
    captions = len(image_of_caption)
    own = np.bincount(image_of_caption, minlength=images)
    hits = [1 - math.comb(captions - c, k) / math.comb(captions, k) for c in own.tolist() for k in _cuts(captions)]
    return 100 * (sum(hits) / images + sum(k / images for k in _cuts(images)))


def check_finite(loss: float, gradient_norm: float, *, where: str, kept: str, rate: float) -> None:
    """Stop a run that diverged.

    Args:
        loss: The step's loss.
        gradient_norm: Norm of its gradient.
        where: Epoch and step, in words.
        kept: What the folder still holds, in words.
        rate: The step's learning rate.

    Raises:
        DivergenceError: Where one of the two is no finite number.
    """
    if math.isfinite(loss) and math.isfinite(gradient_norm):
        return
    raise DivergenceError(
        f"{where}: the loss is {loss:g} and its gradient's norm {gradient_norm:g}; both must be finite, so training "
        f"stops ({kept}). Lower optimiser.learning_rate (now {rate:g}), or look for extreme values in the features."
    )


def _cuts(items: int) -> tuple[int, ...]:
    return tuple(min(k, items) for k in (1, 5, 10))
