"""Dropout with 16 random bits for each value on processors, where PyTorch draws a double for each.

    y = x b / q,    b = 1 with probability q, else 0;    q = round(65536 (1 - p)) / 65536

Dropout of a batch's features and word states took a quarter of a training step (docs/log.md).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEVELS = 2**16
"""Values of 16 bits."""
PER_DRAW = 4
"""Values of 16 bits in a number of 64."""


class Dropout(nn.Dropout):
    """`nn.Dropout` with other random numbers; on other devices than the processor it is PyTorch's."""

    def forward(self, input: Float[Tensor, "*values"]) -> Float[Tensor, "*values"]:  # noqa: A002
        """The values, of which a share p is 0 in training and the rest is divided by the share that is kept."""
        kept = round(LEVELS * (1 - self.p))
        if not self.training or kept == LEVELS:
            return input
        if input.device.type != "cpu" or not kept:
            return super().forward(input)
        drawn = torch.empty(-(-input.numel() // PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
        values = drawn.view(torch.int16)[: input.numel()].view(input.shape)  # each of -LEVELS / 2 to LEVELS / 2 - 1
        mask = (values < kept - LEVELS // 2).to(input.dtype)
        return input * mask.mul_(LEVELS / kept)
