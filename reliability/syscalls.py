"""System calls that fail on purpose: a child process whose writes below a folder are decided by this process.

The child installs a seccomp filter that reports calls on files to its parent (seccomp_unotify(2), Linux 5.9 or newer),
which lets each pass, refuses it with an error number, carries out half of a write, or kills the child before it. So
every writer is reached: Python's own files, C libraries, and the threads of LanceDB.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import signal
import socket
import struct
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if sys.platform != "win32":
    import fcntl

warnings.filterwarnings("ignore", message="lancedb fork support")  # no child is forked inside one of its calls
Action = int | Literal["go", "half", "kill", "kill half"]
"""What becomes of a call: an error number that refuses it, "go", half of a write, a kill before it or after a half."""


def _numbers(listed: str) -> dict[str, int]:
    """Names and numbers of calls, from a list of both."""
    words = listed.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


NUMBERS = {
    "x86_64": _numbers(
        "write 1 open 2 pwrite64 18 writev 20 sendfile 40 flock 73 fsync 74 fdatasync 75 truncate 76 "
        "ftruncate 77 rename 82 mkdir 83 rmdir 84 creat 85 link 86 unlink 87 symlink 88 openat 257 mkdirat "
        "258 unlinkat 263 renameat 264 linkat 265 symlinkat 266 fallocate 285 pwritev 296 renameat2 316 "
        "copy_file_range 326 openat2 437"
    ),
    "aarch64": _numbers(
        "flock 32 mkdirat 34 unlinkat 35 symlinkat 36 linkat 37 renameat 38 truncate 45 ftruncate 46 "
        "fallocate 47 openat 56 write 64 writev 66 pwrite64 68 pwritev 70 sendfile 71 fsync 82 fdatasync 83 "
        "renameat2 276 copy_file_range 285 openat2 437"
    ),
}
"""Numbers of the reported calls, by machine."""
WRITES = ("write", "pwrite64", "writev", "pwritev")
SECCOMP = {"x86_64": 317, "aarch64": 277}
PIDFD_GETFD = 438
BY_HANDLE = (*WRITES, "sendfile", "fsync", "fdatasync", "ftruncate", "fallocate", "flock", "copy_file_range")
"""Calls whose first argument is an open file; copy_file_range and sendfile write to another one, see `_target`."""
TWO_PLACES = {"renameat": (2, 3), "renameat2": (2, 3), "linkat": (2, 3), "symlinkat": (1, 2)}
"""Arguments that name the place which a call makes: its folder and its name."""
RECEIVE, SEND = 0xC0502100, 0xC0182101
AT_FDCWD = -100
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SECONDS = 600.0
"""Longest time of a trial, before it counts as hung."""


@dataclass(frozen=True)
class Call:
    """A call on a file below the watched folder.

    Attributes:
        number: Of the reported calls of this child, from 1.
        name: Of the system call.
        path: Of the file; for a rename or a link, of the new name.
        size: Bytes of a write; 0 for other calls.
    """

    number: int
    name: str
    path: str
    size: int = 0


@dataclass(frozen=True)
class Ended:
    """How a supervised child ended.

    Attributes:
        code: Exit code; minus the signal that ended it; None where it was hung.
        said: What it wrote into its pipe.
        calls: The reported calls.
        disturbed: Whether a call was refused or shortened, or a kill was sent.
    """

    code: int | None
    said: str
    calls: tuple[Call, ...]
    disturbed: bool = False

    def well(self) -> str:
        """What it said.

        Raises:
            RuntimeError: Where it did not end with code 0.
        """
        if self.code != 0:
            raise RuntimeError(f"exit code {self.code}: {self.said}")
        return self.said


def is_supported() -> bool:
    """Whether this machine can supervise system calls."""
    if not sys.platform.startswith("linux") or platform.machine() not in NUMBERS:
        return False
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdecimal())
    if release < (5, 9):
        return False
    try:  # a container may forbid it
        ended = in_child(lambda: "")
    except OSError:
        return False
    return ended.code == 0


def supervised(
    run: Callable[[], str],
    folder: Path,
    decide: Callable[[Call], Action],
    *,
    kill_after: float | None = None,
    only_caller: bool = False,
) -> Ended:
    """Run a function in a forked child and decide each of its calls that change a file below a folder.

    A kill ends the child and all processes that it started, or with `only_caller` the process whose call it is.

    Args:
        run: Its result is `said`; an exception ends the child with exit code 1.
        folder: Calls on other places pass unseen.
        decide: Called for each call, before it happens.
        kill_after: Seconds from the first such call to a kill, if the child still runs.

    Raises:
        OSError: Where the kernel forbids it.
    """
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(run, theirs, writer)
    theirs.close()
    os.close(writer)
    with ours:
        _, handles, _, _ = socket.recv_fds(ours, 1, 1)
    if not handles:
        os.waitpid(pid, 0)
        os.close(reader)
        raise OSError(errno.ENOTSUP, "the kernel does not report system calls")
    supervisor = _Supervisor(pid, handles[0], os.path.realpath(folder), decide, only_caller=only_caller)
    try:
        said, code = supervisor.watch(reader, kill_after)
    finally:
        os.close(handles[0])
        os.close(reader)
    return Ended(code, said, tuple(supervisor.calls), supervisor.disturbed)


def in_child(run: Callable[[], str]) -> Ended:
    """Run a function in a forked child, all of whose calls pass.

    Raises:
        OSError: As `supervised`.
    """
    return supervised(run, Path("/nonexistent"), lambda _: "go")


def _child(run: Callable[[], str], channel: socket.socket, writer: int) -> None:
    """What the child does; never returns."""
    code = 1
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent
        channel.settimeout(SECONDS)
        listener = _install_filter()
        if listener < 0:
            channel.send(b"-")
            os._exit(1)
        socket.send_fds(channel, [b"+"], [listener])
        os.close(listener)
        channel.close()
        said = run().encode()
        while said:
            said = said[os.write(writer, said) :]
        code = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into the parent's code
        import traceback

        with suppress(OSError):
            os.write(writer, traceback.format_exc()[-4000:].encode())
    finally:
        os._exit(code)


def _install_filter() -> int:
    """Report the calls of this process and its children from now on; returns the listener's handle, or -1."""
    numbers = sorted(NUMBERS[platform.machine()].values())
    load, equal, leave = 0x20, 0x15, 0x06
    program = [struct.pack("HBBI", load, 0, 0, 0)]
    program += [struct.pack("HBBI", equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program += [struct.pack("HBBI", leave, 0, 0, 0x7FFF0000), struct.pack("HBBI", leave, 0, 0, 0x7FC00000)]
    code = ctypes.create_string_buffer(b"".join(program))
    whole = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter = 38, 1
    all_threads, new_listener, error_of_thread = 1, 8, 16  # after a fork, LanceDB starts its threads again at once
    if libc.prctl(no_new_privileges, 1, 0, 0, 0):
        return -1
    return int(
        libc.syscall(SECCOMP[platform.machine()], set_filter, all_threads | new_listener | error_of_thread, whole)
    )


class _Supervisor:
    """Answers the reported calls of a child and of its threads and children."""

    def __init__(
        self, pid: int, listener: int, folder: str, decide: Callable[[Call], Action], *, only_caller: bool
    ) -> None:
        self.pid, self.listener, self.folder, self.decide = pid, listener, folder, decide
        self.only_caller = only_caller
        self.calls: list[Call] = []
        self.disturbed = False
        self.names = {number: name for name, number in NUMBERS[platform.machine()].items()}

    def watch(self, reader: int, kill_after: float | None) -> tuple[str, int | None]:
        """Answer until the child has ended; returns what it said and its exit code (None: hung)."""
        said, hung = b"", False
        stop, killing = time.monotonic() + SECONDS, float("inf")
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        poll.register(reader, select.POLLIN)
        open_ends = 2
        while open_ends:
            now = time.monotonic()
            hung = hung or now > stop
            if now > min(stop, killing):
                self._kill()
            for handle, event in poll.poll(1000 if kill_after is None else 5):
                if event & select.POLLIN and handle == self.listener:
                    self._answer()
                elif event & select.POLLIN:
                    part = os.read(reader, 2**16)
                    said += part
                    if not part:
                        poll.unregister(reader)
                        open_ends -= 1
                elif event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    poll.unregister(handle)
                    open_ends -= 1
            if kill_after is not None and self.calls:
                killing, kill_after = time.monotonic() + kill_after, None
        _, status = os.waitpid(self.pid, 0)
        return said.decode(errors="replace"), None if hung else os.waitstatus_to_exitcode(status)

    def _kill(self) -> None:
        self.disturbed = True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # the child leads its group

    def _answer(self) -> None:
        """Receive one call, and let it pass or not."""
        request = bytearray(80)
        try:
            fcntl.ioctl(self.listener, RECEIVE, request)
        except OSError:  # the caller has died meanwhile
            return
        key, thread, _, number, _, _, *arguments = struct.unpack("QIIiIQ6Q", request)
        name = self.names[number]
        action: Action = "go"
        try:
            path = self._target(thread, name, arguments)
        except OSError:
            path = ""
        if path == self.folder or path.startswith(self.folder + os.sep):
            size = int(arguments[2]) if name in WRITES[:2] else 0
            call = Call(len(self.calls) + 1, name, path[len(self.folder) + 1 :], size)
            self.calls.append(call)
            action = self.decide(call)
        self._carry_out(key, thread, name, arguments, action)

    def _carry_out(self, key: int, thread: int, name: str, arguments: list[int], action: Action) -> None:
        written = 0
        if action in ("half", "kill half") and name in WRITES[:2]:
            written = self._write_half(thread, name, arguments)
        if action in ("kill", "kill half"):
            if self.only_caller:
                self.disturbed = True
                os.kill(_process_of(thread), signal.SIGKILL)
            else:
                self._kill()
            return
        passes = action == "go" or (action == "half" and not written)
        self.disturbed = self.disturbed or not passes
        refused = -action if isinstance(action, int) else 0
        response = bytearray(struct.pack("QqiI", key, written, refused, 1 if passes else 0))
        with suppress(OSError):  # the caller has died meanwhile
            fcntl.ioctl(self.listener, SEND, response)

    def _write_half(self, thread: int, name: str, arguments: list[int]) -> int:
        """Write the first half of what the child wants to write; returns the number of bytes."""
        content = self._memory(thread, arguments[1], int(arguments[2]) // 2)
        if not content:
            return 0
        process = os.pidfd_open(_process_of(thread))
        libc = ctypes.CDLL(None, use_errno=True)
        handle = libc.syscall(PIDFD_GETFD, process, ctypes.c_int(arguments[0]), 0)
        os.close(process)
        if handle < 0:
            return 0
        try:
            if name == "write":
                return os.write(handle, content)
            return os.pwrite(handle, content, arguments[3])
        finally:
            os.close(handle)

    def _target(self, thread: int, name: str, arguments: list[int]) -> str:
        """The absolute path that a call changes; empty for an opening that only reads."""
        if name in BY_HANDLE:
            handle = arguments[2] if name == "copy_file_range" else arguments[0]
            return _link(f"/proc/{thread}/fd/{handle}").removesuffix(" (deleted)")
        if name in ("open", "openat", "openat2"):
            place = 1 if name == "open" else 2
            flags = arguments[place]
            if name == "openat2":
                flags = struct.unpack("Q", self._memory(thread, arguments[2], 8))[0]
            if not flags & OPEN_TO_WRITE:
                return ""
        if name in ("open", "creat", "mkdir", "rmdir", "unlink", "truncate"):
            return self._absolute(thread, AT_FDCWD, arguments[0])
        if name in ("rename", "link", "symlink"):
            return self._absolute(thread, AT_FDCWD, arguments[1])
        folder, place = TWO_PLACES.get(name, (0, 1))
        at = struct.unpack("i", struct.pack("I", arguments[folder] & 0xFFFFFFFF))[0]
        return self._absolute(thread, at, arguments[place])

    def _absolute(self, thread: int, folder: int, pointer: int) -> str:
        name = os.fsdecode(self._memory(thread, pointer, 4096).split(b"\0")[0])
        if os.path.isabs(name):  # noqa: PTH117 - no path of this process
            return os.path.normpath(name)
        base = _link(f"/proc/{thread}/cwd" if folder == AT_FDCWD else f"/proc/{thread}/fd/{folder}")
        return os.path.normpath(f"{base}/{name}")

    def _memory(self, thread: int, pointer: int, size: int) -> bytes:
        """Bytes of the child's memory, fewer where a page ends."""
        handle = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
        try:
            found = b""
            while len(found) < size:  # page by page: a text may end just before memory that cannot be read
                step = min(size - len(found), 4096 - (pointer + len(found)) % 4096)
                try:
                    part = os.pread(handle, step, pointer + len(found))
                except OSError:
                    break
                found += part
                if not part or (size == 4096 and b"\0" in part):
                    break
            return found
        finally:
            os.close(handle)


def _link(place: str) -> str:
    return str(Path(place).readlink())


def _process_of(thread: int) -> int:
    """The process that a thread belongs to."""
    lines = Path(f"/proc/{thread}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Tgid:"))
