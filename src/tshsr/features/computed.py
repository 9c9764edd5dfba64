"""Regions that an extractor computes from picture files on reading, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.regions import image_numbers
from tshsr.errors import DataError
from tshsr.features.decoding import decode_all
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.system import usable_cores

BLOCK = 32
"""Pictures per pass of the network."""


class GridOfRegions(Extractor, Protocol):
    """An extractor whose regions have the same boxes in every picture."""

    @property
    def boxes(self) -> np.ndarray:
        """float32, regions x 4: x1, y1, x2, y2 as fractions of the picture."""


@dataclass(frozen=True, eq=False)
class ComputedRegions:
    """Regions of picture files, computed on every reading.

    Attributes:
        paths: The file of each image.
    """

    extractor: GridOfRegions
    paths: tuple[Path, ...]

    mask = None
    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    @property
    def regions(self) -> int:
        """Number of regions of every image."""
        return self.extractor.regions

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""
        return self.extractor.feature_dim

    @property
    def joint_dim(self) -> int:
        """Width of the projected image vectors; 0: there are none."""
        return self.extractor.joint_dim

    @cached_property
    def boxes(self) -> np.ndarray:
        """float32, images x regions x 4, the same for all images."""
        return np.broadcast_to(self.extractor.boxes, (len(self), *self.extractor.boxes.shape))

    def most(self) -> int:
        """Number of regions of every image."""
        return self.regions

    def read(self, images: Sequence[int] | np.ndarray) -> ImageBatch:
        """Decode pictures and compute their regions.

        Raises:
            DataError: Where a picture can't be decoded, or a feature is not finite; names the file.
            InputError: Where there is no such image.
        """
        blocks = list(self._blocks(images))
        features = torch.from_numpy(np.concatenate([np.stack([one.features for one in block]) for block in blocks]))
        joint = [one.pooled for block in blocks for one in block if one.pooled is not None]
        pooled = torch.from_numpy(np.stack(joint)) if joint else None
        boxes = torch.from_numpy(self.extractor.boxes).expand(len(features), -1, -1)
        return ImageBatch.unchecked(features, torch.ones(features.shape[:2], dtype=torch.bool), boxes, pooled)

    def read_array(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """As `read`: images x regions x features."""
        return self.read(images).regions.numpy()

    def pooled_blocks(self, size: int) -> Iterator[np.ndarray]:
        """Projected vectors of all images, `size` at a time: images x joint; nothing where there are none."""
        for start in range(0, len(self) if self.extractor.joint_dim else 0, size):
            pooled = self.read(np.arange(start, min(start + size, len(self)))).pooled
            if pooled is not None:
                yield pooled.numpy()

    def check(self, images: Sequence[int] | np.ndarray) -> None:
        """As `read`, without a result."""
        for _ in self._blocks(images):
            pass

    def select(self, images: Sequence[int] | np.ndarray) -> ComputedRegions:
        """These images, in this order."""
        numbers = image_numbers(images, len(self), "pictures").tolist()
        return replace(self, paths=tuple(self.paths[image] for image in numbers))

    def _blocks(self, images: Sequence[int] | np.ndarray) -> Iterator[list[PictureRegions]]:
        """Regions of `BLOCK` pictures at a time; the next pictures are decoded meanwhile."""
        paths = [self.paths[image] for image in image_numbers(images, len(self), "pictures").tolist()]
        decoding = decode_all(paths, self.extractor.prepare, workers=usable_cores(), processes=False)
        with closing(decoding):
            for start in range(0, len(paths), BLOCK):
                block, prepared = paths[start : start + BLOCK], []
                for path, decoded in zip(block, decoding, strict=False):
                    if decoded.problem:
                        raise DataError(f"{path} {decoded.problem}")
                    prepared.append(decoded.prepared)
                found = self.extractor.compute(prepared)
                for path, regions in zip(block, found, strict=True):
                    if not np.isfinite(regions.features).all():
                        raise DataError(f"{path}: the network gives a feature that is not finite; leave it out.")
                yield found


def picture_paths(split: Split) -> tuple[Path, ...]:
    """The picture file of every image of a split.

    Raises:
        DataError: Where the split has no folder of pictures, or a file is missing.
    """
    where = f"{split.data}, split {split.name}"
    if split.pictures is None:
        raise DataError(
            f"{where} has no pictures, which a network with a vision encoder reads; name a folder of pictures with "
            "captions.txt, or data with a folder pictures or images."
        )
    paths = [split.picture(image) for image in range(len(split.image_ids))]
    missing = [image for image, path in enumerate(paths) if path is None]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(paths)} pictures are missing in {split.pictures}, the first is that of "
            f"image {split.image_ids[missing[0]]!r}; copy them again."
        )
    return tuple(path for path in paths if path is not None)


def compute_regions(split: Split, extractor: GridOfRegions, name: str) -> Split:
    """The split with regions that an extractor computes from its pictures.

    Args:
        name: The extractor's name, which takes long to compute for a large network.

    Raises:
        DataError: As `picture_paths`.
    """
    return replace(split, regions=ComputedRegions(extractor, picture_paths(split)), extractor=name)
