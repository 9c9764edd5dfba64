r"""The two-stream hierarchical similarity reasoning network: our instantiation of arXiv 2203.05349.

    regions, words -> encoders -> word stream   (each word looks at regions)  -> HSR -> score \
                               -> region stream (each region looks at words)  -> HSR -> score  > fused score
                               -> pooled v, t                                 -> v·t

Axes: pairs (leading, broadcast) | regions | words | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.config.models import TshsrConfig
from tshsr.errors import SettingsError
from tshsr.models.attention import similarities
from tshsr.models.base import ItemEncoding, Scores, StreamTrace
from tshsr.models.encoders import AttentionPooling
from tshsr.models.reasoning import HierarchicalReasoning, Reasoning
from tshsr.models.streams import PLACE, ComparingStream, StreamMatcher, cosine

POOLED_WEIGHT = 5.0
"""Where the learned weight gamma of v·t begins: a margin of 0.2 in v·t then moves the logit by 1."""
EXPECTATION_SCALE = 40.0
"""Makes expectations large enough to be learned in a few epochs (docs/log.md)."""


class Stream(ComparingStream):
    """One stream: queries look at the other side, every look becomes a similarity vector, HSR reasons over them.

        score = sigmoid( sum_l w_l·r_l + gamma v·t + b ),      w_l·r_l = what level l of HSR( S ) adds

    Args:
        name: Under which name its views of an encoding are kept.
        config: The network's settings.
        inverse_temperature: Sharpness of this stream's attention.
    """

    def __init__(self, name: str, config: TshsrConfig, inverse_temperature: float) -> None:
        super().__init__(
            name,
            dim=config.encoder.dim,
            comparison_dim=config.comparison_dim,
            width=config.similarity_dim,
            inverse_temperature=inverse_temperature,
            global_node=config.global_node,
            places=config.place_term,
        )
        self.config = config
        self.reasoning = HierarchicalReasoning(config.similarity_dim, config.reasoning)
        self.bias = nn.Parameter(torch.zeros(()))
        self.pooled_weight = nn.Parameter(torch.tensor(POOLED_WEIGHT)) if config.pooled_term else None

    def pooled_contribution(self, pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """What v·t adds to the logit: gamma v·t."""
        return torch.zeros_like(pooled) if self.pooled_weight is None else self.pooled_weight * pooled

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs levels"]:
        """The contribution of each level to the logit of each pair."""
        nodes, mask = self.nodes(similarity, self.attention(similarity, queries, context), queries, context)
        reasoning: Reasoning = self.reasoning(nodes, mask)
        return reasoning.contributions

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """The same, with all that an explanation needs."""
        attention = self.attention(similarity, queries, context)
        nodes, mask = self.nodes(similarity, attention, queries, context)
        reasoning = self.reasoning(nodes, mask, traced=True)
        if reasoning.node_weights is None or reasoning.node_contributions is None:
            raise RuntimeError("a traced reasoning keeps what its nodes weigh and add")
        pooled = self.pooled_contribution(cosine(queries.pooled, context.pooled))
        return StreamTrace(
            attention=attention,
            node_weights=reasoning.node_weights,
            contributions=reasoning.contributions,
            pooled=pooled,
            bias=self.bias,
            score=torch.sigmoid(reasoning.contributions.sum(dim=-1) + pooled + self.bias),
            has_global_node=self.global_similarity is not None,
            node_contributions=reasoning.node_contributions,
        )

    def numbers_per_pair(self, queries: int, context: int) -> int:
        """A node holds two vectors to compare and two similarity vectors, a context node half a dozen."""
        config = self.config
        per_node = 2 * self.compared + 2 * config.similarity_dim
        contexts = 6 * config.similarity_dim * max(config.reasoning.seeds[: config.reasoning.levels], default=0)
        return (queries + 1) * per_node + contexts + 6 * queries * context


class Tshsr(StreamMatcher):
    """Both streams and their fusion, trained end to end from one loss.

    With the place term a word w says where it expects the region r that it means, H w·g_r, with g_r the centre and
    size of r: "left" is then a place of what it is said of. A look at several regions, or words, takes the mean by its
    attention (the e of a similarity vector).
    """

    region_pooling: AttentionPooling
    word_pooling: AttentionPooling

    def __init__(self, config: TshsrConfig) -> None:
        super().__init__(config.encoder)
        if config.place_term and not config.encoder.boxes:
            raise SettingsError(
                "model.place-term compares places, and model.encoder.boxes is off; switch it on, or the term off."
            )
        self.config = config
        self.region_pooling = AttentionPooling(config.encoder.dim)
        self.word_pooling = AttentionPooling(config.encoder.dim)
        self.streams = nn.ModuleDict()
        if config.streams != "region":
            self.streams["word_stream"] = Stream("word_stream", config, config.word_inverse_temperature)
        if config.streams != "word":
            self.streams["region_stream"] = Stream("region_stream", config, config.region_inverse_temperature)
        learned = config.fusion == "learned" and len(self.streams) > 1
        self.compares_places = config.place_term
        self.expectation = nn.Linear(config.encoder.dim, 4) if config.place_term else None
        self.fusion = nn.Parameter(torch.zeros(len(self.streams))) if learned else None

    @property
    def score_names(self) -> frozenset[str]:
        """The keys of `combine`."""
        return super().score_names | {f"level_{level}" for level in range(self.config.reasoning.levels + 1)}

    def views(
        self, items: Float[Tensor, "rows items dim"], boxes: Float[Tensor, "rows items 4"] | None
    ) -> dict[str, Tensor]:
        """How each stream sees the items; and where regions are, or words (which have no boxes) expect them."""
        views = super().views(items, boxes)
        if self.expectation is not None:
            views[PLACE] = (
                self.expectation(items) * EXPECTATION_SCALE if boxes is None else place(boxes.to(items.dtype))
            )
        return views

    def combine(self, parts: Mapping[str, Float[Tensor, "*pairs levels"]], pooled: Float[Tensor, "*pairs"]) -> Scores:
        """Scores in 0..1 by name: each stream, each level, `fused`; and `pooled` (v·t, -1..1)."""
        scores: Scores = {}
        by_stream = []
        for name, stream in self.streams.items():
            if not isinstance(stream, Stream):
                raise TypeError(f"{name} is no stream of TSHSR")
            part = parts[name]
            scores[name] = torch.sigmoid(part.sum(dim=-1) + stream.pooled_contribution(pooled) + stream.bias)
            by_stream.append(torch.sigmoid(part + stream.bias))
        fused_levels = self._fuse(torch.stack(by_stream, dim=-1))
        scores |= {f"level_{level}": fused_levels[..., level] for level in range(fused_levels.shape[-1])}
        scores["fused"] = self._fuse(torch.stack([scores[name] for name in self.streams], dim=-1))
        scores["pooled"] = pooled
        return scores

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """What each stream did with the pairs, and what each region with each word adds to v·t.

        v = sum_r a_r x_r,  t = sum_w b_w x_w:      v·t = sum_r sum_w a_r b_w (x_r·x_w)
        """
        a = self.region_pooling.shares(images.items, images.mask)
        b = self.word_pooling.shares(captions.items, captions.mask)
        met = similarities(images.items, captions.items) * a[..., :, None] * b[..., None, :]
        traces = super().trace(images, captions)
        for name, stream in self._streams():
            if isinstance(stream, Stream) and stream.pooled_weight is not None:
                meetings = stream.pooled_weight * (met.mT if name == "word_stream" else met)
                traces[name] = replace(traces[name], pooled_meetings=meetings)
        return traces

    def _fuse(self, scores: Float[Tensor, "*pairs streams"]) -> Float[Tensor, "*pairs"]:
        """Mean of the streams, or their learned mixture."""
        if self.fusion is None:
            return scores.mean(dim=-1)
        return scores @ torch.softmax(self.fusion.to(scores.dtype), dim=0)


def place(boxes: Float[Tensor, "rows regions 4"]) -> Float[Tensor, "rows regions 4"]:
    """Centre (-1..1 both ways, 0 in the middle of the picture), width and height less a half, of boxes in 0..1."""
    start, end = boxes[..., :2], boxes[..., 2:]
    return torch.cat([start + end - 1, end - start - 0.5], dim=-1)
