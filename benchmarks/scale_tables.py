"""Tables of large collections: an index as it grows, the two-stage search as it grows, bulk work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FULL = 100_000_000
"""Pictures of the collection that the projection is for."""
BUSY = 4.0
"""Load of a machine of two cores from which durations on the clock are not its own."""


def index_table(values: dict[str, Any]) -> str:
    """One row for each size of the index: disk, time to build, parts of a search, changes."""
    lines = [
        "| pictures, regions | v | on disk | rows written in | ANN index built in | partitions read | first stage "
        "| exact, in memory | reading 100 | scoring 100 | whole search (on the clock) | first search after a change "
        "| commit of a picture |",
        "|---" * 13 + "|",
    ]
    for row in values["growth"]:
        parts = row["milliseconds"]
        probes = f"{row['probes']} of {row['partitions']}" if row["probes"] else "none: exact"
        cells = [
            f"{row['pictures']:,}, {row['regions']}",
            "around centres" if row["clustered"] else "uniform",
            gibibytes(row["bytes"] + row["ann_bytes"]),
            f"{row['write_seconds']['processor']:,.1f} s",
            f"{row['ann_seconds']['processor']:,.1f} s" if row["probes"] else "",
            probes,
            cost(parts["first_stage"]),
            f"{cost(parts['exact_first_stage'])}, {gibibytes(row['exact_bytes'])}",
            cost(parts["reading"]),
            cost(parts["second_stage"]),
            f"{cost(parts['search'])} ({milliseconds(parts['search']['p50'])})",
            cost(row["after_change_milliseconds"]["compacted"]["first"]),
            cost(row["commit_milliseconds"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    last = max(values["growth"], key=lambda row: row["fragments"] - row["fragments_compacted"])
    return "\n".join(lines) + (
        f"\n\nD {values['dim']}; processor time of all threads, medians of "
        f"{values['queries']} queries; {beside(values['load'])}. "
        "Scoring 100 includes the conversion of their encodings and the regions of words of the best 10. "
        f"Encoding a query takes {cost(last['milliseconds']['encoding'])} of a search. "
        f"After {values['commits']} additions of "
        f"one picture each, the compaction of {last['fragments']} fragments to {last['fragments_compacted']} takes "
        f"{last['compaction_seconds']['processor']:.1f} s at {last['pictures']:,} pictures."
    )


def beside(load: float) -> str:
    """What else the machine did."""
    if load < BUSY:
        return f"little else ran (load at the start {load:.1f})"
    return f"other work filled the machine (load at the start {load:.0f}): on the clock everything took longer"


def growth_table(values: dict[str, Any]) -> str:
    """One row for each size: recall of the first stage, candidates that it needs, durations, recalls of both stages."""
    depths = ("10", "100", "1000")
    lines = [
        "| pictures | " + " | ".join(f"first stage keeps it among {depth}" for depth in depths) + " "
        "| the same among 100, if ranks grow with the collection | candidates for 80 % / 95 % of queries "
        "| scoring these | v·t of all pictures | R@1 / R@10 by v·t alone "
        "| R@1 / R@10 after scoring 100 (by v·t, same captions) |",
        "|---" * 10 + "|",
    ]
    scoring = scoring_of(values)
    for row in values["rows"]:
        kept, is_real = row["first_stage_recall"], row["pictures"] <= values["real"]
        before, after = (row.get(f"r_{when}_second_stage") for when in ("before", "after"))
        needed = [row["depth_for"][share] for share in ("0.8", "0.95")]
        # A rank of 1 stays 1 however far the others grow: once rank 2 passes 100, the figure is R@1 of the real ones.
        can_grow = "if_proportional" in row and 1 + row["pictures"] / values["real"] <= 100
        cells = [
            f"{row['pictures']:,}",
            *(f"{kept[depth]:.1f} %" if is_real or depth != "10" else "" for depth in depths),
            f"{row['if_proportional']['100']:.1f} %" if can_grow else "",
            " / ".join(f"{count:,}" for count in needed),
            " / ".join(duration(scoring[0] + scoring[1] * count) for count in needed) if scoring else "",
            duration(row["first_stage_milliseconds"]),
            f"{row['r'][0]:.1f} / {row['r'][2]:.1f}" if is_real else "",
            f"{after[0]:.1f} / {after[2]:.1f} ({before[0]:.1f} / {before[2]:.1f})" if is_real and after else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + growth_footnote(values, scoring)


def scoring_of(values: dict[str, Any]) -> tuple[float, float] | None:
    """Milliseconds of the second stage: of a query, and of each candidate; None in files without them."""
    if "second_stage_milliseconds" not in values:
        return None
    (few, less), (many, more) = sorted((int(n), each) for n, each in values["second_stage_milliseconds"].items())
    slope = (more - less) / (many - few)
    return less - slope * few, slope


def growth_footnote(values: dict[str, Any], scoring: tuple[float, float] | None) -> str:
    """What the durations cover, and how real the distractors are."""
    check, real = values["check"], f"{values['real']:,}"
    of_scoring = ""
    if scoring:
        counts = " and ".join(f"{int(count):,}" for count in values["second_stage_milliseconds"])
        of_scoring = (
            f"scoring encoded candidates {scoring[0]:.1f} ms and {scoring[1]:.3f} ms a candidate, processor time, as "
            f"measured with {counts}, without reading them and encoding the query; "
        )
    found = {
        name: f"{check[name]['r'][0]:.1f} / {check[name]['r'][2]:.1f} / {check[name]['first_stage_recall']['100']:.1f}"
        for name in ("real", "replaced", "few")
    }
    return (
        f"{values['model']}: {values['queries']:,} captions of the {values['tests']:,} test pictures, of which "
        f"{values['rescored_queries']:,} in the last column. Durations of a query on {values['threads']} thread: "
        f"{of_scoring}v·t on the clock, of many queries together. Up to {real} all pictures are real; above, recalls "
        "among 1 and 10 are left out, as the distractors are too easy for them. How real the distractors are: among "
        f"{check['pictures']:,} pictures R@1 / R@10 / R@100 by v·t are {found['real']} with real ones alone, "
        f"{found['replaced']} with distractors in place of all pictures but the test's, {found['few']} with "
        f"distractors made of {check['source']:,} pictures."
    )


def bulk_table(values: dict[str, Any]) -> str:
    """Sentence on a job of which a worker was killed."""
    seconds = values["seconds"]
    equal = "equals" if values["one worker killed: equal"] and values["killed"] else "DIFFERS FROM"
    return (
        f"{values['pictures']:,} generated pictures, shards of {values['shard']}: {seconds['one process']:,.0f} s in "
        f"one process, {seconds['engine']:,.0f} s by {values['workers']} workers, "
        f"{seconds['one worker killed']:,.0f} s where one of them is killed (SIGKILL) in the middle; the store of that "
        f"job **{equal}** the one of one process, byte for byte. The engine started in "
        f"{seconds['start of the engine']:,.0f} s; load of the machine at the start {values['load']:.0f}."
    )


def projection_table(values: dict[str, Any]) -> str:
    """Storage and time of a collection of `FULL` pictures: measured figures of a picture, times the count."""
    scale = json.loads((RESULTS / "scale.json").read_text(encoding="utf-8"))
    rows = [
        each
        for each in scale["growth"]
        if not each["clustered"] and each["regions"] == values["per_picture"]["regions"]
    ]
    row = max(rows, key=lambda each: each["pictures"])
    one, count = values["per_picture"], row["pictures"]
    lines = ["| | of a picture | of 100 million |", "|---|---|---|"]
    for name, size in (
        ("feature store, float16", one["store_bytes"]),
        ("index: encodings", row["bytes"] / count),
        ("index: its copy of v for the ANN index", row["ann_bytes"] / count),
        ("v in memory, for an exact first stage", row["exact_bytes"] / count),
    ):
        lines.append(f"| {name} | {size / 1000:,.1f} kB | {size * FULL / 1e12:,.2f} TB |")
    for name, seconds in (
        ("decoding and preparing", one["seconds"]["decoding"]),
        ("extraction", one["seconds"]["extraction"]),
        ("encoding", one["seconds"]["encoding"]),
        ("writing rows, by one writer", row["write_seconds"]["processor"] / count),
    ):
        lines.append(f"| {name} | {1000 * seconds:,.2f} ms | {seconds * FULL / 86400:,.2f} core-days |")
    return "\n".join(lines) + (
        f"\n\nRegions by `{one['extractor']}`, {one['regions']} a picture (`{one['command']}`); processor time of one "
        f"core. The index at {count:,} pictures."
    )


def gibibytes(count: float) -> str:
    """A number of bytes in MiB or GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def cost(values: dict[str, float]) -> str:
    """Processor time."""
    return milliseconds(values["processor"])


def duration(value: float) -> str:
    """A duration in milliseconds, or in seconds."""
    return f"{value / 1000:,.1f} s" if value >= 1000 else f"{value:,.2g} ms" if value < 1 else milliseconds(value)


def milliseconds(value: float) -> str:
    """A duration; short ones with a digit."""
    return f"{value:,.1f} ms" if value < 10 else f"{value:,.0f} ms"
