"""Stacked cross attention (SCAN, Lee et al. 2018): the cosine of each query with its attended context, aggregated.

Axes: pairs (leading, broadcast) | queries | context (the items they attend to).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, assert_never

import torch
import torch.nn.functional as F  # noqa: N812 (the customary name)
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig, ScanConfig
from tshsr.models.attention import masked_softmax, to_unit_sums
from tshsr.models.base import ItemEncoding, StreamTrace
from tshsr.models.streams import MeanPooledMatcher, ScoringStream, cosine, stream_sharpness
from tshsr.models.whole import starts_at_encoder

Normalisation = Literal["clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax"]
Aggregation = Literal["mean", "logsumexp", "max", "sum"]


class Scan(MeanPooledMatcher):
    """score = mean of the stream scores.

    Where ranking starts at a joint encoder's (`pooled_vectors` frozen or adapter), v·t is part of every stream's score.
    """

    def __init__(self, config: ScanConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        factors = {"word_stream": config.word_logsumexp_factor, "region_stream": config.region_logsumexp_factor}
        self.streams = nn.ModuleDict(
            {
                name: CrossAttention(config, sharpness, factors[name])
                for name, sharpness in stream_sharpness(config).items()
            }
        )


class CosineStream(ScoringStream, ABC):
    """One stream whose score aggregates one cosine r_q per query; it has no parameters but alpha.

        score: the mean, the sum or the maximum of r_q, or  log( sum_q exp( mu r_q ) ) / mu,  times a scale

    Where ranking starts at a joint encoder's, the score is  v·t + alpha times this, alpha = 0 before the first step.

    Args:
        encoder: Whether ranking starts at a joint encoder's.
        aggregation: Of the cosines.
        factor: Mu.
        scale: Of the score.
    """

    def __init__(self, encoder: EncoderConfig, aggregation: Aggregation, factor: float, scale: float = 1.0) -> None:
        super().__init__()
        self.aggregation, self.factor, self.scale = aggregation, factor, scale
        self.alpha = nn.Parameter(torch.zeros(())) if starts_at_encoder(encoder) else None

    def finish(self, output: Float[Tensor, "*pairs"], pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The score of each pair; v·t + alpha output where ranking starts at a joint encoder's."""
        return output if self.alpha is None else pooled + self.alpha * output

    @abstractmethod
    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """w_qc: rows that sum to 1 over the real context items."""

    def cosines(
        self,
        weights: Float[Tensor, "*pairs queries context"],
        similarity: Float[Tensor, "*pairs queries context"],
        context: ItemEncoding,
    ) -> Float[Tensor, "*pairs queries"]:
        """r_q = cos( q, sum_c w_qc c ) = sum_c w_qc (q·c) / || sum_c w_qc c ||, for unit queries, in float32 at least.

        The attended sum is never formed: q·c is known, and its norm follows from the Gram matrix of the context.
        """
        single = torch.promote_types(similarity.dtype, torch.float32)
        return (to_unit_sums(weights, context.gram) * similarity).sum(dim=-1, dtype=single)

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The score of each pair without v·t."""
        weights = self.attention(similarity, queries, context)
        return self.aggregated(self.cosines(weights, similarity, context), queries)

    def aggregated(self, cosines: Float[Tensor, "*pairs queries"], queries: ItemEncoding) -> Float[Tensor, "*pairs"]:
        """The score of each pair without v·t, from r_q."""
        return self.scale * aggregate(cosines, queries.real, self.aggregation, self.factor)

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Attention, and the score (without sigmoid) as the contribution of a single level."""
        weights = self.attention(similarity, queries, context)
        return self.traced(weights, self.cosines(weights, similarity, context), queries, context)

    def traced(
        self,
        weights: Float[Tensor, "*pairs queries context"],
        cosines: Float[Tensor, "*pairs queries"],
        queries: ItemEncoding,
        context: ItemEncoding,
    ) -> StreamTrace:
        """Intermediate values of attention weights and of the cosines r_q that are aggregated."""
        score = self.aggregated(cosines, queries)
        shares = query_shares(cosines, queries.real, self.aggregation, self.factor)
        terms = query_terms(self.scale * cosines, shares, score, self.aggregation)[..., None, :]
        pooled = torch.zeros_like(score)
        if self.alpha is not None:
            pooled, terms, score = cosine(queries.pooled, context.pooled), self.alpha * terms, self.alpha * score
        return StreamTrace(
            attention=weights,
            node_weights=shares[..., None, :],
            contributions=score[..., None],
            pooled=pooled,
            bias=score.new_zeros(()),
            score=score + pooled,
            has_global_node=False,
            node_contributions=terms,
            pooled_whole=None if self.alpha is None else pooled,
        )


class CrossAttention(CosineStream):
    """One stream of SCAN.

        w_qc = softmax_c( lambda N(q·c) )                    N: see `normalise`

    Args:
        config: Normalisation and aggregation.
        inverse_temperature: Lambda.
        factor: Mu.
    """

    def __init__(self, config: ScanConfig, inverse_temperature: float, factor: float) -> None:
        super().__init__(config.encoder, config.aggregation, factor)
        self.normalisation: Normalisation = config.normalisation
        self.inverse_temperature = inverse_temperature

    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """w_qc: rows that sum to 1 over the real context items."""
        normalised = normalise(similarity, queries.real, self.normalisation)
        mask = None if context.real is None else context.mask[..., None, :]
        return masked_softmax(self.inverse_temperature * normalised, mask)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """About six temporary matrices of queries x context."""
        return 6 * queries * context


def normalise(
    similarity: Float[Tensor, "*pairs queries context"],
    mask: Bool[Tensor, "*#pairs queries"] | None,
    how: Normalisation,
) -> Float[Tensor, "*pairs queries context"]:
    """N(q·c): leaky ReLU of slope 0.1 (clipped), then unit norm or softmax over the queries of each context item."""
    if how in ("clipped_l2norm", "clipped"):
        similarity = F.leaky_relu(similarity, negative_slope=0.1)
    match how:
        case "clipped_l2norm" | "l2norm":
            return F.normalize(similarity if mask is None else similarity * mask[..., :, None], dim=-2)
        case "softmax":
            return masked_softmax(similarity.mT, None if mask is None else mask[..., None, :]).mT
        case "clipped" | "no_norm":
            return similarity
        case _:
            assert_never(how)


def aggregate(
    cosines: Float[Tensor, "*pairs queries"],
    mask: Bool[Tensor, "*#pairs queries"] | None,
    how: Aggregation,
    factor: float,
) -> Float[Tensor, "*pairs"]:
    """Aggregate the cosines of the real queries into one score."""
    if mask is None:
        mask = torch.ones(cosines.shape[-1:], dtype=torch.bool, device=cosines.device)
    match how:
        case "mean":
            return (cosines * mask).sum(dim=-1) / mask.sum(dim=-1)
        case "sum":
            return (cosines * mask).sum(dim=-1)
        case "max":
            return cosines.masked_fill(~mask, -math.inf).amax(dim=-1)
        case "logsumexp":
            return torch.logsumexp((factor * cosines).masked_fill(~mask, -math.inf), dim=-1) / factor
        case _:
            assert_never(how)


def query_shares(
    cosines: Float[Tensor, "*pairs queries"],
    mask: Bool[Tensor, "*#pairs queries"] | None,
    how: Aggregation,
    factor: float,
) -> Float[Tensor, "*pairs queries"]:
    """Gradient of the score with respect to each query's cosine, normalised to sum 1."""
    if how == "logsumexp":
        return masked_softmax(factor * cosines, mask)
    shares = torch.ones_like(cosines) if mask is None else torch.ones_like(cosines) * mask
    if how == "max":
        shares = shares * (cosines == aggregate(cosines, mask, how, factor)[..., None])
    return shares / shares.sum(dim=-1, keepdim=True)


def query_terms(
    cosines: Float[Tensor, "*pairs queries"],
    shares: Float[Tensor, "*pairs queries"],
    score: Float[Tensor, "*pairs"],
    how: Aggregation,
) -> Float[Tensor, "*pairs queries"]:
    """Term of each query in the score; the terms sum to the score. `shares` are the `query_shares`.

    With p = softmax(mu r), log sum_q exp(mu r_q) = mu r_q - log p_q for every q: with logsumexp the term of q is p_q
    times the score.
    """
    if how == "logsumexp":
        return shares * score[..., None]
    return cosines * ((shares > 0) if how == "sum" else shares)
