"""GRU states: by PyTorch, and by a recurrence with an explicit backward pass, for training on a CPU.

On a CPU, autograd of PyTorch's GRU adds, for every step, a gradient of the size of the full packed sequence. In the
recurrence the factors of the gradient that do not depend on later steps are computed for all steps at once, and the
gradients of the weights by one product each: equal up to rounding, in about half the time.

Axes: items (packed: the words of all captions, step by step) | captions | words | gates (3 dim) |
dim (states) | both (directions, 2 dim).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence


def padded_states(gru: nn.GRU, packed: PackedSequence, length: int) -> Float[Tensor, "rows length both"]:
    """The output of a GRU by PyTorch, padded with zeros, with full float32 products on every device."""
    with cudnn_without_tf32():
        output = gru(packed)[0]
    return pad_packed_sequence(output, batch_first=True, total_length=length)[0]


@contextmanager
def cudnn_without_tf32() -> Iterator[None]:
    """Full float32 products in cuDNN, which rounds the factors of a GRU to TF32 by default.

    TF32 keeps 10 of the 23 fraction bits. On an H100 it changed scores by up to 2e-4 against the CPU. The GRU is a
    small part of the work, and other matrix products have full float32 precision by torch's default.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def gru_states(gru: nn.GRU, packed: PackedSequence, words: int) -> Float[Tensor, "captions words both"]:
    """The output of a one-layer bidirectional GRU, padded with zeros; equal to `gru(packed)` up to rounding."""
    sizes = packed.batch_sizes.tolist()
    directions = []
    for suffix in ("", "_reverse"):
        weights = (getattr(gru, f"{name}_l0{suffix}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh"))
        input_weight, input_bias, weight, bias = weights
        gates = nn.functional.linear(packed.data, input_weight, input_bias)
        states = Recurrence.apply(gates, weight, bias, sizes, bool(suffix))  # type: ignore[no-untyped-call]
        directions.append(states)
    states = torch.cat(directions, dim=1)
    rows, steps = packed_positions(packed)
    return states.new_zeros(sizes[0], words, states.shape[1]).index_put((rows, steps), states)


def packed_positions(packed: PackedSequence) -> tuple[Int[Tensor, " items"], Int[Tensor, " items"]]:
    """Caption and position of each packed item."""
    sizes = packed.batch_sizes
    order = torch.arange(int(sizes[0])) if packed.sorted_indices is None else packed.sorted_indices
    steps = torch.arange(len(sizes)).repeat_interleave(sizes)
    starts = sizes.cumsum(0) - sizes
    return order[torch.arange(len(steps)) - starts[steps]], steps


class Recurrence(torch.autograd.Function):
    """One direction of a GRU (Cho et al. 2014, as in PyTorch).

    r, z = sigmoid(gates_rz + W_rz h + b_rz),   n = tanh(gates_n + r * (W_n h + b_n)),   h' = n + z * (h - n)
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Float[Tensor, "items gates"],
        weight: Float[Tensor, "gates dim"],
        bias: Float[Tensor, " gates"],
        sizes: list[int],
        backwards: bool,
    ) -> Float[Tensor, "items dim"]:
        """States of all items from their input gates; `sizes`: number of captions at each step, descending."""
        dim = weight.shape[1]
        steps = spans(sizes, backwards)
        before, states, new, hidden_new = (gates.new_empty(len(gates), dim) for _ in range(4))
        reset_update = gates.new_empty(len(gates), 2 * dim)
        state = gates.new_zeros(sizes[0], dim)  # backwards, a caption's state is 0 before its last word
        for span, captions in steps:
            before[span] = state[:captions]
            hidden = torch.addmm(bias, before[span], weight.t())
            torch.add(gates[span, : 2 * dim], hidden[:, : 2 * dim], out=reset_update[span]).sigmoid_()
            hidden_new[span] = hidden[:, 2 * dim :]
            torch.addcmul(gates[span, 2 * dim :], reset_update[span, :dim], hidden_new[span], out=new[span]).tanh_()
            torch.lerp(new[span], before[span], reset_update[span, dim:], out=states[span])
            state[:captions] = states[span]
        ctx.save_for_backward(before, reset_update, new, hidden_new, weight)
        ctx.steps = steps
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Float[Tensor, "items dim"]) -> tuple[Tensor | None, ...]:
        """The gradients of gates, weight and bias."""
        (grad_states,) = gradients
        before, reset_update, new, hidden_new, weight = ctx.saved_tensors
        dim = weight.shape[1]
        reset, update = reset_update.split(dim, dim=1)
        new_factor = (1 - update) * (1 - new * new)
        update_factor = (before - new) * update * (1 - update)
        reset_factor = hidden_new * reset * (1 - reset)
        grad_gates, grad_hidden = (grad_states.new_empty(len(grad_states), 3 * dim) for _ in range(2))
        carried = torch.zeros_like(grad_states[: max(captions for _, captions in ctx.steps)])
        for span, captions in reversed(ctx.steps):
            gradient = grad_states[span] + carried[:captions]
            grad_new = torch.mul(gradient, new_factor[span], out=grad_gates[span, 2 * dim :])
            torch.mul(grad_new, reset_factor[span], out=grad_gates[span, :dim])
            torch.mul(gradient, update_factor[span], out=grad_gates[span, dim : 2 * dim])
            grad_hidden[span, : 2 * dim] = grad_gates[span, : 2 * dim]
            torch.mul(grad_new, reset[span], out=grad_hidden[span, 2 * dim :])
            carried[:captions] = torch.addmm(gradient * update[span], grad_hidden[span], weight)
        return grad_gates, grad_hidden.t() @ before, grad_hidden.sum(dim=0), None, None


def spans(sizes: list[int], backwards: bool) -> list[tuple[slice, int]]:
    """Slice of items and number of captions of each step, in order of processing."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    steps = [(slice(start, start + size), size) for start, size in zip(starts, sizes, strict=False)]
    return steps[::-1] if backwards else steps
