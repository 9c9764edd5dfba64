"""The layers of a text network that a word's state is made of.

Axes: captions | tokens | width (of one layer's state) | joined (widths of all chosen layers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.config.models import EncoderConfig
from tshsr.errors import SettingsError


@dataclass(frozen=True)
class Layers:
    """Which layers of a network are read, and so how many are computed.

    Attributes:
        numbers: Of the layers, 1: the first; empty: the last one.
        vectors: Whether the vectors of whole captions, which come from the last layer, are needed too. Where they are
            not, layers above those read are left out.
    """

    numbers: tuple[int, ...] = ()
    vectors: bool = True

    @classmethod
    def of(cls, encoder: EncoderConfig) -> Layers:
        """Those of a run's settings."""
        return cls(encoder.text_layers, vectors=encoder.pooled_vectors != "items")

    def within(self, depth: int) -> Layers:
        """The same layers of a network with `depth` of them; empty where the last one alone is read.

        Raises:
            SettingsError: Where a number is no layer of the network, or they are not in order.
        """
        check_order(self.numbers)
        if self.numbers and self.numbers[-1] > depth:
            raise SettingsError(
                f"model.encoder.text_layers is {spelled(self.numbers)}, and the pretrained encoder has {depth} layers; "
                f"expected numbers from 1 to {depth}."
            )
        return Layers(() if self.numbers == (depth,) else self.numbers, self.vectors)

    def computed(self, depth: int) -> int:
        """Number of layers, from the first on, that a network with `depth` of them must compute."""
        return depth if self.vectors or not self.numbers else self.numbers[-1]

    def name(self, depth: int) -> str:
        """Part of a fingerprint: empty for the last layer alone, otherwise such as -layers-4-6-of-6."""
        read = "-".join(map(str, self.numbers))
        return f"-layers-{read}-of-{self.computed(depth)}" if read else ""

    def join(
        self, last: Float[Tensor, "captions tokens width"], hidden: Sequence[Tensor] | None, depth: int
    ) -> Float[Tensor, "captions tokens joined"]:
        """States of the layers, side by side.

        Args:
            last: Of the last layer, with the normalisation that follows it.
            hidden: Those that enter the first layer, then those after each one; None where the last layer is enough.
            depth: Number of layers of the network.
        """
        if not self.numbers or hidden is None:
            return last
        return torch.cat([last if number == depth else hidden[number] for number in self.numbers], dim=-1)


LAST = Layers()
"""The last layer alone."""


def check_order(numbers: Sequence[int]) -> None:
    """Reject numbers below 1, twice, or out of order.

    Raises:
        SettingsError: In these cases.
    """
    if any(number < 1 for number in numbers):
        raise SettingsError(
            f"model.encoder.text_layers is {spelled(numbers)}; expected numbers from 1, the first layer, on."
        )
    if list(numbers) != sorted(set(numbers)):
        raise SettingsError(
            f"model.encoder.text_layers is {spelled(numbers)}; expected each layer once, from the lowest to the "
            f"highest: {spelled(sorted(set(numbers)))}."
        )


def spelled(numbers: Sequence[int]) -> str:
    """Numbers as on the command line."""
    return " ".join(map(str, numbers))
