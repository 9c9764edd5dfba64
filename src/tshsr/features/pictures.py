"""One door for picture files: whatever is in one, out comes an upright RGB picture or one sentence."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from tshsr.errors import DataError, PictureError

MAX_PIXELS = 150_000_000
"""Larger pictures are refused before they are decoded: 450 MB as RGB."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "MPO", "TGA", "ICO", "HEIF")
"""What is tried; others, such as PostScript, would start programs."""
EXPECTED = "expected a file like .png or .jpg."
ORIENTATION = 0x0112
"""The EXIF tag that says how the camera was held."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""For each EXIF orientation what turns the picture upright."""


def read_picture(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture, wholly decoded: RGB, upright, transparency on white; of an animation the first frame.

    Args:
        source: A regular file, or the bytes of one.
        max_pixels: A picture of more, by its header, is not decoded.

    Raises:
        PictureError: Where it is missing, empty, broken, truncated, too large or no picture.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else _regular(source)
    if isinstance(source, bytes) and not source:
        raise PictureError(f"{name} is empty (0 bytes); copy or download it again.")
    try:
        with Image.open(file, formats=_formats()) as opened:
            _check_size(name, opened.size, max_pixels)
            opened.load()
            return _rgb(_upright(opened))
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{name} has too many pixels ({error}); shrink it.") from None
    except UnidentifiedImageError:
        raise PictureError(f"{name} is no readable picture (its format is not known here); {EXPECTED}") from None
    except OSError as error:
        raise PictureError(f"{name} is no readable picture ({error.strerror or error}); {EXPECTED}") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything at all on damaged files
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise PictureError(f"{name} is no readable picture ({what}); {EXPECTED}") from None


def _regular(path: Path) -> Path:
    """The path, where there is a file with something in it: opening a pipe would wait for ever."""
    try:
        size = path.stat().st_size
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "does not exist" if missing else f"cannot be read ({error.strerror})"
        raise PictureError(f"{path} {reason}; name a picture file.") from None
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no regular file"
        raise PictureError(f"{path} is {what}; expected a picture file like .png or .jpg.")
    if not size:
        raise PictureError(f"{path} is empty (0 bytes); copy or download it again.")
    return path


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureError(
            f"{name} has {width} x {height} pixels; expected at most {max_pixels:,} in all: shrink it and try again."
        )


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as the camera was held; one whose EXIF data is damaged stays as it is."""
    try:
        turn = UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - the pixels are sound, and that is what counts
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> Image.Image:
    """8 bits, red, green, blue; what is transparent becomes white, as on a page."""
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of 16 or 32 bits in grey: values above 255 mean that 65,535 is white."""
    values = np.asarray(picture, np.float64)
    scale = 257.0 if values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))


ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".tga", ".heic")
"""What a folder may not end in without being called a picture by mistake."""


@dataclass(frozen=True)
class PictureFile:
    """A file that may be a picture.

    Attributes:
        id: Its name in the store.
        file: Its path in the folder, with / between the parts.
        bytes: Its size.
        changed: When it was last changed, nanoseconds.
    """

    id: str
    file: str
    bytes: int
    changed: int


@dataclass(frozen=True)
class SkippedFile:
    """A line of `skipped.jsonl`: something in the folder that is not in the store, and why."""

    file: str
    reason: str


def find_pictures(folder: Path, *, exclude: Sequence[Path] = ()) -> tuple[list[PictureFile], list[SkippedFile]]:
    """All files of a folder and the folders in it, in the order of their names; hidden ones are left out.

    Links to folders are not followed, so a link to a folder above cannot lead round and round.

    Args:
        folder: Where to look.
        exclude: Folders in it that are not looked into.

    Raises:
        DataError: Where it is no folder, or holds no file.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; name a folder of pictures.")
    skipped: list[SkippedFile] = []
    found: list[tuple[str, os.stat_result]] = []
    hidden = {path.resolve() for path in exclude}
    for entry in _walk(folder, folder, hidden, skipped):
        name = entry.relative_to(folder).as_posix()
        try:
            name.encode()
            status = entry.stat()
        except UnicodeEncodeError:
            skipped.append(SkippedFile(os.fsencode(name).decode(errors="replace"), "its name is not UTF-8; rename it."))
        except OSError as error:
            skipped.append(SkippedFile(name, f"cannot be read ({error.strerror})."))
        else:
            found.append((name, status))
    if not found:
        raise DataError(f"{folder} holds no files that can be read; name a folder of pictures.")
    ids = unique_ids([name for name, _ in found])
    files = [PictureFile(own, name, s.st_size, s.st_mtime_ns) for own, (name, s) in zip(ids, found, strict=True)]
    return files, skipped


def _walk(folder: Path, top: Path, hidden: set[Path], skipped: list[SkippedFile]) -> Iterator[Path]:
    """What lies in a folder and is no folder; folders that can't be read, or look like pictures, are noted."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        name = folder.relative_to(top).as_posix()
        skipped.append(SkippedFile(name, f"the folder cannot be read ({error.strerror})."))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry):
            yield entry
            continue
        if entry.suffix.lower() in ENDINGS:
            skipped.append(SkippedFile(entry.relative_to(top).as_posix(), "is a folder; expected a picture file."))
        if not entry.is_symlink() and entry.resolve() not in hidden:
            yield from _walk(entry, top, hidden, skipped)


def _is_folder(path: Path) -> bool:
    """Whether it is one; of what may not be looked at, reading it as a file will tell why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def unique_ids(files: Sequence[str]) -> list[str]:
    """A name for each file: its path without the ending, or where several share that, with it."""
    bare = [PurePosixPath(file).with_suffix("").as_posix() for file in files]
    shared = Counter(bare)
    wishes = [file if shared[name] > 1 else name for file, name in zip(files, bare, strict=True)]
    taken = {file for file, name in zip(files, wishes, strict=True) if name == file}
    ids = []
    for file, wish in zip(files, wishes, strict=True):
        # A file `a.jpg.png` would be called as another one, `a.jpg`, is.
        own = file if wish != file and wish in taken else wish
        taken.add(own)
        ids.append(own)
    return ids
