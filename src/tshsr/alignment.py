"""Cross-modal alignment: what each word finds in an image, each region in a caption.

Axes: pairs (leading, broadcast) | queries (who looks) | context (what they look at) | dim (joint space).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from jaxtyping import Bool, Float
from torch import Tensor


def unit(vectors: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
    """l2(x) = x / max(||x||, 1e-12): rows of length one; a zero row stays zero."""
    return F.normalize(vectors, dim=-1)


def masked_softmax(logits: Float[Tensor, "*rows n"], mask: Bool[Tensor, "*#rows n"]) -> Float[Tensor, "*rows n"]:
    """Softmax over the real items of the last axis; a row without any gets zeros, never NaN."""
    lowest = torch.finfo(logits.dtype).min
    return torch.softmax(logits.masked_fill(~mask, lowest), dim=-1) * mask


def attention_weights(
    queries: Float[Tensor, "*#pairs queries dim"],
    context: Float[Tensor, "*#pairs context dim"],
    *,
    query_mask: Bool[Tensor, "*#pairs queries"],
    context_mask: Bool[Tensor, "*#pairs context"],
    inverse_temperature: float,
) -> Float[Tensor, "*pairs queries context"]:
    """How much each query takes from each context item (SCAN, Lee et al. 2018).

        s_qc = leaky_relu(q·c, 0.1),  s_qc <- s_qc / ||s_.c||          who resembles whom, normalised over the queries
        w_qc = softmax_c(inverse_temperature * s_qc)

    Args:
        queries: The items that ask; unit rows.
        context: The items they look at; unit rows.
        query_mask: True where a query is real, False where it is padding.
        context_mask: True where a context item is real.
        inverse_temperature: Lambda; 0 averages the context, a large value picks one item.

    Returns:
        Rows that sum to 1 over the real context items (0 where there is none).
    """
    # einsum treats an axis of size one as broadcast: all pairs are one matrix product, nothing is copied per pair.
    similarity = torch.einsum("...qd,...cd->...qc", queries, context)
    # The SCAN paper clips at 0, its authors' code leaks 10 %: we follow the code (docs/paper.md, choice 3).
    similarity = F.leaky_relu(similarity, negative_slope=0.1) * query_mask[..., :, None]
    similarity = F.normalize(similarity, dim=-2)
    return masked_softmax(inverse_temperature * similarity, context_mask[..., None, :])


def attend(
    weights: Float[Tensor, "*#pairs queries context"], context: Float[Tensor, "*#pairs context dim"]
) -> Float[Tensor, "*pairs queries dim"]:
    """a_q = l2( sum_c w_qc c ): the context as each query sees it, unit rows (zero for an empty context)."""
    return unit(torch.einsum("...qc,...cd->...qd", weights, context))
