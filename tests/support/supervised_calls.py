"""A process that supervises system calls of its children, for `tests/reliability`; imports no torch.

`python -m tests.support.supervised_calls FOLDER` prints what becomes of calls, a line for each child.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reliability.syscalls import Action, Call, is_supported, supervised

DECISIONS: dict[str, Callable[[Call], Action]] = {
    "nothing": lambda _: "go",
    "refused": lambda call: errno.EIO if call.name == "openat" else "go",
    "half of a folder": lambda call: "half" if call.name.startswith("mkdir") else "go",
    "half of a write": lambda call: "half" if call.name == "write" else "go",
    "killed": lambda call: "kill" if call.name == "write" else "go",
}


def write(folder: Path) -> str:
    """A folder, and a file in it."""
    (folder / "made").mkdir()
    (folder / "made" / "file").write_text("four")
    return ""


def thread_of_a_fork(folder: Path) -> str:
    """Calls of a thread that the fork itself starts, as LanceDB does, before the calls are reported."""
    begin, threads = threading.Event(), list[threading.Thread]()

    def work() -> None:
        begin.wait()
        write(folder)

    def start() -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    def finish() -> str:
        begin.set()
        threads[-1].join()
        return ""

    os.register_at_fork(after_in_child=start)
    ended = supervised(finish, folder, lambda _: "go")
    return f"{ended.code} {' '.join(call.path for call in ended.calls)}"


def main(folder: Path) -> None:
    """Print how each child ends."""
    if not is_supported():
        sys.stdout.write("unsupported\n")
        return
    for name, decide in DECISIONS.items():
        place = folder / name
        place.mkdir()
        ended = supervised(partial(write, place), place, decide)
        sys.stdout.write(f"{name}: {ended.code} {'disturbed' if ended.disturbed else 'undisturbed'}\n")
    sys.stdout.write(f"a thread: {thread_of_a_fork(folder)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
