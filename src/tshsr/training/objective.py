"""Training objective: encode a batch, score all or candidate pairs, sum the losses of `LossConfig`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch, PixelBatch, join_captions
from tshsr.errors import SettingsError
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.models.streams import all_similarities
from tshsr.training.hard_captions import Swapped
from tshsr.training.losses import contrastive, hinge, late_interaction, logit
from tshsr.training.negatives import candidate_pairs

LENGTH_GROUPS = 4
"""Groups of captions of similar length that are scored together, to keep padding low."""

ACTIVATION_BYTES = 2**31
"""Size of temporaries above which pairs are scored in parts with activation checkpointing."""
PART_BYTES = 2**28
"""Temporaries of each such part, approximately."""

MAX_GAP = 0.04
"""With mean pair weight 1 - d, a pair with a negative that scores more than MAX_GAP / d higher has no gradient: the
bound falls with the estimated share of wrong pairs (docs/log.md)."""


class Objective(nn.Module):
    """The loss of a batch; encoding is part of `forward`, so that DistributedDataParallel can wrap it.

    Args:
        candidates: Negatives per image and per caption; 0 scores all pairs of the batch.

    Raises:
        SettingsError: Where every loss weight is 0.
    """

    def __init__(self, matcher: Matcher, config: LossConfig, candidates: int = 0) -> None:
        super().__init__()
        self.matcher = matcher
        self.config = config
        self.candidates = candidates
        weights = config.fused, config.streams, config.levels, config.pooled, config.contrastive
        if max(*weights, config.late_interaction) <= 0:
            raise SettingsError(
                "every loss weight is 0; set one of loss.fused, loss.streams, loss.levels, loss.pooled, "
                "loss.contrastive, loss.late-interaction."
            )
        if config.scores == "contrastive" and not matcher.has_probabilities:
            raise SettingsError(
                "loss.scores contrastive needs scores that are probabilities, and this method's are cosines; set it to "
                "hinge."
            )

    def forward(
        self,
        images: ImageBatch | PixelBatch,
        captions: CaptionBatch,
        image_of_caption: Int[Tensor, " captions"],
        *,
        hardest: bool,
        seed: int,
        weights: Float[Tensor, " captions"] | None = None,
        swapped: Swapped | None = None,
        related: bool = True,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: The batch's images, each once.
            image_of_caption: For each caption the row of its image.
            hardest: Hardest negative; False: mean over all negatives (warm-up).
            seed: Seed of the random candidates.
            weights: Weights of the captions in every hinge, 0 to 1; their mean bounds costs (`max_gap`). None: all 1.
            swapped: Captions with two words swapped, each a negative of its own image.
            related: Whether the loss of `relations` is added; False before it begins.

        Returns:
            `loss`; the loss of each score by its name; `contrastive`, `late_interaction`, `swapped` and `relations`
            where their weights are not 0; `spread`: the deviation of the fused scores (0 is collapse); `trust`: the
            mean weight, where given.

        Raises:
            SettingsError: Where every score of this network has loss weight 0.
        """
        encoded_images = self.matcher.encode_pictures(images)
        encoded_captions, encoded_swaps = self._encode_captions(captions, swapped)
        pooled = encoded_images.pooled @ encoded_captions.pooled.T
        groups = self._negatives(pooled, image_of_caption, seed, mine=hardest)
        scores = {**self._score(encoded_images, encoded_captions, image_of_caption, groups), "pooled": pooled}
        # Hinges subtract nearly equal scores: in bfloat16 the difference would be rounded away.
        scores = {name: score.float() for name, score in scores.items()}
        parts, total = self._losses(scores, image_of_caption, groups, weights, hardest=hardest)
        if self.config.late_interaction:
            parts["late_interaction"] = self._late_interaction(
                encoded_images, encoded_captions, image_of_caption, weights
            )
            total = total + self.config.late_interaction * parts["late_interaction"]
        if self.config.swapped:  # even if no caption of the batch has a swap: the log keys of all steps are equal
            parts["swapped"] = self._swapped_hinge(
                scores, encoded_images, encoded_swaps, image_of_caption, swapped, weights
            )
            total = total + self.config.swapped * parts["swapped"]
        if self.config.relations:
            loss_of = self._hinge(image_of_caption, weights, hardest=hardest)
            encoded = encoded_images, encoded_captions
            parts["relations"] = self._relations(*encoded, image_of_caption, loss_of, related=related)
            total = total + self.config.relations * parts["relations"]
        known = scores["fused"].detach()[positives(image_of_caption, len(images)) | torch.stack(groups).any(dim=0)]
        extras = {"spread": known.float().std(), **({} if weights is None else {"trust": weights.mean()})}
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}, **extras}

    def _losses(
        self,
        scores: Scores,
        image_of_caption: Int[Tensor, " captions"],
        groups: tuple[Bool[Tensor, "images captions"], ...],
        weights: Float[Tensor, " captions"] | None,
        *,
        hardest: bool,
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """The loss of each score, and of `contrastive`, with their weighted sum."""
        loss_of = self._hinge(image_of_caption, weights, hardest=hardest)
        known = torch.stack(groups).any(dim=0)

        def part(name: str, score: Tensor) -> Tensor:
            if name == "pooled":
                return loss_of(score)
            if self.config.scores == "contrastive":
                return contrastive(logit(score), image_of_caption, temperature=1.0, scored=known, weights=weights)
            return mean([loss_of(score, scored=group) for group in groups])

        parts = {name: part(name, score) for name, score in scores.items() if self._weight(name) > 0}
        loss_weights = {name: self._weight(name) for name in parts}
        if self.config.contrastive:
            loss_weights["contrastive"] = self.config.contrastive
            parts["contrastive"] = contrastive(
                scores["pooled"], image_of_caption, temperature=self.config.temperature, weights=weights
            )
        if not parts and not self.config.late_interaction:
            raise SettingsError(
                f"the weight of every score of this method ({', '.join(scores)}) is 0; set one, such as loss.fused."
            )
        total = sum((loss_weights[name] * part for name, part in parts.items()), scores["pooled"].new_zeros(()))
        return parts, total

    def _hinge(
        self, image_of_caption: Int[Tensor, " captions"], weights: Float[Tensor, " captions"] | None, *, hardest: bool
    ) -> Callable[..., Float[Tensor, ""]]:
        """The hinge of a score matrix, of which `scored` pairs are known."""
        margin = self.config.margin
        max_cost = margin + max_gap(weights) if weights is not None and hardest else math.inf
        return partial(
            hinge, image_of_caption=image_of_caption, margin=margin, hardest=hardest, weights=weights, max_cost=max_cost
        )

    def _relations(
        self,
        images: ItemEncoding,
        captions: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        loss_of: Callable[..., Float[Tensor, ""]],
        *,
        related: bool,
    ) -> Float[Tensor, ""]:
        """Sum of the hinges of `Matcher.related_scores` over all pairs of the batch, and their penalty; 0 before it."""
        found = self.matcher.related_scores(images, captions, image_of_caption) if related else None
        if found is None:
            return images.pooled.new_zeros((), dtype=torch.float32)
        return torch.stack([loss_of(score.float()) for score in found.scores.values()]).sum() + found.penalty.float()

    def _late_interaction(
        self,
        images: ItemEncoding,
        captions: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        weights: Float[Tensor, " captions"] | None,
    ) -> Float[Tensor, ""]:
        """InfoNCE on late interaction, the mean over both directions."""
        similarity = all_similarities(images, captions).float()
        directions = late_interaction(similarity, images.mask, captions.mask)
        temperature = self.config.temperature
        return mean([contrastive(s, image_of_caption, temperature=temperature, weights=weights) for s in directions])

    def _encode_captions(self, captions: CaptionBatch, swapped: Swapped | None) -> tuple[ItemEncoding, ItemEncoding]:
        """The captions and their swaps, in one pass: for narrow networks the number of operations is the cost."""
        every = captions if swapped is None else join_captions(captions, swapped.captions)
        encoded = self.matcher.encode_captions(every)
        return encoded[: len(captions)], encoded[len(captions) :]

    def _swapped_hinge(
        self,
        scores: Scores,
        images: ItemEncoding,
        negatives: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        swapped: Swapped | None,
        weights: Float[Tensor, " captions"] | None,
    ) -> Float[Tensor, ""]:
        """[margin - s(i,c) + s(i,c')]+ of each caption c and its swapped c', summed over scores by their loss weights.

        (Weighted) mean over all captions; captions without a swap cost 0. `pooled` is excluded: v·t hardly depends on
        word order.
        """
        if swapped is None:
            return images.pooled.new_zeros(())
        rows = image_of_caption[swapped.rows]
        found = self.matcher.score_listed(images[rows], negatives.trimmed())
        costs = [
            self._weight(name) * (self.config.margin - scores[name][rows, swapped.rows] + found[name].float())
            for name in scores
            if self._weight(name) > 0 and name != "pooled"  # never empty: `checks.check_losses`
        ]
        cost = torch.stack(costs).clamp_min(0).sum(dim=0)
        if weights is None:
            return cost.sum() / len(image_of_caption)
        return (weights[swapped.rows] * cost).sum() / weights.sum().clamp_min(1)

    def _negatives(
        self,
        pooled: Float[Tensor, "images captions"],
        image_of_caption: Int[Tensor, " captions"],
        seed: int,
        *,
        mine: bool,
    ) -> tuple[Bool[Tensor, "images captions"], ...]:
        """Groups of negatives, with one hinge per group: all of the batch, or mined and random candidates."""
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
        """The scores of the positives and of the groups as images x captions, 0 elsewhere."""
        known = positives(image_of_caption, len(images)) | torch.stack(groups).any(dim=0)
        order = captions.mask.sum(dim=1).argsort(stable=True)  # captions of similar length need less padding
        pairs = int(known.sum()) if self.candidates else known.numel()
        cost = self.matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1])
        cost += (images.bytes_per_row() + captions.bytes_per_row()) if self.candidates else 0
        score, count = in_parts(self._score_known if self.candidates else self.matcher.score_all, cost * pairs)
        blocks = [
            score(images, captions[chunk].trimmed(), *([known[:, chunk]] if self.candidates else []))
            for chunk in order.chunk(count)
        ]
        inverse = order.argsort()
        return {name: torch.cat([block[name] for block in blocks], dim=1)[:, inverse] for name in blocks[0]}

    def _score_known(
        self, images: ItemEncoding, captions: ItemEncoding, known: Bool[Tensor, "images captions"]
    ) -> Scores:
        """The scores of the known pairs, 0 elsewhere."""
        rows, columns = known.nonzero(as_tuple=True)
        scores = self.matcher.score_listed(images[rows], captions[columns])
        empty = images.pooled.new_zeros(known.shape)
        return {name: empty.index_put((rows, columns), score.to(empty.dtype)) for name, score in scores.items()}

    def _weight(self, name: str) -> float:
        """Loss weight of a score."""
        if name.startswith("level_"):
            return self.config.levels
        if name.endswith("_stream"):
            return self.config.streams
        return self.config.fused if name == "fused" else self.config.pooled


def max_gap(weights: Float[Tensor, " captions"]) -> Float[Tensor, ""]:
    """Largest s(negative) - s(positive) with a gradient: MAX_GAP / (1 - mean weight), practically unbounded at 1."""
    return MAX_GAP / (1 - weights.mean()).clamp_min(1e-6)


def positives(image_of_caption: Int[Tensor, " captions"], images: int) -> Bool[Tensor, "images captions"]:
    """True where the caption belongs to the image."""
    rows = torch.arange(images, device=image_of_caption.device)
    return image_of_caption[None, :] == rows[:, None]


def mean(losses: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean of scalars."""
    return torch.stack(losses).mean()


def in_parts(score: Callable[..., Scores], temporaries: int) -> tuple[Callable[..., Scores], int]:
    """The scoring function and the number of parts that bound the memory of the backward pass.

    Above `ACTIVATION_BYTES` the parts are checkpointed: only their inputs are stored, and each is recomputed in the
    backward pass, which takes a third longer.
    """
    if temporaries <= ACTIVATION_BYTES:
        return score, LENGTH_GROUPS
    return partial(checkpoint, score, use_reentrant=False), max(LENGTH_GROUPS, math.ceil(temporaries / PART_BYTES))
