"""Plain references for the speed measurements: scoring as in published code, written from the formulas.

The evaluation code of this family of methods loops over captions and batches the images: the caption is repeated for
every image, each stream computes its own similarities, attended vectors are normalised in the joint space, and every
node of every step is computed. The functions here do the same with the weights of our networks and give equal scores.

Axes: images | regions | words | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (the usual alias)
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.models.base import ItemEncoding
from tshsr.models.context import ContextSimilarity
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.pooling import EPSILON
from tshsr.models.rcar import AggregationRegulator, Rcar, RcarStream
from tshsr.models.reasoning import CoExploitation, ContextExtraction, ReadOut
from tshsr.models.scan import CosineStream, CrossAttention, Scan, aggregate
from tshsr.models.sgraf import AttentionFiltration, GraphReasoning, GraphStep, Sgraf, SgrafStream, TwoStreamSgr
from tshsr.models.similarity import SimilarityVector
from tshsr.models.tshsr import Tshsr, TshsrStream

CaptionRow = Float[Tensor, "words dim"]
Items = Float[Tensor, "images items dim"]
PlainScore = Callable[[ItemEncoding, CaptionRow, Float[Tensor, " dim"]], Float[Tensor, " images"]]
"""(images, words of a caption, its pooled vector) -> one score per image."""


def sides(name: str, images: ItemEncoding, caption: Items) -> tuple[Items, Items]:
    """Queries and context of a stream."""
    return (caption, images.items) if name == "word_stream" else (images.items, caption)


def loop_over_captions(
    score: PlainScore, images: ItemEncoding, captions: ItemEncoding
) -> Float[Tensor, "images captions"]:
    """All-pairs loop of published code: one caption at a time against a block of images without padding."""
    columns = [
        score(images, words[mask], pooled)
        for words, mask, pooled in zip(captions.items, captions.mask, captions.pooled, strict=True)
    ]
    return torch.stack(columns, dim=1)


def unit(rows: Float[Tensor, "*rows width"], dim: int = -1) -> Float[Tensor, "*rows width"]:
    """X / (||x|| + 1e-8), out of place as in published code."""
    return torch.div(rows, torch.pow(rows, 2).sum(dim=dim, keepdim=True).sqrt() + 1e-8)


def attention(
    queries: Float[Tensor, "images queries dim"],
    context: Float[Tensor, "images context dim"],
    inverse_temperature: float | Float[Tensor, "images queries 1"],
) -> Float[Tensor, "images queries context"]:
    """Weights of SCAN's cross attention."""
    similarity = torch.bmm(context, queries.transpose(1, 2))
    similarity = unit(F.leaky_relu(similarity, 0.1), dim=2)
    return F.softmax(similarity.transpose(1, 2).contiguous() * inverse_temperature, dim=2)


def attended(
    queries: Float[Tensor, "images queries dim"],
    context: Float[Tensor, "images context dim"],
    inverse_temperature: float | Float[Tensor, "images queries 1"],
) -> Float[Tensor, "images queries dim"]:
    """Cross attention of SCAN: one attended unit vector per query."""
    weights = attention(queries, context, inverse_temperature)
    # The published product has context items in columns, so that the next operations read it with a stride.
    found = torch.bmm(context.transpose(1, 2), weights.transpose(1, 2).contiguous())
    return unit(found.transpose(1, 2))


def similarity_vectors(
    similarity: SimilarityVector, x: Float[Tensor, "*rows dim"], y: Float[Tensor, "*rows dim"]
) -> Float[Tensor, "*rows width"]:
    """l2( W (P (x - y))^2 + V (P x * P y) + u (x·y) + b ); with a gate P x is gated first."""
    return compared_vectors(similarity, similarity.view, x, y)


def compared_vectors(
    similarity: SimilarityVector, view: nn.Module, x: Float[Tensor, "*rows dim"], y: Float[Tensor, "*rows dim"]
) -> Float[Tensor, "*rows width"]:
    """Similarity vectors in a space compared by the projection of another module."""
    difference = view(x - y)
    own = None if similarity.gate is None and similarity.product is None else view(x)
    if similarity.gate is not None:
        difference, own = similarity.gate(difference, own, similarity.gate.query(own))
    vectors = similarity.projection(torch.pow(difference, 2))
    if similarity.product is not None:
        vectors = vectors + similarity.product(own * view(y))
    if similarity.cosine is not None:
        vectors = vectors + (x * y).sum(dim=-1, keepdim=True) * similarity.cosine
    return unit(vectors)


def tshsr(network: Tshsr) -> PlainScore:
    """The fused score of TSHSR by the plain formula (docs/model.md)."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        whole = images.pooled @ pooled
        mean = images.mean() @ words.mean(dim=0) if network.has_mean_similarity else None
        parts = []
        for name, stream in network.streams.items():
            if not isinstance(stream, TshsrStream):
                raise TypeError(f"{name} is no stream")
            parts.append(
                torch.sigmoid(
                    stream_logit(stream, *sides(name, images, caption))
                    + stream.pooled_contribution(whole, mean)
                    + stream.constant
                )
            )
        return torch.stack(parts).mean(dim=0)

    return score


def stream_logit(
    stream: TshsrStream, queries: Float[Tensor, "images queries dim"], context: Float[Tensor, "images context dim"]
) -> Float[Tensor, " images"]:
    """Sum of the contributions of the levels."""
    context_of_query = attended(queries, context, stream.inverse_temperature)
    nodes = similarity_vectors(stream.local_similarity, queries, context_of_query)
    read_outs = cast(Sequence[ReadOut], stream.reasoning.read_outs)
    total = read_out(read_outs[0], nodes)
    shares = None
    for level, out in enumerate(read_outs[1:]):
        extract = cast(ContextExtraction, stream.reasoning.extractions[level])
        assignment = F.softmax(torch.matmul(extract.seeds, nodes.transpose(1, 2)), dim=-1)
        shares = assignment if shares is None else torch.bmm(assignment, shares)
        look = None
        if stream.reasoning.looks is not None:
            module = cast(ContextSimilarity, stream.reasoning.looks[level])
            look = partial(joined_context, module, stream.local_similarity.view, shares, queries, context)
        nodes = next_level(cast(CoExploitation, stream.reasoning.updates[level]), assignment, nodes, look)
        total = total + read_out(out, nodes)
    return total


def joined_context(
    module: ContextSimilarity,
    view: nn.Module,
    shares: Float[Tensor, "images seeds queries"],
    queries: Float[Tensor, "images queries dim"],
    context: Float[Tensor, "images context dim"],
    pooled: Float[Tensor, "images seeds width"],
) -> Float[Tensor, "images seeds width"]:
    """Context nodes with similarity vectors of their own, queries and attended vectors formed in the joint space."""
    own_queries = unit(torch.bmm(shares, queries))
    weights = F.softmax(module.inverse_temperature * torch.bmm(own_queries, context.transpose(1, 2)), dim=-1)
    own = compared_vectors(module.similarity, view, own_queries, unit(torch.bmm(weights, context)))
    return unit(pooled + module.join(torch.cat([pooled, own], dim=-1)))


def next_level(
    update: CoExploitation,
    assignment: Float[Tensor, "images seeds nodes"],
    nodes: Float[Tensor, "images nodes width"],
    look: Callable[[Tensor], Tensor] | None,
) -> Float[Tensor, "images seeds width"]:
    """Co-exploitation, with [S ; C] materialised."""
    context = torch.bmm(assignment, nodes)
    neighbours = torch.cat([nodes, context], dim=1)
    context = context if look is None else look(context)
    edges = F.softmax(torch.bmm(update.relation(context), neighbours.transpose(1, 2)), dim=-1)
    message = F.relu(update.message(torch.bmm(edges, neighbours)))
    if update.gate is not None:
        message = torch.sigmoid(update.gate(torch.cat([context, message], dim=-1))) * message
    return unit(context + message)


def read_out(out: ReadOut, nodes: Float[Tensor, "images nodes width"]) -> Float[Tensor, " images"]:
    """w·r of the read-out r of a level."""
    beta = torch.sigmoid(out.opening(nodes)).transpose(1, 2)
    read = torch.bmm(F.normalize(beta, p=1, dim=-1), nodes).squeeze(1)
    return (read * out.weight).sum(dim=-1)


def sgraf(network: Sgraf | TwoStreamSgr) -> PlainScore:
    """Score of SGR or SAF, mean over the streams, with every node of every step computed."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        whole = pooled.repeat(len(images), 1)
        parts = []
        for name, stream in network.streams.items():
            parts.append(
                similarity_score(cast(SgrafStream, stream), *sides(name, images, caption), images.pooled, whole)
            )
        return torch.stack(parts).mean(dim=0)

    return score


def similarity_score(
    stream: SgrafStream,
    queries: Float[Tensor, "images queries dim"],
    context: Float[Tensor, "images context dim"],
    v: Float[Tensor, "images dim"],
    t: Float[Tensor, "images dim"],
) -> Float[Tensor, " images"]:
    """Score of a stream by reasoning over its similarity vectors, the global one first."""
    context_of_query = attended(queries, context, stream.inverse_temperature)
    local = similarity_vectors(stream.local_similarity, queries, context_of_query)
    whole = similarity_vectors(stream.global_similarity, t, v)
    nodes = torch.cat([whole.unsqueeze(1), local], dim=1)
    if isinstance(stream.reasoning, GraphReasoning):
        for step in [*stream.reasoning.steps, stream.reasoning.last]:
            nodes = graph_step(cast(GraphStep, step), nodes)
        read = nodes[:, 0]
    else:
        read = filtration(cast(AttentionFiltration, stream.reasoning), nodes)
    return torch.sigmoid(stream.score(read)).squeeze(1)


def graph_step(step: GraphStep, nodes: Float[Tensor, "images nodes width"]) -> Float[Tensor, "images nodes width"]:
    """relu( W softmax( (Wq S) (Wk S)^T ) S )."""
    edges = F.softmax(torch.bmm(step.query(nodes), step.key(nodes).transpose(1, 2)), dim=-1)
    return F.relu(step.update(torch.bmm(edges, nodes)))


def filtration(saf: AttentionFiltration, nodes: Float[Tensor, "images nodes width"]) -> Float[Tensor, "images width"]:
    """Weighted sum of the nodes in SAF."""
    opening = saf.opening(nodes).transpose(1, 2)
    norm = saf.norm
    scaled = F.batch_norm(opening, norm.running_mean, norm.running_variance, norm.weight, norm.bias, eps=EPSILON)
    beta = F.normalize(torch.sigmoid(scaled), p=1, dim=-1)
    return unit(torch.bmm(beta, nodes).squeeze(1))


def scan(network: Scan) -> PlainScore:
    """Score of the word stream of SCAN, with attended vectors materialised."""
    stream = cast(CrossAttention, network.streams["word_stream"])

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        del pooled
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        cosines = F.cosine_similarity(caption, attended(caption, images.items, stream.inverse_temperature), dim=-1)
        everything = torch.ones_like(cosines, dtype=torch.bool)
        return aggregate(cosines, everything, stream.aggregation, stream.factor)

    return score


def rcar(network: Rcar) -> PlainScore:
    """Score of RCAR, mean over the streams, with gated queries and attended vectors materialised."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        del pooled
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        parts = []
        for name, stream in network.streams.items():
            parts.append(regulated_score(cast(RcarStream, stream), *sides(name, images, caption)))
        return torch.stack(parts).mean(dim=0)

    return score


def regulated_score(
    stream: RcarStream, queries: Float[Tensor, "images queries dim"], context: Float[Tensor, "images context dim"]
) -> Float[Tensor, " images"]:
    """Score of a stream by attention and aggregation in steps."""
    gate = torch.ones_like(queries)
    sharpness = torch.full_like(queries[..., :1], stream.inverse_temperature)
    read = torch.zeros_like(queries[:, 0, : stream.width])
    for number, (alignment, aggregation) in enumerate(zip(stream.alignments, stream.aggregations, strict=True)):
        nodes = similarity_vectors(
            cast(SimilarityVector, alignment), queries, attended(queries * gate, context, sharpness)
        )
        read = regulated_read(cast(AggregationRegulator, aggregation), nodes, read if number else nodes.mean(dim=1))
        if number < len(stream.regulators):
            gate, sharpness = stream.regulators[number](nodes, gate, sharpness)
    return torch.sigmoid(stream.score(read)).squeeze(1)


def regulated_read(
    aggregation: AggregationRegulator, nodes: Float[Tensor, "images nodes width"], read: Float[Tensor, "images width"]
) -> Float[Tensor, "images width"]:
    """Next aggregate of the nodes."""
    whole = torch.tanh(aggregation.whole(read)).unsqueeze(1).repeat(1, nodes.shape[1], 1)
    logits = aggregation.weight(torch.tanh(aggregation.item(nodes)) * whole).squeeze(2)
    return unit((F.softmax(logits, dim=1).unsqueeze(2) * nodes).sum(dim=1))


def hard_alignment(network: HardAlignment) -> PlainScore:
    """Score of CHAN and of late interaction, mean over the streams, each with its own similarities."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        del pooled
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        parts = []
        for name, module in network.streams.items():
            stream = cast(CosineStream, module)
            queries, context = (caption, images.items) if name == "word_stream" else (images.items, caption)
            best = torch.bmm(queries, context.transpose(1, 2)).amax(dim=2)
            everything = torch.ones_like(best, dtype=torch.bool)
            parts.append(stream.scale * aggregate(best, everything, stream.aggregation, stream.factor))
        return torch.stack(parts).mean(dim=0)

    return score
