"""Fault injection over the file layer: every system call of every kind of writing fails in turn.

`python -m reliability.faults` writes `results/faults.json` and prints survived / tried; `--quick` tries a sample.
A trial (`reliability.trials`) copies the old content, writes the new one while one call fails, and reads.
"""

from __future__ import annotations

import argparse
import errno
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from reliability import conditions
from reliability.options import existing_folder, from_least, named
from reliability.results import RESULTS, Row, summary, with_left_out, write_result
from reliability.syscalls import WRITES, Action, Call, is_supported
from reliability.trials import LOCKS, Prepared, prepare, trial
from reliability.writers import KINDS, Kind

Fault = Callable[[int, Call], Action]
"""What becomes of a call, given the number of the call at which the fault begins."""
TAKES_SPACE = (*WRITES, "open", "openat", "openat2", "creat", "mkdir", "mkdirat", "fsync", "fallocate", "ftruncate")


def full_disk(at: int, call: Call) -> Action:
    """From a call on, nothing finds space; renames and deletions pass after it."""
    fails = call.number == at or (call.number > at and call.name in TAKES_SPACE)
    return errno.ENOSPC if fails else "go"


def read_only(at: int, call: Call) -> Action:
    """From a call on, the disk is read-only."""
    return errno.EROFS if call.number >= at and call.name not in LOCKS else "go"


def input_output(at: int, call: Call) -> Action:
    """One call fails."""
    return errno.EIO if call.number == at else "go"


def short_write(at: int, call: Call) -> Action:
    """One write writes half."""
    return "half" if call.number == at else "go"


def kill(at: int, call: Call) -> Action:
    """SIGKILL before a call."""
    return "kill" if call.number == at else "go"


def kill_inside(at: int, call: Call) -> Action:
    """SIGKILL after half of a write."""
    return "kill half" if call.number == at else "go"


FAULTS: dict[str, Fault] = {
    "full disk": full_disk,
    "read-only disk": read_only,
    "I/O error": input_output,
    "short write": short_write,
    "kill": kill,
    "kill inside a write": kill_inside,
}
ONLY_WRITES = ("short write", "kill inside a write")


@dataclass
class Tally:
    """Trials of one kind of file.

    Attributes:
        left_out: Trials in which nothing failed, as the writer did not make the call again; not tried.
        lost: A description of every lost trial.
    """

    kind: Kind
    calls: int = 0
    tried: int = 0
    left_out: int = 0
    lost: list[str] = field(default_factory=list)

    def row(self) -> Row:
        """As a row of the results."""
        note = with_left_out(f"{self.calls} system calls", self.left_out)
        return Row(self.kind.name, self.tried, self.tried - len(self.lost), len(self.lost), note)


def plan(prepared: Prepared, dice: random.Random, most: int | None) -> list[tuple[str, Call]]:
    """The faults to try: every one at every call, or a sample of `most`."""
    every = [
        (name, call)
        for call in prepared.calls
        for name in FAULTS
        if name not in ONLY_WRITES or (call.name in WRITES and call.size > 1)
    ]
    return every if most is None or len(every) <= most else dice.sample(every, most)


def run_kind(kind: Kind, folder: Path, dice: random.Random, most: int | None) -> Tally:
    """All trials of one kind."""
    prepared = prepare(kind, folder / "prepared")
    tally = Tally(kind, len(prepared.calls))
    for number, (name, call) in enumerate(plan(prepared, dice, most)):
        place = folder / f"trial-{number}"
        lost = trial(prepared, place, partial(FAULTS[name], call.number))
        tally.tried += lost is not None
        tally.left_out += lost is None
        if lost:
            tally.lost.append(f"{kind.name}, {name} at {call.name} {call.path!r} ({call.number}): {lost}")
        shutil.rmtree(place, ignore_errors=True)
    return tally


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tshsr-faults-") as folder:
        yield Path(folder)


def campaign(kinds: Sequence[Kind] = KINDS, *, most: int | None = None, seed: int = 0) -> list[Tally]:
    """Trials of several kinds.

    Args:
        most: Trials of a kind, at most; None: every fault at every call.
        seed: Of the sample.
    """
    dice = random.Random(seed)  # noqa: S311 - no secret
    with scratch() as folder:
        return [run_kind(kind, folder / str(number), dice, most) for number, kind in enumerate(kinds)]


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", type=from_least(1), metavar="N", help="N trials of a kind at most; no result is written"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only kinds whose name holds this word")
    parser.add_argument("--out", type=existing_folder, default=RESULTS)
    wanted = parser.parse_args()
    names = named(parser, "--kind", wanted.kind, [kind.name for kind in KINDS])
    kinds = [kind for kind in KINDS if kind.name in names]
    if not is_supported():
        raise SystemExit("this machine cannot supervise system calls: Linux 5.9 or newer with seccomp is needed")
    tallies = campaign(kinds, most=wanted.quick, seed=wanted.seed)
    with scratch() as folder:
        real, lost = conditions.campaign(kinds, folder, None if wanted.quick is None else 1)
    report = [*(tally.row() for tally in tallies), *real]
    lines = [*(line for tally in tallies for line in tally.lost), *lost]
    lines += [f"{row.what}: {summary([row])}, {row.note}" for row in report]
    lines.append(summary(report))
    print("\n".join(lines))  # noqa: T201
    if wanted.quick is None and not wanted.kind:
        write_result("faults", "Faults of the file layer", "make faults", report, folder=wanted.out)
    if any(row.lost for row in report):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
