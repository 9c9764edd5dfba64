"""A split of a data set: regions, captions, and the image of each caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from tshsr.data.regions import Regions
from tshsr.data.text import captions_digest, numbered_caption_ids
from tshsr.errors import DataError
from tshsr.files import is_there


@dataclass(frozen=True, eq=False)
class Split:
    """Images and captions of one split, with any number of captions per image.

    Attributes:
        data: Name of the data set (its folder's name).
        name: train, dev, test, ...
        regions: Region features, or picture files to compute them from; row i belongs to image i.
        captions: Raw captions; empty in a collection for search only.
        image_of_caption: int64, for each caption the row of its image.
        image_ids: File names, COCO ids, or row numbers.
        extractor: Id of the features' extractor; a model refuses features of another one.
        pictures: Folder of the picture files, where there is one.
        files: Picture file of each image relative to `pictures`; None where the image ids are the file names.

    Raises:
        DataError: Where the parts do not fit each other.
    """

    data: str
    name: str
    regions: Regions
    captions: tuple[str, ...]
    image_of_caption: np.ndarray
    image_ids: tuple[str, ...]
    extractor: str
    pictures: Path | None = None
    files: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        where, images = f"{self.data}, split {self.name}", len(self.regions)
        if self.image_of_caption.shape != (len(self.captions),) or self.image_of_caption.dtype != np.int64:
            raise DataError(
                f"{where}: image_of_caption is {self.image_of_caption.dtype} of shape {self.image_of_caption.shape}; "
                f"expected one int64 for each of the {len(self.captions)} captions."
            )
        outside = np.flatnonzero((self.image_of_caption < 0) | (self.image_of_caption >= images))
        if len(outside):
            raise DataError(
                f"{where}: caption {outside[0]} belongs to image {self.image_of_caption[outside[0]]}; "
                f"there are images 0 to {images - 1}."
            )
        for name, values in (("image ids", self.image_ids), ("picture files", self.files)):
            if values is not None and len(values) != images:
                raise DataError(f"{where}: {len(values)} {name} for {images} images; expected one each.")

    @property
    def caption_ids(self) -> list[str]:
        """An id of each caption, IMAGE#K."""
        return numbered_caption_ids(self.image_ids[image] for image in self.image_of_caption.tolist())

    @property
    def captions_digest(self) -> str:
        """`text.captions_digest` of this split."""
        return captions_digest(self.captions, self.image_of_caption)

    def picture(self, image: int) -> Path | None:
        """The picture file of an image, where it exists.

        Raises:
            DataError: Where its name leads out of the folder.
        """
        name = self.image_ids[image] if self.files is None else self.files[image]
        if self.pictures is None or name is None:
            return None
        check_picture_name(self.data, name)
        path = self.pictures / name
        return path if is_there(path) and path.is_file() else None


def check_picture_name(data: str, name: str) -> None:
    """Refuse the name of a picture file that leads out of its folder.

    Raises:
        DataError: Where it is absolute or has `..`.
    """
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise DataError(f"{data}: the picture file {name!r} lies outside its folder; expected a name inside it.")
