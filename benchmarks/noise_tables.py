"""The table of wrong pairs, from the results file of `benchmarks.noise`."""

from __future__ import annotations

from typing import Any

from benchmarks.race_tables import RECALLS, lead, seeds_of, with_spread


def noise_table(values: dict[str, Any]) -> str:
    """A row a share and loss: recalls, rSum, how much of the clean rSum that is, and what robustness gains."""
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
    return "\n".join(lines) + f"\n\nRecipe `{values['recipe']}`. {seeds_of({**values, 'rows': rows})}."
