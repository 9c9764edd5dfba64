"""The machine and the process: progress callbacks, provenance of a figure, cores, child processes, the allocator."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Protocol, TypedDict

PACKAGE = Path(__file__).resolve().parent
_MAIN = threading.Lock()
"""Held while the main module is hidden."""


class Provenance(TypedDict):
    """Software and hardware of a measured figure.

    Attributes:
        commit: The checkout's commit, with "+changed" where the package differs from it; "unknown" without one.
        hardware: CPU, cores, memory, and the GPU where there is one.
        versions: Of python, torch, numpy and tshsr.
        time: UTC, ISO 8601.
    """

    commit: str
    hardware: str
    versions: dict[str, str]
    time: str


class Progress(Protocol):
    """A callback that a long job calls after every few items."""

    def __call__(self, done: int, total: int, /) -> None:
        """Report that `done` of `total` items are finished."""


class Begin(Protocol):
    """A callback that starts one stage of a job."""

    def __call__(self, activity: str, unit: str, /) -> Progress:
        """Start a stage; its activity ("encoding") and unit ("pictures")."""


def no_progress(_done: int, _total: int, /) -> None:
    """No-op progress callback."""


def begin_no_progress(_activity: str, _unit: str, /) -> Progress:
    """No-op `Begin` callback."""
    return no_progress


_BEGIN: ContextVar[Begin] = ContextVar("begin", default=begin_no_progress)


def current_begin() -> Begin:
    """The `Begin` callback of the block that the caller runs in, for jobs that only sometimes take long."""
    return _BEGIN.get()


@contextmanager
def progress_to(begin: Begin) -> Iterator[None]:
    """Let `current_begin` give this callback while the block runs."""
    token = _BEGIN.set(begin)
    try:
        yield
    finally:
        _BEGIN.reset(token)


def provenance() -> Provenance:
    """The provenance of a figure measured now."""
    return Provenance(
        commit=commit_of(PACKAGE),
        hardware=hardware(),
        versions={
            "python": platform.python_version(),
            **{name: package_version(name) for name in ("torch", "numpy", "tshsr")},
        },
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def commit_of(package: Path) -> str:
    """The commit of the checkout that holds this package.

    "unknown" for a package that is installed inside another repository (in a virtual environment, say), which does not
    track it.
    """
    if not git(package, "ls-files", "--", "__init__.py"):
        return "unknown"
    commit = git(package, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+changed" if git(package, "status", "--porcelain", "--", ".") else "")


def git(folder: Path, *arguments: str) -> str:
    """Output of git in a folder; empty where git is missing or fails."""
    program = shutil.which("git")
    if program is None:
        return ""
    # Git hooks export GIT_DIR and GIT_INDEX_FILE, which would select another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = [program, "-C", str(folder), *arguments]
    # Fixed program and arguments, without user input.
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603  # nosec B603
    return result.stdout.strip() if result.returncode == 0 else ""


def hardware() -> str:
    """CPU model, usable cores, memory and GPU in one line."""
    import torch  # takes a second to load, and the command line imports this module

    parts = [cpu_model(), f"{usable_cores()} cores"]
    if memory := memory_bytes():
        parts.append(f"{memory / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}")
    return ", ".join(parts)


def memory_bytes() -> int:
    """Bytes of the machine's memory; 0 where they are unknown."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):  # Windows has no sysconf
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the CPU, or its architecture where the name is unknown."""
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for each operation of PyTorch on the CPU; the former number is restored afterwards."""
    import torch  # takes a second to load, and the command line imports this module

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C (SIGINT) back until the block ends; processes started in the block never receive it.

    A new interpreter would print a traceback if Ctrl-C arrived during its imports, before this package can ignore the
    signal. On POSIX it therefore inherits a mask that blocks SIGINT; elsewhere `end_with_parent` ignores it later.
    """
    held: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    # Only the main thread can set handlers.
    handled = handler is not None and threading.current_thread() is threading.main_thread()
    if handled:
        signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    masked = hasattr(signal, "pthread_sigmask")
    if masked:
        from multiprocessing import resource_tracker  # not on Windows

        # multiprocessing starts its tracker with the first process, and unblocks SIGINT after that.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handled:
            signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where a job can be continued: it ends as by Ctrl-C, with its work saved."""


@contextmanager
def termination_delayed() -> Iterator[Callable[[], bool]]:
    """Delay SIGTERM until the block ends; then the former handler, or the system's default, gets it.

    Yields:
        Whether it has come; always False outside the main thread, where no handler can be set.
    """
    received: list[int] = []
    former = signal.getsignal(signal.SIGTERM)
    if former in (None, signal.SIG_IGN) or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, former)
        if received:
            signal.raise_signal(signal.SIGTERM)


def is_running(process: int) -> bool:
    """Whether a process of this machine runs; True where that cannot be known."""
    if os.name != "posix":  # on Windows, os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def main_hidden() -> Iterator[None]:
    """Start processes that do not import the program's main module: a script without a guard would run again in each.

    A spawned process imports the module whose name or file it finds in `__main__` when it starts. Hidden, nothing that
    is defined there can be sent to it.
    """
    main: dict[str, object] = vars(sys.modules["__main__"])
    names = ("__spec__", "__file__")
    with _MAIN:
        before = {name: main[name] for name in names if name in main}
        main.update(dict.fromkeys(names))
        try:
            yield
        finally:
            for name in names:
                del main[name]
            main.update(before)


def end_with_parent() -> None:
    """Ignore Ctrl-C in this worker process, and end it when its parent process ends, even by a kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the parent is not for its workers
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_reachable(url: str, seconds: float = 5.0) -> bool:
    """Whether a server answers at a URL; any answer counts, also a refusal or a certificate that is not trusted.

    Without a network, the download libraries retry for half a minute; this check fails at once, or after `seconds`
    where the name server or the server does not respond.
    """
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    answered: list[bool] = []

    def request() -> None:
        try:
            # Proxies are those of the environment, as in the libraries.
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()  # noqa: S310  # nosec B310
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, ValueError) as error:  # the second of what is no URL
            reason = getattr(error, "reason", error)
            answered.append(isinstance(reason, ssl.SSLError))
            return
        except http.client.HTTPException as error:  # a bad name, or an answer that is no HTTP
            answered.append(not isinstance(error, http.client.InvalidURL))
            return
        answered.append(True)

    thread = threading.Thread(target=request, daemon=True)  # a thread, because looking up a name has no time limit
    thread.start()
    thread.join(seconds)
    return answered == [True]


def package_version(name: str = "tshsr") -> str:
    """The installed version of a package; "unknown" where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4
"""Parameters of mallopt, from glibc's malloc.h."""
KEEP_BYTES = 2**31 - 1
"""Trim threshold: the largest value of the parameter."""
PAD_BYTES = 64 * 2**20
"""Growth step of the heap."""


def keep_freed_memory() -> bool:
    """Keep freed memory for later allocations, instead of returning it to the system; glibc only.

    Returns:
        Whether the allocator accepted the parameters.
    """
    return _set((MMAP_MAX, 0), (TRIM_THRESHOLD, KEEP_BYTES), (TOP_PAD, PAD_BYTES))


def release_freed_memory() -> bool:
    """Undo `keep_freed_memory`, for comparisons.

    glibc raises its thresholds while a program runs (mallopt(3)): MMAP_THRESHOLD to the largest freed block, and
    TRIM_THRESHOLD to twice that. These values follow from temporaries of up to 16 MiB.

    Returns:
        Whether the allocator accepted the parameters.
    """
    defaults = (MMAP_MAX, 65536), (MMAP_THRESHOLD, 16 * 2**20), (TRIM_THRESHOLD, 32 * 2**20), (TOP_PAD, 128 * 2**10)
    return _set(*defaults) and trim()


def trim() -> bool:
    """Return all free memory to the system now; False where the allocator is not glibc's."""
    if not _is_glibc():
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True


def _set(*settings: tuple[int, int]) -> bool:
    """Whether the allocator is glibc's and accepted all parameters."""
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)


def _is_glibc() -> bool:
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"
