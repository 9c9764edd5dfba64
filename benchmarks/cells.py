"""Cells and origins of tables: differences, numbers, the machine and the commit of the figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

NEAR_ZERO = 0.05
"""Points below which one decimal gives 0.0."""
MAX_COMMITS = 3
"""Number of commits that a table lists; the results file has all."""


def with_spread(row: dict[str, Any]) -> str:
    """rSum, mean ± deviation over the seeds."""
    spread = "" if row["rsum_std"] is None else f" ± {row['rsum_std']:.1f}"
    return f"{row['rsum_mean']:.1f}{spread}"


def lead(difference: dict[str, Any] | None) -> str:
    """A difference with its interval."""
    if difference is None:
        return ""
    mean, low, high = (signed(difference[name]) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def signed(points: float) -> str:
    """Points with their sign; with a second decimal near zero, so that its side is seen."""
    return f"{points:+.1f}" if abs(points) >= NEAR_ZERO else f"{points:+.2f}"


def without_seeds(differences: Iterable[dict[str, Any]]) -> str:
    """A sentence that says how many intervals have an estimate of zero for the variation between seeds."""
    known = [each["seed_deviation"] for each in differences if each.get("seed_deviation") is not None]
    zeros = sum(deviation == 0 for deviation in known)
    if not zeros:
        return ""
    return (
        f"In {zeros} of {len(known)} intervals the estimated variation between seeds is 0, so that they cover images "
        "alone: few seeds estimate it badly."
    )


def seed_span(seeds: Sequence[int]) -> str:
    """The seeds of a row, consecutive ones by the first and the last: 0 to 2, 5."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][-1] + 1:
            spans[-1].append(seed)
        else:
            spans.append([seed])
    return ", ".join(str(span[0]) + (f" to {span[-1]}" if len(span) > 1 else "") for span in spans)


def thousands(count: float) -> str:
    """A number in thousands, from 1000 on."""
    return f"{count:,.0f}" if count < 1e3 else f"{count / 1e3:,.0f} k"


def short(commit: str) -> str:
    """Abbreviated commit, with the mark of uncommitted changes."""
    return commit[:12] + "+changed" * commit.endswith("+changed")


def seeds_of(values: dict[str, Any], resampled: str = "") -> str:
    """Number of seeds, machine, versions and command; `resampled`: what the bootstrap is over, if not as the rows."""
    counts = sorted({len(row["seeds"]) for row in values["rows"]})
    several = counts[-1] > 1
    seeds = " to ".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1])))
    means = f"Means over {seeds} seeds ± their deviation" if several else "One seed"
    commits = [short(commit) for commit in values["trained_at"]]
    some = (
        f"commit {', '.join(commits)}"
        if len(commits) <= MAX_COMMITS
        else f"{len(commits)} commits (in the results file)"
    )
    resampled = resampled or "images" + " and seeds" * several
    return (
        f"{means}; in brackets 95 % intervals: paired bootstrap over {resampled}. "
        f"{' or '.join(values.get('trained_on', [values['hardware']]))}; torch {values['versions']['torch']}; "
        f"trained at {some}; `{values['command']}`"
    )


def mebibytes(count: int | None) -> str:
    """A number of bytes in MiB; "?" where unknown."""
    return "?" if count is None else f"{count / 2**20:,.0f} MiB"


def made(values: dict[str, Any]) -> str:
    """Machine, versions, commit and command."""
    torch = values["versions"]["torch"]
    return f"{values['hardware']}; torch {torch}; commit {short(values['commit'])}; `{values['command']}`"
