"""Launches of the fused kernels for both streams of TSHSR, and the products between them.

Axes: images | captions | rows (of the context side) | others (rows of the queries' side) | queries | context | seeds |
width (m); pairs: rows x others, flat.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from tshsr.config.models import TshsrConfig
from tshsr.models.attention import unit_in_place
from tshsr.models.base import ItemEncoding, Scores
from tshsr.models.context import ContextSimilarity
from tshsr.models.reasoning import CoExploitation, ContextExtraction, ReadOut, to_base
from tshsr.models.similarity import SimilarityVector
from tshsr.models.streams import PLACE
from tshsr.models.tshsr import Tshsr, TshsrStream

if TYPE_CHECKING:
    from types import ModuleType

Kind = TypeVar("Kind", bound=nn.Module)

INTERPRET = "TRITON_INTERPRET"
"""Environment variable with which Triton runs kernels on a CPU."""
SMALLEST_BLOCK = 16
"""Smallest side of a block: that of matrix products on tensor cores."""


@dataclass(frozen=True)
class Launch:
    """How kernels are compiled.

    Attributes:
        warps: Groups of 32 threads for a pair.
        stages: Steps of a loop whose loads overlap.
        compared: Largest number of dimensions of the comparison space in a step.
    """

    warps: int = 4
    stages: int = 2
    compared: int = 32


def launch_of(config: TshsrConfig) -> Launch:
    """The launch by the width of similarity vectors."""
    return Launch() if block(config.similarity_dim) > 64 else Launch(warps=2)


def interpreted() -> bool:
    """Whether Triton's interpreter is on."""
    return os.environ.get(INTERPRET) == "1"


def kernels() -> ModuleType:
    """The module of the kernels; imported on first use, because it requires triton."""
    from tshsr.scoring import tile_kernels

    return tile_kernels


def block(count: int) -> int:
    """The smallest side of a block for that many items: a power of two."""
    return max(SMALLEST_BLOCK, 1 << (count - 1).bit_length())


def fused_scores(network: Tshsr, images: ItemEncoding, captions: ItemEncoding, launch: Launch) -> Scores:
    """`Tshsr.score_all` by the kernels."""

    def terms(stream: nn.Module, similarity: Tensor, queries: ItemEncoding, context: ItemEncoding) -> Tensor:
        return FusedStream(of_kind(TshsrStream, stream), similarity, queries, context, launch).terms()

    return network.scores_by(terms, images, captions)


class FusedStream:
    """One stream of TSHSR over a grid of pairs, context rows x query rows.

    Args:
        similarity: q·c; any strides.
        queries: Encoded side that attends.
        context: Encoded side attended to.
    """

    def __init__(
        self,
        stream: TshsrStream,
        similarity: Float[Tensor, "rows others queries context"],
        queries: ItemEncoding,
        context: ItemEncoding,
        launch: Launch,
    ) -> None:
        self.stream, self.similarity, self.queries, self.context = stream, similarity, queries, context
        self.rows, self.others, self.query_count, self.context_count = similarity.shape
        self.pairs = self.rows * self.others
        self.views = [side.views.get(stream.name, side.items) for side in (queries, context)]
        self.width = stream.config.similarity_dim
        self.dtype = self.views[0].dtype
        self.compared_block = min(launch.compared, block(stream.compared))
        self.constants: dict[str, Any] = {
            "widen": interpreted(),
            "precision": "ieee" if self.dtype == torch.float32 else "tf32x3",
            "width": self.width,
            "width_block": block(self.width),
            "num_warps": launch.warps,
            "num_stages": launch.stages,
        }

    def terms(self) -> Float[Tensor, "rows others levels"]:
        """Contribution of each level to the logit, in float32."""
        reasoning = self.stream.reasoning
        found = self.empty(len(reasoning.read_outs), self.pairs, dtype=torch.float32)
        nodes, assignment, pooled = self.similarity_vectors(found[0])
        assignments: list[Tensor] = []
        mask: Tensor | None = self.queries.mask
        for level, level_update in enumerate(reasoning.updates):
            assignments.append(assignment)
            context = pooled
            if reasoning.looks is not None:
                shares = to_base(assignment, assignments[:-1])
                context = self.joined(of_kind(ContextSimilarity, reasoning.looks[level]), pooled, shares)
            module = of_kind(CoExploitation, level_update)
            messages = self.exchanged(module, context, nodes, assignment, mask)
            nodes, assignment, pooled = self.updated(module, level, context, messages, found[level + 1])
            mask = None
        return found.view(-1, self.rows, self.others).permute(1, 2, 0)

    def similarity_vectors(self, terms: Float[Tensor, " pairs"]) -> tuple[Tensor, Tensor, Tensor]:
        """Similarity vectors S, A and A S; the term of level 0 is written."""
        vector = self.stream.local_similarity
        queries, context = self.views
        seeds, nodes, assignment, pooled = self.next_level(0, self.query_count)
        masks = self.queries.mask, self.context.mask
        places = [
            side.views[PLACE].contiguous() if self.stream.places else None for side in (self.queries, self.context)
        ]
        kernels().similarity_vectors[(self.pairs,)](
            self.similarity,
            queries,
            context,
            self.context.gram,
            *masks,
            *places,
            *weights_of(vector),
            vector.agreement,
            *weights_of_read_out(self.stream.reasoning.read_outs[0]),
            seeds,
            nodes,
            terms,
            assignment,
            pooled,
            self.others,
            self.query_count,
            self.context_count,
            *self.similarity.stride(),
            queries.stride(0),
            context.stride(0),
            *self.context.gram.stride()[:2],
            *(mask.stride(0) for mask in masks),
            *(0 if place is None else place.stride(0) for place in places),
            self.stream.inverse_temperature,
            compared=self.stream.compared,
            seed_count=0 if seeds is None else len(seeds),
            queries_block=block(self.query_count),
            context_block=block(self.context_count),
            compared_block=self.compared_block,
            seeds_block=block(1 if seeds is None else len(seeds)),
            **self.constants,
        )
        return nodes, assignment, pooled

    def joined(
        self,
        look: ContextSimilarity,
        pooled: Float[Tensor, "pairs seeds width"],
        shares: Float[Tensor, "pairs seeds queries"],
    ) -> Float[Tensor, "pairs seeds width"]:
        """Context nodes with similarity vectors of their own, of unit length."""
        queries, context = self.views
        vectors, shares, mask = torch.empty_like(pooled), shares.contiguous(), self.context.mask
        kernels().context_vectors[(self.pairs,)](
            self.similarity,
            shares,
            queries,
            context,
            self.queries.gram,
            self.context.gram,
            mask,
            *weights_of(look.similarity),
            vectors,
            self.others,
            self.query_count,
            self.context_count,
            *self.similarity.stride(),
            queries.stride(0),
            context.stride(0),
            *self.queries.gram.stride()[:2],
            *self.context.gram.stride()[:2],
            mask.stride(0),
            look.inverse_temperature,
            compared=self.stream.compared,
            seed_count=pooled.shape[1],
            queries_block=block(self.query_count),
            context_block=block(self.context_count),
            compared_block=self.compared_block,
            seeds_block=block(pooled.shape[1]),
            **self.constants,
        )
        return unit_in_place(pooled + two_parts(look.join, pooled, vectors))

    def exchanged(
        self,
        module: CoExploitation,
        context: Float[Tensor, "pairs seeds width"],
        nodes: Float[Tensor, "pairs nodes width"],
        assignment: Float[Tensor, "pairs seeds nodes"],
        mask: Tensor | None,
    ) -> Float[Tensor, "pairs seeds width"]:
        """(p + q A) S: what the context nodes receive."""
        relations, messages = module.relation(context), torch.empty_like(context)
        kernels().exchange[(self.pairs,)](
            relations,
            nodes,
            assignment,
            mask,
            messages,
            self.others,
            nodes.shape[1],
            0 if mask is None else mask.stride(0),
            local=self.stream.config.reasoning.local,
            through_context=self.stream.config.reasoning.context,
            seed_count=context.shape[1],
            nodes_block=block(nodes.shape[1]),
            seeds_block=block(context.shape[1]),
            **self.constants,
        )
        return messages

    def updated(
        self,
        module: CoExploitation,
        level: int,
        context: Float[Tensor, "pairs seeds width"],
        messages: Float[Tensor, "pairs seeds width"],
        terms: Float[Tensor, " pairs"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The nodes of a level, and A and A S of the next one; the term of the level is written."""
        count = context.shape[1]
        messages = functional.linear(messages, module.message.weight, module.message.bias).relu_()
        gates = None if module.gate is None else two_parts(module.gate, context, messages)
        seeds, nodes, assignment, pooled = self.next_level(level + 1, count)
        kernels().update[(self.pairs,)](
            context,
            messages,
            gates,
            *weights_of_read_out(self.stream.reasoning.read_outs[level + 1]),
            seeds,
            nodes,
            terms,
            assignment,
            pooled,
            node_count=count,
            seed_count=0 if seeds is None else len(seeds),
            nodes_block=block(count),
            seeds_block=block(1 if seeds is None else len(seeds)),
            **self.constants,
        )
        return nodes, assignment, pooled

    def next_level(self, level: int, nodes: int) -> tuple[Any, ...]:
        """Seeds of a level, and memory for the nodes below it, A and A S; None at the top."""
        extractions = self.stream.reasoning.extractions
        if level == len(extractions):
            return None, None, None, None
        seeds = of_kind(ContextExtraction, extractions[level]).seeds
        shapes = (nodes, self.width), (len(seeds), nodes), (len(seeds), self.width)
        return seeds, *(self.empty(self.pairs, *shape) for shape in shapes)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Memory on the device."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.similarity.device)


def weights_of(vector: SimilarityVector) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """W, V, b and u."""
    product = None if vector.product is None else vector.product.weight
    return vector.projection.weight, product, vector.projection.bias, vector.cosine


def weights_of_read_out(read_out: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of a level's read-out."""
    known = of_kind(ReadOut, read_out)
    return known.opening.weight, known.opening.bias, known.weight


def of_kind(kind: type[Kind], module: nn.Module) -> Kind:
    """A module, typed."""
    if not isinstance(module, kind):
        raise TypeError(f"expected a module {kind.__name__}, got {type(module).__name__}")
    return module


def two_parts(
    linear: nn.Linear, left: Float[Tensor, "pairs seeds width"], right: Float[Tensor, "pairs seeds width"]
) -> Float[Tensor, "pairs seeds width"]:
    """A linear layer of [left ; right], which is not formed."""
    width = left.shape[-1]
    found = functional.linear(left, linear.weight[:, :width], linear.bias)
    found.view(-1, width).addmm_(right.view(-1, width), linear.weight[:, width:].T)
    return found
