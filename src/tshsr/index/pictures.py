"""The picture files of an index: where they are, and how large."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from tshsr.data.dataset import Split
from tshsr.errors import DataError

ORIENTATION, ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)
"""The EXIF tag that says how the camera was held, and its values for pictures whose sides are swapped."""
TRIED = 20
"""Files that are looked for before a folder is taken for the wrong one."""


@dataclass(frozen=True)
class PictureFile:
    """The file of a picture.

    Attributes:
        file: Its name in the data; None where it has none.
        folder: The folder that it is in; None where the file is not there.
        width: In pixels, upright; None where unknown.
        height: In pixels, upright; None where unknown.
    """

    file: str | None
    folder: str | None = None
    width: int | None = None
    height: int | None = None


def picture_name(split: Split, image: int) -> str | None:
    """What the data calls the file of an image: its own name for it, or an id that looks like a file's name."""
    if split.files is not None:
        return split.files[image]
    name = split.image_ids[image]
    return name if PurePath(name).suffix else None


def picture_file(split: Split, image: int, folder: Path | None) -> PictureFile:
    """The file of an image, with its size where it is there.

    Raises:
        DataError: Where its name leads out of the folder.
    """
    name = picture_name(split, image)
    if name is not None and (PurePath(name).is_absolute() or ".." in PurePath(name).parts):
        raise DataError(f"{split.data}: the picture file {name!r} lies outside its folder; expected a name inside it.")
    if folder is None or name is None or not (folder / name).is_file():
        return PictureFile(name)
    return PictureFile(name, str(folder), *(size_of(folder / name) or (None, None)))


def check_folder(split: Split, folder: Path) -> None:
    """Refuse a folder that holds none of the first pictures.

    Raises:
        DataError: Names one that was looked for.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of pictures; name the one that holds the files of {split.data}.")
    names = [picture_name(split, image) for image in range(min(TRIED, len(split.regions)))]
    files = [name for name in names if name is not None]
    if not any((folder / name).is_file() for name in files):
        wanted = f"such as {files[0]}" if files else f"and {split.data} names none"
        raise DataError(f"{folder} holds none of the picture files that were looked for, {wanted}.")


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture as people see it, from its header; None where that can't be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
            with Image.open(path) as opened:
                width, height = opened.size
                turned = opened.getexif().get(ORIENTATION) in ON_ITS_SIDE
    except Exception:  # noqa: BLE001 - decoders raise anything at all, and a size is only a convenience
        return None
    return (height, width) if turned else (width, height)
