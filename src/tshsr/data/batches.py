"""Padded tensors with masks, the input of every network.

The constructors check values, which synchronises a device; batches derived from a checked one use `unchecked`.

Axes: images | captions | regions | words | features (the extractor's) | joint (space of a joint encoder) | height,
width (pixels). Masks: True is real, False is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from tshsr.errors import InputError

EXPECTED_BOXES = (
    "expected x1 <= x2 and y1 <= y2, all from 0 to 1: fractions of the picture (divide pixels by its width and height)."
)
"""Definition of a valid box, for error messages."""
NO_WORD, UNREAD = -1, -2
"""`word_of_token` of a token that the network reads and no node has (start, end, the padding of networks that read
theirs), and of padding that the network does not read."""
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ImageBatch:
    """Pictures as sets of region features.

    Attributes:
        regions: Features of each region; padded rows are zero.
        mask: True where a region is real; at least one per image.
        boxes: x1, y1, x2, y2 of each region as fractions of the picture.
        pooled: The image encoder's own vector of the whole picture, not normalised: the projected one of a joint
            encoder (CLIP, SigLIP), otherwise a mean over the picture.
    """

    regions: Float[Tensor, "images regions features"]
    mask: Bool[Tensor, "images regions"]
    boxes: Float[Tensor, "images regions 4"] | None = None
    pooled: Float[Tensor, "images joint"] | None = None

    def __post_init__(self) -> None:
        check_batch("regions", self.regions, self.mask, axes=3)
        bad = first_not_finite(self.regions)
        if bad is not None:
            raise InputError(
                f"regions[{bad[0]}, {bad[1]}] (image, region) holds a value that is not finite. "
                "Features must be finite numbers; extract this image again or leave it out."
            )
        if self.boxes is not None and self.boxes.shape != (*self.mask.shape, 4):
            raise InputError(
                f"boxes have shape {tuple(self.boxes.shape)}; expected {(*self.mask.shape, 4)}: "
                "x1, y1, x2, y2 of every region, as fractions of the picture."
            )
        wrong = None if self.boxes is None else first_invalid_box(self.boxes, self.mask)
        if self.boxes is not None and wrong is not None:
            corners = [round(number, 4) for number in self.boxes[wrong].tolist()]
            raise InputError(f"boxes[{wrong[0]}, {wrong[1]}] (image, region) is {corners}; {EXPECTED_BOXES}")
        if self.pooled is not None:
            check_pooled(self.pooled, len(self.regions))

    @classmethod
    def unchecked(
        cls, regions: Tensor, mask: Tensor, boxes: Tensor | None = None, pooled: Tensor | None = None
    ) -> ImageBatch:
        """A batch of tensors that were checked earlier: reads no values, so that no device synchronises."""
        return _unchecked(cls, regions=regions, mask=mask, boxes=boxes, pooled=pooled)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.regions)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same batch on another device."""
        boxes, pooled = (None if each is None else each.to(device) for each in (self.boxes, self.pooled))
        return ImageBatch.unchecked(self.regions.to(device), self.mask.to(device), boxes, pooled)

    def rows(self, start: int, stop: int) -> ImageBatch:
        """The images from `start` to before `stop`."""
        part = slice(start, stop)
        boxes, pooled = (None if each is None else each[part] for each in (self.boxes, self.pooled))
        return ImageBatch.unchecked(self.regions[part], self.mask[part], boxes, pooled)


@dataclass(frozen=True)
class PixelBatch:
    """Pictures as pixels, the input of a matcher's vision network.

    Attributes:
        pixels: Red, green and blue, 0 to 255, at the size of the network's input.
    """

    pixels: UInt8[Tensor, "images 3 height width"]

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if self.pixels.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
            raise InputError(
                f"pixels are {self.pixels.dtype} of shape {shape}; expected torch.uint8, images x 3 x height x width."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pixels)

    def to(self, device: torch.device | str) -> PixelBatch:
        """The same batch on another device."""
        return PixelBatch(self.pixels.to(device))


@dataclass(frozen=True)
class CaptionBatch:
    """Captions as rows of nodes (words), in the form that the word encoder reads.

    A vocabulary has one token per node. A frozen pretrained encoder gives `states` and no tokens. A tuned one reads
    word pieces: `tokens` with their `word_of_token`.

    Attributes:
        tokens: Token ids; padding is 0 in a vocabulary, and as the network wants it for word pieces.
        mask: True where a node is real; at least one per caption.
        states: Token states of a frozen network, one per node.
        word_of_token: The node of each word piece; `NO_WORD` for tokens that no node has, `UNREAD` for padding.
        pooled: The vector that a frozen pretrained encoder gives to the whole caption, not normalised: the projected
            one of a joint encoder, otherwise the mean over all tokens.
    """

    tokens: Int[Tensor, "captions tokens"]
    mask: Bool[Tensor, "captions words"]
    states: Float[Tensor, "captions words width"] | None = None
    word_of_token: Int[Tensor, "captions tokens"] | None = None
    pooled: Float[Tensor, "captions joint"] | None = None

    def __post_init__(self) -> None:
        if self.states is not None:
            check_batch("states", self.states, self.mask, axes=3)
        elif self.word_of_token is None:
            check_batch("tokens", self.tokens, self.mask, axes=2)
        else:
            check_batch("word pieces", self.tokens, self.word_of_token != UNREAD, axes=2)
            check_batch("words", self.mask, self.mask, axes=2)

    @classmethod
    def unchecked(
        cls,
        tokens: Tensor,
        mask: Tensor,
        states: Tensor | None = None,
        word_of_token: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> CaptionBatch:
        """As `ImageBatch.unchecked`."""
        return _unchecked(cls, tokens=tokens, mask=mask, states=states, word_of_token=word_of_token, pooled=pooled)

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.tokens)

    def to(self, device: torch.device | str) -> CaptionBatch:
        """The same batch on another device."""
        return CaptionBatch.unchecked(
            self.tokens.to(device),
            self.mask.to(device),
            None if self.states is None else self.states.to(device),
            None if self.word_of_token is None else self.word_of_token.to(device),
            None if self.pooled is None else self.pooled.to(device),
        )


def join_captions(first: CaptionBatch, second: CaptionBatch) -> CaptionBatch:
    """The captions of both batches, which have the same fields, padded to the longest.

    Word pieces are padded with id 0, which `UNREAD` hides from the network.
    """
    return CaptionBatch.unchecked(
        _joined(first.tokens, second.tokens),
        _joined(first.mask, second.mask),
        None if first.states is None or second.states is None else _joined(first.states, second.states),
        None
        if first.word_of_token is None or second.word_of_token is None
        else _joined(first.word_of_token, second.word_of_token, value=UNREAD),
        None if first.pooled is None or second.pooled is None else torch.cat([first.pooled, second.pooled]),
    )


def _joined(first: Tensor, second: Tensor, value: float = 0) -> Tensor:
    """Rows of both tensors, with axis 1 padded to the longer one."""
    longest, last = max(first.shape[1], second.shape[1]), (0, 0) * (first.ndim - 2)
    rows = [functional.pad(each, (*last, 0, longest - each.shape[1]), value=value) for each in (first, second)]
    return torch.cat(rows)


def _unchecked(kind: type[Batch], **fields: Tensor | None) -> Batch:
    batch = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(batch, name, value)
    return batch


def first_not_finite(values: Tensor) -> list[int] | None:
    """Indices of the first non-finite value."""
    if bool(values.sum().isfinite()):  # cheaper than a test of every value
        return None
    bad: list[list[int]] = (~values.isfinite()).nonzero()[:1].tolist()
    return bad[0] if bad else None


def first_invalid_box(
    boxes: Float[Tensor, "images regions 4"], mask: Bool[Tensor, "images regions"]
) -> tuple[int, int] | None:
    """Image and region of the first real box that is not x1, y1, x2, y2 as fractions of the picture."""
    inside = ((boxes >= 0) & (boxes <= 1)).all(dim=-1)
    ordered = (boxes[..., :2] <= boxes[..., 2:]).all(dim=-1)
    bad: list[list[int]] = (mask & ~(inside & ordered)).nonzero()[:1].tolist()
    return (bad[0][0], bad[0][1]) if bad else None


def check_batch(name: str, values: Tensor, mask: Tensor, *, axes: int) -> None:
    """Check the shapes of a batch and its mask.

    Raises:
        InputError: Where the number of axes is wrong, the mask does not fit, or a row is all padding.
    """
    if values.ndim != axes or 0 in values.shape:
        raise InputError(f"{name} have shape {tuple(values.shape)}; expected {axes} axes, none of them empty.")
    if mask.shape != values.shape[:2] or mask.dtype != torch.bool:
        raise InputError(
            f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"expected torch.bool of shape {tuple(values.shape[:2])}, True where an item is real."
        )
    empty = (~mask.any(dim=1)).nonzero()
    if len(empty):
        raise InputError(f"row {int(empty[0])} of {name} is all padding; every row needs at least one real item.")


def check_pooled(pooled: Tensor, images: int) -> None:
    """Check image vectors.

    Raises:
        InputError: Where the shape is wrong, or a value is not finite.
    """
    if pooled.ndim != 2 or len(pooled) != images or 0 in pooled.shape:
        raise InputError(
            f"pooled has shape {tuple(pooled.shape)}; expected one vector for each of {images} images, not empty."
        )
    bad = first_not_finite(pooled)
    if bad is not None:
        raise InputError(
            f"pooled[{bad[0]}] holds a value that is not finite; extract this image again or leave it out."
        )


def pad_sequences(rows: list[list[int]]) -> CaptionBatch:
    """Pad lists of token ids to the longest one."""
    longest = max((len(row) for row in rows), default=0)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[i, : len(row)] = True
    return CaptionBatch(tokens, mask)
