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
HEADER = "| score | image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10 | rSum |"
ORDER = ("fused", "word_stream", "region_stream")
"""These first; then the levels; the pooled score last."""
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

    A table `NAME` stands between `<!-- results NAME -->` and `<!-- end -->` and comes from `results/NAME.json`: the
    results of `benchmarks.quality`, or the report of one evaluation.
    """

    def fill(match: re.Match[str]) -> str:
        values = json.loads((RESULTS / f"{match[1]}.json").read_text(encoding="utf-8"))
        table = quality_tables(values) if "rows" in values else demo_table(values)
        return f"<!-- results {match[1]} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- results (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def quality_tables(values: dict[str, Any]) -> str:
    """For every recipe the recalls of every score of its first seed, where they come from, and the command."""
    parts = [f"{recall_table(row['reports'][0])}\n\n{origin(row)}" for row in values["rows"]]
    return "\n\n".join([*parts, f"    {values['command']}"])


def demo_table(report: dict[str, Any]) -> str:
    """The recalls of a report with the accuracy on binding foils, and where words point."""
    figures = [f"{share:.0%} ({name.replace('_', ' ')})" for name, share in report["pointing"].items()]
    binding = report["binding"]
    return (
        f"{recall_table(report)}\n\n"
        f"Captions with swapped attributes or relations told apart: {binding['fused']:.0%} fused, "
        f"{binding['pooled']:.0%} by `v·t` alone (guessing: 50%). "
        f"Words whose region is the right one: {' and '.join(figures)}. "
        f"{report['images']:,} test scenes, {report['captions']:,} captions, scored in {report['seconds']:.0f} s on "
        f"{report['hardware']}; commit {report['commit'][:12]}."
    )


def recall_table(report: dict[str, Any]) -> str:
    """One row a score."""
    lines = [HEADER, "|---" * 8 + "|"]
    for name in sorted(report["scores"], key=order_of):
        score = report["scores"][name]
        sides = score["image_to_text"], score["text_to_image"]
        figures = [side[key] for side in sides for key in ("r1", "r5", "r10")] + [score["rsum"]]
        lines.append(f"| {label(name)} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def origin(row: dict[str, Any]) -> str:
    """One sentence: which model, data, machine and code gave the figures."""
    report = row["reports"][0]
    return (
        f"`{row['model']}`, seed {row['seeds'][0]}, {row['parameters'] / 1e6:.1f} M parameters, on {report['data']} "
        f"{report['split']} ({report['images']:,} images, {report['captions']:,} captions); trained in "
        f"{row['train_minutes']:.0f} minutes and all pairs scored in {report['seconds']:.0f} s on "
        f"{report['hardware']}; commit {report['commit'][:12]}."
    )


def order_of(name: str) -> tuple[int, str]:
    """Fused first, then streams, levels, v·t."""
    if name in ORDER:
        return ORDER.index(name), name
    return (len(ORDER) + (name == "pooled"), name)


def label(name: str) -> str:
    """A score's name in words."""
    return NAMES.get(name, f"{name.replace('_', ' ')} alone")


if __name__ == "__main__":
    update_readme()
