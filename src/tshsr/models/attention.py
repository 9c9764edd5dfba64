"""Cross-modal alignment: what each word finds in an image, each region in a caption.

Axes: pairs (leading, broadcast) | queries (who looks) | context (what they look at) | dim (joint space).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _UnitRows(torch.autograd.Function):
    """`unit` with its gradient written out, (g - u (g·u)) / ||x||: half the passes over memory, and half of it kept."""

    @staticmethod
    def forward(context: FunctionCtx, vectors: Tensor) -> Tensor:
        """Keep the unit rows and their former lengths for the gradient."""
        norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min_(1e-12)
        rows: Tensor = vectors / norm
        context.save_for_backward(rows, norm)
        return rows

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """What does not change the direction is taken out."""
        rows, norm = context.saved_tensors
        along = (gradient * rows).sum(dim=-1, keepdim=True)
        across: Tensor = torch.addcmul(gradient, rows, along, value=-1)
        return across.div_(norm)


def unit(vectors: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """l2(x) = x / max(||x||, 1e-12): rows of length one; a zero row stays zero."""
    rows: Tensor = _UnitRows.apply(vectors)  # type: ignore[no-untyped-call]
    return rows


def reusable(temporary: Tensor) -> bool:
    """Whether a temporary may be overwritten: no gradient needs it, and autocast chooses no type for what follows."""
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled(temporary.device.type))


def unit_in_place(vectors: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """`unit`, in the memory of its argument where that may be: large temporaries are most of what is slow."""
    if not reusable(vectors):
        return unit(vectors)
    wide = at_least_single(vectors)  # a rounded length would scale a whole row: 16 bits lose most here
    wide.div_(wide.norm(dim=-1, keepdim=True).clamp_min_(1e-12))
    return vectors if wide is vectors else vectors.copy_(wide)


def at_least_single(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The same in 32 bits, where it has 16: for the few numbers of a pair whose rounding would change its score."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def masked_softmax(logits: Float[Tensor, "*rows n"], mask: Bool[Tensor, "*#rows n"] | None) -> Float[Tensor, "*rows n"]:
    """Softmax over the real items of the last axis (all without a mask); a row without any gets zeros, never NaN."""
    if mask is None:
        return torch.softmax(logits, dim=-1)
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask, lowest), dim=-1) * mask


def similarities(
    queries: Float[Tensor, "*#pairs queries dim"], context: Float[Tensor, "*#pairs context dim"]
) -> Float[Tensor, "*pairs queries context"]:
    """q·c of every query with every context item; its transpose is that of the other stream."""
    # einsum treats an axis of size one as broadcast: all pairs are one matrix product, nothing is copied per pair.
    return torch.einsum("...qd,...cd->...qc", queries, context)


def attention_weights(
    similarity: Float[Tensor, "*pairs queries context"],
    *,
    query_mask: Bool[Tensor, "*#pairs queries"] | None,
    context_mask: Bool[Tensor, "*#pairs context"] | None,
    inverse_temperature: float,
) -> Float[Tensor, "*pairs queries context"]:
    """How much each query takes from each context item (SCAN, Lee et al. 2018).

        s_qc = leaky_relu(q·c, 0.1),  s_qc <- s_qc / ||s_.c||          who resembles whom, normalised over the queries
        w_qc = softmax_c(inverse_temperature * s_qc)

    Args:
        similarity: q·c, the cosine of every query with every context item.
        query_mask: True where a query is real, False where it is padding; None where all are real.
        context_mask: True where a context item is real; None where all are.
        inverse_temperature: Lambda; 0 averages the context, a large value picks one item.

    Returns:
        Rows that sum to 1 over the real context items (0 where there is none), in 32 bits at least: of all steps
        this one suffers most from 16.
    """
    # The SCAN paper clips at 0, its authors' code leaks 10 %: we follow the code (docs/paper.md, choice 3).
    similarity = F.leaky_relu(at_least_single(similarity), negative_slope=0.1)
    if query_mask is not None:
        similarity = similarity * query_mask[..., :, None]
    norm = similarity.norm(dim=-2, keepdim=True).clamp_min(1e-12)
    logits = similarity * (inverse_temperature / norm)
    return masked_softmax(logits, None if context_mask is None else context_mask[..., None, :])


def to_unit_sums(
    weights: Float[Tensor, "*pairs queries context"], gram: Float[Tensor, "*#pairs context context"]
) -> Float[Tensor, "*pairs queries context"]:
    """Scale each row of weights w so that sum_c w_c c has length one, without forming the sum.

        || sum_c w_c c ||^2 = w^T G w,   G: the Gram matrix of the context, once an image or caption

    Args:
        weights: How much each query takes from each context item.
        gram: Products c·c' of the context items.

    Returns:
        w / max(|| sum_c w_c c ||, 1e-12).
    """
    squared = (torch.einsum("...qc,...cd->...qd", weights, gram.to(weights.dtype)) * weights).sum(dim=-1, keepdim=True)
    # Rounding can leave a little below zero; the derivative of the root is infinite at zero.
    return weights / squared.clamp_min(1e-24).sqrt()


def attend(
    weights: Float[Tensor, "*#pairs queries context"], context: Float[Tensor, "*#pairs context width"]
) -> Float[Tensor, "*pairs queries width"]:
    """sum_c w_qc c: the context as each query sees it."""
    return torch.einsum("...qc,...cd->...qd", weights, context)
