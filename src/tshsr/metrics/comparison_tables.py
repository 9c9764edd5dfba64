"""A comparison as a sentence, as JSON and as a table for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from tshsr.metrics.bootstrap import FIGURES, OTHERS, RSUM, Figure
from tshsr.metrics.comparison import Comparison, Difference

TableKind = Literal["plain", "markdown", "latex"]
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}


def comparison_json(comparison: Comparison, a: Sequence[str], b: Sequence[str], seed: int) -> dict[str, Any]:
    """The comparison as plain values, version 1.

    Args:
        a: Names of A's runs.
        b: Names of B's runs.
    """
    rsum = comparison.rsum
    return {
        "version": 1,
        "metric": "rsum",
        "difference": rsum.mean,
        "low": rsum.low,
        "high": rsum.high,
        "p": rsum.p,
        "unit": "images",
        "resamples": comparison.resamples,
        "different": comparison.different(),
        "verdict": verdict(comparison),
        "a": list(a),
        "b": list(b),
        "kinds": dict(zip("ab", kinds(comparison), strict=True)),
        "confidence": comparison.confidence,
        "seed": seed,
        "images": comparison.images,
        "captions": comparison.captions,
        "folds": comparison.folds,
        "paired": comparison.pairs,
        "seed_deviation": comparison.seed_deviation,
        "standard_error": rsum.standard_error,
        "detectable": rsum.detectable,
        "power_of_one_point": rsum.power(1.0),
        "figures": {
            figure.name: {
                "higher_is_better": figure.higher_is_better,
                "a": asdict(comparison.a[figure.name]),
                "b": asdict(comparison.b[figure.name]),
                "difference": difference_json(comparison.differences[figure.name]),
            }
            for figure in compared(comparison)
        },
    }


def difference_json(difference: Difference) -> dict[str, Any]:
    """A difference as plain values, with the detectable difference."""
    values = asdict(difference)
    freedom = values.pop("freedom")
    return {**values, "detectable": difference.detectable, "freedom": freedom}


def compared(comparison: Comparison) -> list[Figure]:
    """The metrics of a comparison, in display order."""
    return [figure for figure in FIGURES if figure.name in comparison.differences]


def kinds(comparison: Comparison) -> tuple[str, str]:
    """Kinds of A and B: see `kind`."""
    return kind(comparison.runs_a, comparison.models_a), kind(comparison.runs_b, comparison.models_b)


def kind(runs: int, models: int) -> str:
    """Kind of a side: single run, ensemble, or several runs of either."""
    if runs == 1:
        return "single run" if models == 1 else f"ensemble of {models}"
    return f"{runs} runs" if models == 1 else f"{runs} runs, each an ensemble of {models}"


def named(comparison: Comparison) -> tuple[str, str]:
    """A and B, with their kinds where one is an ensemble, as metrics of ensembles exceed those of single models."""
    if comparison.models_a == comparison.models_b == 1:
        return "A", "B"
    a, b = kinds(comparison)
    return f"A ({a})", f"B ({b})"


def verdict(comparison: Comparison) -> str:
    """The result of the comparison in a sentence."""
    rsum = comparison.rsum
    a, b = comparison.a[RSUM.name].mean, comparison.b[RSUM.name].mean
    figures = f"rSum {a:.1f} against {b:.1f}, a difference of {span(rsum, RSUM)} ({percent(comparison)} interval)"
    p = chance(rsum.p)
    equal = p if p.startswith("<") else f"= {p}"
    names = named(comparison)
    if comparison.different():
        better, worse = names if rsum.mean > 0 else names[::-1]
        if comparison.seed_deviation is not None:
            return f"{better} is better than {worse}: {figures}, p {equal}."
        run, other = ("Run ", "run ") if names == ("A", "B") else ("", "")
        return f"{run}{better} scores higher than {other}{worse}: {figures}, p {equal}{caveat(comparison)}."
    if rsum.low == rsum.high == 0:
        return f"{names[0]} and {names[1]} have the same rSum in every resample: {figures}."
    return (
        f"No difference between {names[0]} and {names[1]} is shown: {figures}, p {equal}. A true difference of "
        f"{rsum.detectable:.1f} points would be found in 80 % of such comparisons, one of 1 point in "
        f"{100 * rsum.power(1.0):.0f} %."
    )


def caveat(comparison: Comparison) -> str:
    """Note that a difference of two runs is no difference of two methods, as it may be due to seeds."""
    a, b = (f"an {each}" if each.startswith("ensemble") else f"a {each}" for each in kinds(comparison))
    these = "two single runs" if named(comparison) == ("A", "B") else f"{a} and {b}"
    return f"; this is about {these}, and not about other seeds of them"


def procedure(comparison: Comparison) -> str:
    """The procedure of the interval in a sentence."""
    images = f"{comparison.images:,} images, each with its captions,"
    inside = "" if comparison.folds == 1 else f" inside their {comparison.folds} folds"
    done = f"{images} were resampled {comparison.resamples:,} times{inside}, the same ones for A and B"
    single = named(comparison) == ("A", "B")
    if comparison.seed_deviation is None:
        a, b = kinds(comparison)
        are = "A and B are one run each" if single else f"A is one {a}, B one {b}"
        return f"{done}; {are}, so this says nothing about other seeds of them."
    runs = f"{comparison.runs_a} and {comparison.runs_b} runs" if single else " and ".join(named(comparison))
    if comparison.pairs:
        return (
            f"{done}; over {runs}, paired by their order, the deviation of their differences "
            f"({comparison.seed_deviation:.1f} points of rSum beyond what the images explain) was resampled as well."
        )
    return (
        f"{done}; over {runs}, the deviation between seeds ({comparison.seed_deviation:.1f} points of rSum beyond what "
        "the images explain) was resampled as well."
    )


def comparison_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row per metric: its name, A, B, their difference with interval, and p (none for a median)."""
    rows: list[tuple[str, ...]] = []
    for figure in compared(comparison):
        places, difference = figure.decimals, comparison.differences[figure.name]
        a, b = (
            f"{side.mean:.{places}f} [{side.low:.{places}f}, {side.high:.{places}f}]"
            for side in (comparison.a[figure.name], comparison.b[figure.name])
        )
        rows.append((figure.full_title, a, b, span(difference, figure), chance(difference.p)))
    return rows


def grouped_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """`comparison_rows` for a narrow screen: metrics after rSum are grouped by direction."""
    rows: list[tuple[str, ...]] = []
    direction = ""
    for figure, (title, *cells) in zip(compared(comparison), comparison_rows(comparison), strict=True):
        if figure not in OTHERS:
            rows.append((title, *cells))
            continue
        if figure.direction != direction:
            direction = figure.direction
            rows.append((direction, *("" for _ in cells)))
        rows.append((f"  {figure.title}", *cells))
    return rows


def span(difference: Difference, figure: Figure) -> str:
    """A difference with its interval."""
    mean, low, high = (f"{end:+.{figure.decimals}f}" for end in (difference.mean, difference.low, difference.high))
    return f"{mean} [{low}, {high}]"


def percent(comparison: Comparison) -> str:
    """The confidence level of the intervals, with all decimals."""
    return f"{100 * comparison.confidence:g}%"


def chance(p: float | None) -> str:
    """A p-value with three decimals, but never 0.000; empty for None."""
    if p is None:
        return ""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def header(comparison: Comparison) -> tuple[str, ...]:
    """The header of `comparison_rows`."""
    return ("", *named(comparison), f"A - B [{percent(comparison)} interval]", "p")


def markdown_table(comparison: Comparison) -> str:
    """The table in Markdown."""
    lines = [header(comparison), ("---", *["---:"] * 4), *comparison_rows(comparison)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex_table(comparison: Comparison, a: str, b: str) -> str:
    """The table in LaTeX (package booktabs)."""
    lines = [
        f"% A: {' '.join(a.split())}; B: {' '.join(b.split())}. {procedure(comparison)}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        " & ".join(map(escaped, header(comparison))) + r" \\",
        r"\midrule",
        *latex_rows(comparison_rows(comparison)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def latex_rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows, with a rule below rSum, the metric of the verdict."""
    lines = []
    for title, *cells in rows:
        lines.append(" & ".join((escaped(title), *(f"${cell}$" if cell else "" for cell in cells))) + r" \\")
        if title == RSUM.full_title:
            lines.append(r"\midrule")
    return lines


def escaped(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(SPECIAL.get(character, character) for character in text)
