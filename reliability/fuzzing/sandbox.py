"""Limits of a process that reads hostile input: time, memory, and where it may write. POSIX.

A violation of the last is recorded by an audit hook of Python, which also sees programs that are started, connections
and classes that are unpickled. Writes of native code are seen by their traces in a folder of decoys.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import resource

SECONDS, BLOCKED_SECONDS = 10.0, 60.0
"""An input that takes more processor time, or more time without using it, ends the process, by the default action of
SIGPROF and SIGALRM, which needs no Python."""
MEMORY = 2**30
"""Bytes of address space that the inputs of one process may add."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FOLLOWING = ("open", "os.truncate", "os.chmod", "os.chown", "os.utime")
"""Events that change what a link names; others change the link."""
PATHS = {
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.utime": (0,),
    "shutil.rmtree": (0,),
}
"""Events that change files, with the places of their paths."""
FORBIDDEN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pickle.find_class"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open"),
)
"""Events that no reader of data may cause."""


class Sandbox:
    """Watches this process; one a process, as an audit hook stays.

    Args:
        folder: The only place where files may be written.

    Attributes:
        violations: What the current input did outside of it.
    """

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self.watching = False
        self.violations: list[str] = []
        tempfile.tempdir = self.root
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        sys.addaudithook(self._audit)

    def limit_memory(self) -> None:
        """From now on, the address space may grow by `MEMORY`."""
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEMORY,) * 2)

    def __enter__(self) -> Sandbox:
        self.violations = []
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, BLOCKED_SECONDS)
        self.watching = True
        return self

    def __exit__(self, *_: object) -> None:
        self.watching = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self._check(event, path)
        elif event in PATHS:
            for place in PATHS[event]:
                self._check(event, arguments[place])
        elif event in FORBIDDEN:
            self.violations.append(f"{event} {arguments!r:.200}")

    def _check(self, event: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # an open file
        name = os.fsdecode(path)
        self.watching = False  # realpath opens nothing, but may be changed to
        try:
            place = name if event in FOLLOWING else str(Path(name).parent)
            inside = f"{os.path.realpath(place)}/".startswith(f"{self.root}/")
        finally:
            self.watching = True
        if not inside and name != os.devnull:
            self.violations.append(f"{event} {name!r:.200}")


def address_space() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak_memory() -> int:
    """Largest resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def decoys(folder: Path) -> dict[str, bytes]:
    """Files beside the working folder, of which none may change."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in sorted(folder.rglob("*"))
    }
