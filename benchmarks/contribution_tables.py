"""Tables of what the hierarchy and the second stream add."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.cells import lead, made, seed_span, thousands, with_spread
from benchmarks.rows import STREAMS

NONE_YET = "No network without one of its parts has been trained yet."
AIM = 5.0
"""Points of rSum that the hierarchy, and the second stream, should add."""
BETTER = ("better", "worse")
"""Streams trained alone, by rSum."""
DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
CUTOFFS = (1, 5, 10)


def contributions_table(values: dict[str, Any]) -> str:
    """The differences in every recall, with the answers in a sentence each."""
    found = values["contributions"]
    heads = " | ".join(
        f"{direction if k == 1 else ''} R@{k}".strip() for direction in DIRECTIONS.values() for k in CUTOFFS
    )
    lines = [f"| the whole network against | {heads} | rSum |", "|---" * 8 + "|"]
    rows = [*found["parts"], *([found["apart"]] if found["apart"] else [])]
    if not rows:
        return NONE_YET
    for row in rows:
        names = [f"{direction}_r{k}" for direction in DIRECTIONS for k in CUTOFFS]
        cells = [lead(row["differences"][name]) for name in (*names, "rsum")]
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdicts(found), "", f"{intervals([found['whole'], *rows])} {made(values)}."])


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """What the intervals show, one item for each claim."""
    parts = {part["model"]: part for part in found["parts"]}
    lines = []
    if "levels-0" in parts:
        lines.append(f"- **The hierarchy** {verdict(parts['levels-0'])}.{by_seed(parts['levels-0'])}")
    streams = [parts[name] for name in STREAMS if name in parts]
    for place, stream in enumerate(sorted(streams, key=lambda part: -part["rsum_mean"])):
        known = "the only one trained alone so far" if len(streams) < len(STREAMS) else f"the {BETTER[place]} one"
        lines.append(
            f"- **The second stream**, against the {stream['title']} ({known}), {verdict(stream)}.{by_seed(stream)}"
        )
    if found["apart"]:
        against = verdict(found["apart"], aim=None)
        lines.append(f"- Against the scores of both streams trained apart, averaged, the whole network {against}.")
    return lines


def by_seed(row: Mapping[str, Any]) -> str:
    """The difference for each seed, and the interval without pairs of seeds; empty where seeds are not paired."""
    if not row.get("paired"):
        return ""
    each = ", ".join(f"{points:+.1f} ({seed})" for seed, points in row["by_seed"].items())
    return f" By seed: {each}. With the seeds unpaired: {lead(row['unpaired'])}."


def verdict(row: Mapping[str, Any], aim: float | None = AIM) -> str:
    """Whether a difference in rSum is shown, by its interval, and whether it reaches an aim."""
    difference = row["differences"]["rsum"]
    if difference["low"] > 0:
        shown = f"adds {lead(difference)}"
    elif difference["high"] < 0:
        shown = f"costs {lead(difference)}"
    else:
        shown = f"has no effect that is shown: {lead(difference)}"
    if aim is None:
        return shown
    reached = difference["mean"] >= aim and difference["low"] > 0
    return f"{shown}; the aim of {aim:+.0f} with an interval above zero is {'reached' if reached else 'missed'}"


def intervals(rows: Sequence[Mapping[str, Any]]) -> str:
    """The seeds of each row, and what an interval covers; the first row is the whole network."""
    seeds = "; ".join(f"{row['title']} {seed_span(row['seeds'])}" for row in rows)
    apart = [row["title"] for row in rows[1:] if not row.get("paired")]
    but = f" (not those of {' and '.join(apart)})" * bool(apart)
    by = f", runs of equal seeds paired{but}" * (len(apart) < len(rows) - 1)
    return f"Points; in brackets 95 % intervals: paired bootstrap over images and seeds{by}. Seeds: {seeds}."


def cost_table(values: dict[str, Any]) -> str:
    """Quality and cost of every network, and its cost relative to the whole network."""
    found = values["contributions"]
    whole = found["whole"]
    rows = [whole, *found["parts"], *([found["apart"]] if found["apart"] else [])]
    lines = ["| network | rSum | multiply-adds per pair | parameters | trained in | seeds |", "|---" * 6 + "|"]
    for row in rows:
        share = "" if row is whole else f" ({row['train_minutes'] / whole['train_minutes']:.1f})"
        cells = [
            row["title"],
            with_spread(row),
            macs_cell(row, whole),
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['train_minutes']:.1f} min{share}",
            str(len(row["seeds"])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + (
        "\n\nIn brackets the share of the whole network's. Training time is wall-clock time beside other runs, median "
        f"over the seeds, and for both streams apart the sum of theirs. {made(values)}."
    )


def macs_cell(row: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Multiply-adds, with their share of the whole network's."""
    macs, all_of_it = row["macs_per_pair"], whole["macs_per_pair"]
    if macs is None:
        return ""
    return thousands(macs) + ("" if row is whole or all_of_it is None else f" ({macs / all_of_it:.2f})")


def where_table(values: dict[str, Any]) -> str:
    """The differences on slices of the captions, and between the last and the first slice of a property."""
    found = values["contributions"]
    parts = found["parts"]
    if not parts:
        return NONE_YET
    titles = " | ".join(f"{part['adds']} adds" for part in parts)
    lines = [f"| captions | number | whole network | {titles} |", "|---" * (3 + len(parts)) + "|"]
    for number, each in enumerate(found["slices"]):
        rows = [part["slices"][number] for part in parts]
        cells = [f"{each['group']}: {each['title']}", f"{each['captions']:,}", f"{rows[0]['whole']:.1f}"]
        lines.append(f"| {' | '.join([*cells, *map(lead, rows)])} |")
        last = number + 1 == len(found["slices"]) or found["slices"][number + 1]["group"] != each["group"]
        contrasts = [next((one for one in part["contrasts"] if one["group"] == each["group"]), None) for part in parts]
        if last and all(contrasts):
            lines.append(f"| *{each['group']}, last less first* | | | {' | '.join(map(lead, contrasts))} |")
    shown = [
        f"{part['adds']} by {one['group']} ({lead(one)})"
        for part in parts
        for one in part["contrasts"]
        if not one["low"] <= 0 <= one["high"]
    ]
    total = sum(len(part["contrasts"]) for part in parts)
    without_zero = f"{len(shown)} {'has' if len(shown) == 1 else 'have'} an interval without zero"
    named = f": {'; '.join(shown)}" if shown else ""
    count = f"Of {total} differences between slices, {without_zero} (by chance one in twenty would){named}."
    return "\n".join(
        [
            *lines,
            "",
            count,
            "",
            f"Sums of text → image R@1, R@5 and R@10. {intervals([found['whole'], *parts])} {made(values)}.",
        ]
    )


def cases_table(values: dict[str, Any]) -> str:
    """Captions that one network has right and the other one wrong, then examples."""
    parts = [part for part in values["contributions"]["parts"] if part["cases"]["seeds"]]
    if not parts:
        return NONE_YET
    lines = [
        "| without the part | seeds | right with it alone | right without it alone | both right | both wrong |",
        "|---" * 6 + "|",
    ]
    for part in parts:
        case = part["cases"]
        counts = [f"{case[name]:,}" for name in ("whole_only", "part_only", "both", "neither")]
        lines.append(f"| {part['title']} | {seed_span(case['seeds'])} | {' | '.join(counts)} |")
    lines += ["", *overlap_lines(values["contributions"]["overlap"])]
    lines += [
        "| wrong without | caption | its picture, mean rank | ranked first with one seed | its first caption |",
        "|---" * 5 + "|",
    ]
    for part in parts:
        for one in part["examples"]:
            picture = f"{one['image']}, {one['rank']:.1f}"
            cells = [part["adds"], one["caption"], picture, one["ranked_first"], one["its_caption"]]
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, "", f"{made(values)}."])


def overlap_lines(overlap: Mapping[str, Any] | None) -> list[str]:
    """How often the whole network is right, by which stream is right alone."""
    if overlap is None:
        return []
    titles = {
        "both": "both",
        "word": "the word stream alone",
        "region": "the region stream alone",
        "neither": "neither",
    }
    lines = ["| right when trained alone | captions | of them right by the whole network |", "|---" * 3 + "|"]
    for name, title in titles.items():
        count, whole_right = overlap[name]["captions"], overlap[name]["whole_right"]
        share = f"{100 * whole_right / count:.1f} %" if count else ""
        lines.append(f"| {title} | {count:,.0f} | {share} |")
    return [*lines, "", f"Means over the seeds {seed_span(overlap['seeds'])}.", ""]


CONTRIBUTIONS = {"": contributions_table, "cost": cost_table, "where": where_table, "cases": cases_table}
"""Tables of a file of contributions by the word after the name in their marker."""
