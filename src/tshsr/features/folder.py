"""A folder of pictures: its files in order, each with an id, and what in it is no file that could be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tshsr.errors import DataError

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
class Skipped:
    """A line of `skipped.jsonl`: something in the folder that is not in the store, and why."""

    file: str
    reason: str


def find_pictures(folder: Path, *, leave_out: Sequence[Path] = ()) -> tuple[list[PictureFile], list[Skipped]]:
    """All files of a folder and the folders in it, in the order of their names; hidden ones are left out.

    Links to folders are not followed, so a link to a folder above cannot lead round and round.

    Args:
        folder: Where to look.
        leave_out: Folders in it that are not looked into.

    Raises:
        DataError: Where it is no folder, or holds no file.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}; name a folder of pictures.")
    skipped: list[Skipped] = []
    found: list[tuple[str, os.stat_result]] = []
    hidden = {path.resolve() for path in leave_out}
    for entry in _walk(folder, folder, hidden, skipped):
        name = entry.relative_to(folder).as_posix()
        try:
            name.encode()
            status = entry.stat()
        except UnicodeEncodeError:
            skipped.append(Skipped(os.fsencode(name).decode(errors="replace"), "its name is not UTF-8; rename it."))
        except OSError as error:
            skipped.append(Skipped(name, f"cannot be read ({error.strerror})."))
        else:
            found.append((name, status))
    if not found:
        raise DataError(f"{folder} holds no files that can be read; name a folder of pictures.")
    ids = unique_ids([name for name, _ in found])
    files = [PictureFile(own, name, s.st_size, s.st_mtime_ns) for own, (name, s) in zip(ids, found, strict=True)]
    return files, skipped


def _walk(folder: Path, top: Path, hidden: set[Path], skipped: list[Skipped]) -> Iterator[Path]:
    """What lies in a folder and is no folder; folders that can't be read, or look like pictures, are noted."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        name = folder.relative_to(top).as_posix()
        skipped.append(Skipped(name, f"the folder cannot be read ({error.strerror})."))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not _is_folder(entry):
            yield entry
            continue
        if entry.suffix.lower() in ENDINGS:
            skipped.append(Skipped(entry.relative_to(top).as_posix(), "is a folder; expected a picture file."))
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
