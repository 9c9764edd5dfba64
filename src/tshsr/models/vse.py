"""Visual-semantic embedding: cosine of one vector per image and one per caption.

Axes: images | captions | items (regions or words) | dim (joint space).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from tshsr.config.models import HremConfig, VseConfig
from tshsr.data.batches import NO_WORD, CaptionBatch, ImageBatch
from tshsr.models.attention import unit
from tshsr.models.base import ItemEncoding, Matcher, RelatedScores, Scores
from tshsr.models.concepts import build_knowledge, check_boxes
from tshsr.models.encoders import (
    RegionEncoder,
    RegionPerceptron,
    build_word_encoder,
    drop_items,
    drop_regions,
    init_xavier,
)
from tshsr.models.fragments import FragmentPooling
from tshsr.models.pooling import AttentionPooling, ChannelPooling, GeneralisedPooling, MeanPooling
from tshsr.models.streams import cosine
from tshsr.models.whole import build_whole, starts_at_encoder, whole_vector


class Vse(Matcher):
    """score(I, T) = v·t,  v = l2( pool( regions ) ),  t = l2( pool( words ) ).

    VSE++ (Faghri et al. 2018) with a choice of pooling; with generalised pooling, residual projection and size
    augmentation it is VSE-infinity (Chen et al. 2021), with a pooling by channel ESA (Zhu et al. 2023). Regions and
    words are pooled unnormalised. Other v and t: `whole.WholeVector`. With the concepts of a graph beside v and t
    (`concepts.ConsensusConcepts`) it is CVSE (Wang et al. 2020).
    """

    def __init__(self, config: VseConfig | HremConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.encoder.dim
        # The perceptron stands here and comes last: the order of random numbers and the names in earlier checkpoints.
        self.region_encoder = RegionEncoder(replace(config.encoder, region_projection="linear"))
        self.word_encoder = build_word_encoder(config.encoder, unit_rows=False)
        init_xavier(self.region_encoder)
        widths = self.region_encoder.projection.in_features, config.encoder.dim
        residual = config.encoder.region_projection == "residual"
        self.perceptron = RegionPerceptron(*widths) if residual else None
        from_encoder = starts_at_encoder(config.encoder)
        self.region_pooling = None if from_encoder else build_pooling(config)
        self.word_pooling = None if from_encoder else build_pooling(config)
        self.region_whole, self.word_whole = build_whole(config.encoder)
        self.knowledge = build_knowledge(config)

    @property
    def score_names(self) -> frozenset[str]:
        """Two names of the same score."""
        return frozenset({"fused", "pooled"})

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Encode regions and v."""
        batch = drop_regions(batch, self.config.encoder.region_dropout if self.training else 0.0)
        check_boxes(self.knowledge, batch.boxes)
        mask = self._kept(batch.mask)
        inputs = self.region_encoder.inputs(batch)
        regions = self.region_encoder.projection(inputs)
        if self.perceptron is not None:
            regions = regions + self.perceptron(inputs, mask)
        regions = regions * mask[..., None]
        v, _ = whole_vector(self.region_whole, self.region_pooling, regions, mask, batch.pooled)
        regions = unit(regions)
        if self.knowledge is not None:
            v, _ = self.knowledge.add(regions, mask, v, batch.boxes)
        return self.complete(regions, mask, v)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Encode words and t."""
        batch = shortened(batch, self._kept(batch.mask)) if self._augments() else batch
        states, own = self.word_encoder.states(batch)
        words = self.word_encoder.rows(states, batch.mask)
        t, _ = whole_vector(self.word_whole, self.word_pooling, words, batch.mask, own)
        words = unit(words)
        if self.knowledge is not None:
            t, _ = self.knowledge.add(words, batch.mask, t)
        return self.complete(words, batch.mask, t)

    def related_scores(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores | None:
        """Scores and divergence of concepts; None without."""
        return None if self.knowledge is None else self.knowledge.related(images, captions, image_of_caption)

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """v·t, -1..1, as `fused` and as `pooled`."""
        score = cosine(images.pooled, captions.pooled)
        return {"fused": score, "pooled": score}

    def score_all(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Score all pairs by one matrix product."""
        score = images.pooled @ captions.pooled.T
        return {"fused": score, "pooled": score}

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Two scores; independent of the sizes of both sides."""
        del regions, words
        return 2 * self.region_encoder.projection.weight.element_size()

    def _augments(self) -> bool:
        """Whether items are dropped at random."""
        return self.training and self.config.size_augmentation > 0

    def _kept(self, mask: Bool[Tensor, "rows items"]) -> Bool[Tensor, "rows items"]:
        """Items kept by size augmentation: at least one per row, all in evaluation."""
        if not self._augments():
            return mask
        return drop_items(mask, self.config.size_augmentation)


def build_pooling(config: VseConfig | HremConfig) -> nn.Module:
    """The pooling of a configuration."""
    if isinstance(config, HremConfig):
        return FragmentPooling(config.encoder.dim, config.heads, config.item_share, config.pooling_dropout)
    match config.pooling:
        case "mean":
            return MeanPooling()
        case "attention":
            return AttentionPooling(config.encoder.dim)
        case "gpo":
            return GeneralisedPooling()
        case "esa":
            return ChannelPooling(config.encoder.dim)
        case _:
            assert_never(config.pooling)


def shortened(batch: CaptionBatch, kept: Bool[Tensor, "captions words"]) -> CaptionBatch:
    """Captions reduced to the kept words, in order, padded at the end.

    A tuned network reads the other words too, and they have no node.
    """
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)
    mask = kept.gather(1, order)
    if batch.states is not None:
        states = batch.states.gather(1, order[..., None].expand_as(batch.states)) * mask[..., None]
        return CaptionBatch.unchecked(batch.tokens, mask, states, pooled=batch.pooled)
    if batch.word_of_token is not None:
        place = torch.where(kept, order.argsort(dim=1), NO_WORD)
        nodes = torch.where(batch.word_of_token < 0, batch.word_of_token, place.gather(1, batch.word_of_token.clamp(0)))
        return CaptionBatch.unchecked(batch.tokens, mask, word_of_token=nodes)
    return CaptionBatch.unchecked(batch.tokens.gather(1, order) * mask, mask)
