"""Locks, signals, names and folders of Windows, macOS and network disks, by simulation."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout

import tshsr.files
import tshsr.server.running
import tshsr.system
from tests.support.forked import answer_of
from tshsr.cli.main import COMMANDS
from tshsr.data.store import StoreCaption, StoreImage, open_store, write_store
from tshsr.errors import DataError
from tshsr.features.catalog import open_extractor
from tshsr.files import exclusive_lock, replacing_folder, write_text
from tshsr.server.guard import Limits
from tshsr.server.running import bounded_by_handles
from tshsr.system import (
    interrupts_held,
    is_running,
    keep_freed_memory,
    release_freed_memory,
    termination_delayed,
    trim,
    usable_cores,
)

ROOT = Path(__file__).resolve().parents[2]
RESERVED = re.compile(r'[<>:"/\\|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
"""What Windows refuses in a name."""


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, NotImplementedError])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as filelock of several versions reports it."""

    def fail(_: FileLock, **__: Any) -> None:
        raise OSError(request.param, "no locks") if isinstance(request.param, int) else request.param

    monkeypatch.setattr(FileLock, "acquire", fail)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_names_the_owner(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock", "first"):
        assert (tmp_path / "lock.owner").read_text() == f"process {os.getpid()} of {socket.gethostname()}"
        with (
            pytest.raises(DataError, match=r"^second waits It belongs to process .*; if"),
            exclusive_lock(tmp_path / "lock", "second waits"),
        ):
            pass
    assert not (tmp_path / "lock.owner").exists()


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for as POSIX does")
@pytest.mark.usefixtures("no_locks")
def test_the_mark_of_a_killed_owner_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock.owner").write_text(f"process 4000000 of {socket.gethostname()}")
    with exclusive_lock(tmp_path / "lock", "held"):
        assert (tmp_path / "lock.owner").read_text() == f"process {os.getpid()} of {socket.gethostname()}"
    (tmp_path / "lock.owner").write_text("process 7 of another-host")
    with pytest.raises(DataError) as caught, exclusive_lock(tmp_path / "lock", "it is held."):
        pass
    assert str(caught.value) == (
        "it is held. It belongs to process 7 of another-host; if that ended without removing it, remove "
        f"{tmp_path / 'lock.owner'}."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lock.owner"]


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows says so of a folder without rights."""

    def refuse(_: FileLock, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Access is denied", str(tmp_path / "lock"))

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(DataError, match=r"^Cannot write .*: Access is denied\. Make room"):
        exclusive_lock(tmp_path / "lock", "held").__enter__()


def test_an_older_filelock_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(path: Path) -> FileLock:
        return FileLock(path)

    monkeypatch.setattr(tshsr.files, "FileLock", old)
    with exclusive_lock(tmp_path / "lock", "first"), pytest.raises(Timeout):
        FileLock(tmp_path / "lock").acquire(blocking=False)


def test_a_store_that_is_mapped_is_replaced_though_windows_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(value: float) -> None:
        images, captions = [StoreImage("a")], [StoreCaption("c", "a", "a dog", "train")]
        regions = np.full((1, 2, 3), value, np.float32)
        write_store(tmp_path, extractor="x", settings={}, images=images, captions=captions, regions=regions)

    def value() -> float:
        return float(open_store(tmp_path, "train").regions.read_array(np.array([0]))[0, 0, 0])

    write(1.0)
    mapped, unlink = open_store(tmp_path, "train"), Path.unlink

    def locked(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".npy":
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(self))
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", locked)
    write(2.0)
    assert value() == 2.0
    assert mapped.regions.read_array(np.array([0]))[0, 0, 0] == 1.0
    monkeypatch.undo()
    write(3.0)
    assert value() == 3.0


def test_a_folder_that_windows_does_not_rename_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader has a file in it open."""
    with replacing_folder(tmp_path / "last") as folder:
        write_text(folder / "a", "old")

    def busy(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Access is denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", busy)
    with (
        pytest.raises(DataError, match=r"^Cannot write .*last: Access is denied\."),
        replacing_folder(tmp_path / "last") as folder,
    ):
        write_text(folder / "a", "new")
    assert (tmp_path / "last" / "a").read_text() == "old"


def test_signals_that_a_system_lacks_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has neither masks of signals nor a tracker of resources."""
    monkeypatch.delattr(signal, "pthread_sigmask")
    with interrupts_held(), termination_delayed() as stopping:
        assert not stopping()


def test_sigterm_is_delayed_and_reaches_the_former_handler() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with termination_delayed() as stopping:
            signal.raise_signal(signal.SIGTERM)
            assert (stopping(), received) == (True, [])
        assert received == [signal.SIGTERM]
        with termination_delayed() as stopping:
            assert not stopping()
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_sigterm_is_left_alone() -> None:
    found: list[bool] = []

    def block() -> None:
        with termination_delayed() as stopping:
            found.append(stopping())

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.skipif(os.name != "posix", reason="no process gets SIGTERM on this system")
def test_by_default_sigterm_ends_the_process_after_the_block() -> None:
    code, said, _ = answer_of(terminate_inside)
    assert (code, said) == (-signal.SIGTERM, "saved\n")


def terminate_inside() -> None:
    with termination_delayed() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        if stopping():
            os.write(1, b"saved\n")
    os.write(1, b"not reached\n")


def test_other_processes_are_never_signalled_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tshsr.system.os, "name", "nt")
    monkeypatch.setattr(tshsr.system.os, "kill", lambda *_: pytest.fail("os.kill ends a process there"))
    assert is_running(4_000_000)


def test_folders_are_not_flushed_where_they_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no folder."""
    monkeypatch.setattr(tshsr.files.os, "name", "nt")
    monkeypatch.setattr(tshsr.files.os, "open", lambda *_: pytest.fail("a folder is opened"))
    tshsr.files.flush_folder(tmp_path)


@pytest.mark.parametrize("part", ["src", "reliability", "tests"])
def test_no_module_needs_another_system_to_be_imported(part: str) -> None:
    """Modules that Windows lacks are imported inside functions, or under a condition."""
    posix = {"fcntl", "grp", "posix", "pwd", "pty", "resource", "syslog", "termios"}
    for path in (ROOT / part).rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not posix.intersection(names), path


def test_connections_are_not_bounded_by_handles_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tshsr.server.running.sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert bounded_by_handles(Limits(connections=7)) == Limits(connections=7)


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_memory_is_left_to_the_allocators_of_other_systems(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    monkeypatch.setattr(tshsr.system.sys, "platform", system)
    monkeypatch.setattr(tshsr.system.ctypes, "CDLL", lambda *_: pytest.fail("another allocator is set"))
    assert (keep_freed_memory(), release_freed_memory(), trim()) == (False, False, False)


def test_cores_are_counted_where_a_process_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Windows nor macOS has `sched_getaffinity`."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7


def names_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of files and folders that are made from other names."""
    recorded: list[str] = []
    partial: Callable[[Path], Path] = tshsr.files._partial
    monkeypatch.setattr(tshsr.files, "_partial", lambda path: recorded.append(partial(path).name) or partial(path))
    write_text(tmp_path / "a.txt", "x")
    return [*recorded, f".store.{open_extractor('scenes').name}.float16.work", *(f"{name}.html" for name in COMMANDS)]


def test_names_of_files_are_allowed_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in names_made(monkeypatch, tmp_path):
        assert not RESERVED.search(name), name


@pytest.mark.parametrize("name", ["größe", "gro\u0308ße", "写真", "a b", "nul-like.name"])
def test_places_in_any_script_are_written_and_read(tmp_path: Path, name: str) -> None:
    """macOS stores composed letters in either form."""
    with replacing_folder(tmp_path / name) as folder:
        write_text(folder / f"{name}.txt", name)
    assert (tmp_path / name / f"{name}.txt").read_text(encoding="utf-8") == name
