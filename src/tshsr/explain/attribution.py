"""Attribution of a pair's score to words and regions, per stream and per level; `pages.explanation` draws it.

Axes: pairs (leading) | levels | words | regions | nodes (the global node, where there
is one, then the stream's queries).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tshsr.data.batches import ImageBatch
from tshsr.errors import InputError
from tshsr.models.base import ItemEncoding, StreamTrace
from tshsr.retriever import Retriever

Rows = tuple[tuple[float, ...], ...]
"""A matrix as nested tuples: one row per word, one column per region."""


@dataclass(frozen=True)
class LevelExplanation:
    """Read-out of one level of the hierarchy.

    Attributes:
        contribution: Term of the level in the stream's logit.
        global_weight: Weight of the global node; None without one.
        node_weights: Weight of each word (word stream) or region (region stream); with `global_weight` they sum to 1.
        word_regions: Node weight times attention, words x regions; sums to the sum of `node_weights`.
    """

    contribution: float
    global_weight: float | None
    node_weights: tuple[float, ...]
    word_regions: Rows


@dataclass(frozen=True)
class StreamExplanation:
    """Explanation of the score of one stream.

    Attributes:
        score: sigmoid(sum of contributions + pooled + bias).
        pooled: Term of v·t in the logit, less that of the mean similarity where the network subtracts it.
        bias: Constant of the logit.
        word_regions: For each word a distribution over regions (see `word_maps`).
        levels: Finest first.
        relevance: Term of each word and region in the logit (see `relevance_maps`); may be negative. With `whole` and
            `bias` it sums to the logit.
        whole: Term of the whole picture and caption in the logit: that of the global node, over all levels, and what
            the encoders' own vectors add to v·t beside its words and regions, or what rounded or pooled regions of an
            index lack of it; 0, up to rounding, without any.
    """

    score: float
    pooled: float
    bias: float
    word_regions: Rows
    levels: tuple[LevelExplanation, ...]
    relevance: Rows
    whole: float


@dataclass(frozen=True)
class Explanation:
    """Explanation of the score of a caption and an image.

    Attributes:
        boxes: x1, y1, x2, y2 of each region as fractions of the image; None without boxes.
        scores: Every score of the pair, by name.
        streams: By name, `word_stream` and `region_stream`; empty for a method without traces.
        word_relevance: Term of each word in the logit, over all regions; mean of the streams.
        region_relevance: Term of each region in the logit, over all words; mean of the streams.
    """

    caption: str
    words: tuple[str, ...]
    regions: int
    boxes: Rows | None
    scores: dict[str, float]
    streams: dict[str, StreamExplanation]
    word_relevance: tuple[float, ...]
    region_relevance: tuple[float, ...]

    def to_json(self) -> str:
        """JSON text with the names of the attributes."""
        return json.dumps(asdict(self), ensure_ascii=False)


def relevance_maps(
    stream: str,
    trace: StreamTrace,
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs words regions"]:
    """Term of each word and region in a stream's logit; negative where it lowers the score.

        map_wr = contribution_wr + sum_l T_l ( D_lr / n - D_lwr ),     D_lr = sum_w D_lwr

    T_l: term of level l, a mean of what its nodes say, weighted by D_l (`level_maps`); likewise v·t, by the shares of
    its pairs. What all nodes say remains without a word, as the weights of the others grow: T_l is common to the n
    words, and each has an n-th of it instead of its weight, beside its own deviation from the mean. Otherwise words
    rank by their weights, high for function words whose states hold the sentence. The sum over the words of a region
    is that of `contribution_maps`.

    Complete: sum_wr map_wr + term of the whole picture and caption + bias = logit (see `whole_term`).
    """
    maps = contribution_maps(stream, trace, word_mask, region_mask)
    shares = level_maps(stream, trace, word_mask, region_mask)
    maps = maps + (trace.contributions[..., None, None] * _evened(shares, word_mask[..., None, :])).sum(dim=-3)
    if trace.pooled_terms is not None and trace.pooled_shares is not None:
        pairs = trace.pooled_shares if stream == "word_stream" else trace.pooled_shares.transpose(-1, -2)
        maps = maps + trace.pooled_terms.sum(dim=(-2, -1), keepdim=True) * _evened(pairs, word_mask)
    return maps


def _evened(
    shares: Float[Tensor, "*maps words regions"], word_mask: Bool[Tensor, "*#maps words"]
) -> Float[Tensor, "*maps words regions"]:
    """The shares of a region spread evenly over the words, less the shares."""
    even = word_mask / word_mask.sum(dim=-1, keepdim=True)
    return shares.sum(dim=-2, keepdim=True) * even[..., :, None] - shares


def contribution_maps(
    stream: str,
    trace: StreamTrace,
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs words regions"]:
    """Contribution of each word and region to a stream's logit, with the mean of a level distributed by weight.

        word stream:    map_wr = sum_l n_lw a_wr + p_wr         region stream:    map_wr = sum_l n_lr a_rw + p_rw

    n_l: terms of the nodes in level l (`node_contributions`), distributed by the attention a; p: term of the pair of
    items in that of v·t. Complete as `relevance_maps` are.
    """
    real = word_mask[..., :, None] & region_mask[..., None, :]
    added = trace.node_contributions[..., int(trace.has_global_node) :].sum(dim=-2)
    by_query = added[..., :, None] * trace.attention
    if trace.pooled_terms is not None:
        by_query = by_query + trace.pooled_terms
    return (by_query if stream == "word_stream" else by_query.transpose(-1, -2)) * real


def whole_term(trace: StreamTrace) -> Float[Tensor, "*pairs"]:
    """Term of the whole picture and caption in a stream's logit.

        sum_l n_l0 + (gamma v·t - sum_wr p_wr)          n_l0: term of the global node in level l

    The bracket is 0, up to rounding, where v and t are pooled from these regions and words alone; those of an index
    are rounded or pooled further.
    """
    nodes = trace.node_contributions[..., : int(trace.has_global_node)].sum(dim=(-2, -1))
    return nodes if trace.pooled_whole is None else nodes + trace.pooled_whole


def word_maps(
    stream: str,
    trace: StreamTrace,
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs words regions"]:
    """For each word a distribution over regions, by positive contribution.

        map_wr = max( contribution_wr, 0 ) / sum_r' max( contribution_wr', 0 )            see `contribution_maps`

    A word without a positive contribution has its `attention_maps`. Rows of padding are zero.
    """
    positive = contribution_maps(stream, trace, word_mask, region_mask).clamp_min(0)
    total = positive.sum(dim=-1, keepdim=True)
    shares = positive / total.clamp_min(torch.finfo(positive.dtype).tiny)
    return torch.where(total > 0, shares, attention_maps(stream, trace, word_mask, region_mask))


def attention_maps(
    stream: str,
    trace: StreamTrace,
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs words regions"]:
    """For each word a distribution over regions, by attention alone.

        word stream:    map_wr = a_wr
        region stream:  map_wr = b_r a_rw / sum_r' b_r' a_r'w

    a: attention of the stream; b_r: node weight of region r, averaged over levels. Rows of padding, and of words
    without attention from any region, are zero.
    """
    real = word_mask[..., :, None] & region_mask[..., None, :]
    if stream == "word_stream":
        return trace.attention * real
    weighted = _query_weights(trace).mean(dim=-2)[..., None, :] * trace.attention.transpose(-1, -2) * real
    return weighted / weighted.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weighted.dtype).tiny)


def level_maps(
    stream: str,
    trace: StreamTrace,
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs levels words regions"]:
    """Weight of each word and region in the read-out of each level.

        word stream:    map_lwr = b_lw a_wr           region stream:    map_lwr = b_lr a_rw

    b_l: node weights of level l; a map sums to 1 minus the weight of the global node.
    """
    real = (word_mask[..., :, None] & region_mask[..., None, :])[..., None, :, :]
    by_query = _query_weights(trace)[..., :, None] * trace.attention[..., None, :, :]
    return (by_query if stream == "word_stream" else by_query.transpose(-1, -2)) * real


def mean_relevance(
    traces: Mapping[str, StreamTrace],
    word_mask: Bool[Tensor, "*pairs words"],
    region_mask: Bool[Tensor, "*pairs regions"],
) -> Float[Tensor, "*pairs words regions"]:
    """Mean of the `relevance_maps` of the streams."""
    maps = [relevance_maps(name, trace, word_mask, region_mask) for name, trace in traces.items()]
    return torch.stack(maps).mean(dim=0)


def _query_weights(trace: StreamTrace) -> Float[Tensor, "*pairs levels queries"]:
    return trace.node_weights[..., int(trace.has_global_node) :]


def explain_pair(retriever: Retriever, images: ImageBatch, caption: str) -> Explanation:
    """Explain the score of one image and one caption.

    Args:
        retriever: The network and its tokenizer.
        images: A batch of exactly one image, with boxes where known.

    Raises:
        InputError: Where the batch holds several images, or the tokenizer's words are not the network's tokens,
            or a score is not finite.
    """
    if len(images) != 1:
        raise InputError(f"an explanation is of one image; got a batch of {len(images)}. Explain them one by one.")
    return explain_encoded(retriever, retriever.encode_images(images, parts=True), images.boxes, caption)


def explain_encoded(
    retriever: Retriever, image: ItemEncoding, boxes: Float[Tensor, "1 regions 4"] | None, caption: str
) -> Explanation:
    """Explain the score of one encoded image and one caption.

    Args:
        retriever: The network and its tokenizer.
        boxes: x1, y1, x2, y2 of each region as fractions of the image, where known.

    Raises:
        InputError: Where the tokenizer's words are not the network's tokens, or a score is not finite.
    """
    words = tuple(retriever.tokenizer.words(caption))
    text = retriever.encode_captions([caption], parts=True)
    tokens = int(text.mask.sum())
    if len(words) != tokens:
        raise InputError(f"caption {caption!r} has {len(words)} words but {tokens} tokens; expected one each.")
    scores, traces = retriever.score_pair(image, text), retriever.trace(image, text)
    for name, score in scores.items():
        if not math.isfinite(score):
            raise InputError(
                f"score {name!r} of caption {caption!r} is {score}; expected a finite number. "
                "The weights are damaged: load another checkpoint."
            )
    region_mask = image.mask[0]
    relevance = mean_relevance(traces, text.mask, image.mask)[0][text.mask[0]][:, region_mask] if traces else None
    return Explanation(
        caption=caption,
        words=words,
        regions=int(region_mask.sum()),
        boxes=None if boxes is None else _rows(boxes[0].to(region_mask.device)[region_mask]),
        scores=scores,
        streams={name: _stream(name, trace, text.mask, image.mask) for name, trace in traces.items()},
        word_relevance=() if relevance is None else tuple(relevance.sum(dim=1).tolist()),
        region_relevance=() if relevance is None else tuple(relevance.sum(dim=0).tolist()),
    )


def _stream(
    name: str, trace: StreamTrace, word_mask: Bool[Tensor, "1 words"], region_mask: Bool[Tensor, "1 regions"]
) -> StreamExplanation:
    """One stream of one pair, without padding."""
    words, regions = word_mask[0], region_mask[0]
    queries = words if name == "word_stream" else regions
    maps = level_maps(name, trace, word_mask, region_mask)[0][:, words][:, :, regions]
    levels = []
    for level, contribution in enumerate(trace.contributions[0].tolist()):
        weights = trace.node_weights[0, level]
        levels.append(
            LevelExplanation(
                contribution=contribution,
                global_weight=float(weights[0]) if trace.has_global_node else None,
                node_weights=tuple(weights[int(trace.has_global_node) :][queries].tolist()),
                word_regions=_rows(maps[level]),
            )
        )
    word_regions, relevance = (
        maps_of(name, trace, word_mask, region_mask)[0][words][:, regions] for maps_of in (word_maps, relevance_maps)
    )
    return StreamExplanation(
        score=float(trace.score[0]),
        pooled=float(trace.pooled[0]),
        bias=float(trace.bias.detach()),
        word_regions=_rows(word_regions),
        levels=tuple(levels),
        relevance=_rows(relevance),
        whole=float(whole_term(trace)[0]),
    )


def _rows(matrix: Float[Tensor, "rows columns"]) -> Rows:
    rows: Sequence[Sequence[float]] = matrix.tolist()
    return tuple(tuple(row) for row in rows)
