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

from tshsr.models.attention import at_least_float32
from tshsr.models.base import ItemEncoding
from tshsr.scoring.processes import Processes, Share

BUCKET_BYTES = 2**26
"""Gradients summed in one exchange, approximately."""


class GatherRows(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is summed over the processes, all of which use it.

    One function per tensor: a tensor that no loss uses has no gradient, as in one process.
    """

    @staticmethod
    def forward(ctx: Any, processes: Processes, sizes: tuple[int, ...], own: Tensor) -> Tensor:
        """Gather along axis 0; `sizes` has the rows of each process."""
        ctx.processes, ctx.sizes = processes, sizes
        return processes.gather(own, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """The gradients of the own rows."""
        total = ctx.processes.sum(at_least_float32(gradient)).to(gradient.dtype)
        first = sum(ctx.sizes[: ctx.processes.index])
        return None, None, total[first : first + ctx.sizes[ctx.processes.index]]


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
    return [gathered(part, rows, processes) for part, rows in zip(wide, sizes, strict=True)]


def gathered(own: ItemEncoding, sizes: tuple[int, ...], processes: Processes) -> ItemEncoding:
    """The rows of all processes."""

    def gather(part: Tensor) -> Tensor:
        if not part.requires_grad:
            return processes.gather(part, sizes)
        rows: Tensor = GatherRows.apply(processes, sizes, part)  # type: ignore[no-untyped-call]
        return rows

    return own.each(gather)


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
