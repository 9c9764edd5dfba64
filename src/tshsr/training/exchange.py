"""Exchange between the processes that share a batch, with gradients: encodings, scores, statistics.

Each process encodes its share of the images and captions (`gather_encodings` gives it those of all) and scores its
share of the pairs (`gather_results`). Every process then computes the same loss of the whole batch; it differentiates
its own scores only, so that the gradient of the batch is the sum over the processes (`sum_gradients`).

The order of exchanges in the backward pass is that of the graph, which is the same in all processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from tshsr.models.base import ItemEncoding
from tshsr.scoring.processes import Processes, Share

BUCKET_BYTES = 2**26
"""Gradients summed in one exchange, approximately."""


class GatherRows(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is summed over the processes, all of which use it."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, sizes: tuple[tuple[int, ...], ...], *own: Tensor) -> Any:
        """Gather each tensor along axis 0; `sizes` has the rows of each process, tensor by tensor."""
        ctx.processes, ctx.sizes = processes, sizes
        ctx.set_materialize_grads(False)
        return tuple(processes.gather(each, rows) for each, rows in zip(own, sizes, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """The gradients of the own rows, in one exchange; None for a tensor that no loss uses, in all processes."""
        used = [each for each in gradients if each is not None]
        flat = torch.cat([each.reshape(-1).to(at_least_float32(each.dtype)) for each in used])
        totals = iter(torch.split(ctx.processes.sum(flat), [each.numel() for each in used]))
        own: list[Tensor | None] = []
        for gradient, sizes in zip(gradients, ctx.sizes, strict=True):
            if gradient is None:
                own.append(None)
            else:
                first = sum(sizes[: ctx.processes.index])
                whole = next(totals).view(gradient.shape).to(gradient.dtype)
                own.append(whole[first : first + sizes[ctx.processes.index]])
        return None, None, *own


class GatherResults(torch.autograd.Function):
    """Results of all processes, from which all compute the same loss: each has the gradient of its own results."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, sizes: tuple[int, ...], own: Tensor) -> Tensor:
        """Gather along axis 0."""
        ctx.first = sum(sizes[: processes.index])
        ctx.size = sizes[processes.index]
        return processes.gather(own, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradient of the own rows."""
        return None, None, gradient[ctx.first : ctx.first + ctx.size]


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes, all of which use it; so its gradient is summed too."""

    @staticmethod
    def forward(ctx: Any, processes: Processes, values: Tensor) -> Tensor:
        """Sum."""
        ctx.processes = processes
        return processes.sum(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The sum of the gradients."""
        return None, ctx.processes.sum(gradient)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The precision of sums."""
    return torch.promote_types(dtype, torch.float32)


def sum_over(processes: Processes, values: Tensor) -> Tensor:
    """The sum over all processes, with a gradient.

    Raises:
        ProcessError: Where another process was lost.
    """
    summed: Tensor = SumOverProcesses.apply(processes, values)  # type: ignore[no-untyped-call]
    return summed


def gather_results(processes: Processes, own: Tensor, share: Share) -> Tensor:
    """The results of all rows, from each process's results of its share.

    Args:
        own: Results of `share.rows`, along axis 0.
        share: This process's share of the rows.

    Raises:
        ProcessError: Where another process was lost.
    """
    if processes.count == 1:
        return own
    contributed = own[: share.sizes[processes.index]]
    found: Tensor = GatherResults.apply(processes, share.sizes, contributed)  # type: ignore[no-untyped-call]
    return found


def gather_encodings(
    processes: Processes, own: Sequence[ItemEncoding], sizes: Sequence[tuple[int, ...]]
) -> list[ItemEncoding]:
    """The encodings of all processes, padded to the longest of all.

    Args:
        own: Encodings by this process, at least as many rows as it contributes.
        sizes: For each encoding the rows of each process.

    Raises:
        ProcessError: Where another process was lost.
    """
    if processes.count == 1:
        return list(own)
    # The longest, the shortest (negative) and whether there is padding, over all processes.
    lengths = [part.mask.shape[-1] for part in own]
    shapes = [(length, -length, part.padded) for length, part in zip(lengths, own, strict=True)]
    found = processes.largest(torch.tensor(shapes, device=processes.device)).tolist()
    wide = [
        widened(part[: rows[processes.index]], longest, padded=bool(padded) or longest != -shortest)
        for part, rows, (longest, shortest, padded) in zip(own, sizes, found, strict=True)
    ]
    masks = [processes.gather(part.mask, rows) for part, rows in zip(wide, sizes, strict=True)]
    tensors = [tensors_of(part) for part in wide]
    flat_sizes = tuple(rows for part, rows in zip(tensors, sizes, strict=True) for _ in part)
    flat = [each for part in tensors for each in part]
    gathered = iter(GatherRows.apply(processes, flat_sizes, *flat))  # type: ignore[no-untyped-call]
    return [rebuilt(part, mask, gathered) for part, mask in zip(wide, masks, strict=True)]


def tensors_of(encoding: ItemEncoding) -> list[Tensor]:
    """The floats of an encoding."""
    return [encoding.items, encoding.pooled, encoding.gram, *encoding.views.values()]


def rebuilt(like: ItemEncoding, mask: Tensor, tensors: Iterator[Tensor]) -> ItemEncoding:
    """An encoding of other tensors, in the order of `tensors_of`."""
    items, pooled, gram = next(tensors), next(tensors), next(tensors)
    return ItemEncoding(items, mask, pooled, gram, {name: next(tensors) for name in like.views}, like.padded)


def widened(encoding: ItemEncoding, longest: int, *, padded: bool) -> ItemEncoding:
    """The encoding with padding up to `longest` items a row."""
    more = longest - encoding.mask.shape[-1]
    if not more:
        return replace(encoding, padded=padded)
    return ItemEncoding(
        pad(encoding.items, (0, 0, 0, more)),
        pad(encoding.mask, (0, more)),
        encoding.pooled,
        pad(encoding.gram, (0, more, 0, more)),
        {name: pad(view, (0, 0, 0, more)) for name, view in encoding.views.items()},
        padded,
    )


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Replace the gradient of every parameter by the sum over the processes.

    A parameter without a gradient in all processes keeps none, so that the optimiser skips it as in one process.

    Raises:
        ProcessError: Where another process was lost.
    """
    if processes.count == 1:
        return
    trained = [each for each in parameters if each.requires_grad]
    used = torch.tensor([float(each.grad is not None) for each in trained], device=processes.device)
    used = processes.sum(used)
    kept = [each for each, count in zip(trained, used.tolist(), strict=True) if count]
    for bucket in buckets(kept):
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in bucket]
        flat = processes.sum(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(bucket, parts, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(part.view_as(parameter))


def buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one precision in groups of about `BUCKET_BYTES`."""
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if group and (size + parameter.nbytes > BUCKET_BYTES or parameter.dtype != group[0].dtype):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += parameter.nbytes
    if group:
        yield group
