"""Captions of a folder of pictures: lines of a text file, or Karpathy's JSON."""

from __future__ import annotations

import hashlib
import logging
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from tshsr.data.karpathy import read_images
from tshsr.data.pictures import PictureFile
from tshsr.data.text import read_lines
from tshsr.errors import DataError

LOG = logging.getLogger(__name__)
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class PictureCaption:
    """A caption of a picture file: its path in the folder, the text, and train, dev or test."""

    file: str
    text: str
    split: str


def read_picture_captions(path: Path, files: Sequence[PictureFile]) -> list[PictureCaption]:
    """The captions of a folder's pictures; those of files that are not in the folder are left out, with a warning.

    Args:
        path: Karpathy's JSON; or a text file with one caption per line: picture, tab, caption, and optionally tab and
            train, dev or test, for all captions of the picture. The default is one picture in ten for dev and one for
            test, by a hash of the name.
        files: Of the folder. A picture is named by its path in it, or by its file's name where that is unique; in any
            normal form of Unicode.

    Raises:
        DataError: Where the file or a line can't be read, a picture is in two splits, or no picture is in the folder.
    """
    captions, found, left_out = _match(path, files)
    if left_out:
        _warn_once(left_out)
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


def left_out_captions(path: Path, files: Sequence[PictureFile]) -> str:
    """A sentence on the captions that `read_picture_captions` leaves out; empty where there are none.

    Raises:
        DataError: As `read_picture_captions`.
    """
    return _match(path, files)[2]


def _match(
    path: Path, files: Sequence[PictureFile]
) -> tuple[list[PictureCaption], list[tuple[str, PictureCaption]], str]:
    """All captions, those with the file of their picture, and a sentence on the others."""
    captions = _of_json(path) if path.suffix == ".json" else _of_lines(path)
    exact, normal = _by_name(files, str), _by_name(files, _normal)
    found: list[tuple[str, PictureCaption]] = []
    others: list[str] = []
    for caption in captions:
        # Flickr8k and Flickr30K number the captions of a picture: picture.jpg#0.
        bare = re.sub(r"#\d+$", "", caption.file)
        keys = ((exact, caption.file), (normal, _normal(caption.file)), (exact, bare), (normal, _normal(bare)))
        file = next((names[key] for names, key in keys if key in names), "")
        if file:
            found.append((file, caption))
        else:
            problem = "the name of several files" if file is None else "which is not in the folder"
            others.append(f"{caption.file!r}, {problem}")
    total = f"{path}: {len(others)} of {len(captions)} captions are left out"
    return captions, found, f"{total}, the first of the picture {others[0]}." if others else ""


def _by_name(files: Sequence[PictureFile], key: Callable[[str], str]) -> dict[str, str | None]:
    """Each file by the key of its path, or of its name; None where several files have it."""
    found: dict[str, str | None] = {}
    for names in ([PurePosixPath(one.file).name for one in files], [one.file for one in files]):
        unique: dict[str, str | None] = {}
        for one, name in zip(files, map(key, names), strict=True):
            unique[name] = None if name in unique else one.file
        found |= unique
    return found


def _normal(name: str) -> str:
    """Names that look equal: macOS stores composed letters in parts, and lines lose the spaces around names."""
    return unicodedata.normalize("NFC", name).strip()


@cache
def _warn_once(sentence: str) -> None:
    """Warn of captions; each split of the data reads them again."""
    LOG.warning("%s", sentence)


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
        captions.append(PictureCaption(file, rest[0], rest[1] if len(rest) == 2 else ""))
    return captions
