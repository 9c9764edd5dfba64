"""Picture files: decoding to upright RGB, and the files of a folder."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from tshsr.errors import DataError, PictureError
from tshsr.files import is_remote, reachable, readable_name

MAX_PIXELS = 150_000_000
"""Larger pictures are refused before they are decoded: 450 MB as RGB."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "MPO", "TGA", "ICO", "HEIF")
"""Formats decoded; others, such as PostScript, would start programs."""
EXPECTED = "expected a file like .png or .jpg."
ORIENTATION = 0x0112
"""EXIF tag of the camera's orientation."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose of each EXIF orientation to upright."""
SIDES_SWAPPED = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""The transposes that swap width and height."""


def read_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS, draft: int | None = None) -> Image.Image:
    """Decode a picture: RGB, upright, transparency on white; the first frame of an animation.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: Limit by the header, before decoding.
        draft: Width and height in pixels that suffice; larger JPEGs are decoded at 1/2, 1/4 or 1/8 of their size.

    Raises:
        PictureError: Where it is missing, empty, broken, truncated, too large or no picture.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else _regular_file(source)
    if isinstance(source, bytes) and not source:
        raise PictureError(f"{name} is empty (0 bytes); copy or download it again.")
    try:
        with Image.open(file, formats=_formats()) as opened:
            _check_size(name, opened.size, max_pixels)
            if draft is not None:
                opened.draft(None, (draft, draft))
            opened.load()
            return _rgb(_upright(opened))
    except (PictureError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name} has too many pixels ({error}); shrink it.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{name} is no readable picture (its format is not known here); {EXPECTED}") from None
    except OSError as error:
        raise PictureError(f"{name} is no readable picture ({error.strerror or error}); {EXPECTED}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise any exception on damaged files
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise PictureError(f"{name} is no readable picture ({what}); {EXPECTED}") from None


def _regular_file(path: Path) -> Path:
    """The path of a regular file that is not empty; opening a pipe could block for ever."""
    try:
        size = path.stat().st_size
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read ({error.strerror})"
        raise PictureError(f"{path} {reason}; name a picture file.") from None
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise PictureError(f"{path} is {kind}; expected a picture file like .png or .jpg.")
    if not size:
        raise PictureError(f"{path} is empty (0 bytes); copy or download it again.")
    return path


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of Pillow supports."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureError(
            f"{name} has {width} x {height} pixels; expected at most {max_pixels:,} in all: shrink it and try again."
        )


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of the upright picture; of an opened file, read from its header."""
    width, height = picture.size
    return (height, width) if turn_of(picture) in SIDES_SWAPPED else (width, height)


def turn_of(picture: Image.Image) -> Image.Transpose | None:
    """The transpose to upright by the EXIF orientation; None where there is none, or the EXIF data is damaged."""
    try:
        return UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged metadata does not make the pixels unusable
        return None


def _upright(picture: Image.Image) -> Image.Image:
    """The picture rotated by its EXIF orientation."""
    turn = turn_of(picture)
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB; transparent pixels become white."""
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """From 16- or 32-bit grey; white is 65,535 where a value is above 255, and 1 for real numbers up to 1."""
    values = np.asarray(picture, np.float64)
    largest = values.max(initial=0)
    white = 65_535 if largest > 255 else 1 if picture.mode == "F" and largest <= 1 else 255
    return Image.fromarray(np.clip(values * 255 / white, 0, 255).astype(np.uint8))


ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".tga", ".heic")
"""File endings of pictures; a folder with one is reported as skipped."""
IS_FOLDER = "is a folder; expected a picture file."
"""The reason; of the files of `find_pictures` that are skipped, all others may be readable at another time."""


@dataclass(frozen=True)
class PictureFile:
    """A file that may be a picture.

    Attributes:
        id: Its image id in the store.
        file: Its path in the folder, with / between the parts.
        changed: Modification time, in nanoseconds; of an object without one, a number for its content.
    """

    id: str
    file: str
    bytes: int
    changed: int


@dataclass(frozen=True)
class SkippedFile:
    """A line of `skipped.jsonl`: a file of the folder that is not in the store, and why."""

    file: str
    reason: str


def find_pictures(folder: Path, *, exclude: Sequence[Path] = ()) -> tuple[list[PictureFile], list[SkippedFile]]:
    """All files of a folder and its subfolders in the order of their names, without hidden ones.

    Links to folders are not followed, which rules out cycles.

    Args:
        folder: The root; may be on object storage.
        exclude: Subfolders that are left out.

    Raises:
        DataError: Where it is no folder, or holds no file.
    """
    if is_remote(folder):
        return _remote_pictures(folder), []
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {problem}; name a folder of pictures.")
    skipped: list[SkippedFile] = []
    found: list[tuple[str, os.stat_result]] = []
    excluded = {path.resolve() for path in exclude}
    for entry in _walk(folder, folder, excluded, skipped):
        name = entry.relative_to(folder).as_posix()
        try:
            name.encode()
            status = entry.stat()
        except UnicodeEncodeError:
            skipped.append(SkippedFile(readable_name(name), "its name is not UTF-8; rename it."))
        except OSError as error:
            skipped.append(SkippedFile(name, f"cannot be read ({error.strerror})."))
        else:
            found.append((name, status))
    if not found:
        raise DataError(f"{folder} holds no files that can be read; name a folder of pictures.")
    ids = unique_ids([name for name, _ in found])
    files = [
        PictureFile(image_id, name, s.st_size, s.st_mtime_ns) for image_id, (name, s) in zip(ids, found, strict=True)
    ]
    return files, skipped


def _remote_pictures(folder: Any) -> list[PictureFile]:
    """Objects below a URL in the order of their names, without hidden ones.

    Raises:
        DataError: Where there are none, or the storage cannot be read.
    """
    with reachable(folder):
        listed: dict[str, dict[str, Any]] = folder.fs.find(folder.path, detail=True)
    start = len(folder.path.rstrip("/")) + 1
    entries = {tuple(path[start:].split("/")): entry for path, entry in listed.items() if len(path) >= start}
    visible = sorted(parts for parts in entries if not any(part.startswith(".") or not part for part in parts))
    if not visible:
        raise DataError(f"{folder} holds no files that can be read; name a folder of pictures.")
    names = ["/".join(parts) for parts in visible]
    return [
        PictureFile(image_id, name, int(entries[parts]["size"]), _changed(entries[parts]))
        for image_id, name, parts in zip(unique_ids(names), names, visible, strict=True)
    ]


TIMES = ("LastModified", "last_modified", "mtime", "updated", "modificationTime")
"""Names of the modification time of an object, by its storage."""
VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "content_hash", "blob_id", "checksum", "created")
"""Names of what else differs between versions of an object."""


def _changed(entry: Mapping[str, Any]) -> int:
    """The modification time of an object, in nanoseconds; a number for its tag or time of creation where it has none.

    Of an object without any of these, the present time: it may have changed since.
    """
    for name in (*TIMES, *VERSIONS):
        value = entry.get(name)
        seconds = value.timestamp() if isinstance(value, datetime) else value
        if name not in VERSIONS and isinstance(seconds, int | float):
            return int(seconds * 1e9)
        if name in VERSIONS and value:
            return int.from_bytes(hashlib.sha256(str(value).encode()).digest()[:7])
    return time.time_ns()


def _walk(folder: Path, top: Path, excluded: set[Path], skipped: list[SkippedFile]) -> Iterator[Path]:
    """Files below a folder; unreadable folders, and those named like pictures, are added to `skipped`."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        name = readable_name(folder.relative_to(top).as_posix())
        skipped.append(SkippedFile(name, f"the folder cannot be read ({error.strerror})."))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry):
            yield entry
            continue
        if entry.suffix.lower() in ENDINGS:
            skipped.append(SkippedFile(readable_name(entry.relative_to(top).as_posix()), IS_FOLDER))
        if not entry.is_symlink() and entry.resolve() not in excluded:
            yield from _walk(entry, top, excluded, skipped)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder; False where access is denied, so that reading it as a file reports the reason."""
    try:
        return path.is_dir()
    except OSError:
        return False


def unique_ids(files: Sequence[str]) -> list[str]:
    """An image id for each file: its path without the ending, or with it where several files share that."""
    bare = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    shared = Counter(bare)
    preferred = [file if shared[name] > 1 else name for file, name in zip(files, bare, strict=True)]
    taken = {file for file, name in zip(files, preferred, strict=True) if name == file}
    ids = []
    for file, name in zip(files, preferred, strict=True):
        # Without its ending, `a.jpg.png` is the name of another file, `a.jpg`.
        image_id = file if name != file and name in taken else name
        taken.add(image_id)
        ids.append(image_id)
    return ids
