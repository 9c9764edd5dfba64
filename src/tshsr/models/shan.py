"""SHAN (Ji et al. 2021): step-wise hierarchical alignment, from its published description.

Fragment level: every word with the regions it attends to, and every region with words (local-local). Context level:
what a side found is pooled into one vector, which attends to the other side's items (global-local); the vectors of both
sides, each with what it attended to, are compared (global-global).

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | dim (joint space, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.config.models import ShanConfig
from tshsr.models.attention import at_least_float32, attend, masked_softmax, to_unit_sums, unit
from tshsr.models.base import ItemEncoding, Scores, StreamTrace
from tshsr.models.encoders import init_xavier
from tshsr.models.roles import Role, RoleMatcher, RoleStream
from tshsr.models.scan import aggregate, query_shares
from tshsr.models.streams import cosine
from tshsr.models.whole import starts_at_encoder

SINGLE_SIDED = 2
"""Scores of one stream alone: local-local and global-local; global-global compares vectors of both."""


@dataclass(frozen=True)
class Alignment:
    """Values of one stream for each pair.

    Attributes:
        attention: w, the attention of the queries.
        cosines: cos( q, c*_q ).
        shares: beta; None without global-local alignment.
        terms: Term of each query in the global-local score.
        whole: x + y, the side's vector and what it attended to.
    """

    attention: Float[Tensor, "*pairs queries context"]
    cosines: Float[Tensor, "*pairs queries"]
    shares: Float[Tensor, "*pairs queries"] | None = None
    terms: Float[Tensor, "*pairs queries"] | None = None
    whole: Float[Tensor, "*pairs dim"] | None = None


class AlignmentStream(RoleStream):
    """One side's part of the alignments; weights are not shared with the other side's.

        w_q   = softmax_c( lambda q·(M c) ),    c*_q = sum_c w_qc c
        local-local     mean_q cos( q, c*_q )
        f_q   = g * q + (1 - g) * c*_q,         g = sigmoid( G [q ; c*_q] + b )
        x     = l2( sum_q beta_q f_q ),         beta = softmax_q( u·f_q )
        y     = l2( sum_c softmax_c( lambda x·c ) c )
        global-local    x·y

    Where ranking starts at a joint encoder's, the score is  v·t + alpha times the sum, alpha = 0 before the first step.

    Args:
        name: `word_stream` or `region_stream`.
    """

    def __init__(self, name: str, config: ShanConfig) -> None:
        super().__init__()
        dim = config.encoder.dim
        self.name, self.dim, self.inverse_temperature = name, dim, config.inverse_temperature
        fuses = config.last_alignment != "local_local"
        self.gate_query = nn.Linear(dim, dim) if fuses else None
        self.gate_context = nn.Linear(dim, dim, bias=False) if fuses else None
        self.share = nn.Linear(dim, 1, bias=False) if fuses else None
        init_xavier(self)
        self.affinity = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.affinity.weight)
        self.alpha = nn.Parameter(torch.zeros(())) if starts_at_encoder(config.encoder) else None

    def project(self, items: Float[Tensor, "*rows dim"], role: Role) -> Float[Tensor, "*rows _"]:
        """Of queries their part of the gate; of the context M c and its part of the gate."""
        if role == "context":
            layers = [self.affinity] if self.gate_context is None else [self.affinity, self.gate_context]
            return torch.cat([layer(items) for layer in layers], dim=-1)
        projected: Tensor = items if self.gate_query is None else self.gate_query(items)
        return projected

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs _"]:
        """The local-local score, and with the other alignments the global-local one and x + y, in float32 at least."""
        found = self.aligned(similarity, queries, context)
        scores = [aggregate(found.cosines, queries.real, "mean", 1.0)[..., None]]
        if found.terms is not None and found.whole is not None:
            scores += [found.terms.sum(dim=-1, keepdim=True), found.whole]
        return torch.cat(scores, dim=-1)

    def aligned(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Alignment:
        """All values.

        Args:
            similarity: q·c.
        """
        projected = self.projected(context, "context")
        affinity, gates = projected[..., : self.dim], projected[..., self.dim :]
        mask = None if context.real is None else context.real[..., None, :]
        logits = at_least_float32(torch.einsum("...qd,...cd->...qc", queries.items, affinity))
        weights = masked_softmax(self.inverse_temperature * logits, mask)
        cosines = (to_unit_sums(weights, context.gram) * similarity).sum(dim=-1)
        if self.share is None:
            return Alignment(weights, cosines)
        narrow = weights.to(gates.dtype)
        gate = torch.sigmoid(self.projected(queries, "queries") + attend(narrow, gates))
        fused = torch.lerp(attend(narrow, context.items.to(gate.dtype)), queries.items.to(gate.dtype), gate)
        shares = masked_softmax(at_least_float32(self.share(fused).squeeze(-1)), queries.real)
        total = torch.einsum("...q,...qd->...d", shares, at_least_float32(fused))
        length = torch.linalg.vector_norm(total, dim=-1, keepdim=True).clamp_min(1e-12)
        x = total / length
        y = self.looked_up(x, context)
        terms = shares * (at_least_float32(fused) @ (y / length)[..., None]).squeeze(-1)
        return Alignment(weights, cosines, shares, terms, x + y)

    def looked_up(self, vector: Float[Tensor, "*pairs dim"], context: ItemEncoding) -> Float[Tensor, "*pairs dim"]:
        """y: what one unit vector of a pair attends to, of unit length."""
        items = at_least_float32(context.items)
        logits = torch.einsum("...d,...cd->...c", vector, items)
        weights = masked_softmax(self.inverse_temperature * logits, context.real)
        return unit(torch.einsum("...c,...cd->...d", weights, items))

    def finish(self, output: Float[Tensor, "*pairs"], pooled: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The score of each pair; v·t + alpha output where ranking starts at a joint encoder's."""
        return output if self.alpha is None else pooled + self.alpha * output

    def trace(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> StreamTrace:
        """Attention, and one level for local-local and for global-local, without the global-global score."""
        found = self.aligned(similarity, queries, context)
        even = query_shares(found.cosines, queries.real, "mean", 1.0)
        weights, terms = [even], [found.cosines * even]
        if found.shares is not None and found.terms is not None:
            weights, terms = [*weights, found.shares], [*terms, found.terms]
        scale = 1.0 if self.alpha is None else self.alpha
        pooled = (
            cosine(queries.pooled, context.pooled) if self.alpha is not None else torch.zeros_like(terms[0][..., 0])
        )
        nodes = scale * torch.stack(terms, dim=-2)
        return StreamTrace(
            attention=found.attention,
            node_weights=torch.stack(weights, dim=-2),
            contributions=nodes.sum(dim=-1),
            pooled=pooled,
            bias=nodes.new_zeros(()),
            score=nodes.sum(dim=(-2, -1)) + pooled,
            has_global_node=False,
            node_contributions=nodes,
            pooled_whole=None if self.alpha is None else pooled,
        )

    def floats_per_pair(self, queries: int, context: int) -> int:
        """Six wide rows per query where it is fused, six for the vectors of a pair, and matrices of attention."""
        return (6 * self.dim * (queries + 1) if self.share is not None else 0) + 5 * queries * context


class Shan(RoleMatcher):
    """score = mean of the stream scores.

    stream          its local-local score + its global-local score + the global-global score, common to both
    global-global   cos( x + y, x' + y' )           x, y: words' vector and what it found;  x', y': regions'
    """

    def __init__(self, config: ShanConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.streams = nn.ModuleDict({name: AlignmentStream(name, config) for name in ("word_stream", "region_stream")})

    def combine(self, parts: Mapping[str, Tensor], pooled: Float[Tensor, "*pairs"]) -> Scores:
        """Scores by name: each stream, their mean as `fused`, and `pooled`."""
        sums = {name: part[..., :SINGLE_SIDED].sum(dim=-1) for name, part in parts.items()}
        if self.config.last_alignment == "global_global":
            words, regions = (unit(parts[name][..., SINGLE_SIDED:]) for name in self.streams)
            together = cosine(words, regions)
            sums = {name: part + together for name, part in sums.items()}
        return super().combine(sums, pooled)

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        """Intermediate values of each stream; the global-global score as a global node in a third level."""
        traces = super().trace(images, captions)
        if self.config.last_alignment != "global_global":
            return traces
        scores = self.score_pairs(images, captions)
        return {name: with_global_level(trace, scores[name]) for name, trace in traces.items()}


def with_global_level(trace: StreamTrace, score: Float[Tensor, "*pairs"]) -> StreamTrace:
    """The trace with one more level and a global node, whose term is what the score has beyond the trace's."""
    rest = (score - trace.score)[..., None, None]
    level = torch.cat([rest, torch.zeros_like(trace.node_contributions[..., :1, :])], dim=-1)
    weights = torch.cat([torch.ones_like(rest), torch.zeros_like(trace.node_weights[..., :1, :])], dim=-1)
    before = nn.functional.pad(trace.node_contributions, (1, 0))
    return replace(
        trace,
        node_weights=torch.cat([nn.functional.pad(trace.node_weights, (1, 0)), weights], dim=-2),
        node_contributions=torch.cat([before, level], dim=-2),
        contributions=torch.cat([trace.contributions, rest[..., 0]], dim=-1),
        score=score,
        has_global_node=True,
    )
