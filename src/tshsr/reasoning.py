"""Hierarchical similarity reasoning (HSR): from single similarities to the whole pair, level by level.

The abstract of the TSHSR paper asks for three things: several levels of similarity information, context that the module
extracts by itself, and context used together with local interaction. How, is our instantiation.

Axes: pairs (leading) | nodes (similarity vectors of a level) | seeds (context nodes of a level) | width (m).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.alignment import masked_softmax, unit
from tshsr.config import ReasoningConfig
from tshsr.errors import SettingsError


class ContextExtraction(nn.Module):
    """Context nodes drawn from the nodes of a level by learned seeds; no parser, no hand-made graph.

        A = softmax over nodes( Q S^T ),  Q: seeds x m learned;      C = A S

    Nodes are unit vectors and Q starts with deviation 1, so the logits of a fresh seed have deviation near 1.

    Args:
        width: Width of a node (m).
        seeds: Number of context nodes.
    """

    def __init__(self, width: int, seeds: int) -> None:
        super().__init__()
        self.seeds = nn.Parameter(torch.randn(seeds, width))

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"]
    ) -> Float[Tensor, "*pairs seeds nodes"]:
        """A: how much each context node takes from each node; rows sum to 1 over the real nodes."""
        return masked_softmax(torch.einsum("sw,...nw->...sn", self.seeds, nodes), mask[..., None, :])


class CoExploitation(nn.Module):
    """Each node attends to its neighbours (local interaction) and to the context nodes, and is updated.

        M = relu( O softmax( S W X^T ) X ),  X = [S ; C];   g = sigmoid( G [S ; M] );   S' = l2( S + g * M )

    The product Wq Wk^T of a usual attention is one matrix W here: the same functions, half the work.

    Args:
        width: Width of a node (m).
        gate: Learn g; without it g = 1.
    """

    def __init__(self, width: int, *, gate: bool) -> None:
        super().__init__()
        self.relation = nn.Linear(width, width, bias=False)
        self.message = nn.Linear(width, width)
        self.gate = nn.Linear(2 * width, width) if gate else None

    def forward(
        self,
        nodes: Float[Tensor, "*pairs nodes width"],
        neighbours: Float[Tensor, "*pairs neighbours width"],
        mask: Bool[Tensor, "*#pairs neighbours"],
    ) -> Float[Tensor, "*pairs nodes width"]:
        """S' for the nodes S and all that they attend to, X; padding in X is not seen."""
        logits = torch.einsum("...nw,...kw->...nk", self.relation(nodes), neighbours)
        message = torch.relu(self.message(masked_softmax(logits, mask[..., None, :]) @ neighbours))
        if self.gate is not None:
            message = torch.sigmoid(self.gate(torch.cat([nodes, message], dim=-1))) * message
        return unit(nodes + message)


class ReadOut(nn.Module):
    """One vector a level: r = sum_p beta_p S_p, beta = sigmoid(w S + b) made to sum to 1 (SGRAF's filtration).

    Args:
        width: Width of a node (m).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, 1)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"]
    ) -> tuple[Float[Tensor, "*pairs width"], Float[Tensor, "*pairs nodes"]]:
        """The read-out and its weights beta."""
        beta = torch.sigmoid(self.weight(nodes).squeeze(-1)) * mask
        beta = beta / beta.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(beta.dtype).tiny)
        return torch.einsum("...n,...nw->...w", beta, nodes), beta


class ReasoningLevel(nn.Module):
    """One level: extract context, exploit it together with the local nodes, read out, go one level up."""

    def __init__(self, width: int, seeds: int, config: ReasoningConfig) -> None:
        super().__init__()
        self.config = config
        self.extract = ContextExtraction(width, seeds)
        self.update = CoExploitation(width, gate=config.gate)

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"]
    ) -> tuple[Float[Tensor, "*pairs nodes width"], Float[Tensor, "*pairs seeds nodes"]]:
        """S' and the assignment A of context nodes to nodes."""
        assignment = self.extract(nodes, mask)
        neighbours, neighbour_mask = nodes, mask.expand(nodes.shape[:-1])
        if self.config.context:
            context = assignment @ nodes
            real = mask.new_ones(context.shape[:-1])
            neighbours = torch.cat([nodes, context], dim=-2) if self.config.local else context
            neighbour_mask = torch.cat([neighbour_mask, real], dim=-1) if self.config.local else real
        return self.update(nodes, neighbours, neighbour_mask), assignment


@dataclass(frozen=True)
class Reasoning:
    """What the hierarchy read out of a pair.

    Attributes:
        read_outs: r_1 ... r_{K+1}, finest level first.
        node_weights: For each read-out, how much each base node counts in it; sums to 1.
    """

    read_outs: Float[Tensor, "*pairs levels width"]
    node_weights: Float[Tensor, "*pairs levels nodes"] | None


class HierarchicalReasoning(nn.Module):
    """K levels of reasoning over similarity vectors and K + 1 read-outs.

        for l = 1..K:  A_l, S'_l = level l of S_l;   r_l = read-out of S'_l;   S_{l+1} = A_l S'_l
        at the top:    r_{K+1} = read-out of S_{K+1}

    Level l + 1 has as many nodes as level l has seeds, so the cost falls with every level.

    Args:
        width: Width of a node (m).
        config: Levels, seeds and switches.

    Raises:
        SettingsError: Where a level has no seeds, or an update would have nothing to attend to.
    """

    def __init__(self, width: int, config: ReasoningConfig) -> None:
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
        self.levels = nn.ModuleList(ReasoningLevel(width, n, config) for n in config.seeds[: config.levels])
        self.read_outs = nn.ModuleList(ReadOut(width) for _ in range(config.levels + 1))

    def forward(
        self, nodes: Float[Tensor, "*pairs nodes width"], mask: Bool[Tensor, "*#pairs nodes"], *, traced: bool = False
    ) -> Reasoning:
        """Reason over the similarity vectors of a stream.

        Args:
            nodes: Similarity vectors; unit rows.
            mask: True where a node is real; padding is invisible.
            traced: Also follow every read-out back to the base nodes.
        """
        vectors, betas, assignments = [], [], []
        for level, read_out in zip(self.levels, self.read_outs, strict=False):
            updated, assignment = level(nodes, mask)
            vector, beta = read_out(updated, mask)
            vectors.append(vector)
            betas.append(beta)
            assignments.append(assignment)
            nodes = assignment @ updated
            mask = mask.new_ones(nodes.shape[-2])
        vector, beta = self.read_outs[-1](nodes, mask)
        read_outs = torch.stack([*vectors, vector], dim=-2)
        return Reasoning(read_outs, weights_of_base_nodes([*betas, beta], assignments) if traced else None)


def weights_of_base_nodes(
    betas: list[Float[Tensor, "*pairs _"]], assignments: list[Float[Tensor, "*pairs _ _"]]
) -> Float[Tensor, "*pairs levels nodes"]:
    """beta_l A_{l-1} ... A_1: every read-out's weights, followed back to the nodes that the hierarchy began with.

    An update lets nodes exchange information within a level: that is not followed, only who is pooled into whom.
    """
    rows = []
    for level, beta in enumerate(betas):
        row = beta
        for assignment in reversed(assignments[:level]):
            row = torch.einsum("...s,...sn->...n", row, assignment)
        rows.append(row)
    return torch.stack(rows, dim=-2)
