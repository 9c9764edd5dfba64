r"""The two-stream hierarchical similarity reasoning network: our instantiation of arXiv 2203.05349.

    regions, words -> encoders -> word stream   (each word looks at regions)  -> HSR -> score \
                               -> region stream (each region looks at words)  -> HSR -> score  > fused score
                               -> pooled v, t                                 -> v·t

Axes: pairs (leading, broadcast) | regions | words | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.alignment import attend, attention_weights
from tshsr.batches import CaptionBatch, ImageBatch
from tshsr.config import TshsrConfig
from tshsr.encoders import AttentionPooling, RegionEncoder, build_word_encoder
from tshsr.models.matcher import ItemEncoding, Matcher, Scores, StreamTrace
from tshsr.reasoning import HierarchicalReasoning, Reasoning
from tshsr.similarity import SimilarityVector

POOLED_WEIGHT = 5.0
"""Where the learned weight gamma of v·t begins: a margin of 0.2 in v·t then moves the logit by 1."""


class Stream(nn.Module):
    """One stream: queries look at the other side, every look becomes a similarity vector, HSR reasons over them.

        S     = [ s(v, t; W_g) ; s(q_1, a_1; W_l) ; ... ; s(q_n, a_n; W_l) ]
        score = sigmoid( w [r_1 ; ... ; r_{K+1}] + gamma v·t + b ),      r = the read-outs of HSR( S )

    Args:
        config: The network's settings.
        inverse_temperature: Sharpness of this stream's attention.
    """

    def __init__(self, config: TshsrConfig, inverse_temperature: float) -> None:
        super().__init__()
        self.inverse_temperature = inverse_temperature
        width = config.similarity_dim
        self.local_similarity = SimilarityVector(config.encoder.dim, width)
        self.global_similarity = SimilarityVector(config.encoder.dim, width) if config.global_node else None
        self.reasoning = HierarchicalReasoning(width, config.reasoning)
        self.weight = nn.Parameter(torch.empty(config.reasoning.levels + 1, width))
        self.bias = nn.Parameter(torch.zeros(()))
        self.pooled_weight = nn.Parameter(torch.tensor(POOLED_WEIGHT)) if config.pooled_term else None
        nn.init.xavier_uniform_(self.weight)

    def attention(self, queries: ItemEncoding, context: ItemEncoding) -> Float[Tensor, "*pairs queries context"]:
        """How much each query takes from each context item."""
        return attention_weights(
            queries.items,
            context.items,
            query_mask=queries.mask,
            context_mask=context.mask,
            inverse_temperature=self.inverse_temperature,
        )

    def nodes(
        self, queries: ItemEncoding, context: ItemEncoding, attention: Float[Tensor, "*pairs queries context"]
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Bool[Tensor, "*#pairs nodes"]]:
        """The similarity vectors S and which of them are real."""
        local = self.local_similarity(queries.items, attend(attention, context.items))
        if self.global_similarity is None:
            return local, queries.mask
        whole = self.global_similarity(queries.pooled, context.pooled)
        mask = torch.cat([queries.mask.new_ones((*queries.mask.shape[:-1], 1)), queries.mask], dim=-1)
        return torch.cat([whole[..., None, :], local], dim=-2), mask

    def contributions(self, reasoning: Reasoning) -> Float[Tensor, "*pairs levels"]:
        """What each level adds to the logit: w_l·r_l."""
        return torch.einsum("lw,...lw->...l", self.weight, reasoning.read_outs)

    def pooled_contribution(self, pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """What v·t adds to the logit: gamma v·t."""
        return torch.zeros_like(pooled) if self.pooled_weight is None else self.pooled_weight * pooled

    def forward(self, queries: ItemEncoding, context: ItemEncoding) -> Float[Tensor, "*pairs levels"]:
        """The contribution of each level to the logit of each pair."""
        nodes, mask = self.nodes(queries, context, self.attention(queries, context))
        return self.contributions(self.reasoning(nodes, mask))

    def trace(self, queries: ItemEncoding, context: ItemEncoding) -> StreamTrace:
        """The same, with all that an explanation needs."""
        attention = self.attention(queries, context)
        nodes, mask = self.nodes(queries, context, attention)
        reasoning = self.reasoning(nodes, mask, traced=True)
        if reasoning.node_weights is None:
            raise RuntimeError("a traced reasoning keeps its node weights")
        contributions = self.contributions(reasoning)
        pooled = self.pooled_contribution(similarity(queries.pooled, context.pooled))
        return StreamTrace(
            attention=attention,
            node_weights=reasoning.node_weights,
            contributions=contributions,
            pooled=pooled,
            bias=self.bias,
            score=torch.sigmoid(contributions.sum(dim=-1) + pooled + self.bias),
            has_global_node=self.global_similarity is not None,
        )


def similarity(v: Float[Tensor, "*#pairs dim"], t: Float[Tensor, "*#pairs dim"]) -> Float[Tensor, "*pairs"]:
    """v·t, the cosine of two pooled unit vectors."""
    return torch.einsum("...d,...d->...", v, t)


class Tshsr(Matcher):
    """Both streams and their fusion, trained end to end from one loss."""

    def __init__(self, config: TshsrConfig) -> None:
        super().__init__()
        self.config = config
        self.region_encoder = RegionEncoder(config.encoder)
        self.word_encoder = build_word_encoder(config.encoder)
        self.region_pooling = AttentionPooling(config.encoder.dim)
        self.word_pooling = AttentionPooling(config.encoder.dim)
        self.streams = nn.ModuleDict()
        if config.streams != "region":
            self.streams["word_stream"] = Stream(config, config.word_inverse_temperature)
        if config.streams != "word":
            self.streams["region_stream"] = Stream(config, config.region_inverse_temperature)
        learned = config.fusion == "learned" and len(self.streams) > 1
        self.fusion = nn.Parameter(torch.zeros(len(self.streams))) if learned else None

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """Regions in the joint space, and v."""
        regions = self.region_encoder(batch)
        return ItemEncoding(regions, batch.mask, self.region_pooling(regions, batch.mask))

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """Words in the joint space, and t."""
        words = self.word_encoder(batch)
        return ItemEncoding(words, batch.mask, self.word_pooling(words, batch.mask))

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """Scores in 0..1 by name: each stream, each level, `fused`; and `pooled` (v·t, -1..1)."""
        pooled = similarity(images.pooled, captions.pooled)
        scores: Scores = {}
        parts = []
        for name, stream in self._streams():
            levels = stream(*self._sides(name, images, captions))
            scores[name] = torch.sigmoid(levels.sum(dim=-1) + stream.pooled_contribution(pooled) + stream.bias)
            parts.append(torch.sigmoid(levels + stream.bias))
        fused_levels = self._fuse(torch.stack(parts, dim=-1))
        scores |= {f"level_{level}": fused_levels[..., level] for level in range(fused_levels.shape[-1])}
        scores["fused"] = self._fuse(torch.stack([scores[name] for name in self.streams], dim=-1))
        scores["pooled"] = pooled
        return scores

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """What each stream did with the pairs."""
        return {name: stream.trace(*self._sides(name, images, captions)) for name, stream in self._streams()}

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """Peak of temporaries: the widest stream holds about three wide rows and a dozen narrow ones a node."""
        itemsize = self.region_encoder.projection.weight.element_size()
        nodes = {"word_stream": words, "region_stream": regions}
        widest = max(nodes[name] for name in self.streams) + 1
        per_node = 3 * self.config.encoder.dim + 12 * self.config.similarity_dim + 3 * max(regions, words)
        return widest * per_node * itemsize

    def _streams(self) -> Iterator[tuple[str, Stream]]:
        """The streams by name, as what they are."""
        for name, stream in self.streams.items():
            if isinstance(stream, Stream):
                yield name, stream

    def _sides(self, name: str, images: ItemEncoding, captions: ItemEncoding) -> tuple[ItemEncoding, ItemEncoding]:
        """(queries, context) of a stream."""
        return (captions, images) if name == "word_stream" else (images, captions)

    def _fuse(self, scores: Float[Tensor, "*pairs streams"]) -> Float[Tensor, "*pairs"]:
        """Mean of the streams, or their learned mixture."""
        if self.fusion is None:
            return scores.mean(dim=-1)
        return scores @ torch.softmax(self.fusion, dim=0)
