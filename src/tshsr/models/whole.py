"""v and t: the vectors of the whole picture and of the whole caption.

They are pooled from regions and words, or made from what the encoders give for the whole picture and caption: the
projected vectors of a joint encoder (CLIP, SigLIP), otherwise means over the picture or over the caption's tokens.

Axes: rows (images or captions) | items (regions or words) | dim (joint space) | width (of an encoder's own vector).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig
from tshsr.errors import InputError, SettingsError
from tshsr.models.attention import unit
from tshsr.models.dropout import Dropout

Side = Literal["images", "captions"]
SHARE = "share of pooled items"
"""Name of the view with the share of a row's pooled items in its vector, one number per item."""


POOLED_WEIGHT = 5.0
"""Initial value of gamma, the weight of v·t in a logit: a margin of 0.2 in v·t then moves the logit by 1."""


def starts_at_encoder(config: EncoderConfig) -> bool:
    """Whether v·t is the cosine of the encoders' own vectors before the first step, so that it is the ranking."""
    return config.pooled_vectors in ("frozen", "adapter")


def whole_width(config: EncoderConfig) -> int:
    """Width of v and t."""
    return config.text_pooled_width if starts_at_encoder(config) else config.dim


class WholeVector(nn.Module):
    """v from the pooled regions p and the encoder's own vector g; t likewise from words.

        added      v = l2( p + P l2(g) + b )         p = l2( pool( regions ) )
        frozen     v = l2( g )
        adapter    v = l2( l2(g) + A l2(g) + b )     A = 0, b = 0 before the first step

    Dropout stands before P and A.

    Args:
        config: `pooled_vectors`, and the widths.
        side: Of which v or t is the vector.
    """

    def __init__(self, config: EncoderConfig, side: Side) -> None:
        super().__init__()
        self.side: Side = side
        self.width = config.image_pooled_width if side == "images" else config.text_pooled_width
        self.dropout = Dropout(config.dropout if side == "images" else max(config.dropout, config.word_dropout))
        self.projection: nn.Linear | None = None
        if config.pooled_vectors != "frozen":
            self.projection = nn.Linear(self.width, whole_width(config))
        if config.pooled_vectors == "adapter" and self.projection is not None:
            nn.init.zeros_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)

    def forward(
        self, given: Float[Tensor, "rows _"] | None, pooled: Float[Tensor, "rows dim"] | None
    ) -> tuple[Float[Tensor, "rows _"], Float[Tensor, " rows"] | None]:
        """The vector, and with `added` the share of p in it: 1 / || p + P l2(g) + b ||.

        Args:
            given: g, of any length.
            pooled: p; None with `frozen` and `adapter`.

        Raises:
            InputError: Where the batch has no such vectors, or vectors of another width.
        """
        checked = self._checked(given)
        if self.projection is None:
            return unit(checked), None
        own = unit(checked.to(self.projection.weight.dtype))
        total = self.projection(self.dropout(own)) + (own if pooled is None else pooled)
        if pooled is None:
            return unit(total), None
        return unit(total), 1 / torch.linalg.vector_norm(total, dim=-1).clamp_min(1e-12)

    def _checked(self, given: Float[Tensor, "rows _"] | None) -> Float[Tensor, "rows width"]:
        if given is None or given.shape[-1] != self.width:
            what = "picture" if self.side == "images" else "caption"
            found = f"no vector of the whole {what}" if given is None else f"a vector {given.shape[-1]} wide"
            raise InputError(
                f"the {self.side} have {found}; this network expects one of the whole {what}, {self.width} wide. "
                "Read both with the encoders that it was trained on."
            )
        return given


def build_whole(config: EncoderConfig) -> tuple[WholeVector | None, WholeVector | None]:
    """Of images and of captions; None with `items`.

    Raises:
        SettingsError: Where v and t would have different widths.
    """
    check_widths(config)
    if config.pooled_vectors == "items":
        return None, None
    return WholeVector(config, "images"), WholeVector(config, "captions")


def check_widths(config: EncoderConfig) -> None:
    """Reject encoders' own vectors of different widths as v and t.

    Raises:
        SettingsError: In this case.
    """
    if starts_at_encoder(config) and config.image_pooled_width != config.text_pooled_width:
        raise SettingsError(
            f"model.encoder.pooled_vectors is {config.pooled_vectors}, which compares vectors of whole pictures and "
            f"captions, and these are {config.image_pooled_width} and {config.text_pooled_width} wide; take both from "
            "one joint encoder, such as clip, or set it to added."
        )


def whole_vector(
    whole: WholeVector | None,
    pooling: nn.Module | None,
    items: Float[Tensor, "rows items dim"],
    mask: Bool[Tensor, "rows items"],
    given: Float[Tensor, "rows _"] | None,
) -> tuple[Float[Tensor, "rows _"], Float[Tensor, " rows"] | None]:
    """The vector of each row, and the share of the pooled items in it; None where that is 1 or 0.

    Args:
        whole: None for pooled items alone.
        pooling: From items to a unit vector; None for the encoder's own vectors alone.
        given: The encoder's own vectors.

    Raises:
        InputError: As `WholeVector`.
    """
    pooled: Tensor | None = None if pooling is None else pooling(items, mask)
    if whole is not None:
        found: tuple[Tensor, Tensor | None] = whole(given, pooled)
        return found
    if pooled is None:
        raise RuntimeError("v and t are pooled items where there is no other vector")
    return pooled, None
