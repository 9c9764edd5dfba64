"""docs/reliability.md: the sections between its markers are made from the files in `results`.

`python -m reliability.page` regenerates them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reliability.results import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
ORDER = ("faults", "kills", "clocks", "soak", "fuzz", "load", "security")
"""Sections in this order; others follow by name."""


def update(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Write the sections of all results between the markers of the page."""
    page.write_text(with_sections(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def with_sections(text: str, results: Path = RESULTS) -> str:
    """The page with a section for every result."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    found.sort(key=lambda one: (ORDER.index(one["name"]) if one["name"] in ORDER else len(ORDER), one["name"]))
    sections = "\n".join([total(found), *(section(one) for one in found)]) if found else ""
    return re.sub(
        r"<!-- reliability -->\n.*?<!-- end -->",
        lambda _: f"<!-- reliability -->\n{sections}<!-- end -->",
        text,
        flags=re.DOTALL,
    )


def total(found: list[dict[str, Any]]) -> str:
    """What was lost in all campaigns, as a sentence; what they tried has no common unit."""
    lost = sum(row["lost"] for one in found for row in one["rows"])
    return (
        f"Lost in all {len(found)} campaigns: {lost:,}. They count trials, inputs, requests, tests or lines of a log.\n"
    )


def section(values: dict[str, Any]) -> str:
    """One campaign: its command, a line for every row, its figures and where they come from."""
    lines = [f"## {values['title']}", "", f"`{values['command']}`", ""]
    if values["rows"]:
        noted = any(row.get("note") for row in values["rows"])
        lines += ["| | tried | survived | lost |" + (" |" if noted else ""), "|---" * (4 + noted) + "|"]
    for row in values["rows"]:
        cells = [row["what"], *(f"{row[name]:,}" for name in ("tried", "survived", "lost"))]
        lines.append("| " + " | ".join([*cells, row.get("note", "")] if noted else cells) + " |")
    if values.get("figures"):
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {one['what']} | {shown(one['value'])} {one['unit']}".rstrip() + " |" for one in values["figures"]]
    made = values["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    lines += ["", f"{made['time'][:10]}, commit {made['commit'][:8]}, {made['hardware']}, {versions}.", ""]
    return "\n".join(lines) + "\n"


def shown(value: float) -> str:
    """A number with at most three digits after the point."""
    return f"{value:,.3f}".rstrip("0").rstrip(".")


if __name__ == "__main__":
    update()
