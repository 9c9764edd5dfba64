"""`tshsr audit-log`: the wrong figures of a log of SCAN, SGRAF or VSE++."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tshsr.cli.options import Argument, Output, parse
from tshsr.cli.screen import Screen
from tshsr.metrics.scan_logs import Audit, read_log


@dataclass(frozen=True)
class AuditLog:
    """Check the recalls of a log as SCAN, SGRAF and VSE++ print it, and list those that are wrong."""

    log: Annotated[Path, Argument("LOG", positional=True)]
    """The file."""
    json: Output = None
    """Write the audit to this file; - writes it to stdout, in place of the table."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Check a log."""
    wanted = parse(AuditLog, "tshsr audit-log", arguments, example="tshsr audit-log log.txt")
    found = read_log(wanted.log)
    if wanted.json != "-":
        show_audit(screen, found)
    if wanted.json is not None:
        screen.json(json.dumps(found.to_json(), indent=2), wanted.json)


def show_audit(screen: Screen, audit: Audit) -> None:
    """The figures of a log that are wrong, with the right ones."""
    rows = [
        (str(each.line), each.label, joined(each.printed), joined(each.right) if each.right else "?", each.note)
        for each in audit.findings
        if each.wrong
    ]
    for each in (each for each in audit.findings if not each.wrong and each.right is None):
        screen.note(f"line {each.line}, {each.label}: cannot be checked, {each.note}")
    if rows:
        screen.table(("line", "label", "printed", "right", "printed figure"), rows)
    checked = sum(each.right is not None or each.wrong for each in audit.findings)
    screen.say(f"{len(rows)} of {checked} lines with figures that can be checked are wrong.")


def joined(figures: Sequence[float]) -> str:
    """Figures with one decimal."""
    return " ".join(f"{figure:.1f}" for figure in figures)
