"""The training objective: encode a batch, score the pairs that matter, add up the losses of `LossConfig`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import SettingsError
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.training.hard_captions import Swapped
from tshsr.training.losses import hinge
from tshsr.training.negatives import candidate_pairs

LENGTH_GROUPS = 4
"""Captions are scored in so many groups of like caption length, so that little is padding."""

ACTIVATION_BYTES = 2**31
"""Pairs whose temporaries take more than this are scored in parts, which are computed again in the backward pass ..."""
PART_BYTES = 2**28
"""... and have temporaries of about this size each."""

CREDIBLE_GAP = 0.04
"""Where a share d of a batch is doubted, a pair whose hardest negative is more than this / d above it is not believed:
the more pairs are wrong, the sooner one that looks wrong is (docs/log.md)."""


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
        trust: Float[Tensor, " captions"] | None = None,
        swapped: Swapped | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: The batch's images, each once.
            captions: The batch's captions.
            image_of_caption: For each caption the row of its image.
            hardest: Hardest negative, or the mean (warm-up).
            seed: Seed of the random candidates.
            trust: Weights of the captions in every hinge, whose hardest negatives are then bounded too; None: alike.
            swapped: Captions with two words swapped, each a negative of its own image; None: none.

        Returns:
            `loss`, each score's hinge by name, that of the `swapped` captions where they weigh anything, `spread`: the
            deviation of the fused scores (0 is collapse), and the mean `trust` where it is given.

        Raises:
            SettingsError: Where only scores that this method does not have weigh anything.
        """
        encoded_images = self.matcher.encode_images(images)
        encoded_captions = self.matcher.encode_captions(captions)
        pooled = encoded_images.pooled @ encoded_captions.pooled.T
        groups = self._negatives(pooled, image_of_caption, seed, mine=hardest)
        scores = {**self._score(encoded_images, encoded_captions, image_of_caption, groups), "pooled": pooled}
        # Hinges subtract scores that nearly agree: in 16 bits the difference would be rounded away.
        scores = {name: score.float() for name, score in scores.items()}
        margin = self.config.margin
        most = margin + credible_gap(trust) if trust is not None and hardest else math.inf
        losses = partial(
            hinge, image_of_caption=image_of_caption, margin=margin, hardest=hardest, weights=trust, most=most
        )
        parts = {
            name: losses(score) if name == "pooled" else mean([losses(score, scored=group) for group in groups])
            for name, score in scores.items()
            if self._weight(name) > 0
        }
        if not parts:
            raise SettingsError(
                f"the weight of every score of this method ({', '.join(scores)}) is 0; set one, such as loss.fused."
            )
        total = torch.stack([self._weight(name) * part for name, part in parts.items()]).sum()
        if self.config.swapped:  # told even where no caption of a batch has a swap: every step tells the same
            parts["swapped"] = self._against_swapped(scores, encoded_images, image_of_caption, swapped, trust)
            total = total + self.config.swapped * parts["swapped"]
        known = scores["fused"].detach()[positives(image_of_caption, len(images)) | torch.stack(groups).any(dim=0)]
        extras = {"spread": known.float().std(), **({} if trust is None else {"trust": trust.mean()})}
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}, **extras}

    def _against_swapped(
        self,
        scores: Scores,
        images: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        swapped: Swapped | None,
        trust: Float[Tensor, " captions"] | None,
    ) -> Float[Tensor, ""]:
        """[margin - s(i,c) + s(i,c')]+ of each caption c and its swapped c', by score as the other hinges.

        The mean over all captions, of which those without a swap cost 0. v·t takes no part: it binds no words together.
        """
        if swapped is None:
            return images.pooled.new_zeros(())
        owners, others = image_of_caption[swapped.rows], self.matcher.encode_captions(swapped.captions)
        found = self.matcher.score_listed(images[owners], others)
        costs = [
            self._weight(name) * (self.config.margin - scores[name][owners, swapped.rows] + found[name].float())
            for name in scores
            if self._weight(name) > 0 and name != "pooled"  # there is one: the settings are checked before
        ]
        cost = torch.stack(costs).clamp_min(0).sum(dim=0)
        if trust is None:
            return cost.sum() / len(image_of_caption)
        return (trust[swapped.rows] * cost).sum() / trust.sum().clamp_min(1)

    def _negatives(
        self,
        pooled: Float[Tensor, "images captions"],
        image_of_caption: Int[Tensor, " captions"],
        seed: int,
        *,
        mine: bool,
    ) -> tuple[Bool[Tensor, "images captions"], ...]:
        """Groups of pairs that each give a hinge: all of the batch, or the mined and the random candidates."""
        every = ~positives(image_of_caption, len(pooled))
        if not self.candidates:
            return (every,)
        groups = candidate_pairs(pooled, image_of_caption, count=self.candidates, seed=seed, mine=mine)
        return tuple(group for group in groups if bool(group.any())) or (every,)  # one image has no negatives

    def _score(
        self,
        images: ItemEncoding,
        captions: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        groups: tuple[Bool[Tensor, "images captions"], ...],
    ) -> Scores:
        """The scores of positives and groups as images x captions, 0 elsewhere."""
        known = positives(image_of_caption, len(images)) | torch.stack(groups).any(dim=0)
        order = captions.mask.sum(dim=1).argsort(stable=True)  # captions of like length share less padding
        pairs = int(known.sum()) if self.candidates else known.numel()
        cost = self.matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1])
        cost += (images.bytes_per_row() + captions.bytes_per_row()) if self.candidates else 0
        score, count = in_parts(self._score_some if self.candidates else self.matcher.score_all, cost * pairs)
        blocks = [
            score(images, captions[some].trimmed(), *([known[:, some]] if self.candidates else []))
            for some in order.chunk(count)
        ]
        back = order.argsort()
        return {name: torch.cat([block[name] for block in blocks], dim=1)[:, back] for name in blocks[0]}

    def _score_some(
        self, images: ItemEncoding, captions: ItemEncoding, known: Bool[Tensor, "images captions"]
    ) -> Scores:
        """The scores of the known pairs of some captions, 0 elsewhere."""
        rows, columns = known.nonzero(as_tuple=True)
        scores = self.matcher.score_listed(images[rows], captions[columns])
        empty = images.pooled.new_zeros(known.shape)
        return {name: empty.index_put((rows, columns), score.to(empty.dtype)) for name, score in scores.items()}

    def _weight(self, name: str) -> float:
        """Weight of a score's hinge, by the score's name."""
        if name.startswith("level_"):
            return self.config.levels
        if name.endswith("_stream"):
            return self.config.streams
        return self.config.fused if name == "fused" else self.config.pooled


def credible_gap(trust: Float[Tensor, " captions"]) -> Float[Tensor, ""]:
    """How far a hardest negative may be above its pair; without bound where nothing is doubted."""
    return CREDIBLE_GAP / (1 - trust.mean()).clamp_min(1e-6)


def positives(image_of_caption: Int[Tensor, " captions"], images: int) -> Bool[Tensor, "images captions"]:
    """Which caption belongs to which image."""
    rows = torch.arange(images, device=image_of_caption.device)
    return image_of_caption[None, :] == rows[:, None]


def mean(losses: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean of some losses."""
    return torch.stack(losses).mean()


def in_parts(score: Callable[..., Scores], temporaries: int) -> tuple[Callable[..., Scores], int]:
    """How to score, and in how many parts, so that what the backward pass needs stays in bounds.

    Where it would not, the parts keep their inputs alone and are computed again in the backward pass: a third slower.
    """
    if temporaries <= ACTIVATION_BYTES:
        return score, LENGTH_GROUPS
    return partial(checkpoint, score, use_reentrant=False), max(LENGTH_GROUPS, math.ceil(temporaries / PART_BYTES))
