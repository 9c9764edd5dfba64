"""Detection of failed training: collapse (equal scores for all pairs) and divergence (values that are not finite)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tshsr.config.run import LossConfig, OptimiserConfig
from tshsr.errors import CollapseError, DivergenceError

FLAT = 0.01
"""A step is flat where the deviation of the fused scores is below this share of the margin: the hinge is then within a
few percent of 2 * margin, its value where all scores are equal."""

PATIENCE = 100
"""Consecutive flat steps before a warning; a slow start that recovers has fewer."""


@dataclass
class CollapseWatch:
    """Counts consecutive flat steps.

    Attributes:
        loss: Loss weights; if only `pooled` has one, no step counts as flat.
        optimiser: Settings quoted in the message.
        flat_steps: Consecutive flat steps so far.
    """

    loss: LossConfig
    optimiser: OptimiserConfig
    flat_steps: int = 0

    def step(self, spread: float, *, hardest: bool) -> str | None:
        """Count a step; returns a warning once, after PATIENCE flat steps.

        Args:
            spread: Deviation of the fused scores of the batch.
            hardest: False in the warm-up, where no step counts as flat.
        """
        watched = hardest and max(self.loss.fused, self.loss.streams, self.loss.levels) > 0
        self.flat_steps = self.flat_steps + 1 if watched and spread < FLAT * self.loss.margin else 0
        return self.message() if self.flat_steps == PATIENCE else None

    def epoch(self, rsum: float, chance: float, *, steps_per_epoch: int) -> None:
        """Stop a run that is flat for an epoch after the warning and near the rSum of a random ranking.

        Raises:
            CollapseError: In this case.
        """
        lasting = self.flat_steps >= PATIENCE + steps_per_epoch
        # Twice chance; on few images, where chance is high, chance plus a tenth of the way to 600.
        if lasting and rsum < min(2 * chance, chance + (600 - chance) / 10):
            raise CollapseError(f"{self.message()} rSum on dev is {rsum:.1f} (chance is {chance:.1f}): training stops.")

    def message(self) -> str:
        """Message with the remedy; the warm-up changes the hinge, and not InfoNCE."""
        if self.loss.scores == "contrastive":
            level, less = "the logarithm of the number of pairs", "Lower"
        else:
            level, less = "twice the margin", f"Raise loss.warmup_epochs (now {self.loss.warmup_epochs:g}) or lower"
        return (
            f"The network has given all pairs the same score for {self.flat_steps} steps (collapse: the loss stays at "
            f"{level}). {less} optimiser.learning_rate (now {self.optimiser.learning_rate:g}), and train again."
        )


def chance_rsum(image_of_caption: np.ndarray, images: int) -> float:
    """Expected rSum of a random ranking.

    R@K of image-to-text for an image with c of M captions: 1 - C(M - c, K) / C(M, K); of text-to-image: K / images.
    """
    captions = len(image_of_caption)
    captions_of_image = np.bincount(image_of_caption, minlength=images)
    hits = [
        1 - math.comb(captions - c, k) / math.comb(captions, k)
        for c in captions_of_image.tolist()
        for k in _cuts(captions)
    ]
    return 100 * (sum(hits) / images + sum(k / images for k in _cuts(images)))


def check_finite(loss: float, gradient_norm: float, *, where: str, kept: str, rate: float) -> None:
    """Stop a diverged run.

    Args:
        where: Epoch and step, for the message.
        kept: The saved state, for the message.
        rate: Learning rate of the step.

    Raises:
        DivergenceError: Where loss or norm is not finite.
    """
    if math.isfinite(loss) and math.isfinite(gradient_norm):
        return
    raise DivergenceError(
        f"{where}: the loss is {loss:g} and its gradient's norm {gradient_norm:g}; both must be finite, so training "
        f"stops ({kept}). Lower optimiser.learning_rate (now {rate:g}), or look for extreme values in the features."
    )


def _cuts(items: int) -> tuple[int, ...]:
    return tuple(min(k, items) for k in (1, 5, 10))
