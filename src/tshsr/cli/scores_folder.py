"""Where `tshsr evaluate` keeps score matrices: in memory, in a temporary folder, or in a folder of the user's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tshsr.errors import SettingsError
from tshsr.files import exclusive_lock, explained, remove, write_text

if TYPE_CHECKING:
    from tshsr.scoring.processes import Processes

LARGE = 2**30
"""Largest score matrices that are kept in memory, in bytes; larger ones go to files."""
PART = ".part"
"""Subfolder of --scores-folder that holds the matrices until they are complete."""
LOCK, NAMES = ".lock", "names.json"
"""Files in it: the lock of the evaluation, and the names of the matrices that are moved out."""


@contextmanager
def shared_place(folder: Path | None, size: int, processes: Processes) -> Iterator[Path | None]:
    """`place_for_scores` of the main process, for all of several processes; always a folder, where parts are joined."""
    if processes.count == 1:
        with place_for_scores(folder, size) as place:
            yield place
    elif processes.is_main:
        with place_for_scores(folder, max(2 * size, LARGE + 1)) as place:  # the parts, and the matrices
            yield processes.from_main(place)
    else:
        yield processes.from_main(None)


@contextmanager
def place_for_scores(folder: Path | None, size: int) -> Iterator[Path | None]:
    """A folder for score matrices, or None where they go to memory.

    A temporary folder is removed after the block. A named folder holds the matrices where the block succeeds, and
    nothing otherwise.

    Args:
        size: Size of the matrices in bytes.

    Raises:
        SettingsError: Where the folder is not empty, or its disk has too little space.
        DataError: Where it cannot be written.
    """
    if folder is None and size <= LARGE:
        yield None
    elif folder is None:
        with tempfile.TemporaryDirectory(prefix="tshsr-scores-") as made:
            check_room(Path(made), size)
            yield Path(made)
    else:
        with named_place(folder, size) as place:
            yield place


@contextmanager
def named_place(folder: Path, size: int) -> Iterator[Path]:
    """The hidden folder in which the matrices of a named folder are made; they move out when the block succeeds.

    What a killed evaluation left in the folder is removed first.

    Raises:
        SettingsError: Where the folder holds anything else, or its disk has too little space.
        DataError: Where it cannot be written, or another process writes scores into it.
    """
    part = folder / PART
    with explained(folder):
        left = {entry.name for entry in folder.iterdir()} - {PART} if folder.is_dir() else set()
        if not left <= moved_out(part):
            raise SettingsError(f"{folder} is not empty; name a new or an empty folder for the scores.")
        part.mkdir(parents=True, exist_ok=True)
    in_use = f"another tshsr evaluate writes scores into {folder}; wait for it, or name another folder."
    with exclusive_lock(part / LOCK, in_use):
        try:
            with explained(folder):
                for entry in (*(folder / name for name in sorted(left)), *part.iterdir()):
                    if entry.name != LOCK:
                        remove(entry)
            check_room(part, size)
            yield part
            move_out(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    if os.name == "nt":  # where a held lock cannot be removed
        shutil.rmtree(part, ignore_errors=True)


def move_out(part: Path, folder: Path) -> None:
    """Move complete matrices out of their hidden folder.

    Raises:
        DataError: Where the folder cannot be written.
    """
    with explained(part):
        names = sorted(entry.name for entry in part.iterdir() if entry.name != LOCK)
        write_text(part / NAMES, json.dumps(names))  # a kill from here on leaves some of them outside
        try:
            for name in names:
                (part / name).rename(folder / name)
        except OSError:
            for name in names:  # back again, so that all or nothing is outside
                if not (part / name).exists():
                    (folder / name).rename(part / name)
            raise


def moved_out(part: Path) -> set[str]:
    """Names of the matrices that an evaluation killed at its end may have moved out of its hidden folder.

    An empty set where it had moved them all: then they are complete.
    """
    try:
        names = {name for name in json.loads((part / NAMES).read_text(encoding="utf-8")) if isinstance(name, str)}
    except (OSError, ValueError):
        return set()
    return names if any((part / name).exists() for name in names) else set()


def check_room(folder: Path, size: int) -> None:
    """Refuse a disk with too little free space, before hours of scoring.

    Raises:
        SettingsError: Where the space is too small; the message has the free space.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise SettingsError(
            f"the scores take {size / 2**30:.1f} GiB, and {folder.parent} has {free / 2**30:.1f} GiB left; free some "
            "space, or name a folder with more by --scores-folder."
        )
