"""Losses: functions of score matrices, independent of the network.

Axes: images | captions.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def hinge(
    scores: Float[Tensor, "images captions"],
    image_of_caption: Int[Tensor, " captions"],
    *,
    margin: float,
    hardest: bool,
    scored: Bool[Tensor, "images captions"] | None = None,
    weights: Float[Tensor, " captions"] | None = None,
    max_cost: float | Float[Tensor, ""] = math.inf,
) -> Float[Tensor, ""]:
    """Bidirectional hinge loss (VSE++, Faghri et al. 2018), averaged over the captions.

        c's image i:  [margin - s(i,c) + s(i,c')]+  over captions c' of other images
                      [margin - s(i,c) + s(i',c)]+  over other images i'

    each reduced to its maximum or its mean. A caption of the same image is never a negative. Hardest negatives can
    collapse an untrained network (all scores equal, loss = 2 * margin), so training starts with the mean.

    Args:
        scores: Every image against every caption.
        image_of_caption: For each caption the row of its image.
        margin: Required distance of a positive from a negative.
        hardest: Only the hardest negative; False: the mean over all negatives.
        scored: Pairs whose score is known; others are not used as negatives. None: all.
        weights: Weight of each caption in the mean, 0 to 1; a caption of weight 0 is still a negative. None: all 1.
        max_cost: Costs above this are set to 0, per direction, as those of wrong pairs (truncated hinge, Wu & Liu 2007,
            without the constant).
    """
    captions = torch.arange(scores.shape[1], device=scores.device)
    positive = scores[image_of_caption, captions]
    positive_pairs = image_of_caption[None, :] == torch.arange(scores.shape[0], device=scores.device)[:, None]
    negative = ~positive_pairs if scored is None else scored & ~positive_pairs
    costs = margin + scores - positive[None, :]  # other images: the caption's column
    by_image = _reduce(costs.T, negative.T, hardest=hardest)
    costs = margin + scores[image_of_caption] - positive[:, None]  # other captions: the row of its image
    by_caption = _reduce(costs, negative[image_of_caption], hardest=hardest)
    costs = by_image * (by_image <= max_cost) + by_caption * (by_caption <= max_cost)
    # A total weight below 1 is not scaled up.
    return costs.mean() if weights is None else (weights * costs).sum() / weights.sum().clamp_min(1)


def contrastive(
    scores: Float[Tensor, "images captions"],
    image_of_caption: Int[Tensor, " captions"],
    *,
    temperature: float,
    scored: Bool[Tensor, "images captions"] | None = None,
    weights: Float[Tensor, " captions"] | None = None,
) -> Float[Tensor, ""]:
    """Bidirectional InfoNCE (van den Oord et al. 2018; for images and texts Radford et al. 2021), in nats.

        c's image i:  -log( e(i,c) / sum_i' e(i',c) ),                              e(i,c) = exp( s(i,c) / temperature )
                      -log( e(i,c) / ( e(i,c) + sum_c' e(i,c') ) )   over captions c' of other images

    averaged over the captions and the two directions. A caption of the same image is never a negative.

    Args:
        scores: Every image against every caption.
        image_of_caption: For each caption the row of its image.
        temperature: Above 0; a small one concentrates the loss on the hardest negatives.
        scored: Pairs whose score is known; others are not used as negatives. None: all.
        weights: Weight of each caption in the mean, 0 to 1; None: all 1.
    """
    captions = torch.arange(scores.shape[1], device=scores.device)
    logits = scores / temperature
    positive = logits[image_of_caption, captions]
    if scored is not None:
        pairs = image_of_caption[None, :] == torch.arange(scores.shape[0], device=scores.device)[:, None]
        logits = logits.masked_fill(~(scored | pairs), -torch.inf)
    among_images = logits.logsumexp(dim=0) - positive
    siblings = image_of_caption[:, None] == image_of_caption[None, :]
    siblings = siblings & (captions[:, None] != captions[None, :])
    among_captions = logits[image_of_caption].masked_fill(siblings, -torch.inf).logsumexp(dim=1) - positive
    costs = (among_images + among_captions) / 2
    return costs.mean() if weights is None else (weights * costs).sum() / weights.sum().clamp_min(1)


def logit(scores: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
    """log( s / (1 - s) ) of probabilities s, kept within +-16, the precision of float32."""
    return torch.logit(scores, eps=1e-7)


def _reduce(
    costs: Float[Tensor, "captions others"], negative: Bool[Tensor, "captions others"], *, hardest: bool
) -> Float[Tensor, " captions"]:
    """Largest or mean positive cost over each row's negatives; 0 where it has none."""
    costs = costs.clamp_min(0) * negative
    return costs.amax(dim=1) if hardest else costs.sum(dim=1) / negative.sum(dim=1).clamp_min(1)
