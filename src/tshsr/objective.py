"""The training objective: encode a batch, score the pairs that matter, add up the losses of `LossConfig`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tshsr.batches import CaptionBatch, ImageBatch
from tshsr.config import LossConfig
from tshsr.errors import SettingsError
from tshsr.losses import hinge
from tshsr.mining import candidate_pairs
from tshsr.models.matcher import ItemEncoding, Matcher, Scores


class Objective(nn.Module):
    """What is minimised; its forward is the whole of a training step, so that it can be wrapped for many devices.

    Args:
        matcher: The network.
        config: Margin and weights.
        candidates: Negatives per image and per caption; 0 scores all pairs of the batch.

    Raises:
        SettingsError: Where every weight is 0, so that nothing would be learned.
    """

    def __init__(self, matcher: Matcher, config: LossConfig, candidates: int = 0) -> None:
        super().__init__()
        self.matcher = matcher
        self.config = config
        self.candidates = candidates
        if max(config.fused, config.streams, config.levels, config.pooled) <= 0:
            raise SettingsError(
                "every loss weight is 0; set one of loss.fused, loss.streams, loss.levels, loss.pooled."
            )

    def forward(
        self,
        images: ImageBatch,
        captions: CaptionBatch,
        image_of_caption: Int[Tensor, " captions"],
        *,
        hardest: bool,
        seed: int,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: The batch's images, each once.
            captions: The batch's captions.
            image_of_caption: For each caption the row of its image.
            hardest: Hardest negative, or the mean (warm-up).
            seed: Seed of the random candidates.

        Returns:
            `loss`, each score's hinge by name, and `spread`: the deviation of the fused scores (0 is collapse).
        """
        encoded_images = self.matcher.encode_images(images)
        encoded_captions = self.matcher.encode_captions(captions)
        scores, scored = self._score(encoded_images, encoded_captions, image_of_caption, seed)
        parts = {
            name: hinge(
                score,
                image_of_caption,
                margin=self.config.margin,
                hardest=hardest,
                scored=None if name == "pooled" else scored,
            )
            for name, score in scores.items()
            if self._weight(name) > 0
        }
        total = torch.stack([self._weight(name) * part for name, part in parts.items()]).sum()
        fused = scores["fused"].detach() if scored is None else scores["fused"].detach()[scored]
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}, "spread": fused.float().std()}

    def _score(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"], seed: int
    ) -> tuple[Scores, Bool[Tensor, "images captions"] | None]:
        """All scores as images x captions, and which of them are known (None: all)."""
        if not self.candidates:
            return self.matcher.score_all(images, captions), None
        pooled = images.pooled @ captions.pooled.T
        scored = candidate_pairs(pooled, image_of_caption, count=self.candidates, seed=seed)
        rows, columns = scored.nonzero(as_tuple=True)
        pairs = self.matcher.score_pairs(images[rows], captions[columns])
        scores = {
            name: torch.zeros_like(pooled).index_put((rows, columns), score.to(pooled.dtype))
            for name, score in pairs.items()
        }
        return {**scores, "pooled": pooled}, scored

    def _weight(self, name: str) -> float:
        """Weight of a score's hinge, by the score's name."""
        if name.startswith("level_"):
            return self.config.levels
        if name.endswith("_stream"):
            return self.config.streams
        return self.config.fused if name == "fused" else self.config.pooled
