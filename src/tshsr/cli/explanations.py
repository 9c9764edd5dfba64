"""`tshsr evaluate --explanations`: how true a run's explanations are, measured and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tshsr.cli.progress import duration
from tshsr.cli.screen import Screen
from tshsr.data.dataset import Split
from tshsr.data.entities import read_entities
from tshsr.data.truth import Truth
from tshsr.errors import SettingsError
from tshsr.explain.curves import LEAST_PAIRS
from tshsr.explain.faithfulness import PAIRS, measure_explanations
from tshsr.metrics.report import AreaDifference, ExplanationFigures, Report
from tshsr.pages.labels import reading_order
from tshsr.retriever import Retriever

OPTION = "--explanations"
NAMES = {"leave_one_out": "leave one out", "pooled": "v·t"}
"""Names in a report that read better otherwise."""


def with_pairs(arguments: Sequence[str]) -> list[str]:
    """The arguments with a number behind --explanations, where none stands there."""
    found: list[str] = []
    for word, following in zip(arguments, [*arguments, ""][1:], strict=True):
        found.append(word)
        if word == OPTION and not following.lstrip("-").isdigit():
            found.append(str(PAIRS))
    return found


def check_explanations(pairs: int | None, runs: int) -> None:
    """Refuse what cannot be measured.

    Raises:
        SettingsError: Where no pair is asked for, or there are several runs.
    """
    if pairs is not None and pairs < 1:
        raise SettingsError(f"{OPTION} takes the number of pairs to measure, at least 1; got {pairs}.")
    if pairs is not None and runs > 1:
        raise SettingsError(f"{OPTION} measures one run, {runs} were named; measure them one by one.")


def add_explanations(
    report: Report,
    retriever: Retriever,
    split: Split,
    place: Path,
    truth: Truth | None,
    pairs: int,
    progress: Callable[[int, int], None],
) -> Report:
    """A report with the figures of a run's explanations.

    Raises:
        DataError: Where a truth, or annotation that lies beside the data, cannot be used.
    """
    known = truth or read_entities(place, split, retriever.tokenizer.words)
    figures = measure_explanations(retriever, split, pairs=pairs, truth=known, progress=progress)
    return replace(report, explanations=figures)


def show_explanations(screen: Screen, figures: ExplanationFigures) -> None:
    """Areas by ranking, differences with their intervals, and what else is known."""
    screen.say(
        f"explanations of {figures.pairs:,} pairs ({figures.score}, {figures.full_score:.3f} on average; "
        f"{duration(figures.seconds)}). Area under the curve; 1 is the full score throughout:"
    )
    curves = {
        f"{side}\n{name}": getattr(getattr(figures, side), name)
        for side in ("regions", "words")
        for name in ("deletion", "insertion")
    }
    rankings = dict.fromkeys(name for curve in curves.values() for name in curve.areas)
    rows = [
        (
            NAMES.get(name, name),
            *(f"{curve.areas[name].mean:.3f}" if name in curve.areas else "" for curve in curves.values()),
        )
        for name in rankings
    ]
    screen.table(("ranking", *curves), rows)
    differences = {side: getattr(figures, side).deletion.differences for side in ("regions", "words")}
    screen.table(("deletion, 95 % interval", *differences), list(difference_rows(differences)))
    if figures.pairs < LEAST_PAIRS:
        screen.say(f"no intervals: {figures.pairs} pairs are too few; measure at least {LEAST_PAIRS}.")
    for line in explanation_lines(figures):
        screen.say(line)


def difference_rows(differences: Mapping[str, Sequence[AreaDifference]]) -> Iterator[tuple[str, ...]]:
    """The first ranking against the others: a row each, a column for each side."""
    cells = {
        side: {f"{each.a} less {NAMES.get(each.b, each.b)}": interval(each) for each in rows}
        for side, rows in differences.items()
    }
    for name in dict.fromkeys(name for column in cells.values() for name in column):
        yield (NAMES.get(name, name).replace("_", " "), *(column.get(name, "") for column in cells.values()))


def interval(difference: AreaDifference) -> str:
    """A difference with its interval, where it has one."""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def explanation_lines(figures: ExplanationFigures) -> Iterator[str]:
    """Shares of levels, agreement and pointing, each in a line."""
    for stream, levels in figures.level_shares.items():
        shares = ", ".join(f"{NAMES.get(name, name)} {100 * share:.1f} %" for name, share in levels.items())
        yield f"share in the logit, {stream}: {shares}"
    if figures.agreement is not None and figures.agreement_by_chance is not None:
        by_chance = f"{100 * figures.agreement_by_chance:.1f} % where regions are shuffled"
        yield f"agreement of the streams' maps: {100 * figures.agreement:.1f} %; {by_chance}"
    maps = (("pointing", figures.pointing), ("pointing by attention alone", figures.pointing_by_attention))
    for name, accuracy in maps:
        if accuracy is not None:
            streams = sorted(accuracy, key=reading_order)
            shares = ", ".join(f"{stream} {100 * accuracy[stream]:.1f} %" for stream in streams)
            yield f"{name}, {figures.pointing_words:,} words of these pairs: {shares}"
    if figures.pointing_by_chance is not None:
        yield f"pointing by a blind guess: {100 * figures.pointing_by_chance:.1f} %"
