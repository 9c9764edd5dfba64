"""The tables of the race and of the ablation, from a results file of `benchmarks.quality`."""

from __future__ import annotations

from typing import Any

NAMED = 3
"""Commits, at most, that a table names; the results file has them all."""
RECALLS = "image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10"


def race_table(values: dict[str, Any]) -> str:
    """A row a method: recalls, rSum over the seeds, TSHSR's lead, and what it costs."""
    leads = {each["b"]: each for each in values["differences"]}
    kinds = list(dict.fromkeys(kind for row in values["rows"] for kind in row.get("binding_by_kind", {})))
    lines = [
        f"| method | {RECALLS} | rSum | TSHSR leads by | {binding_heads(kinds)}parameters "
        "| multiply-adds a pair | pairs/s | trained in |",
        "|---" * (13 + len(kinds)) + "|",
    ]
    for row in values["rows"]:
        cells = [
            row["title"],
            *(f"{figure:.1f}" for figure in row["r"]),
            with_spread(row),
            lead(leads.get(row["model"])),
            *bound(row, kinds),
        ]
        lines.append("| " + " | ".join([*cells, *cost_cells(row)]) + " |")
    minutes = "Minutes are those of the clock, the median over the seeds, beside other runs."
    leads_are = (
        "Every row is set against all seeds of TSHSR; the interval of a row of one seed holds what seeds may do to it."
    )
    return "\n".join(lines) + f"\n\n{seeds_of(values)}. {minutes} {leads_are}"


def binding_heads(kinds: list[str]) -> str:
    """Heads of the columns of binding, by kind of foil; empty where there are none."""
    return "".join(f"{kind}s bound | " for kind in kinds)


def bound(row: dict[str, Any], kinds: list[str]) -> list[str]:
    """The binding of a row, by kind of foil."""
    known = row.get("binding_by_kind", {})
    return [f"{100 * known[kind]:.1f} %" if kind in known else "" for kind in kinds]


def ablation_table(values: dict[str, Any]) -> str:
    """A row a change: what it does to rSum, and what it costs."""
    if not values["ablation"]:
        return "No row of it has been run yet."
    ours = next(row for row in values["rows"] if row["model"] == values["ablation"][0]["b"])
    kinds = list(ours.get("binding_by_kind", {}))
    costs = "multiply-adds a pair | parameters | trained in | seeds"
    lines = [
        f"| change | rSum | against TSHSR | {binding_heads(kinds)}{costs} |",
        "|---" * (7 + len(kinds)) + "|",
        "| " + " | ".join([ours["title"], with_spread(ours), "", *bound(ours, kinds), *short_costs(ours)]) + " |",
    ]
    for row in values["ablation"]:
        cells = [row["title"], with_spread(row), lead(row), *bound(row, kinds), *short_costs(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def score_table(values: dict[str, Any]) -> str:
    """The rSum of every score of every method, mean over the seeds: streams, levels and v·t."""
    names = list(dict.fromkeys(name for row in values["rows"] for name in row["rsum_by_score"]))
    lines = [
        "| method | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (1 + len(names)) + "|",
    ]
    for row in values["rows"]:
        known = row["rsum_by_score"]
        lines.append(f"| {row['title']} | " + " | ".join(f"{known[n]:.1f}" if n in known else "" for n in names) + " |")
    return "\n".join(lines)


def short_table(values: dict[str, Any]) -> str:
    """The README's table: rSum and cost of each method."""
    lines = [
        "| method | image → text R@1 | text → image R@1 | rSum | multiply-adds a pair |",
        "|---" * 5 + "|",
    ]
    for row in values["rows"]:
        recalls = (f"{row['r'][first]:.1f}" for first in (0, 3))
        lines.append("| " + " | ".join([row["title"], *recalls, with_spread(row), cost_cells(row)[1]]) + " |")
    return "\n".join(lines)


PARTS = {"": race_table, "ablation": ablation_table, "scores": score_table, "short": short_table}
"""What stands after a results file's name in a marker: which of its tables is meant."""


def with_spread(row: dict[str, Any]) -> str:
    """Mean and deviation of rSum over the seeds."""
    spread = "" if row["rsum_std"] is None else f" ± {row['rsum_std']:.1f}"
    return f"{row['rsum_mean']:.1f}{spread}"


def lead(difference: dict[str, Any] | None) -> str:
    """A difference with its interval."""
    if difference is None:
        return ""
    return f"{difference['mean']:+.1f} [{difference['low']:+.1f}, {difference['high']:+.1f}]"


def cost_cells(row: dict[str, Any]) -> list[str]:
    """Parameters, multiply-adds, pairs a second, minutes."""
    macs = "" if row["macs_per_pair"] is None else thousands(row["macs_per_pair"])
    rate = "" if row["pairs_per_s"] is None else f"{row['pairs_per_s']:,.0f}"
    return [f"{row['parameters'] / 1e6:.2f} M", macs, rate, f"{row['train_minutes']:.1f} min"]


def thousands(count: float) -> str:
    """A number in thousands; a small one as it is."""
    return f"{count:,.0f}" if count < 1e3 else f"{count / 1e3:,.0f} k"


def short_costs(row: dict[str, Any]) -> list[str]:
    """Multiply-adds, parameters, minutes, seeds."""
    parameters, macs, _, minutes = cost_cells(row)
    return [macs, parameters, minutes, str(len(row["seeds"]))]


def short(commit: str) -> str:
    """The first digits of a commit, and whether the code differed from it."""
    return commit[:12] + "+changed" * commit.endswith("+changed")


def seeds_of(values: dict[str, Any]) -> str:
    """How many seeds the rows have, and where the figures come from."""
    counts = sorted({len(row["seeds"]) for row in values["rows"]})
    several = counts[-1] > 1
    seeds = " to ".join(dict.fromkeys(str(count) for count in (counts[0], counts[-1])))
    means = f"Means over {seeds} seeds ± their deviation" if several else "One seed"
    commits = [short(commit) for commit in values["trained_at"]]
    some = f"commit {', '.join(commits)}" if len(commits) <= NAMED else f"{len(commits)} commits (in the results file)"
    return (
        f"{means}; in brackets 95 % intervals: paired bootstrap over images{' and seeds' * several}. "
        f"{values['hardware']}; torch {values['versions']['torch']}; "
        f"trained at {some}; `{values['command']}`"
    )
