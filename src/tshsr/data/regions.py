"""Region features on the disk, read in batches.

torch is imported where a batch is read: drawing scenes and writing stores need none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from tshsr.data.npy import NpyFile, NpyFolder
from tshsr.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from tshsr.data.batches import ImageBatch


class Regions(Protocol):
    """The regions of a sequence of images: stored (`RegionFeatures`), or computed from pictures on reading."""

    def __len__(self) -> int:
        """Number of images."""

    @property
    def regions(self) -> int:
        """Number of regions of every image, with padding."""

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""

    @property
    def joint_dim(self) -> int:
        """Width of the projected image vectors; 0: there are none."""

    @property
    def dtype(self) -> np.dtype:
        """Of the features that `read_array` returns."""

    @property
    def boxes(self) -> np.ndarray | None:
        """float32, images x regions x 4: x1, y1, x2, y2 as fractions of the picture."""

    @property
    def mask(self) -> np.ndarray | None:
        """Images x regions: True where a region is real; None where all are."""

    def most(self) -> int:
        """Largest number of regions of an image, without padding."""

    def read(self, images: Sequence[int] | np.ndarray) -> ImageBatch:
        """Read a batch of images by their numbers, on the CPU."""

    def read_array(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images x regions x features, padding zero."""

    def pooled_blocks(self, size: int) -> Iterator[np.ndarray]:
        """Projected vectors of all images, `size` at a time: images x joint; nothing where there are none."""

    def check(self, images: Sequence[int] | np.ndarray) -> None:
        """Raise a `DataError` where an image can't be read."""

    def select(self, images: Sequence[int] | np.ndarray) -> Self:
        """These images, in this order."""


@dataclass(frozen=True, eq=False)
class RegionFeatures:
    """Stored regions of a sequence of images.

    Attributes:
        source: The file or files: images x regions x features.
        rows: int64, for each image its row in the source; several images may share one.
        boxes: float32, images x regions x 4: x1, y1, x2, y2 as fractions of the picture.
        mask: Images x regions: True where a region is real; None where all are.
        pooled: The file of image vectors, images x joint, with the same rows as the source.
    """

    source: NpyFile | NpyFolder
    rows: np.ndarray
    boxes: np.ndarray | None = None
    mask: np.ndarray | None = None
    pooled: NpyFile | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        rows: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        pooled: NpyFile | None = None,
    ) -> RegionFeatures:
        """Open a .npy file of images x regions x features.

        Raises:
            DataError: Where the file, the boxes, the mask or the image vectors can't be used.
        """
        source = NpyFile.open(path, axes=3)
        return cls(source, np.arange(source.shape[0]) if rows is None else rows, boxes, mask, pooled)

    def __post_init__(self) -> None:
        where, shape = self.source.path, (len(self), self.regions)
        if self.mask is not None:
            check_mask(self.mask, shape, str(where))
        if self.boxes is not None:
            object.__setattr__(self, "boxes", check_boxes(self.boxes, self.mask, shape, str(where)))
        if self.pooled is not None and self.pooled.shape[0] != self.source.shape[0]:
            raise DataError(
                f"{self.pooled.path} has the image vectors of {self.pooled.shape[0]} images; {where} holds "
                f"{self.source.shape[0]}. Extract both together."
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    @property
    def regions(self) -> int:
        """Number of stored regions of every image, with padding."""
        return self.source.shape[1]

    def most(self) -> int:
        """Largest number of regions of an image, without padding."""
        return self.regions if self.mask is None else int(np.flatnonzero(self.mask.any(axis=0))[-1]) + 1

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""
        return self.source.shape[2]

    @property
    def joint_dim(self) -> int:
        """Width of the image vectors; 0: there are none."""
        return 0 if self.pooled is None else self.pooled.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of the stored features."""
        return self.source.dtype

    def read(self, images: Sequence[int] | np.ndarray) -> ImageBatch:
        """Read a batch; trailing regions that are padding in all its images are left out.

        Args:
            images: Row numbers, in any order, with repetitions.

        Raises:
            DataError: Where a feature is not finite or the file can't be read.
            InputError: Where there is no such image.
        """
        import torch

        from tshsr.data.batches import ImageBatch

        numbers = self._numbers(images)
        regions = self.read_array(numbers)
        mask = self._mask(numbers)
        longest = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
        boxes = None if self.boxes is None else torch.from_numpy(self.boxes[numbers, :longest])
        native = np.ascontiguousarray(regions[:, :longest], regions.dtype.newbyteorder("="))
        values = torch.from_numpy(native).float()  # a float64 beyond float32 becomes infinite, which is refused
        self._check_finite(values, numbers)
        return ImageBatch.unchecked(values, torch.from_numpy(mask[:, :longest].copy()), boxes, self._pooled(numbers))

    def read_array(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images x regions x features in the stored dtype, padding zero, not checked to be finite."""
        numbers = self._numbers(images)
        regions = self.source.read(self.rows[numbers])
        if self.mask is not None:
            regions[~self.mask[numbers]] = 0
        return regions

    def check(self, images: Sequence[int] | np.ndarray) -> None:
        """Read images.

        Raises:
            DataError: Where a feature is not finite or the file can't be read.
        """
        self.read(images)

    def pooled_blocks(self, size: int) -> Iterator[np.ndarray]:
        """Projected vectors of all images, `size` at a time: images x joint; nothing where there are none."""
        if self.pooled is not None:
            for start in range(0, len(self), size):
                yield self.pooled.read(self.rows[start : start + size])

    def select(self, images: Sequence[int] | np.ndarray) -> RegionFeatures:
        """These images, in this order."""
        numbers = self._numbers(images)
        boxes = None if self.boxes is None else self.boxes[numbers]
        mask = None if self.mask is None else self.mask[numbers]
        return replace(self, rows=self.rows[numbers], boxes=boxes, mask=mask)

    def _numbers(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        return image_numbers(images, len(self), str(self.source.path))

    def _mask(self, numbers: np.ndarray) -> np.ndarray:
        if self.mask is None:
            return np.ones((len(numbers), self.regions), np.bool_)
        mask: np.ndarray = self.mask[numbers]
        return mask

    def _pooled(self, numbers: np.ndarray) -> Tensor | None:
        """Projected vectors, float32.

        Raises:
            DataError: Where a value is not finite.
        """
        if self.pooled is None:
            return None
        import torch

        from tshsr.data.batches import first_not_finite

        rows = self.rows[numbers]
        values: Tensor = torch.from_numpy(self.pooled.read(rows).astype(np.float32))
        bad = first_not_finite(values)
        if bad is not None:
            raise DataError(
                f"{self.pooled.place(int(rows[bad[0]]))}: a value of the image vector is not finite. Extract this "
                "image again or leave it out."
            )
        return values

    def _place(self, image: int) -> str:
        return self.source.place(int(self.rows[image]))

    def _check_finite(self, values: Tensor, numbers: np.ndarray) -> None:
        from tshsr.data.batches import first_not_finite

        bad = first_not_finite(values)
        if bad is not None:
            raise DataError(
                f"{self._place(int(numbers[bad[0]]))}, region {bad[1]}: a feature is not finite "
                "(or too large for float32). Extract this image again or leave it out."
            )


def image_numbers(images: Sequence[int] | np.ndarray, count: int, where: str) -> np.ndarray:
    """Image numbers as int64.

    Raises:
        InputError: Where there is none, or one is not 0 to `count` - 1.
    """
    numbers = np.asarray(images, np.int64)
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if numbers.ndim != 1 or not len(numbers) or len(outside):
        got = f"image {outside[0]}" if len(outside) else f"numbers of shape {numbers.shape}"
        raise InputError(f"{where}: got {got}; expected a list of image numbers from 0 to {count - 1}.")
    return numbers


def check_mask(mask: np.ndarray, shape: tuple[int, ...], where: str) -> None:
    """Check a mask.

    Raises:
        DataError: Where the shape or dtype is wrong, or an image has no real region.
    """
    if mask.shape != shape or mask.dtype != np.bool_:
        raise DataError(f"{where}: the mask is {mask.dtype} {mask.shape}; expected bool {shape}, True where real.")
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty):
        raise DataError(f"{where}, image {empty[0]}: every region is masked; an image needs at least one.")


def check_boxes(boxes: np.ndarray, mask: np.ndarray | None, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Boxes as float32, zero in padding.

    Raises:
        DataError: Where the shape is wrong, or a box is not x1, y1, x2, y2 as fractions of the picture.
    """
    if boxes.shape != (*shape, 4) or boxes.dtype.kind != "f":
        raise DataError(f"{where}: the boxes are {boxes.dtype} {boxes.shape}; expected floats of shape {(*shape, 4)}.")
    checked = boxes.astype(np.float32)
    if mask is not None:
        checked[~mask] = 0
    inside = ((checked >= 0) & (checked <= 1)).all(axis=-1)
    ordered = (checked[..., :2] <= checked[..., 2:]).all(axis=-1)
    invalid = np.argwhere(~(inside & ordered))  # padding is zero, a valid box
    if len(invalid):
        from tshsr.data.batches import EXPECTED_BOXES

        wrong = tuple(invalid[0].tolist())
        raise DataError(
            f"{where}: the box of image {wrong[0]}, region {wrong[1]} is {boxes[wrong].tolist()}; {EXPECTED_BOXES}"
        )
    return checked
