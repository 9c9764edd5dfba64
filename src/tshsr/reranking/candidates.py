"""Candidates in any form -> encodings: ids of an index or a feature store, files, pictures, regions.

Axes: images (candidates) | regions | features (the extractor's) | dim (joint space).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.pictures import MAX_PIXELS, read_picture
from tshsr.errors import InputError, UnknownPictureError
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.files import place_of, reachable
from tshsr.models.base import ItemEncoding, join_encodings
from tshsr.retriever import Retriever, extractor_of
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks

EXTRACTED = 16
"""Pictures whose regions are computed at a time."""
Picture = str | Path | bytes | Image.Image | np.ndarray | PictureRegions
"""A picture: an id of the source, or without a source a file; a file; the bytes of one; a PIL picture; the features of
its regions (regions x features); or these with boxes."""


@dataclass(frozen=True)
class EncodedImages:
    """Encoded pictures, for several queries.

    Attributes:
        ids: Ids of the source, paths of files, or the place in the list for others.
        boxes: x1, y1, x2, y2 of each region as fractions of the picture, regions x 4; None where there are none.
    """

    ids: tuple[str, ...]
    encoding: ItemEncoding
    boxes: tuple[np.ndarray | None, ...]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.ids)

    def rows(self, rows: Sequence[int]) -> EncodedImages:
        """These pictures, in this order."""
        picked = torch.tensor(list(rows), dtype=torch.long, device=self.encoding.mask.device)
        return EncodedImages(
            tuple(self.ids[row] for row in rows), self.encoding[picked], tuple(self.boxes[row] for row in rows)
        )


class Source(Protocol):
    """Pictures by id; `tshsr.Index` implements it."""

    def __len__(self) -> int: ...

    def encoded_pictures(self, ids: Sequence[str]) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        """Encodings and boxes of pictures; an unknown id raises an `UnknownPictureError`."""

    def extractor(self) -> Extractor:
        """The extractor of their features, for other pictures."""


class SplitSource:
    """The pictures of a split, such as a feature store, encoded at each use.

    Raises:
        DataError: Where the features are of another extractor than the network reads.
    """

    def __init__(self, split: Split, retriever: Retriever) -> None:
        self.split, self.retriever = retriever.readable(split), retriever

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.split.image_ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each id."""
        return {name: row for row, name in enumerate(self.split.image_ids)}

    def encoded_pictures(self, ids: Sequence[str]) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        """Encodings and boxes of pictures.

        Raises:
            UnknownPictureError: Where an id is unknown.
            DataError: Where the features can't be read.
        """
        unknown = next((name for name in ids if name not in self.rows), None)
        if unknown is not None:
            near = difflib.get_close_matches(unknown, self.split.image_ids, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UnknownPictureError(f"{self.split.data}, split {self.split.name} has no picture {unknown!r}{hint}")
        batches = blocks(np.array([self.rows[name] for name in ids], np.int64), ENCODE_BLOCK)
        parts = [encode_batch(self.retriever, self.split.regions.read(rows)) for rows in batches]
        return join_encodings([encoding for encoding, _ in parts]), [one for _, boxes in parts for one in boxes]

    def extractor(self) -> Extractor:
        """The extractor of the network's features.

        Raises:
            DataError: Where the weights of the extractor are elsewhere.
        """
        return extractor_of(self.retriever)


def encode_batch(retriever: Retriever, batch: ImageBatch) -> tuple[ItemEncoding, list[np.ndarray | None]]:
    """The encoding of a batch, and the boxes of each picture's real regions."""
    boxes: list[np.ndarray | None] = [None] * len(batch)
    if batch.boxes is not None:
        boxes = [places[real].cpu().numpy() for places, real in zip(batch.boxes, batch.mask, strict=True)]
    return retriever.encode_images(batch), boxes


def open_source(source: Source | Split | str | Path | None, retriever: Retriever) -> Source | None:
    """The source of pictures by id.

    Args:
        source: An open index or split; the folder or URL of an index; or data in any layout with all of its pictures in
            one split `all`, such as a feature store.

    Raises:
        DataError: Where there is no such data, or its features are of another extractor.
        CheckpointError: Where another network encoded the index.
    """
    if isinstance(source, str | Path):
        place = place_of(source)
        with reachable(place):
            is_index = (place / "index.json").is_file()
        if is_index:
            from tshsr.index.collection import Index  # its libraries are an extra

            return Index(source, retriever)
        from tshsr.data.layouts import open_split
        from tshsr.data.store import EVERYTHING

        source = open_split(source, EVERYTHING)
    if isinstance(source, Split):
        return SplitSource(source, retriever)
    own, info = getattr(source, "retriever", retriever), getattr(source, "about", None)
    if own is not retriever and info is not None:
        from tshsr.index.about import check_model

        check_model(getattr(source, "folder", Path()), info, retriever)
    return source


def encode_candidates(
    retriever: Retriever,
    images: Sequence[Picture] | ImageBatch | np.ndarray | ItemEncoding,
    source: Source | None,
    extract: Callable[[Sequence[Image.Image]], list[PictureRegions]],
    max_pixels: int = MAX_PIXELS,
) -> EncodedImages:
    """Encode candidates of any kind, in their order.

    Args:
        source: Pictures by id; strings are then ids, otherwise files.
        extract: Regions of pictures.
        max_pixels: Limit of a picture file, by its header.

    Raises:
        DataError: Where an id is unknown, or a file or the source can't be read.
        InputError: Where there is no candidate, an array has a wrong shape, or an object is no picture.
    """
    if isinstance(images, ItemEncoding):
        return EncodedImages(_numbers(len(images)), images, (None,) * len(images))
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images = list(images)
    if isinstance(images, ImageBatch):
        encoding, boxes = encode_batch(retriever, images)
        return EncodedImages(_numbers(len(images)), encoding, tuple(boxes))
    if isinstance(images, str | Path | bytes | Image.Image | PictureRegions | np.ndarray):
        raise InputError(f"candidates are a {type(images).__name__}; expected a list of pictures.")
    listed = list(images)
    if not listed:
        raise InputError("there are no candidates; give at least one picture.")
    by_id = [row for row, one in enumerate(listed) if isinstance(one, str)] if source is not None else []
    others = sorted({*range(len(listed))} - {*by_id})
    parts: list[tuple[ItemEncoding, list[np.ndarray | None]]] = []
    if source is not None and by_id:
        parts.append(source.encoded_pictures([str(listed[row]) for row in by_id]))
    if others:
        parts.append(encode_batch(retriever, batch_of(_regions([listed[row] for row in others], extract, max_pixels))))
    place = {row: at for at, row in enumerate([*by_id, *others])}
    found = EncodedImages(
        tuple(_id(listed[row], row) for row in place),
        join_encodings([encoding for encoding, _ in parts]),
        tuple(one for _, boxes in parts for one in boxes),
    )
    return found if list(place) == sorted(place) else found.rows([place[row] for row in range(len(listed))])


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _id(picture: Picture, row: int) -> str:
    return str(picture) if isinstance(picture, str | Path) else str(row)


def _regions(
    pictures: Sequence[Picture], extract: Callable[[Sequence[Image.Image]], list[PictureRegions]], max_pixels: int
) -> list[PictureRegions]:
    """Regions of pictures: given, or computed `EXTRACTED` at a time."""
    found: list[PictureRegions | None] = [None] * len(pictures)
    waiting: list[tuple[int, Image.Image]] = []

    def finish() -> None:
        if waiting:
            for (row, _), regions in zip(waiting, extract([opened for _, opened in waiting]), strict=True):
                found[row] = regions
            waiting.clear()

    for row, picture in enumerate(pictures):
        given = given_regions(picture)
        if given is None:
            waiting.append((row, opened_picture(picture, max_pixels)))
        found[row] = given
        if len(waiting) == EXTRACTED:
            finish()
    finish()
    return [one for one in found if one is not None]


def given_regions(picture: Picture) -> PictureRegions | None:
    """The regions, where the picture is given as these."""
    if isinstance(picture, PictureRegions):
        return picture
    return PictureRegions(picture, np.zeros((0, 4), np.float32)) if isinstance(picture, np.ndarray) else None


def opened_picture(picture: object, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A file, its bytes or a PIL picture as RGB.

    Raises:
        PictureError: Where the file can't be decoded.
        InputError: Where the object is no picture.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    if isinstance(picture, str | Path | bytes):
        return read_picture(picture if isinstance(picture, bytes) else Path(picture), max_pixels=max_pixels)
    raise InputError(
        f"a candidate is a {type(picture).__name__}; expected an id, a file, a PIL picture, or features of regions."
    )


def batch_of(pictures: Sequence[PictureRegions]) -> ImageBatch:
    """Pictures with any number of regions each as a padded batch.

    Raises:
        InputError: Where features are not regions x features of one width, boxes do not fit, or a value is not finite.
    """
    shapes = [np.shape(one.features) for one in pictures]
    wrong = next((shape for shape in shapes if len(shape) != 2 or shape[1] != shapes[0][-1]), None)
    if wrong is not None:
        raise InputError(
            f"the features of a picture have shape {wrong}; expected regions x features, as wide as the others."
        )
    for one in pictures:
        if len(one.boxes) not in (0, len(one.features)):
            raise InputError(
                f"a picture has {len(one.boxes)} boxes for {len(one.features)} regions; expected one each, or none."
            )
    mask = torch.arange(max(shape[0] for shape in shapes)) < torch.tensor([shape[0] for shape in shapes])[:, None]
    boxes = _padded([one.boxes for one in pictures], mask) if all(len(one.boxes) for one in pictures) else None
    joint = [np.asarray(one.pooled, np.float32) for one in pictures if one.pooled is not None]
    pooled = torch.from_numpy(np.stack(joint)) if len(joint) == len(pictures) else None
    return ImageBatch(_padded([one.features for one in pictures], mask), mask, boxes, pooled)


def _padded(rows: Sequence[np.ndarray], mask: Tensor) -> Tensor:
    values = torch.zeros(*mask.shape, rows[0].shape[1])
    joined = torch.from_numpy(np.concatenate([np.asarray(one, np.float32) for one in rows]))
    values[mask] = joined
    return values
