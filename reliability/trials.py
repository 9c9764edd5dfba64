"""A trial of the file layer: the old content, the new one written under a fault, and what is found afterwards.

It survives where the writer ended with the new content or with one sentence, where a reader finds the old or the new
content whole, and where the same writing, repeated without a fault, ends with the new content.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from reliability.syscalls import Action, Call, in_child, supervised
from reliability.writers import NOTHING, Kind, found_by
from tshsr.errors import TshsrError

LOCKS = ("flock",)
"""Calls that write nothing; locks have trials of their own."""
ATTEMPTS = 3
"""Writings of a trial, until the call that fails is reached: LanceDB's threads make other calls each time."""


@dataclass(frozen=True)
class Prepared:
    """A kind with its old content.

    Attributes:
        folder: Of the old content; trials copy it.
        old: What a reader finds there.
        new: What a reader finds after an undisturbed writing.
        calls: Those of the undisturbed writing.
        largest: Bytes of the largest file that it makes or changes.
    """

    kind: Kind
    folder: Path
    old: str
    new: str
    calls: tuple[Call, ...]
    largest: int


def prepare(kind: Kind, folder: Path) -> Prepared:
    """Write the old content, and in a copy the new one, without faults.

    Raises:
        RuntimeError: Where the undisturbed writing fails: the campaign itself is broken.
    """
    before, after = folder / "before", folder / "after"
    before.mkdir(parents=True)
    kind.begin()
    preload(in_child(lambda: _modules(kind, before)).well())
    old = in_child(lambda: found_by(kind, before)).well()
    shutil.copytree(before, after, symlinks=True)
    done = supervised(lambda: attempt(kind, after), after, lambda _: "go")
    said = json.loads(done.well())
    if said["end"] != "done":
        raise RuntimeError(f"{kind.name}: {said['text']}")
    new = in_child(lambda: found_by(kind, after)).well()
    if old == new:
        raise RuntimeError(f"{kind.name}: the old and the new content do not differ")
    calls = tuple(call for call in done.calls if call.name not in LOCKS)
    return Prepared(kind, before, old, new, calls, largest_change(before, after))


def largest_change(before: Path, after: Path) -> int:
    """Bytes of the largest file of a folder that another one lacks, or has with another content."""
    files = [path for path in after.rglob("*") if path.is_file()]
    others = [before / path.relative_to(after) for path in files]
    pairs = zip(files, others, strict=True)
    changed = [path for path, other in pairs if not other.is_file() or path.read_bytes() != other.read_bytes()]
    return max((path.stat().st_size for path in changed), default=0)


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


def trial(prepared: Prepared, folder: Path, decide: Callable[[Call], Action]) -> str | None:
    """One trial in a new folder, repeated where the writer never makes the call that `decide` lets fail.

    Returns:
        What was lost, empty where nothing was; None where nothing failed either.
    """
    for number in range(ATTEMPTS):
        place = folder / str(number)
        shutil.copytree(prepared.folder, place, symlinks=True)
        ended = supervised(partial(attempt, prepared.kind, place), place, decide)
        if ended.code not in (0, -9):
            return f"the writer ended with code {ended.code}: {ended.said[-600:]}"
        if ended.disturbed:
            killed = {"end": "killed", "text": ended.said}
            return next_run(prepared, place, json.loads(ended.said) if ended.code == 0 else killed)
    return None


def next_run(prepared: Prepared, folder: Path, said: dict[str, str]) -> str:
    """Repeat the writing without a fault; returns what was lost, empty where nothing was."""
    after = in_child(lambda: follow(prepared.kind, folder))
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
    if said["end"] == "refused" and ("\n" in said["text"] or not said["text"].endswith(".")):
        return f"no sentence: {said['text']!r}"
    if said["end"] == "done" and first != prepared.new:
        return f"the writer reported success, and a reader finds {first}"
    between = not prepared.kind.whole and lies_between(prepared.old, first, prepared.new)
    nothing = prepared.old.startswith(NOTHING) and first.startswith(NOTHING)
    if first not in allowed and not between and not nothing:
        return f"a reader finds {first}, neither the old nor the new content"
    if found["second"] != prepared.new:
        return f"the next run ends with {found['second']}"
    return ""


def lies_between(old: str, found: str, new: str) -> bool:
    """Whether rows, as a JSON object, are all old ones, unchanged, and any of the new ones."""
    try:
        first, middle, last = (json.loads(rows).items() for rows in (old, found, new))
    except ValueError:  # torn, or refused by a sentence
        return False
    return bool(first <= middle <= last)
