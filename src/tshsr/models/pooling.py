"""Pooling of items into one unit vector: attention (TSHSR), mean, VSE-infinity's, ESA's, self-attention (SGRAF).

Axes: rows (images or captions) | items (regions or words) | dim (joint space).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pack_padded_sequence

from tshsr.errors import InputError
from tshsr.models.attention import masked_softmax, unit
from tshsr.models.dropout import Dropout
from tshsr.models.recurrence import padded_states

MOMENTUM = 0.1
"""Weight of a batch in the running statistics, as in torch."""
EPSILON = 1e-5
"""Added to variances, as in torch."""


class MaskedBatchNorm(nn.Module):
    """y = w (x - mean) / sqrt(variance + eps) + b  over the real entries (Ioffe and Szegedy 2015).

    Mean and variance are those of the batch in training, and running averages in evaluation, as in torch (the running
    variance is unbiased).

    Args:
        shape: Shape of w and b, which broadcasts against x: (D,) normalises each channel, (36, 1) each of 36 rows over
            all channels, (1,) all entries together.

    Attributes:
        total: Sums a tensor over the processes that share a batch, with a gradient (`summed_statistics`); None: the
            batch is whole.
    """

    running_mean: Tensor
    running_variance: Tensor
    total: Callable[[Tensor], Tensor] | None

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_variance", torch.ones(shape))
        self.total = None

    def forward(self, x: Float[Tensor, "*rows"], mask: Bool[Tensor, "*mask"] | None) -> Float[Tensor, "*rows"]:
        """Normalise; `mask` (None: all real) broadcasts against x. Outputs at padding are finite and unused."""
        x = x.to(self.weight.dtype)  # sums over a batch need float32
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self._batch(x, torch.ones_like(x, dtype=torch.bool) if mask is None else mask)
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        return x * scale + (self.bias - mean * scale)

    def _batch(self, x: Float[Tensor, "*rows"], mask: Bool[Tensor, "*mask"]) -> tuple[Tensor, Tensor]:
        """Mean and variance of the batch; updates the running statistics."""
        shape = self.weight.shape
        real, summed = mask.expand_as(x).to(x.dtype).sum_to_size(shape), (x * mask).sum_to_size(shape)
        if self.total is not None:
            real, summed = self.total(torch.stack([real, summed]))
        count = real.clamp_min(1)
        mean = summed / count
        squares = ((x - mean).square() * mask).sum_to_size(shape)
        variance = (squares if self.total is None else self.total(squares)) / count
        with torch.no_grad():
            share = MOMENTUM * (real > 0).to(x.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_variance.lerp_(variance * count / (count - 1).clamp_min(1), share)
        return mean, variance


@contextmanager
def summed_statistics(norms: Sequence[MaskedBatchNorm], total: Callable[[Tensor], Tensor] | None) -> Iterator[None]:
    """While the block runs, the statistics of a batch are those of all processes that share it.

    Args:
        total: Sums a tensor over the processes, with a gradient; None: the batch is whole.
    """
    for norm in norms:
        norm.total = total
    try:
        yield
    finally:
        for norm in norms:
            norm.total = None


POSITION_WIDTH = 32
"""Width of position codes and GRU states in generalised pooling."""
SHARPNESS = 10.0
"""Inverse temperature of the softmax over positions in generalised pooling."""


class AttentionPooling(nn.Module):
    """Attention pooling of TSHSR: pooled = l2( sum_i softmax_i( w·tanh(A x_i + B mean(x)) ) x_i ).

    The weight of an item depends on the mean of the set; the order of items does not matter.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.item = nn.Linear(dim, dim)
        self.whole = nn.Linear(dim, dim, bias=False)
        self.weight = nn.Linear(dim, 1, bias=False)

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row."""
        return unit(torch.einsum("ri,rid->rd", self.weights(items, mask), items))

    def weights(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows items"]:
        """The softmax; rows sum to 1."""
        whole = self.whole(mean_of_items(items, mask))
        logits = self.weight(torch.tanh(self.item(items) + whole[:, None])).squeeze(-1)
        return masked_softmax(logits, mask)

    def shares(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows items"]:
        """c_i with pooled = sum_i c_i x_i: the weights divided by the norm of the weighted sum."""
        weights = self.weights(items, mask)
        length = torch.einsum("ri,rid->rd", weights, items).norm(dim=-1, keepdim=True)
        shares: Tensor = weights / length.clamp_min(1e-12)
        return shares


class MeanPooling(nn.Module):
    """pooled = l2( sum_i x_i / n )."""

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row."""
        return unit(mean_of_items(items, mask))


class GeneralisedPooling(nn.Module):
    """Generalised pooling operator of VSE-infinity (Chen et al. 2021): one weight per rank of a value.

        pooled_d = sum_k theta_k x_(k)d           x_(k)d: the k-th largest value of channel d among the n items
        theta    = softmax_k( 10 u·h_k )          h: mean of both directions of a bi-GRU over the codes of 1 .. n

    Mean (equal theta) and maximum (theta_1 = 1) are special cases. The weights depend on n alone. The result is
    normalised here; the authors' code normalises it in the next step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(POSITION_WIDTH, POSITION_WIDTH, batch_first=True, bidirectional=True)
        self.score = nn.Linear(POSITION_WIDTH, 1, bias=False)

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row."""
        lowest = torch.finfo(items.dtype).min
        ranked = items.masked_fill(~mask[..., None], lowest).sort(dim=1, descending=True).values
        real = torch.arange(mask.shape[1], device=mask.device) < mask.sum(dim=1, keepdim=True)  # padding is sorted last
        ranked = ranked.masked_fill(~real[..., None], 0)
        return unit(torch.einsum("ri,rid->rd", self.weights(real), ranked))

    def weights(self, real: Bool[Tensor, "rows items"]) -> Float[Tensor, "rows items"]:
        """Theta of every rank, for rows whose real items come first."""
        rows, items = real.shape
        codes = position_codes(items).to(self.score.weight).expand(rows, -1, -1)
        packed = pack_padded_sequence(codes, real.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False)
        forward, backward = padded_states(self.gru, packed, items).chunk(2, dim=-1)
        logits = self.score((forward + backward) / 2).squeeze(-1)
        return masked_softmax(SHARPNESS * logits, real)


class ChannelPooling(nn.Module):
    """External space attention aggregation of ESA (Zhu et al. 2023): one softmax over the items for each channel.

        pooled_d = sum_i softmax_i( (A x_i)_d ) x_id

    The bias of the authors' linear layer is left out: it adds a constant to all items of a channel, which cancels in
    the softmax. The result is normalised here; the authors' code normalises it in the next step.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, dim, bias=False)
        nn.init.xavier_uniform_(self.weight.weight)

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row."""
        return unit((self.weights(items, mask) * items).sum(dim=1))

    def weights(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows items dim"]:
        """The softmax of each channel; sums over the items are 1, padding has 0."""
        logits: Tensor = self.weight(items)
        logits = logits.masked_fill(~mask[..., None], torch.finfo(logits.dtype).min)
        return torch.softmax(logits, dim=1) * mask[..., None]

    def parts(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows items dim"]:
        """The part of each item in the pooled vector; the sum over the items is that vector."""
        weighted = self.weights(items, mask) * items
        parts: Tensor = weighted / weighted.sum(dim=1, keepdim=True).norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return parts


def position_codes(count: int) -> Float[Tensor, "count width"]:
    """Sines (even channels) and cosines (odd ones) of the positions 0, 1, ... (Vaswani et al. 2017)."""
    channels = torch.arange(0, POSITION_WIDTH, 2, dtype=torch.float64)
    angles = torch.arange(count)[:, None] * torch.exp(channels * (-math.log(10000.0) / POSITION_WIDTH))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class SelfAttentionPooling(nn.Module):
    """Global vector of SGRAF (Diao et al. 2021): self-attention of the items and their mean.

        a_i    = w·( tanh( N( A x_i + a ) ) * tanh( N( B mean(x) + b ) ) )
        pooled = l2( sum_i softmax_i( a_i ) x_i )

    N is batch normalisation for images, and the identity for captions. The authors add a constant to a_i, which
    cancels in the softmax.

    Args:
        dim: Width of the joint space.
        dropout: Dropout after either tanh.
        normalised: Whether N is batch normalisation.
        slots: With N: number of positions, each with separate statistics; 0: common statistics of all positions.
    """

    def __init__(self, dim: int, dropout: float, *, normalised: bool, slots: int = 0) -> None:
        super().__init__()
        self.slots = slots if normalised else 0
        self.item = nn.Linear(dim, dim)
        self.whole = nn.Linear(dim, dim)
        self.weight = nn.Linear(dim, 1, bias=False)
        self.item_norm = MaskedBatchNorm(slots or 1, 1) if normalised else None
        self.whole_norm = MaskedBatchNorm(dim) if normalised else None
        self.dropout = Dropout(dropout)

    def forward(
        self, items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
    ) -> Float[Tensor, "rows dim"]:
        """Pool the real items of each row.

        Raises:
            InputError: Where a row has more items than there are slots.
        """
        if self.slots:
            items, mask = in_slots(items, mask, self.slots)
        item, whole = self.item(items), self.whole(mean_of_items(items, mask))
        if self.item_norm is not None and self.whole_norm is not None:
            item = self.item_norm(item, mask[..., None])
            whole = self.whole_norm(whole, mask.any(dim=1, keepdim=True))
        common = self.dropout(torch.tanh(item)) * self.dropout(torch.tanh(whole))[:, None]
        logits = self.weight(common.to(self.weight.weight.dtype)).squeeze(-1)
        return unit(torch.einsum("ri,rid->rd", masked_softmax(logits, mask).to(items.dtype), items))


def mean_of_items(
    items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"]
) -> Float[Tensor, "rows dim"]:
    """The mean of each row's real items."""
    return (items * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def in_slots(
    items: Float[Tensor, "rows items dim"], mask: Bool[Tensor, "rows items"], slots: int
) -> tuple[Float[Tensor, "rows slots dim"], Bool[Tensor, "rows slots"]]:
    """Rows padded or cut to `slots` items.

    Raises:
        InputError: Where a row has more real items.
    """
    if not torch.compiler.is_compiling() and bool(mask[:, slots:].any()):  # an exported graph has a limit of its own
        raise InputError(
            f"an image has more regions than the {slots} that this network was built for (model.region_slots); "
            "give fewer, or train with region_slots 0."
        )
    return pad(items, (0, 0, 0, slots))[:, :slots], pad(mask, (0, slots))[:, :slots]
