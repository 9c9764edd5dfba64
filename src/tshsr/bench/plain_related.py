"""Plain references of DSGSL, IMRAM and SHAN, as those of `plain`: every vector of every step is formed for each pair.

Axes: images | queries | context (the items they attend to) | dim (joint space, D) | width (similarity vector, m).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 (the usual alias)
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.bench.plain import CaptionRow, Items, PlainScore, attended, attention, sides, similarity_vectors, unit
from tshsr.models.base import ItemEncoding
from tshsr.models.dsgsl import Dsgsl, DsgslStream
from tshsr.models.imram import Imram, MemoryStream
from tshsr.models.semantic_graphs import DualGraph
from tshsr.models.shan import AlignmentStream, Shan
from tshsr.models.similarity import SimilarityVector


def dsgsl(network: Dsgsl) -> PlainScore:
    """Score of DSGSL, mean over the streams."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        caption, whole = words.unsqueeze(0).repeat(len(images), 1, 1), pooled.repeat(len(images), 1)
        parts = []
        for name, module in network.streams.items():
            stream = cast(DsgslStream, module)
            queries, context = sides(name, images, caption)
            found = attended(queries, context, stream.inverse_temperature)
            local = similarity_vectors(stream.local_similarity, queries, found)
            pair = similarity_vectors(cast(SimilarityVector, stream.global_similarity), whole, images.pooled)
            nodes = torch.cat([pair.unsqueeze(1), local], dim=1)
            for graph in stream.graphs:
                nodes = dual_graph_step(cast(DualGraph, graph), nodes)
            beta = F.normalize(torch.sigmoid(stream.opening(nodes)).transpose(1, 2), p=1, dim=-1)
            parts.append(torch.sigmoid(stream.score(torch.bmm(beta, nodes).squeeze(1))).squeeze(1))
        return torch.stack(parts).mean(dim=0)

    return score


def dual_graph_step(
    graph: DualGraph, nodes: Float[Tensor, "images nodes width"]
) -> Float[Tensor, "images nodes width"]:
    """One step on both graphs, the global node first."""
    whole, local = nodes[:, :1], nodes[:, 1:]
    relations = F.softmax(torch.bmm(graph.relation(local), local.transpose(1, 2)), dim=-1)
    edges = torch.bmm(local, graph.edge(whole).transpose(1, 2))
    given = torch.sigmoid(edges + graph.opening) * graph.from_global(whole)
    to_local = F.relu(graph.local(torch.bmm(relations, local)) + given)
    to_whole = F.relu(graph.to_global(torch.bmm(F.softmax(edges, dim=1).transpose(1, 2), local)))
    return unit(torch.cat([whole + to_whole, local + to_local], dim=1))


def imram(network: Imram) -> PlainScore:
    """Score of IMRAM, mean over the streams."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        del pooled
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        parts = [
            remembered_score(cast(MemoryStream, stream), *sides(name, images, caption))
            for name, stream in network.streams.items()
        ]
        return torch.stack(parts).mean(dim=0)

    return score


def remembered_score(stream: MemoryStream, queries: Items, context: Items) -> Float[Tensor, " images"]:
    """Sum over the steps of the mean cosine of the queries with what they attend to."""
    states, total = queries, torch.zeros_like(queries[:, 0, 0])
    for step in range(stream.steps):
        found = torch.bmm(attention(states, context, stream.inverse_temperature), context)
        total = total + F.cosine_similarity(queries, found, dim=-1).mean(dim=1)
        if stream.from_query is not None and stream.from_context is not None and step + 1 < stream.steps:
            opening, new = (stream.from_query(states) + stream.from_context(found)).chunk(2, dim=-1)
            gate = torch.sigmoid(opening)
            states = unit(gate * states + (1 - gate) * torch.tanh(new))
    return total


def shan(network: Shan) -> PlainScore:
    """Score of SHAN: the alignments of both sides, and the one of both together."""

    def score(images: ItemEncoding, words: CaptionRow, pooled: Float[Tensor, " dim"]) -> Float[Tensor, " images"]:
        del pooled
        caption = words.unsqueeze(0).repeat(len(images), 1, 1)
        scores, wholes = [], []
        for name, stream in network.streams.items():
            single, whole = aligned(cast(AlignmentStream, stream), *sides(name, images, caption))
            scores.append(single)
            wholes.append(whole)
        total = torch.stack(scores).mean(dim=0)
        if network.config.last_alignment != "global_global":
            return total
        return total + F.cosine_similarity(wholes[0], wholes[1], dim=-1)

    return score


def aligned(
    stream: AlignmentStream, queries: Items, context: Items
) -> tuple[Float[Tensor, " images"], Float[Tensor, "images dim"]]:
    """One side's local-local and global-local score, and its vector with what that attends to."""
    logits = torch.bmm(queries, stream.affinity(context).transpose(1, 2))
    found = torch.bmm(F.softmax(stream.inverse_temperature * logits, dim=-1), context)
    local = F.cosine_similarity(queries, found, dim=-1).mean(dim=1)
    if stream.share is None:
        return local, queries[:, 0]
    gate = torch.sigmoid(cast(nn.Module, stream.gate_query)(queries) + cast(nn.Module, stream.gate_context)(found))
    fused = gate * queries + (1 - gate) * found
    x = unit((F.softmax(stream.share(fused), dim=1) * fused).sum(dim=1))
    weights = F.softmax(stream.inverse_temperature * torch.bmm(context, x.unsqueeze(2)), dim=1)
    y = unit((weights * context).sum(dim=1))
    return local + (x * y).sum(dim=-1), x + y
