"""Clocks that jump: every long job, an index that changes and a server, while the time of day steps back and forward.

`python -m reliability.clocks` compiles `jumping_clock.c`, starts itself under it, and writes `results/clocks.json`.
What the processes read of the time of day jumps every few calls. A job survives where its end is that of an undisturbed
one.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reliability.clock_server import tried_requests
from reliability.jobs import COLLECTIONS, TRAINING, Job, changes_of_index, end_of_rows, index, indexed_rows
from reliability.options import existing_folder, named
from reliability.results import RESULTS, Row, summary, write_result
from reliability.syscalls import in_child, is_supported
from reliability.trials import preload

SOURCE = Path(__file__).with_name("jumping_clock.c")
SERVER = "requests to a server, beside changes of its index"
CHANGES = Job("changes of an index", index, changes_of_index, end_of_rows, indexed_rows)
JOBS = (*TRAINING, *COLLECTIONS, CHANGES)
MARGIN = 10
"""Seconds by which a jump may seem longer, on a busy machine."""


@dataclass(frozen=True)
class Clock:
    """A wall clock that is wrong, by two values in turn.

    Attributes:
        name: In results.
        first: Seconds from the system's clock, for `calls` calls.
        second: Seconds from the system's clock for the next `calls` calls, and so on.
    """

    name: str
    first: int
    second: int
    calls: int = 7

    def set(self) -> None:
        """Let the clock of this process, and of those that it forks, be this one instead of the system's.

        Raises:
            RuntimeError: Where the time that it reads does not jump by these values.
        """
        function = ctypes.CDLL(None).set_clock
        function.argtypes = (ctypes.c_longlong, ctypes.c_longlong, ctypes.c_uint)
        begun = time.time()
        function(self.first, self.second, self.calls)
        read = [round(time.time() - begun) for _ in range(2 * self.calls)]
        wanted = sorted((self.first, self.second))
        if any(abs(one - other) > MARGIN for one, other in zip((min(read), max(read)), wanted, strict=True)):
            raise RuntimeError(f"{self.name}: the time jumps by {min(read)} and {max(read)} s instead of {wanted}")


STEADY = Clock("the system's", 0, 0)
CLOCKS = (
    Clock("an hour back and forth", 0, -3600),
    Clock("a day forward and back", 0, 86_400),
    Clock("61 seconds forward and back", 0, 61),
    Clock("between 1970 and the year 2100", 86_400 - int(time.time()), 4_102_444_800 - int(time.time())),
)
"""The third one is just above the time for which replaced versions of an index are kept."""


def has_clock() -> bool:
    """Whether this process runs under the jumping clock."""
    return hasattr(ctypes.CDLL(None), "set_clock")


def compiler() -> str | None:
    """The C compiler, where there is one."""
    return shutil.which("cc")


@contextmanager
def environment() -> Iterator[dict[str, str]]:
    """The environment of a process under the jumping clock, which is compiled for it.

    Raises:
        subprocess.CalledProcessError: Where it does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="tshsr-clock-") as folder:
        library = Path(folder) / "clock.so"
        command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)  # noqa: S603
        yield {**os.environ, "LD_PRELOAD": str(library)}


def under(clock: Clock, run: Callable[[Path], object], folder: Path) -> str:
    """Run something under a clock; the modules that are loaded then."""
    clock.set()
    run(folder)
    return " ".join(sys.modules)


def ended(job: Job, clock: Clock, folder: Path) -> str:
    """The end of a job that runs under a clock.

    Raises:
        RuntimeError: Where it fails.
    """
    in_child(partial(under, STEADY, job.begin, folder)).well()
    preload(in_child(partial(under, clock, job.run, folder)).well())
    return in_child(partial(job.end, folder)).well()


def row_of(job: Job, clocks: Sequence[Clock], folder: Path) -> tuple[Row, list[str]]:
    """A job under each clock, and descriptions of what was lost."""
    place, lost = folder / job.name.replace(" ", "-").replace(",", ""), []
    expected = ended(job, STEADY, place / "steady")
    for number, clock in enumerate(clocks):
        try:
            wrong = "" if ended(job, clock, place / str(number)) == expected else "the end is another one"
        except RuntimeError as error:
            wrong = str(error)[-1500:]
        if wrong:
            lost.append(f"{job.name}, {clock.name}: {wrong}")
    return Row(job.name, len(clocks), len(clocks) - len(lost), len(lost)), lost


def server_row(clocks: Sequence[Clock], folder: Path) -> tuple[Row, list[str]]:
    """A server whose clock, and that of the process which changes its index, is each of these."""
    tried, lost = 0, list[str]()
    for number, clock in enumerate(clocks):
        asked, wrong = tried_requests(clock.set, folder / f"server-{number}")
        tried += asked
        lost += [f"{SERVER}, {clock.name}: {line}" for line in wrong]
    return Row(SERVER, tried, tried - len(lost), len(lost)), lost


def campaign(names: Sequence[str], clocks: Sequence[Clock], folder: Path) -> tuple[list[Row], list[str]]:
    """All jobs of these names under all clocks: rows, and descriptions of what was lost."""
    rows, lost = [], list[str]()
    for job in JOBS:
        if job.name in names:
            row, wrong = row_of(job, clocks, folder)
            rows.append(row)
            lost += wrong
            print(f"{row.what}: {summary([row])}", flush=True)  # noqa: T201
    if SERVER in names:
        row, wrong = server_row(clocks, folder)
        rows.append(row)
        lost += wrong
    return rows, lost


def main() -> None:
    """Run the campaign, in a process under the jumping clock."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--job", action="append", help="only jobs whose name holds this; writes no result")
    parser.add_argument("--clock", action="append", help="only clocks whose name holds this; writes no result")
    parser.add_argument("--out", type=existing_folder, default=RESULTS)
    wanted = parser.parse_args()
    names = named(parser, "--job", wanted.job, [*(job.name for job in JOBS), SERVER])
    clocks = named(parser, "--clock", wanted.clock, [clock.name for clock in CLOCKS])
    if compiler() is None or not is_supported():
        raise SystemExit("this campaign needs Linux 5.9 or newer, on x86-64 or ARM, and a C compiler named cc.")
    if not has_clock():
        with environment() as variables:
            command = [sys.executable, "-m", "reliability.clocks", *sys.argv[1:]]
            raise SystemExit(subprocess.run(command, env=variables, check=False).returncode)  # noqa: S603
    with tempfile.TemporaryDirectory(prefix="tshsr-clocks-") as folder:
        rows, lost = campaign(names, [clock for clock in CLOCKS if clock.name in clocks], Path(folder))
    print("\n".join([*lost, *(f"{row.what}: {summary([row])}" for row in rows), summary(rows)]))  # noqa: T201
    if not wanted.job and not wanted.clock:
        title = "Clocks that jump"
        write_result("clocks", title, "make clocks", rows, folder=wanted.out)
    if lost:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
