"""Training objective: encode a batch, score all or candidate pairs, sum the losses of `LossConfig`.

Of several processes each encodes a share of the batch and scores a share of its pairs; the losses are those of the
whole batch (`exchange`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch, PixelBatch, join_captions
from tshsr.errors import SettingsError
from tshsr.models.attention import at_least_float32, late_interaction
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.models.pooling import MaskedBatchNorm, summed_statistics
from tshsr.models.streams import all_similarities
from tshsr.scoring.processes import ALONE, Processes, Share
from tshsr.training.exchange import gather_encodings, gather_results, sum_over
from tshsr.training.hard_captions import Swapped
from tshsr.training.losses import contrastive, hinge, logit
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
    """The loss of a batch, from its encoding on.

    Args:
        candidates: Negatives per image and per caption; 0 scores all pairs of the batch.
        processes: Those that share the batch. All have the same loss; the gradient of the batch is the sum of theirs.

    Raises:
        SettingsError: Where every loss weight is 0, or v·t is trained apart and no loss of it has a weight.
    """

    def __init__(self, matcher: Matcher, config: LossConfig, candidates: int = 0, processes: Processes = ALONE) -> None:
        super().__init__()
        self.matcher = matcher
        self.config = config
        self.candidates = candidates
        self.processes = processes
        self.norms = [module for module in matcher.modules() if isinstance(module, MaskedBatchNorm)]
        weights = config.fused, config.streams, config.levels, config.pooled, config.contrastive
        if max(*weights, config.late_interaction) <= 0:
            raise SettingsError(
                "every loss weight is 0; set one of loss.fused, loss.streams, loss.levels, loss.pooled, "
                "loss.contrastive, loss.late-interaction."
            )
        if matcher.trains_pooled_apart and not (config.pooled or config.contrastive):
            raise SettingsError(
                "model.late-weight trains v·t apart from the streams, and no loss does so; set loss.contrastive or "
                "loss.pooled."
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
        total_images: int | None = None,
        weights: Float[Tensor, " captions"] | None = None,
        swapped: Swapped | None = None,
        related: bool = True,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        Args:
            images: The batch's images, each once; of several processes this one's share.
            captions: The batch's captions, or this process's share.
            image_of_caption: For each caption of the whole batch the row of its image.
            hardest: Hardest negative; False: mean over all negatives (warm-up).
            seed: Seed of the random candidates, the same in all processes.
            total_images: Number of images of the whole batch; None: those given.
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
        total = len(images) if total_images is None else total_images
        encoded_images, encoded_captions, encoded_swaps = self._encode(
            images, captions, swapped, sizes=(total, len(image_of_caption))
        )
        pooled = self._pooled(encoded_images, encoded_captions)
        groups = self._negatives(pooled, image_of_caption, seed, mine=hardest)
        scores = {**self._score(encoded_images, encoded_captions, image_of_caption, groups), "pooled": pooled}
        # Hinges subtract nearly equal scores: in bfloat16 the difference would be rounded away.
        scores = {name: at_least_float32(score) for name, score in scores.items()}
        parts, loss = self._losses(scores, image_of_caption, groups, weights, hardest=hardest)
        encoded = encoded_images, encoded_captions
        if self.config.late_interaction:
            parts["late_interaction"] = self._late_interaction(*encoded, image_of_caption, weights)
            loss = loss + self.config.late_interaction * parts["late_interaction"]
        if self.config.swapped:  # even if no caption of the batch has a swap: the log keys of all steps are equal
            parts["swapped"] = self._swapped_hinge(
                scores, encoded_images, encoded_swaps, image_of_caption, swapped, weights
            )
            loss = loss + self.config.swapped * parts["swapped"]
        if self.config.relations:
            loss_of = self._hinge(image_of_caption, weights, hardest=hardest)
            parts["relations"] = self._relations(*encoded, image_of_caption, loss_of, related=related)
            loss = loss + self.config.relations * parts["relations"]
        known = scores["fused"].detach()[positives(image_of_caption, total) | torch.stack(groups).any(dim=0)]
        extras = {"spread": known.float().std(), **({} if weights is None else {"trust": weights.mean()})}
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}, **extras}

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
        scores = [at_least_float32(score) for score in found.scores.values()]
        value = torch.stack([loss_of(score) for score in scores]).sum()
        value = value + found.penalty.to(value.dtype)
        if self.processes.count == 1:
            return value
        # Every process computes this from the whole batch, and the gradient is the sum of theirs.
        return value.detach() + (value - value.detach()) / self.processes.count

    def _late_interaction(
        self,
        images: ItemEncoding,
        captions: ItemEncoding,
        image_of_caption: Int[Tensor, " captions"],
        weights: Float[Tensor, " captions"] | None,
    ) -> Float[Tensor, ""]:
        """InfoNCE on late interaction, the mean over both directions; each process computes the rows of its share.

        Captions of similar length are compared together: half of a batch's words are padding.
        """
        share = self.processes.share(len(images))
        rows, temperature = images[share.rows], self.config.temperature
        order = shortest_first(captions)
        groups = [captions[part].trimmed() for part in order.chunk(LENGTH_GROUPS)]
        found = [
            late_interaction(at_least_float32(all_similarities(rows, each)), rows.mask, each.mask) for each in groups
        ]
        inverse = order.argsort()
        own = (torch.cat(blocks, dim=1)[:, inverse] for blocks in zip(*found, strict=True))
        directions = [gather_results(self.processes, each, share) for each in own]
        return mean([contrastive(s, image_of_caption, temperature=temperature, weights=weights) for s in directions])

    def _encode(
        self,
        images: ImageBatch | PixelBatch,
        captions: CaptionBatch,
        swapped: Swapped | None,
        *,
        sizes: tuple[int, int],
    ) -> tuple[ItemEncoding, ItemEncoding, ItemEncoding]:
        """The encodings of the whole batch: images, captions and swapped captions.

        Captions and their swaps are encoded in one pass: for narrow networks the number of operations is the cost.

        Args:
            sizes: Number of images and of captions of the whole batch.
        """
        shares = self.processes.share(sizes[0]), self.processes.share(sizes[1])
        with self._statistics(shares[0]):
            encoded_images = self.matcher.encode_pictures(images)
        with self._statistics(shares[1]):
            every = captions if swapped is None else join_captions(captions, swapped.captions)
            encoded = self.matcher.encode_captions(every)
        swaps = (0,) * self.processes.count if swapped is None else swapped.sizes or (len(swapped.rows),)
        first, second, third = gather_encodings(
            self.processes,
            (encoded_images, encoded[: len(captions)], encoded[len(captions) :]),
            (shares[0].sizes, shares[1].sizes, swaps),
        )
        return first, second, third

    def _pooled(self, images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions"]:
        """v·t of all pairs; each process computes the rows of its share."""
        share = self.processes.share(len(images))
        return gather_results(self.processes, images.pooled[share.rows] @ captions.pooled.T, share)

    def _statistics(self, share: Share) -> AbstractContextManager[None]:
        """Let batch normalisation see the rows of all processes, where each works on a share of them."""
        return summed_statistics(self.norms, partial(sum_over, self.processes) if share.divided else None)

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
        found = self._shared(self._score_listed, (rows, torch.arange(len(rows), device=rows.device)), images, negatives)
        costs = [
            self._weight(name)
            * (self.config.margin - scores[name][rows, swapped.rows] + found[name].to(scores[name].dtype))
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
        order = shortest_first(captions)
        pairs = int(known.sum()) if self.candidates else known.numel()
        cost = self.matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1])
        cost += (images.bytes_per_row() + captions.bytes_per_row()) if self.candidates else 0
        score = self._score_listed if self.candidates else self._score_rows
        score, count = in_parts(score, cost * pairs, self.processes.count)
        blocks = [self._score_part(score, images, captions[part], known[:, part]) for part in order.chunk(count)]
        inverse = order.argsort()
        return {name: torch.cat([block[name] for block in blocks], dim=1)[:, inverse] for name in blocks[0]}

    def _score_part(
        self,
        score: Callable[..., Scores],
        images: ItemEncoding,
        captions: ItemEncoding,
        known: Bool[Tensor, "images captions"],
    ) -> Scores:
        """The scores of all pairs with some captions; with candidates of the known ones, and 0 elsewhere."""
        if not self.candidates:
            rows = torch.arange(len(images), device=known.device)
            return self._shared(score, (rows,), images, captions.trimmed())
        rows, columns = known.nonzero(as_tuple=True)
        scores = self._shared(score, (rows, columns), images, captions.trimmed())
        empty = images.pooled.new_zeros(known.shape)
        return {name: empty.index_put((rows, columns), each.to(empty.dtype)) for name, each in scores.items()}

    def _shared(
        self,
        score: Callable[..., Scores],
        numbers: tuple[Int[Tensor, " rows"], ...],
        images: ItemEncoding,
        captions: ItemEncoding,
    ) -> Scores:
        """The scores that a function gives for lists of rows, of which each process takes its share."""
        share = self.processes.share(len(numbers[0]))
        own = score(images, captions, share, *(each[share.rows] for each in numbers))
        if self.processes.count == 1:
            return own
        names = list(own)  # in one exchange
        packed = torch.stack([at_least_float32(own[name]) for name in names], dim=-1)
        return dict(zip(names, gather_results(self.processes, packed, share).unbind(dim=-1), strict=True))

    def _score_listed(
        self,
        images: ItemEncoding,
        captions: ItemEncoding,
        share: Share,
        rows: Int[Tensor, " pairs"],
        columns: Int[Tensor, " pairs"],
    ) -> Scores:
        """The scores of listed pairs."""
        with self._statistics(share):
            return self.matcher.score_listed(images[rows], captions[columns])

    def _score_rows(
        self, images: ItemEncoding, captions: ItemEncoding, share: Share, rows: Int[Tensor, " rows"]
    ) -> Scores:
        """The scores of some images with all captions."""
        chosen = images if len(rows) == len(images) else images[rows]
        with self._statistics(share):
            return self.matcher.score_all(chosen, captions)

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


def shortest_first(captions: ItemEncoding) -> Int[Tensor, " captions"]:
    """Numbers of the captions in the order of their lengths: groups of similar length need little padding."""
    return captions.mask.sum(dim=1).argsort(stable=True)


def mean(losses: list[Float[Tensor, ""]]) -> Float[Tensor, ""]:
    """The mean of scalars."""
    return torch.stack(losses).mean()


def in_parts(score: Callable[..., Scores], temporaries: int, processes: int = 1) -> tuple[Callable[..., Scores], int]:
    """The scoring function and the number of parts that bound the memory of the backward pass.

    Above `ACTIVATION_BYTES` the parts are checkpointed: only their inputs are stored, and each is recomputed in the
    backward pass, which takes a third longer.

    Args:
        temporaries: Bytes of all pairs.
        processes: Number of processes that share each part.
    """
    if temporaries <= ACTIVATION_BYTES:
        return score, LENGTH_GROUPS
    count = max(LENGTH_GROUPS, math.ceil(temporaries / PART_BYTES))
    if temporaries <= ACTIVATION_BYTES * processes:
        return score, count
    return partial(checkpoint, score, use_reentrant=False), count
