"""Real conditions of the file layer, where the machine allows them: a full disk, a limit on files, no rights, no locks.

Each is a trial as in `reliability.trials`, for every kind of file. One in which nothing failed, as where a whole file
fits on the disk, is left out.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from reliability.results import Row, with_left_out
from reliability.syscalls import Action, Call, in_child, supervised
from reliability.trials import Prepared, attempt, follow, judge, next_run, prepare
from reliability.writers import Kind

if sys.platform != "win32":
    import resource

KIB = 1024
ROOM = (0, 4, 16, 48)
"""KiB left on a disk that is full otherwise."""
LIMITS = (0, 1, 30, 90)
"""Largest size of a file, in percent of the largest one that an undisturbed writing makes or changes."""
NOBODY = 65534
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def small_disk(folder: Path, mebibytes: int = 16) -> Iterator[Path]:
    """A disk of this size in memory, mounted on a new folder; root only."""
    folder.mkdir()
    mount, umount = shutil.which("mount") or "mount", shutil.which("umount") or "umount"
    options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    subprocess.run([mount, *options], check=True, capture_output=True)  # noqa: S603 - fixed program and arguments
    try:
        yield folder
    finally:
        subprocess.run([umount, "-l", str(folder)], check=True)  # noqa: S603


def can_mount(folder: Path) -> bool:
    """Whether this process may mount a disk."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return False
    try:
        with small_disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def on_full_disk(prepared: Prepared, folder: Path, room: int) -> str | None:
    """Write where this number of KiB is left.

    Returns:
        What was lost, empty where nothing was; None where nothing failed either.
    """
    with small_disk(folder) as disk:
        place = disk / "place"
        shutil.copytree(prepared.folder, place, symlinks=True)
        filler = disk / "filler"
        free = shutil.disk_usage(disk).free - room * KIB
        filler.write_bytes(bytes(max(0, free)))
        said = _attempted(prepared.kind, place)
        filler.unlink()
        return _judged(prepared, place, said)


def _attempted(kind: Kind, place: Path, before: Callable[[], None] = lambda: None) -> dict[str, str] | str:
    """Write in a child after `before`; how it ended, or what went wrong."""

    def run() -> str:
        before()
        return attempt(kind, place)

    ended = in_child(run)
    if ended.code != 0:
        return f"the writer ended with code {ended.code}: {ended.said[-600:]}"
    found: dict[str, str] = json.loads(ended.said)
    return found


def _judged(prepared: Prepared, place: Path, said: dict[str, str] | str) -> str | None:
    if isinstance(said, str):
        return said
    return next_run(prepared, place, said) or (None if said["end"] == "done" else "")


def with_a_limit(prepared: Prepared, folder: Path, percent: int) -> str | None:
    """Write where no file may be larger than this part of the largest one."""
    shutil.copytree(prepared.folder, folder, symlinks=True)
    size = prepared.largest * percent // 100
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    return _judged(prepared, folder, _attempted(prepared.kind, folder, limit))


def without_rights(prepared: Prepared, folder: Path, _: int) -> str | None:
    """Write as a user who may only read the folder and what is in it."""
    shutil.copytree(prepared.folder, folder, symlinks=True)
    entries = [folder, *folder.rglob("*")]
    become = partial(os.setuid, NOBODY) if not os.geteuid() else lambda: None
    with nullcontext() if os.geteuid() else reached_by_others(folder):
        try:
            for entry in entries:
                entry.chmod(0o555 if entry.is_dir() else 0o444)
            said = _attempted(prepared.kind, folder, become)
        finally:
            for entry in entries:
                entry.chmod(0o755 if entry.is_dir() else 0o644)
    return _judged(prepared, folder, said)


@contextmanager
def reached_by_others(folder: Path) -> Iterator[None]:
    """Let other users pass through the folders above a folder while the block runs."""
    ours = [parent for parent in folder.parents if parent.stat().st_uid == os.geteuid()]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in ours}
    closed = {parent: mode for parent, mode in modes.items() if not mode & 0o001}
    try:
        for parent, mode in closed.items():
            parent.chmod(mode | 0o011)
        yield
    finally:
        for parent, mode in closed.items():
            parent.chmod(mode)


def without_locks(prepared: Prepared, folder: Path, number: int) -> str | None:
    """Write on a file system whose locks fail with this error, killed once in the middle: the next run goes on."""
    shutil.copytree(prepared.folder, folder, symlinks=True)
    middle = len(prepared.calls) // 2

    def decide(call: Call, *, kill: bool) -> Action:
        if call.name == "flock":
            return number
        return "kill" if kill and call.number == middle else "go"

    ended = supervised(lambda: attempt(prepared.kind, folder), folder, partial(decide, kill=True))
    if ended.code not in (0, -9):
        return f"the writer ended with code {ended.code}: {ended.said[-600:]}"
    after = supervised(lambda: follow(prepared.kind, folder), folder, partial(decide, kill=False))
    if after.code != 0:
        return f"the next run ended with code {after.code}: {after.said[-600:]}"
    problem = judge(prepared, {"end": "killed", "text": ""}, json.loads(after.said))
    return problem or (None if ended.code == 0 else "")


Trial = Callable[[Prepared, Path, int], str | None]


def conditions(folder: Path) -> dict[str, tuple[Trial, Sequence[int]]]:
    """The trials that this machine allows, with what each is tried with."""
    found: dict[str, tuple[Trial, Sequence[int]]] = {
        "a limit on the size of files (EFBIG)": (with_a_limit, LIMITS),
        "a folder that only others may write": (without_rights, (0,)),
        "a file system without locks, and a kill": (without_locks, NO_LOCKS),
    }
    if can_mount(folder / "probe"):
        found = {"a full disk (tmpfs)": (on_full_disk, ROOM), **found}
    return found


def campaign(kinds: Sequence[Kind], folder: Path, most: int | None = None) -> tuple[list[Row], list[str]]:
    """Every condition for every kind of file; returns rows and descriptions of lost trials.

    Args:
        most: Values of each condition that are tried, at most.
    """
    rows: list[Row] = []
    lost: list[str] = []
    ready = [prepare(kind, folder / f"kind-{number}") for number, kind in enumerate(kinds)]
    for name, (run, values) in conditions(folder).items():
        tried = left_out = failed = 0
        for prepared in ready:
            for value in values[:most]:
                place = folder / f"place-{len(rows)}-{tried}"
                problem = run(prepared, place, value)
                tried += problem is not None
                left_out += problem is None
                failed += bool(problem)
                lost += [f"{name} ({value}), {prepared.kind.name}: {problem}"] if problem else []
                shutil.rmtree(place, ignore_errors=True)
        note = with_left_out(f"{len(ready)} kinds of files", left_out)
        rows.append(Row(name, tried, tried - failed, failed, note))
    return rows, lost
