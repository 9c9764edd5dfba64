"""Cross-modal attention between regions and words, and its operations on unit vectors.

Axes: pairs (leading, broadcast) | queries | context (the items they attend to) | dim (joint space).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (the customary name)
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import FunctionCtx

SHORTEST = 1e-12
"""Rows of this norm or less are not stretched to length one."""
VECTOR = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8
"""Floats in a register of the CPU. Torch's softmax of shorter rows takes ten times as long a number (docs/log.md)."""


class _UnitRows(torch.autograd.Function):
    """`unit` with the closed-form gradient (g - u (g·u)) / ||x||: half the memory traffic, half the saved tensors.

    A zero row has no direction, and no gradient: g / 1e-12 would hide that of all other rows.
    """

    @staticmethod
    def forward(context: FunctionCtx, vectors: Tensor) -> Tensor:
        """Save the unit rows and the norms for the gradient."""
        norm = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min_(SHORTEST)
        rows: Tensor = vectors / norm
        context.save_for_backward(rows, norm)
        return rows

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Project the gradient onto the tangent space of the unit sphere."""
        rows, norm = context.saved_tensors
        radial = (gradient * rows).sum(dim=-1, keepdim=True)
        tangent: Tensor = torch.addcmul(gradient, rows, radial, value=-1)
        return tangent.div_(norm.masked_fill(norm <= SHORTEST, torch.inf))


def unit(vectors: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """l2(x) = x / max(||x||, 1e-12): rows of length one; a zero row stays zero."""
    rows: Tensor = _UnitRows.apply(vectors)  # type: ignore[no-untyped-call]
    return rows


def may_overwrite(temporary: Tensor) -> bool:
    """Whether in-place operations are allowed: no gradient is recorded, and no autocast changes the type."""
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled(temporary.device.type))


def unit_in_place(vectors: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """`unit`, in place if no gradient is recorded: allocation of large temporaries dominates the cost of scoring."""
    if not may_overwrite(vectors):
        return unit(vectors)
    wide = at_least_float32(vectors)  # a norm rounded to bfloat16 would scale the whole row
    wide.div_(wide.norm(dim=-1, keepdim=True).clamp_min_(SHORTEST))
    return vectors if wide is vectors else vectors.copy_(wide)


def at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert bfloat16 and float16 to float32, for the few values of a pair whose rounding would change its score."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def softmax(logits: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows n"]:
    """Softmax over the last axis; on a CPU rows shorter than a register are filled up (docs/performance.md)."""
    if torch.compiler.is_compiling() or logits.device.type != "cpu" or logits.shape[-1] >= VECTOR:
        return torch.softmax(logits, dim=-1)
    items = logits.shape[-1]
    return torch.softmax(F.pad(logits, (0, VECTOR - items), value=-torch.inf), dim=-1)[..., :items]


def masked_softmax(logits: Float[Tensor, "*rows n"], mask: Bool[Tensor, "*#rows n"] | None) -> Float[Tensor, "*rows n"]:
    """Softmax over the real items of the last axis (all without a mask); zeros, not NaN, for a row without any."""
    if mask is None:
        return softmax(logits)
    return softmax(logits.masked_fill(~mask, torch.finfo(logits.dtype).min)) * mask


def similarities(
    queries: Float[Tensor, "*#pairs queries dim"], context: Float[Tensor, "*#pairs context dim"]
) -> Float[Tensor, "*pairs queries context"]:
    """q·c of every query with every context item; the transpose is the input of the other stream."""
    # einsum broadcasts axes of size one: all pairs are one matrix product without copies.
    return torch.einsum("...qd,...cd->...qc", queries, context)


def attention_weights(
    similarity: Float[Tensor, "*pairs queries context"],
    *,
    query_mask: Bool[Tensor, "*#pairs queries"] | None,
    context_mask: Bool[Tensor, "*#pairs context"] | None,
    inverse_temperature: float | Float[Tensor, "*#pairs queries 1"],
) -> Float[Tensor, "*pairs queries context"]:
    """Attention of each query over the context items (SCAN, Lee et al. 2018).

        s_qc = leaky_relu(q·c, 0.1),  s_qc <- s_qc / ||s_.c||          normalised over the queries
        w_qc = softmax_c(inverse_temperature * s_qc)

    Args:
        similarity: q·c, the cosine of every query with every context item.
        query_mask: True where a query is real, False where it is padding; None where all are real.
        context_mask: True where a context item is real; None where all are.
        inverse_temperature: Lambda, one for all queries or one for each; 0 averages the context, a large value picks
            one item.

    Returns:
        Rows that sum to 1 over the real context items (0 without any), in float32 at least: this is where rounding to
        bfloat16 costs most accuracy.
    """
    # The SCAN paper clips at 0, the authors' code has slope 0.1 below 0, as here (docs/paper.md, choice 3).
    similarity = F.leaky_relu(at_least_float32(similarity), negative_slope=0.1)
    if query_mask is not None:
        similarity = similarity * query_mask[..., :, None]
    norm = similarity.norm(dim=-2, keepdim=True).clamp_min(1e-12)
    logits = similarity * (inverse_temperature / norm)
    return masked_softmax(logits, None if context_mask is None else context_mask[..., None, :])


def real_similarity(
    similarity: Float[Tensor, "*pairs queries context"], context_mask: Bool[Tensor, "*#pairs context"] | None
) -> Float[Tensor, "*pairs queries context"]:
    """q·c, below every cosine at context items that are padding; the mask is None without any."""
    if context_mask is None:
        return similarity
    return similarity.masked_fill(~context_mask[..., None, :], torch.finfo(similarity.dtype).min)


def mean_of_best(
    similarity: Float[Tensor, "*pairs queries context"],
    query_mask: Bool[Tensor, "*#pairs queries"],
    context_mask: Bool[Tensor, "*#pairs context"],
) -> Float[Tensor, "*pairs"]:
    """MaxSim: the mean over real queries of the largest cosine with a real context item.

    Late interaction of ColBERT (Khattab and Zaharia, SIGIR 2020), which sums; of regions and words FILIP (Yao et al.,
    ICLR 2022).
    """
    best = real_similarity(similarity, context_mask).amax(dim=-1)
    return best.masked_fill(~query_mask, 0.0).sum(dim=-1) / query_mask.sum(dim=-1)


class _BestMatches(torch.autograd.Function):
    """The best region of each word and the best word of each region: one masked copy, gradients by index.

    By amax, with a mask for each direction, every value would be read and written a dozen times more.
    """

    @staticmethod
    def forward(
        context: Any,
        similarity: Float[Tensor, "images regions captions words"],
        regions: Bool[Tensor, "images regions"],
        words: Bool[Tensor, "captions words"],
    ) -> tuple[Float[Tensor, "images captions words"], Float[Tensor, "images regions captions"]]:
        """The largest cosines; -inf for padding."""
        real = torch.where(regions[:, :, None, None] & words, similarity, -torch.inf)
        by_words, region = real.max(dim=1)
        by_regions, word = real.max(dim=3)
        context.save_for_backward(region, word)
        context.size = real.shape
        return by_words, by_regions

    @staticmethod
    def backward(context: Any, of_words: Tensor, of_regions: Tensor) -> tuple[Tensor, None, None]:
        """The gradients at the best matches, 0 elsewhere."""
        region, word = context.saved_tensors
        gradient = of_words.new_zeros(context.size)
        gradient.scatter_(1, region[:, None], of_words[:, None])
        gradient.scatter_add_(3, word[..., None], of_regions[..., None])
        return gradient, None, None


def late_interaction(
    similarity: Float[Tensor, "images regions captions words"],
    regions: Bool[Tensor, "images regions"],
    words: Bool[Tensor, "captions words"],
) -> tuple[Float[Tensor, "images captions"], Float[Tensor, "images captions"]]:
    """Mean over words of the best region's cosine, and mean over regions of the best word's (FILIP, Yao et al. 2022).

    Of equal best cosines one has the gradient.

    Args:
        similarity: Cosine of every region with every word.
        regions: True where a region is real.
        words: True where a word is real; each caption has at least one.
    """
    by_words, by_regions = _BestMatches.apply(similarity, regions, words)  # type: ignore[no-untyped-call]
    of_words = by_words.masked_fill(~words, 0.0).sum(dim=-1) / words.sum(dim=-1)
    of_regions = by_regions.masked_fill(~regions[..., None], 0.0).sum(dim=1) / regions.sum(dim=-1, keepdim=True)
    return of_words, of_regions


def to_unit_sums(
    weights: Float[Tensor, "*pairs queries context"], gram: Float[Tensor, "*#pairs context context"]
) -> Float[Tensor, "*pairs queries context"]:
    """Scale each row of weights w so that sum_c w_c c has length one, without forming the sum.

        || sum_c w_c c ||^2 = w^T G w,   G: Gram matrix of the context, computed once per image or caption

    Args:
        weights: Attention w.
        gram: G, the products c·c' of the context items.

    Returns:
        w / max(|| sum_c w_c c ||, 1e-12).
    """
    squared = (torch.einsum("...qc,...cd->...qd", weights, gram.to(weights.dtype)) * weights).sum(dim=-1, keepdim=True)
    # Rounding can make it negative; the derivative of the root is infinite at zero.
    return weights / squared.clamp_min(1e-24).sqrt()


def attend(
    weights: Float[Tensor, "*#pairs queries context"], context: Float[Tensor, "*#pairs context width"]
) -> Float[Tensor, "*pairs queries width"]:
    """sum_c w_qc c: the attended context of each query."""
    return torch.einsum("...qc,...cd->...qd", weights, context)
