"""Batch normalisation of padded rows: what is padding counts in no mean and no variance.

Axes: whatever the rows have; statistics are shared along every axis that their own shape has not.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

MOMENTUM = 0.1
"""Share of a batch in the running statistics, as in torch."""
EPSILON = 1e-5
"""Added to variances, as in torch."""


class MaskedBatchNorm(nn.Module):
    """y = w (x - mean) / sqrt(variance + eps) + b  over the real entries (Ioffe and Szegedy 2015).

    While training, mean and variance are those of the batch; afterwards their running averages, which torch's modules
    keep in the same way (the variance unbiased).

    Args:
        shape: The shape of w and b, which broadcasts against x: (D,) normalises each channel, (36, 1) each of 36 rows
            over all channels, (1,) everything alike.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_variance", torch.ones(shape))

    def forward(self, x: Float[Tensor, "*rows"], mask: Bool[Tensor, "*mask"] | None) -> Float[Tensor, "*rows"]:
        """Normalise; `mask` (None: all is real) broadcasts against x. Padding comes out as finite garbage."""
        x = x.to(self.weight.dtype)  # sums over a batch in 16 bits would lose what they are for
        mean, variance = self.running_mean, self.running_variance
        if self.training:
            mean, variance = self._batch(x, torch.ones_like(x, dtype=torch.bool) if mask is None else mask)
        scale = self.weight * torch.rsqrt(variance + EPSILON)
        return x * scale + (self.bias - mean * scale)

    def _batch(self, x: Float[Tensor, "*rows"], mask: Bool[Tensor, "*mask"]) -> tuple[Tensor, Tensor]:
        """Mean and variance of the batch, which the running statistics take in."""
        shape = self.weight.shape
        real = mask.expand_as(x).to(x.dtype).sum_to_size(shape)
        count = real.clamp_min(1)
        mean = (x * mask).sum_to_size(shape) / count
        variance = ((x - mean).square() * mask).sum_to_size(shape) / count
        with torch.no_grad():
            share = MOMENTUM * (real > 0).to(x.dtype)
            self.running_mean.lerp_(mean, share)
            self.running_variance.lerp_(variance * count / (count - 1).clamp_min(1), share)
        return mean, variance
