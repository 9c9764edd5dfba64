"""The README's tables, made from the files in `benchmarks/results`: nothing in them is typed by hand.

`python -m benchmarks.tables` writes them again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
NAMES = {
    "fused": "**both streams, fused**",
    "word_stream": "word stream alone",
    "region_stream": "region stream alone",
    "pooled": "`v·t` alone (first stage)",
}


def update_readme() -> None:
    """Write every table between its markers in the README."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(text: str) -> str:
    """The text with the table of every results file that it has markers for.

    A table `NAME` stands between `<!-- results NAME -->` and `<!-- end -->` and comes from `results/NAME.json`.
    """

    def fill(match: re.Match[str]) -> str:
        values = json.loads((RESULTS / f"{match[1]}.json").read_text(encoding="utf-8"))
        return f"<!-- results {match[1]} -->\n{quality_table(values)}\n<!-- end -->"

    return re.sub(r"<!-- results (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def quality_table(values: dict[str, Any]) -> str:
    """Recalls of every score of the first seed of every row, and where they come from."""
    lines = [
        "| score | image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10 | rSum |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in values["rows"]:
        report = row["reports"][0]
        for name in sorted(report["scores"], key=order_of):
            score = report["scores"][name]
            sides = score["image_to_text"], score["text_to_image"]
            figures = [side[key] for side in sides for key in ("r1", "r5", "r10")] + [score["rsum"]]
            lines.append(f"| {label(name)} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
        lines.append("")
        lines.append(origin(row, report))
    return "\n".join(lines)


def origin(row: dict[str, Any], report: dict[str, Any]) -> str:
    """One sentence: which model, data, machine and code gave the figures."""
    return (
        f"`{row['model']}`, seed {row['seeds'][0]}, {row['parameters'] / 1e6:.1f} M parameters, on {report['data']} "
        f"{report['split']} ({report['images']:,} images, {report['captions']:,} captions); trained in "
        f"{row['train_minutes']:.0f} minutes and all pairs scored in {report['seconds']:.0f} s on "
        f"{report['hardware']}; commit {report['commit'][:12]}."
    )


def order_of(name: str) -> tuple[int, str]:
    """Fused first, then streams, levels, v·t."""
    return (list(NAMES).index(name) if name in NAMES else 2, name) if name != "pooled" else (9, name)


def label(name: str) -> str:
    """A score's name in words."""
    return NAMES.get(name, f"{name.replace('_', ' ')} alone")


if __name__ == "__main__":
    update_readme()
