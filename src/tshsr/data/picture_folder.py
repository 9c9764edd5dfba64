"""A folder of pictures with their captions, and no region features: the layout of training from pixels.

The captions are `captions.txt` or `captions.tsv` (picture, tab, caption, and optionally tab and train, dev or test),
or Karpathy's JSON as `captions.json` or `dataset*.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.karpathy import find_json
from tshsr.data.picture_captions import PictureCaption, left_out_captions, read_picture_captions
from tshsr.data.pictures import ENDINGS, PictureFile, find_pictures, read_picture
from tshsr.data.regions import image_numbers
from tshsr.errors import DataError, PictureError

if TYPE_CHECKING:
    from tshsr.data.batches import ImageBatch

CAPTION_FILES = ("captions.txt", "captions.tsv", "captions.json")
NO_EXTRACTOR = "pictures"
"""The extractor of a split of pictures without features."""


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Picture files in the place of regions; a network with a vision encoder computes regions from them.

    Attributes:
        folder: For messages.
        paths: The file of each image.
    """

    folder: Path
    paths: tuple[Path, ...]

    boxes = None
    mask = None
    regions = 0
    feature_dim = 0
    joint_dim = 0
    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def most(self) -> int:
        """No regions."""
        return 0

    def read(self, images: Sequence[int] | np.ndarray) -> ImageBatch:
        """Refuse: there are no regions.

        Raises:
            DataError: Always.
        """
        self._refuse(images)

    def read_array(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """As `read`."""
        self._refuse(images)

    def pooled_blocks(self, size: int) -> Iterator[np.ndarray]:
        """No vectors."""
        del size
        return iter(())

    def check(self, images: Sequence[int] | np.ndarray) -> None:
        """Decode pictures.

        Raises:
            DataError: Names the first that can't be decoded.
        """
        for image in image_numbers(images, len(self), str(self.folder)).tolist():
            try:
                read_picture(self.paths[image])
            except PictureError as error:
                raise DataError(str(error)) from None

    def select(self, images: Sequence[int] | np.ndarray) -> PictureFiles:
        """These images, in this order."""
        numbers = image_numbers(images, len(self), str(self.folder)).tolist()
        return PictureFiles(self.folder, tuple(self.paths[image] for image in numbers))

    def _refuse(self, images: Sequence[int] | np.ndarray) -> NoReturn:
        del images
        raise DataError(
            f"{self.folder} holds pictures without region features; make features with tshsr features, or train a "
            "vision network on the pictures with --model.encoder.vision.weights."
        )


def find_captions(folder: Path) -> Path | None:
    """The file of captions in a folder of pictures without features, if it is one.

    Args:
        folder: The folder, or Karpathy's JSON in it.
    """
    top, json = folder if folder.is_dir() else folder.parent, find_json(folder)
    if json is not None and ((top / "features.npy").exists() or (top / "features").exists()):
        return None
    for name in CAPTION_FILES if folder.is_dir() else ():
        if (folder / name).is_file():
            return folder / name
    pictures = json is not None and any(
        entry.is_dir() or entry.suffix.lower() in ENDINGS for entry in top.iterdir() if not entry.name.startswith(".")
    )
    return json if pictures else None


def picture_splits(captions: Path) -> tuple[str, ...]:
    """Splits that the captions name.

    Raises:
        DataError: As `read_picture_captions` and `find_pictures`.
    """
    return tuple(sorted({caption.split for caption in _read(captions)[1]}))


def open_picture_folder(captions: Path, split: str) -> Split:
    """Open one split: its captions, and the pictures that they name, in the order of their names.

    Args:
        captions: The file of captions, in the folder of the pictures.
        split: train, dev or test.

    Raises:
        DataError: As `read_picture_captions` and `find_pictures`, and where there is no such split.
    """
    files, everything = _read(captions)
    chosen = [caption for caption in everything if caption.split == split]
    if not chosen:
        known = ", ".join(sorted({caption.split for caption in everything}))
        raise DataError(f"{captions} has no split {split!r}; it has {known}.")
    named = {caption.file for caption in chosen}
    pictures = [file for file in files if file.file in named]
    row_of = {file.file: row for row, file in enumerate(pictures)}
    folder = captions.parent
    return Split(
        data=folder.resolve().name,
        name=split,
        regions=PictureFiles(folder, tuple(folder / file.file for file in pictures)),
        captions=tuple(caption.text for caption in chosen),
        image_of_caption=np.array([row_of[caption.file] for caption in chosen], np.int64),
        image_ids=tuple(file.id for file in pictures),
        extractor=NO_EXTRACTOR,
        pictures=folder,
        files=tuple(file.file for file in pictures),
    )


def caption_problems(captions: Path) -> list[str]:
    """Captions whose picture is missing or ambiguous, in a sentence.

    Raises:
        DataError: As `read_picture_captions` and `find_pictures`.
    """
    left_out = left_out_captions(captions, find_pictures(captions.parent)[0])
    return [left_out] if left_out else []


def _read(captions: Path) -> tuple[list[PictureFile], list[PictureCaption]]:
    files, _ = find_pictures(captions.parent)
    return files, read_picture_captions(captions, files)
