"""Where the score matrices of an evaluation are kept while it runs: in memory, or in files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tshsr.errors import SettingsError
from tshsr.files import explained

LARGE = 2**30
"""Bytes of score matrices that are kept in memory; more go to files."""
PART = ".part"
"""Where in a named folder the matrices are until they are whole."""


@contextmanager
def place_for_scores(folder: Path | None, size: int) -> Iterator[Path | None]:
    """A folder for score matrices, or None where they go to memory.

    A temporary folder is gone after the block, however it ends. A named folder holds the matrices when the block ends
    well, and nothing otherwise.

    Args:
        folder: Where the user wants them.
        size: Their bytes.

    Raises:
        SettingsError: Where the folder holds something already, or has too little room.
        DataError: Where it cannot be written.
    """
    if folder is None and size <= LARGE:
        yield None
    elif folder is None:
        with tempfile.TemporaryDirectory(prefix="tshsr-scores-") as made:
            check_room(Path(made), size)
            yield Path(made)
    else:
        part = folder / PART
        with explained(folder):
            if folder.is_dir() and any(folder.iterdir()):
                raise SettingsError(f"{folder} is not empty; name a new or an empty folder for the scores.")
            part.mkdir(parents=True)
        try:
            check_room(part, size)
            yield part
            for entry in sorted(part.iterdir()):
                entry.rename(folder / entry.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def check_room(folder: Path, size: int) -> None:
    """Refuse a disk that is too full, before hours of scoring.

    Raises:
        SettingsError: Says how much there is.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SettingsError(
            f"the scores take {size / 2**30:.1f} GiB, and {folder.parent} has {free / 2**30:.1f} GiB left; free some "
            "space, or name a folder with more by --scores-folder."
        )
