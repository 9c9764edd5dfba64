"""HREM (Fu et al. 2023): embeddings trained with the relations among the images and captions of a batch.

Axes: images | captions | items (regions or words) | pairs (leading) | embeddings (images of a batch, then captions).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.config.models import HremConfig
from tshsr.models.attention import unit
from tshsr.models.base import ItemEncoding, RelatedScores
from tshsr.models.fragments import SetLayer
from tshsr.models.streams import all_similarities
from tshsr.models.vse import Vse
from tshsr.models.whole import whole_width


class Hrem(Vse):
    """score(I, T) = v·t, with v and t by fragment-level pooling (`fragments.FragmentPooling`).

    Training adds `related_scores`, in which every embedding depends on its batch. Scoring never does: the score of a
    pair is the same in every gallery.
    """

    def __init__(self, config: HremConfig) -> None:
        super().__init__(config)
        width = whole_width(config.encoder)
        self.relations = BatchRelations(config, width)

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores:
        """Scores of v', t' of `BatchRelations` with each other and with v, t."""
        v, t, penalty = self.relations(images, captions, image_of_caption)
        scores = {
            "related": v @ t.T,
            "related_images": v @ captions.pooled.to(v.dtype).T,
            "related_captions": images.pooled.to(t.dtype) @ t.T,
        }
        return RelatedScores(scores, penalty)


class BatchRelations(nn.Module):
    """Instance-level relations of HREM, with its fusion mechanism.

        [v' ; t'] = l2( T( [v ; t] ) )       T: a transformer layer with the relevance of connected embeddings in its
                                             logits; others are not attended to

    Each image and each caption is connected with a fraction of the batch's images, and with the same fraction of its
    captions: those with the largest

        image - image       mean of v_i·t_c over the captions c of the other image
        caption - caption   t_c·v_j, with j the image of the other caption
        image - caption     mean of the best matches, of its regions for the image and of its words for the caption

    Relevance is  exp( -||v_i - v_j|| )  within images, and likewise within captions. Between an image and a caption it
    is the mean of the best matches and a perceptron of their K largest, `best_matches`. The penalty is the divergence
    of this relevance, by a softmax over each row, from exp( -||v - t|| ).

    Args:
        width: Width of v and t.
    """

    def __init__(self, config: HremConfig, width: int) -> None:
        super().__init__()
        self.connected, self.count = config.connected, config.best_matches
        self.penalty = config.relevance_weight
        self.layer = SetLayer(width, config.heads, config.pooling_dropout)
        self.image_relevance, self.caption_relevance = (
            nn.Sequential(nn.Linear(self.count, self.count), nn.ReLU(), nn.Linear(self.count, 1)) for _ in range(2)
        )

    def forward(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> tuple[Float[Tensor, "images dim"], Float[Tensor, "captions dim"], Float[Tensor, ""]]:
        """v', t' and the weighted penalty."""
        v, t = images.pooled, captions.pooled
        by_image, by_caption, image_means, caption_means = self._relevance(images, captions)
        relevance = torch.cat(
            [torch.cat([closeness(v, v), by_image], dim=1), torch.cat([by_caption, closeness(t, t)], dim=1)]
        )
        with torch.no_grad():
            crossed = v @ t.T
            same_image, same_caption = by_captions(crossed, image_of_caption), crossed.T[:, image_of_caption]
            blocks = ((same_image, image_means), (caption_means, same_caption))
            connected = torch.cat([torch.cat([self.nearest(block) for block in row], dim=1) for row in blocks])
        bias = relevance.masked_fill(~connected, torch.finfo(relevance.dtype).min)
        related = unit(self.layer(torch.cat([v, t])[None], bias[None])[0])
        guide = closeness(v, t).detach()
        penalty = self.penalty * (divergence(by_image, guide) + divergence(by_caption, guide.T))
        return related[: len(v)], related[len(v) :], penalty

    def nearest(self, similarity: Float[Tensor, "rows others"]) -> Bool[Tensor, "rows others"]:
        """True at the `connected` fraction of each row with the largest similarity, at least at one."""
        count = max(1, int(self.connected * similarity.shape[1]))
        return similarity >= similarity.topk(count, dim=1).values[:, -1:]

    def _relevance(self, images: ItemEncoding, captions: ItemEncoding) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Relevance of captions for each image and of images for each caption, and the means of both's best matches.

        No gradient reaches regions and words.
        """
        similarity = all_similarities(images, captions).detach().permute(0, 2, 1, 3)  # images captions regions words
        region_mask, word_mask = images.mask[:, None, :], captions.mask[None, :, :]
        by_image, image_means = self._of_queries(similarity, region_mask, word_mask, self.image_relevance)
        by_caption, caption_means = self._of_queries(similarity.mT, word_mask, region_mask, self.caption_relevance)
        return by_image, by_caption.T, image_means, caption_means.T

    def _of_queries(
        self,
        similarity: Float[Tensor, "*pairs queries context"],
        query_mask: Bool[Tensor, "*#pairs queries"],
        context_mask: Bool[Tensor, "*#pairs context"],
        perceptron: nn.Module,
    ) -> tuple[Float[Tensor, "*pairs"], Float[Tensor, "*pairs"]]:
        """Relevance of each pair and the mean of its best matches."""
        best, real = best_matches(similarity, query_mask, context_mask), query_mask
        mean = (best * real).sum(dim=-1) / real.sum(dim=-1)
        more = max(0, self.count - best.shape[-1])
        lowest = torch.finfo(best.dtype).min
        padded = nn.functional.pad(best.masked_fill(~real, lowest), (0, more), value=lowest)
        largest = padded.topk(self.count, dim=-1).values
        largest = largest.masked_fill(largest == lowest, 0)
        return perceptron(largest).squeeze(-1) + mean, mean


def best_matches(
    similarity: Float[Tensor, "*pairs queries context"],
    query_mask: Bool[Tensor, "*#pairs queries"],
    context_mask: Bool[Tensor, "*#pairs context"],
) -> Float[Tensor, "*pairs queries"]:
    """max_c s_qc / ||s_.c|| of each query, with s_qc = leaky_relu(q·c, 0.1), as SCAN normalises before its softmax."""
    clipped = nn.functional.leaky_relu(similarity, negative_slope=0.1) * query_mask[..., None]
    normalised = nn.functional.normalize(clipped, dim=-2)
    return normalised.masked_fill(~context_mask[..., None, :], torch.finfo(normalised.dtype).min).amax(dim=-1)


def closeness(x: Float[Tensor, "rows dim"], y: Float[Tensor, "others dim"]) -> Float[Tensor, "rows others"]:
    """exp( -||x - y|| ), for all pairs."""
    distance: Tensor = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-distance)


def by_captions(
    scores: Float[Tensor, "images captions"], image_of_caption: Int[Tensor, " captions"]
) -> Float[Tensor, "images images"]:
    """Mean of the scores over the captions of each image."""
    images = len(scores)
    sums = scores.new_zeros(images, images).index_add(1, image_of_caption, scores)
    return sums / torch.bincount(image_of_caption, minlength=images).clamp_min(1)


def divergence(relevance: Float[Tensor, "rows others"], guide: Float[Tensor, "rows others"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of softmax(relevance) from softmax(guide), mean over the rows, in nats."""
    logs, guide_logs = torch.log_softmax(relevance, dim=-1), torch.log_softmax(guide, dim=-1)
    return (logs.exp() * (logs - guide_logs)).sum(dim=-1).mean()
