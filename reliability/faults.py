"""Fault injection over the file layer: every system call of every kind of writing fails in turn.

`python -m reliability.faults` writes `results/faults.json` and prints survived / tried; `--quick` tries a sample.

A trial copies the old content, writes the new one while one call fails, and reads. It survives where the writer ended
with the new content or with one sentence, where a reader finds the old or the new content whole, and where the same
writing, repeated without a fault, ends with the new content.
"""

from __future__ import annotations

import argparse
import errno
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path

from reliability.results import RESULTS, Row, summary, write_result
from reliability.syscalls import WRITES, Action, Call, Ended, is_supported, supervised
from reliability.writers import KINDS, NOTHING, Kind, found_by
from tshsr.errors import TshsrError

Fault = Callable[[int, Call], Action]
"""What becomes of a call, given the number of the call at which the fault begins."""
NOWHERE = Path("/nonexistent")
"""The watched folder of a child that no call fails."""
TAKES_SPACE = (*WRITES, "open", "openat", "openat2", "creat", "mkdir", "mkdirat", "fsync", "fallocate", "ftruncate")
LOCKS = ("flock",)
"""Calls that write nothing; locks have trials of their own."""


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
        lost: A description of every lost trial.
    """

    kind: Kind
    calls: int = 0
    tried: int = 0
    lost: list[str] = field(default_factory=list)

    def row(self) -> Row:
        """As a row of the results."""
        return Row(
            self.kind.name,
            self.tried,
            self.tried - len(self.lost),
            len(self.lost),
            f"{self.calls} system calls" if self.calls else "",
        )


@dataclass(frozen=True)
class Prepared:
    """A kind with its old content.

    Attributes:
        folder: Of the old content; trials copy it.
        old: What a reader finds there.
        new: What a reader finds after an undisturbed writing.
        calls: Those of the undisturbed writing.
    """

    kind: Kind
    folder: Path
    old: str
    new: str
    calls: tuple[Call, ...]


def prepare(kind: Kind, folder: Path) -> Prepared:
    """Write the old content, and in a copy the new one, without faults.

    Raises:
        RuntimeError: Where the undisturbed writing fails: the campaign itself is broken.
    """
    before, after = folder / "before", folder / "after"
    before.mkdir(parents=True)
    preload(_ended_well(supervised(lambda: _modules(kind, before), NOWHERE, lambda _: "go")))
    old = _ended_well(supervised(lambda: found_by(kind, before), NOWHERE, lambda _: "go"))
    shutil.copytree(before, after, symlinks=True)
    done = supervised(lambda: _written(kind, after, 1), after, lambda _: "go")
    new = _ended_well(done)
    if old == new:
        raise RuntimeError(f"{kind.name}: the old and the new content do not differ")
    return Prepared(kind, before, old, new, tuple(call for call in done.calls if call.name not in LOCKS))


def _written(kind: Kind, folder: Path, version: int) -> str:
    kind.write(folder, version)
    return found_by(kind, folder)


def preload(names: str) -> None:
    """Import what the writer imports, so that no trial does; LanceDB starts threads, which do not survive a fork."""
    for name in names.split():
        if name.partition(".")[0] not in ("lancedb", "lance", "__main__"):
            with suppress(ImportError):
                import_module(name)


def _modules(kind: Kind, folder: Path) -> str:
    """Write the old content; the modules that this imports."""
    kind.write(folder, 0)
    found_by(kind, folder)
    return " ".join(sys.modules)


def _ended_well(ended: Ended) -> str:
    if ended.code != 0:
        raise RuntimeError(ended.said)
    return ended.said


def trial(prepared: Prepared, folder: Path, decide: Callable[[Call], Action]) -> str:
    """One trial in a new folder; returns what was lost, empty where nothing was."""
    kind = prepared.kind
    shutil.copytree(prepared.folder, folder, symlinks=True)
    ended = supervised(lambda: attempt(kind, folder), folder, decide)
    said = json.loads(ended.said) if ended.code == 0 else {"end": "killed", "text": ended.said}
    if ended.code not in (0, -9):
        return f"the writer ended with code {ended.code}: {ended.said[-600:]}"
    after = supervised(lambda: follow(kind, folder), NOWHERE, lambda _: "go")
    if after.code != 0:
        return f"the next run ended with code {after.code}: {after.said[-600:]}"
    return judge(prepared, said, json.loads(after.said))


def attempt(kind: Kind, folder: Path) -> str:
    """Write the new content; how it ended, as JSON."""
    try:
        kind.write(folder, 1)
    except TshsrError as error:
        return json.dumps({"end": "refused", "text": str(error)})
    return json.dumps({"end": "done", "text": ""})


def follow(kind: Kind, folder: Path) -> str:
    """Read what the attempt left, write again, and read again."""
    first = found_by(kind, folder)
    kind.write(folder, 1)
    return json.dumps({"first": first, "second": found_by(kind, folder)})


def judge(prepared: Prepared, said: dict[str, str], found: dict[str, str]) -> str:
    """What was lost in a trial; empty where nothing was."""
    first, allowed = found["first"], {prepared.old, prepared.new}
    if said["end"] == "refused" and ("\n" in said["text"] or not said["text"].endswith((".", "folder."))):
        return f"no sentence: {said['text']!r}"
    if said["end"] == "done" and first != prepared.new:
        return f"the writer reported success, and a reader finds {first}"
    between = not prepared.kind.whole and not first.startswith(("torn", NOTHING))
    nothing = prepared.old.startswith(NOTHING) and first.startswith(NOTHING)
    if first not in allowed and not between and not nothing:
        return f"a reader finds {first}, neither the old nor the new content"
    if found["second"] != prepared.new:
        return f"the next run ends with {found['second']}"
    return ""


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
        tally.tried += 1
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
    parser.add_argument("--quick", type=int, metavar="N", help="N trials of a kind at most; no result is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only kinds whose name holds this word")
    parser.add_argument("--out", type=Path, default=RESULTS)
    wanted = parser.parse_args()
    if not is_supported():
        raise SystemExit("this machine cannot supervise system calls: Linux 5.9 or newer with seccomp is needed")
    kinds = [kind for kind in KINDS if not wanted.kind or any(word in kind.name for word in wanted.kind)]
    tallies = campaign(kinds, most=wanted.quick, seed=wanted.seed)
    with scratch() as folder:
        from reliability import conditions  # it has its trials from here

        real, lost = conditions.campaign(kinds, folder, None if wanted.quick is None else 1)
    report = [*(tally.row() for tally in tallies), *real]
    lines = [*(line for tally in tallies for line in tally.lost), *lost]
    lines += [f"{row.what}: {summary([row])}" for row in report]
    lines.append(summary(report))
    print("\n".join(lines))  # noqa: T201
    if wanted.quick is None and not wanted.kind:
        write_result("faults", "Faults of the file layer", "make faults", report, folder=wanted.out)
    if any(row.lost for row in report):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
