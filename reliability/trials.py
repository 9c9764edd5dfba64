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
from importlib import import_module
from pathlib import Path

from reliability.syscalls import Action, Call, in_child, supervised
from reliability.writers import NOTHING, Kind, found_by
from tshsr.errors import TshsrError

LOCKS = ("flock",)
"""Calls that write nothing; locks have trials of their own."""


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
    kind.begin()
    preload(in_child(lambda: _modules(kind, before)).well())
    old = in_child(lambda: found_by(kind, before)).well()
    shutil.copytree(before, after, symlinks=True)
    done = supervised(lambda: _written(kind, after, 1), after, lambda _: "go")
    new = done.well()
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


def trial(prepared: Prepared, folder: Path, decide: Callable[[Call], Action]) -> str:
    """One trial in a new folder; returns what was lost, empty where nothing was."""
    kind = prepared.kind
    shutil.copytree(prepared.folder, folder, symlinks=True)
    ended = supervised(lambda: attempt(kind, folder), folder, decide)
    said = json.loads(ended.said) if ended.code == 0 else {"end": "killed", "text": ended.said}
    if ended.code not in (0, -9):
        return f"the writer ended with code {ended.code}: {ended.said[-600:]}"
    return next_run(prepared, folder, said)


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
    between = not prepared.kind.whole and not first.startswith(("torn", NOTHING))
    nothing = prepared.old.startswith(NOTHING) and first.startswith(NOTHING)
    if first not in allowed and not between and not nothing:
        return f"a reader finds {first}, neither the old nor the new content"
    if found["second"] != prepared.new:
        return f"the next run ends with {found['second']}"
    return ""
