"""Tables of the race: methods, ablation, scores, the README's, and training on wrong pairs."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import lead, seed_span, seeds_of, thousands, with_spread, without_seeds

RECALLS = "image → text R@1 | R@5 | R@10 | text → image R@1 | R@5 | R@10"


def race_table(values: dict[str, Any]) -> str:
    """One row for each method: recalls, rSum over the seeds, lead of TSHSR, cost."""
    leads = {each["b"]: each for each in values["differences"]}
    kinds = list(dict.fromkeys(kind for row in values["rows"] for kind in row.get("binding_by_kind", {})))
    lines = [
        f"| method | {RECALLS} | rSum | TSHSR leads by | {binding_heads(kinds)}parameters "
        "| multiply-adds per pair | pairs/s | trained in | seeds |",
        "|---" * (14 + len(kinds)) + "|",
    ]
    for row in values["rows"]:
        cells = [
            row["title"],
            *(f"{figure:.1f}" for figure in row["r"]),
            with_spread(row),
            lead(leads.get(row["model"])),
            *bound(row, kinds),
        ]
        lines.append("| " + " | ".join([*cells, *cost_cells(row), seed_span(row["seeds"])]) + " |")
    minutes = (
        "Training time is wall-clock time in parallel with other runs, median over the seeds, "
        "and for an ensemble the sum of its members'."
    )
    leads_are = (
        "Every row is compared with all seeds of TSHSR; the interval of a row with one seed includes an "
        "estimate of the variation between seeds."
    )
    seeds = without_seeds(values["differences"])
    return "\n".join(lines) + f"\n\n{' '.join([f'{seeds_of(values)}.', minutes, leads_are, seeds]).strip()}"


def binding_heads(kinds: list[str]) -> str:
    """Column titles of binding accuracy, by kind of foil."""
    return "".join(f"{kind}s bound | " for kind in kinds)


def bound(row: dict[str, Any], kinds: list[str]) -> list[str]:
    """Binding accuracy of a row, by kind of foil."""
    known = row.get("binding_by_kind", {})
    return [f"{100 * known[kind]:.1f} %" if kind in known else "" for kind in kinds]


def ablation_table(values: dict[str, Any]) -> str:
    """One row for each change: difference in rSum, and cost."""
    if not values["ablation"]:
        return "No row of it has been run yet."
    base = next(each["b"] for each in values["ablation"] if "against" not in each)
    ours = next(row for row in values["rows"] if row["model"] == base)
    kinds = list(ours.get("binding_by_kind", {}))
    costs = "multiply-adds per pair | parameters | trained in | seeds"
    lines = [
        f"| change | rSum | against TSHSR | {binding_heads(kinds)}{costs} |",
        "|---" * (7 + len(kinds)) + "|",
        "| " + " | ".join([ours["title"], with_spread(ours), "", *bound(ours, kinds), *short_costs(ours)]) + " |",
    ]
    for row in values["ablation"]:
        against = f" (against {row['against']})" if "against" in row else ""
        cells = [row["title"], with_spread(row), lead(row) + against, *bound(row, kinds), *short_costs(row)]
        lines.append("| " + " | ".join(cells) + " |")
    paired = [row["title"] for row in values["ablation"] if row.get("paired")]
    notes = [f"Compared seed by seed, on the seeds that they share with TSHSR: {'; '.join(paired)}."] if paired else []
    notes += [note for note in [without_seeds(values["ablation"])] if note]
    return "\n".join([*lines, *([""] if notes else []), " ".join(notes)]).rstrip()


def score_table(values: dict[str, Any]) -> str:
    """RSum of every score of every method (streams, levels, v·t), mean over the seeds."""
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
    lines = ["| method | image → text R@1 | text → image R@1 | rSum | multiply-adds per pair |", "|---" * 5 + "|"]
    for row in values["rows"]:
        recalls = (f"{row['r'][first]:.1f}" for first in (0, 3))
        lines.append("| " + " | ".join([row["title"], *recalls, with_spread(row), cost_cells(row)[1]]) + " |")
    return "\n".join(lines)


def cost_cells(row: dict[str, Any]) -> list[str]:
    """Parameters, multiply-adds per pair, pairs per second, minutes."""
    macs = "" if row["macs_per_pair"] is None else thousands(row["macs_per_pair"])
    rate = "" if row["pairs_per_s"] is None else f"{row['pairs_per_s']:,.0f}"
    return [f"{row['parameters'] / 1e6:.2f} M", macs, rate, f"{row['train_minutes']:.1f} min"]


def short_costs(row: dict[str, Any]) -> list[str]:
    """Multiply-adds, parameters, minutes, seeds."""
    parameters, macs, _, minutes = cost_cells(row)
    return [macs, parameters, minutes, seed_span(row["seeds"])]


def noise_table(values: dict[str, Any]) -> str:
    """One row for each share and loss: recalls, rSum, share of the clean rSum, gain of the robust loss."""
    rows = values["noise"]
    if not rows:
        return "No row of it has been run yet."
    gains = {each["share"]: each for each in values["gains"]}
    lines = [f"| wrong pairs | loss | {RECALLS} | rSum | of the clean rSum | robust gains |", "|---" * 11 + "|"]
    for row in rows:
        kept = "" if row["kept"] is None else f"{row['kept']:.1f} %"
        gained = lead(gains.get(row["share"])) if row["loss"] == "robust" else ""
        cells = [f"{row['share']:.0%}", row["loss"], *(f"{figure:.1f}" for figure in row["r"]), with_spread(row)]
        lines.append("| " + " | ".join([*cells, kept, gained]) + " |")
    return (
        "\n".join(lines)
        + f"\n\nRecipe `{values['recipe']}`. {seeds_of({**values, 'rows': rows}, resampled_in(gains))}."
    )


def resampled_in(gains: dict[float, Any]) -> str:
    """What the bootstrap of the gains is over, if every one compares one run with one run; empty otherwise."""
    if not gains or any(len(each["seeds"]) > 1 for each in gains.values()):
        return ""
    return f"images, of seed {seed_span(sorted({seed for each in gains.values() for seed in each['seeds']}))} alone"


PARTS = {"": race_table, "ablation": ablation_table, "scores": score_table, "short": short_table}
"""Tables of a race by the word after the name in their marker."""
