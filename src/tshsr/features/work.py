"""What a job has done so far: small files in a hidden folder beside the store, so that a killed job goes on.

Each file holds some pictures' regions (safetensors) and is written whole or not at all. What a job finds there is used
for pictures that have not changed since; an extractor with another name has another folder.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tshsr.errors import DataError
from tshsr.features.extractor import PictureRegions
from tshsr.features.folder import PictureFile
from tshsr.files import explained, remove_partial, write_bytes

try:
    import fcntl
except ImportError:  # not POSIX: two jobs on one store are not told apart there
    fcntl = None  # type: ignore[assignment]

RECORDS = "records"
PART = "part-{:06d}.safetensors"


@dataclass(frozen=True)
class Done:
    """One finished picture.

    Attributes:
        file: Its path in the folder of pictures.
        bytes: Of the file.
        changed: When the file was last changed, nanoseconds.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        regions: How many it has.
    """

    file: str
    bytes: int
    changed: int
    width: int
    height: int
    regions: int

    def is_of(self, picture: PictureFile) -> bool:
        """Whether a file is still the one that this was made of."""
        return (self.file, self.bytes, self.changed) == (picture.file, picture.bytes, picture.changed)


@dataclass(frozen=True)
class Kept:
    """A finished picture and where it lies: which part, from which row."""

    done: Done
    part: Path
    start: int


class Work:
    """The folder of a job.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        self.kept: dict[str, Kept] = {}
        for part in sorted(folder.glob("part-*.safetensors")):
            self._read(part)

    def _read(self, part: Path) -> None:
        """What a part holds; one that is damaged is taken away, and its pictures are done again."""
        try:
            with safe_open(part, "numpy") as opened:
                records = [Done(**record) for record in json.loads((opened.metadata() or {})[RECORDS])]
                rows = opened.get_slice("features").get_shape()[0]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            part.unlink(missing_ok=True)
            return
        if rows == sum(record.regions for record in records):
            self._remember(part, records)

    def _remember(self, part: Path, records: Sequence[Done]) -> None:
        start = 0
        for record in records:
            self.kept[record.file] = Kept(record, part, start)
            start += record.regions

    def has(self, picture: PictureFile) -> bool:
        """Whether a picture is done, and has not changed since."""
        kept = self.kept.get(picture.file)
        return kept is not None and kept.done.is_of(picture)

    def keep(self, records: Sequence[Done], regions: Sequence[PictureRegions]) -> None:
        """Write finished pictures to the disk.

        Raises:
            DataError: Where the disk is full or the folder cannot be written; what was kept before stays.
        """
        number = max((int(path.stem.partition("-")[2]) for path in self.folder.glob("part-*.safetensors")), default=-1)
        part = self.folder / PART.format(number + 1)
        arrays = {name: np.concatenate([getattr(one, name) for one in regions]) for name in ("features", "boxes")}
        write_bytes(part, save(arrays, {RECORDS: json.dumps([asdict(record) for record in records])}))
        self._remember(part, records)

    def read(self, files: Sequence[str], what: Literal["features", "boxes"]) -> Iterator[np.ndarray]:
        """Features or boxes of finished pictures, in this order; neighbours that lie together are read together."""
        for part, together in groupby((self.kept[file] for file in files), key=lambda kept: kept.part):
            with safe_open(part, "numpy") as opened:
                rows = opened.get_slice(what)  # a part may be hundreds of megabytes, and the next picture in another
                for kept in together:
                    yield rows[kept.start : kept.start + kept.done.regions]

    def remove(self) -> None:
        """Take the folder away, when everything in it lies in a store."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Keep a second job out of a folder while the block runs; a killed job lets go by itself.

    Raises:
        DataError: Where another job is in it.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(
                    f"another tshsr features is making {what}; wait for it, or name another store."
                ) from None
        yield
    finally:
        os.close(descriptor)
