"""Captions of a folder of pictures: lines of a text file, or Karpathy's JSON."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tshsr.data.karpathy import read_images
from tshsr.data.pictures import PictureFile
from tshsr.data.text import read_lines
from tshsr.errors import DataError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class PictureCaption:
    """A caption of a picture file: its path in the folder, the text, and train, dev or test."""

    file: str
    text: str
    split: str


def read_picture_captions(path: Path, files: Sequence[PictureFile]) -> list[PictureCaption]:
    """The captions of a folder's pictures; those of files that are not in the folder are left out.

    Args:
        path: Karpathy's JSON; or a text file with one caption per line: picture, tab, caption, and optionally tab and
            train, dev or test, for all captions of the picture. The default is one picture in ten for dev and one for
            test, by a hash of the name.
        files: Of the folder. A picture is named by its path in it, or by its file's name where that is unique.

    Raises:
        DataError: Where the file or a line can't be read, a picture is in two splits, or no picture is in the folder.
    """
    captions = _of_json(path) if path.suffix == ".json" else _of_lines(path)
    by_name: dict[str, str | None] = {}
    for one in files:
        name = PurePosixPath(one.file).name
        by_name[name] = None if name in by_name else one.file
    by_name |= {one.file: one.file for one in files}
    found = [(file, caption) for caption in captions if (file := by_name.get(caption.file)) is not None]
    if not found:
        raise DataError(
            f"{path}: none of its {len(captions)} captions names a picture of the folder; the first names "
            f"{captions[0].file!r}, the folder has {files[0].file!r}."
        )
    named: dict[str, str] = {}
    for file, caption in found:
        if caption.split and named.setdefault(file, caption.split) != caption.split:
            raise DataError(
                f"{path}: {file!r} is in the splits {named[file]} and {caption.split}; a picture belongs to one."
            )
    return [PictureCaption(file, caption.text, named.get(file) or split_of(file)) for file, caption in found]


def split_of(file: str) -> str:
    """train, dev or test by a hash of the picture's name, so that added pictures move no other one."""
    tenth = int(hashlib.sha256(file.encode()).hexdigest(), 16) % 10
    return {0: "dev", 1: "test"}.get(tenth, "train")


def _of_json(path: Path) -> list[PictureCaption]:
    return [
        PictureCaption(f"{image.folder}/{image.file}" if image.folder else image.file, text, image.split)
        for image in read_images(path)
        for text in image.captions
    ]


def _of_lines(path: Path) -> list[PictureCaption]:
    captions = []
    for number, line in enumerate(read_lines(path), start=1):
        file, *rest = (part.strip() for part in line.split("\t"))
        if len(rest) not in (1, 2) or not all((file, *rest)) or (len(rest) == 2 and rest[1] not in SPLITS):
            raise DataError(
                f"{path}:{number}: {line[:80]!r}; expected picture, tab, caption, and optionally tab and train, dev or "
                "test."
            )
        # Flickr8k and Flickr30K number the captions of a picture: picture.jpg#0.
        captions.append(PictureCaption(re.sub(r"#\d+$", "", file), rest[0], rest[1] if len(rest) == 2 else ""))
    return captions
