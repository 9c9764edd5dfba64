"""Hierarchical similarity reasoning (HSR): similarities of single items are combined level by level.

The abstract of the TSHSR paper names multi-level similarity information, self-extracted context, and the joint use of
context and local interaction; the formulas are our instantiation (docs/model.md, 4).

Axes: pairs (leading) | nodes (of the level below) | seeds (context nodes of a level) | width (m).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import ReasoningConfig
from tshsr.errors import SettingsError
from tshsr.models.attention import at_least_float32, masked_softmax, softmax, unit_in_place
from tshsr.models.context import ContextSimilarity, PairItems
from tshsr.models.dropout import Dropout


class ContextExtraction(nn.Module):
    """Pool the nodes of a level into context nodes, by learned seeds (no parser, no hand-made graph).

        A = softmax over nodes( Q S^T ),  Q: learned, seeds x m;      C = A S

    Nodes are unit vectors and Q is initialised with deviation 1, so the initial logits have deviation near 1.

    Args:
        width: Width of a node (m).
        seeds: Number of context nodes.
    """

    def __init__(self, width: int, seeds: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(seeds, width))

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> Float[Tensor, "*pairs seeds nodes"]:
        """A; rows sum to 1 over the real nodes."""
        return masked_softmax(torch.einsum("sw,...nw->...sn", self.seeds, nodes), row_mask(mask))


class CoExploitation(nn.Module):
    """Update the context nodes by attention over the local nodes and the context nodes, with a gated residual.

        X = [S ; C],  C = A S;   M = relu( O softmax( C W X^T ) X );   g = sigmoid( G [C ; M] );   C' = l2( C + g * M )

    W replaces the product Wq Wk^T of usual attention: it represents the same functions at half the cost. X is never
    formed:  Y X^T = [Y S^T, Y S^T A^T],   [p, q] X = (p + q A) S.  Context nodes with similarity vectors of their own
    (`ContextSimilarity`) stand in place of C, but not in X, which stays [S ; A S].

    Args:
        width: Width of a node (m).
        config: `local`, `context`: which nodes X contains; `gate`: whether g is learned (1 otherwise).
    """

    def __init__(self, width: int, config: ReasoningConfig) -> None:
        super().__init__()
        self.config = config
        self.relation = nn.Linear(width, width, bias=False)
        self.message = nn.Linear(width, width)
        self.gate = nn.Linear(2 * width, width) if config.gate else None

    def forward(
        self,
        nodes: Float[Tensor, "*pairs nodes width"],
        assignment: Float[Tensor, "*pairs seeds nodes"],
        mask: Bool[Tensor, "*#pairs nodes"] | None,
        context: Float[Tensor, "*pairs seeds width"],
    ) -> Float[Tensor, "*pairs seeds width"]:
        """C' for the local nodes S, the assignment A, and C: A S, or the context nodes in its place."""
        attention = self._attention(self.relation(context) @ nodes.transpose(-1, -2), assignment, mask)
        message = torch.relu(self.message(attention @ nodes))
        if self.gate is not None:
            message = torch.sigmoid(self.gate(torch.cat([context, message], dim=-1))) * message
        return unit_in_place(context + message)

    def _attention(
        self,
        logits: Float[Tensor, "*pairs seeds nodes"],
        assignment: Float[Tensor, "*pairs seeds nodes"],
        mask: Bool[Tensor, "*#pairs nodes"] | None,
    ) -> Float[Tensor, "*pairs seeds nodes"]:
        """P + q A: attention over the local nodes, directly and through the context nodes."""
        if not self.config.context:
            return masked_softmax(logits, row_mask(mask))
        to_context = logits @ assignment.transpose(-1, -2)
        if not self.config.local:
            return softmax(to_context) @ assignment
        if mask is not None:
            logits = logits.masked_fill(~mask[..., None, :], torch.finfo(logits.dtype).min)
        weights = softmax(torch.cat([logits, to_context], dim=-1))
        nodes = logits.shape[-1]
        return weights[..., :nodes] + weights[..., nodes:] @ assignment


class ReadOut(nn.Module):
    """Term w·r of a level in the logit:  r = sum_p beta_p S_p,  beta = sigmoid(u S + b), normalised to sum 1.

        w·r = sum_p beta_p (w·S_p)          two numbers per node; r is never formed

    The weights beta are the attention filtration of SGRAF (Diao et al. 2021).

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.opening = nn.Linear(width, 1)
        self.weight = nn.Parameter(torch.empty(1, width))
        nn.init.xavier_uniform_(self.weight)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"] | None
    ) -> tuple[Float[Tensor, "*pairs nodes"], Float[Tensor, "*pairs nodes"]]:
        """The terms beta_p (w·S_p), which sum to w·r, and the weights beta."""
        readings = nodes @ torch.cat([self.opening.weight, self.weight]).T
        # Two numbers per node: float32 costs little here, and sums in bfloat16 would tie different scores.
        opening, value = at_least_float32(readings).unbind(dim=-1)
        beta = torch.sigmoid(opening + self.opening.bias)
        if mask is not None:
            beta = beta * mask
        beta = beta / beta.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(beta.dtype).tiny)
        return beta * value, beta


@dataclass(frozen=True)
class ReasoningOutput:
    """Result of the hierarchy for each pair.

    Attributes:
        contributions: w_l·r_l of every level; level 0 is the read-out of the similarity vectors.
        node_weights: Weight of each base node in the read-out of each level; rows sum to 1. None without a trace.
        node_contributions: Term of each base node in each level; rows sum to `contributions`. None without a trace.
    """

    contributions: Float[Tensor, "*pairs levels"]
    node_weights: Float[Tensor, "*pairs levels nodes"] | None
    node_contributions: Float[Tensor, "*pairs levels nodes"] | None


class HierarchicalReasoning(nn.Module):
    """K levels of reasoning over similarity vectors, with a read-out of the similarity vectors and of each level.

        S_0 = the similarity vectors
        for l = 1..K:   A_l = context extraction from S_{l-1};    S_l = co-exploitation of A_l and S_{l-1}
        logit = sum_l w_l·r_l,    r_l = read-out of S_l,    l = 0..K

    Level l has as many nodes as seeds, far fewer than words or regions, which keeps its products cheap.

    Args:
        width: Width of a node (m).
        config: Levels, seeds and switches.
        looks: Makes the module by which the context nodes of a level get similarity vectors of their own; None: they
            have none.
        dropout: Dropout on the nodes of every level while training.

    Raises:
        SettingsError: Where a level has no seeds, `local` and `context` are both off, or a setting is out of range.
    """

    def __init__(
        self,
        width: int,
        config: ReasoningConfig,
        looks: Callable[[], ContextSimilarity] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if config.levels < 0 or len(config.seeds) < config.levels or min(config.seeds[: config.levels], default=1) < 1:
            raise SettingsError(
                f"reasoning has {config.levels} levels and seeds {config.seeds}; "
                "expected one number of seeds, at least 1, for each level (0 levels or more)."
            )
        if config.levels and not (config.context or config.local):
            raise SettingsError(
                "reasoning needs something to attend to: turn `context` or `local` on, or set levels to 0."
            )
        if not 0 <= config.context_inverse_temperature < math.inf:
            sharpness = config.context_inverse_temperature
            raise SettingsError(f"model.reasoning.context_inverse_temperature is {sharpness}; expected 0 or more.")
        self.extractions = nn.ModuleList(ContextExtraction(width, n) for n in config.seeds[: config.levels])
        self.updates = nn.ModuleList(CoExploitation(width, config) for _ in range(config.levels))
        self.read_outs = nn.ModuleList(ReadOut(width) for _ in range(config.levels + 1))
        self.looks = nn.ModuleList(looks() for _ in range(config.levels)) if looks is not None else None
        self.dropout = Dropout(dropout)

    def forward(
        self,
        nodes: Float[Tensor, "*pairs nodes width"],
        mask: Bool[Tensor, "*#pairs nodes"] | None,
        items: PairItems | None = None,
        *,
        traced: bool = False,
    ) -> ReasoningOutput:
        """Reason over the similarity vectors of a stream.

        Args:
            nodes: Similarity vectors; unit rows.
            mask: True where a node is real; None: all. Padding is invisible.
            items: Both sides of the pairs, for `looks`; the last nodes are those of its queries.
            traced: Also compute the weights and terms of the base nodes.
        """
        nodes = self.dropout(nodes)
        term, beta = self.read_outs[0](nodes, mask)
        terms, betas, assignments = [term], [beta], []
        for level, read_out in enumerate(self.read_outs[1:]):
            assignment = self.extractions[level](nodes, mask)
            assignments.append(assignment)
            context = assignment @ nodes
            if self.looks is not None:
                if items is None:
                    raise RuntimeError("context nodes that attend need both sides of the pairs")
                shares = to_base(assignment, assignments[:-1])[..., -items.similarity.shape[-2] :]
                context = unit_in_place(self.looks[level](context, shares, items))
            nodes = self.dropout(self.updates[level](nodes, assignment, mask, context))
            mask = None
            term, beta = read_out(nodes, mask)
            terms.append(term)
            betas.append(beta)
        contributions = torch.stack([term.sum(dim=-1) for term in terms], dim=-1)
        if not traced:
            return ReasoningOutput(contributions, None, None)
        return ReasoningOutput(contributions, to_base_nodes(betas, assignments), to_base_nodes(terms, assignments))


def row_mask(mask: Bool[Tensor, "*#pairs nodes"] | None) -> Bool[Tensor, "*#pairs 1 nodes"] | None:
    """A mask of nodes, broadcast over the rows of attention weights."""
    return None if mask is None else mask[..., None, :]


def to_base_nodes(
    values: list[Float[Tensor, "*pairs _"]], assignments: list[Float[Tensor, "*pairs _ _"]]
) -> Float[Tensor, "*pairs levels nodes"]:
    """x_l A_{l-1} ... A_1: distribute values of each level's nodes over the base nodes.

    Rows of A sum to 1, so the sum of a level is preserved. Only the pooling A is followed, not the exchange between
    nodes within an update.
    """
    rows = [to_base(row[..., None, :], assignments[:level]) for level, row in enumerate(values)]
    return torch.cat(rows, dim=-2)


def to_base(
    rows: Float[Tensor, "*pairs rows _"], assignments: list[Float[Tensor, "*pairs _ _"]]
) -> Float[Tensor, "*pairs rows nodes"]:
    """X A_l ... A_1: rows over the nodes of level l, over the base nodes."""
    for assignment in reversed(assignments):
        rows = rows @ assignment
    return rows
