"""`tshsr compare`: is A better than B?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from tshsr.commands.parsing import File, parse
from tshsr.commands.screen import Screen
from tshsr.comparison_report import (
    TableKind,
    comparison_json,
    comparison_rows,
    header,
    latex_table,
    markdown_table,
    verdict,
    what_was_done,
)
from tshsr.errors import DataError, SettingsError
from tshsr.evaluation import choose_protocol, folds_of
from tshsr.ranks import QueryRanks, query_ranks
from tshsr.reports import Report, read_report
from tshsr.score_files import KEY, read_scores
from tshsr.significance import Comparison, compare
from tshsr.stand_alone import correspondence

EXAMPLE = "tshsr compare A.json B.json"


@dataclass(frozen=True)
class Compare:
    """Is A better than B? Paired bootstrap and permutation test over images, with intervals for every figure.

    A and B are reports (evaluate --json), or matrices (evaluate --save-scores) with --captions. Several runs of a side,
    such as other seeds, stand with commas between them: tshsr compare a0.json,a1.json b0.json,b1.json
    """

    a: Annotated[Positional[str], arg(metavar="A[,A...]", help_behavior_hint="")]
    """One side."""
    b: Annotated[Positional[str], arg(metavar="B[,B...]", help_behavior_hint="")]
    """The other side; differences are A minus B."""
    score: str = "fused"
    """Which score of reports."""
    captions: File = None
    """Whose image is which caption, for matrices: a file with a line a caption, JSON lines, or a folder of data."""
    split: str = "test"
    """Which split of a folder of data."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """How matrices are ranked; reports say it themselves."""
    key: str = KEY
    """Name of the matrix in an .npz, or in a dictionary of tensors."""
    resamples: int = 10_000
    """How often images are resampled."""
    confidence: float = 0.95
    """Of the intervals."""
    seed: int = 0
    """Of the resampling; the same one gives the same answer."""
    table: Literal["plain", "markdown", "latex"] = "plain"
    """How the table is written."""
    json: File = None
    """Write the comparison to this file; - writes it to stdout, in place of the table."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Compare."""
    wanted = parse(Compare, "tshsr compare", arguments, example=EXAMPLE)
    sides = [side_paths(name, words) for name, words in (("A", wanted.a), ("B", wanted.b))]
    reports = {path: read_report(path) for side in sides for path in side if path.suffix == ".json"}
    check_same_data(reports)
    ranks = [
        [ranks_of(path, reports[path], wanted.score) if path in reports else rank(path, wanted) for path in side]
        for side in sides
    ]
    found = compare(*ranks, resamples=wanted.resamples, seed=wanted.seed, confidence=wanted.confidence)
    a, b = ([str(path) for path in side] for side in sides)
    if wanted.json != "-":
        show(found, a, b, wanted.table, screen)
    if wanted.json is not None:  # after the table, which is then not lost where the file cannot be written
        screen.json(json.dumps(comparison_json(found, a, b, wanted.seed), indent=2, allow_nan=False), wanted.json)


def show(found: Comparison, a: Sequence[str], b: Sequence[str], table: TableKind, screen: Screen) -> None:
    """The table, and what the comparison says."""
    if table == "plain":
        screen.say(f"A: {', '.join(a)}\nB: {', '.join(b)}")
        screen.table(header(found), comparison_rows(found))
        screen.say(verdict(found))
        screen.say(what_was_done(found))
    else:
        screen.say(markdown_table(found) if table == "markdown" else latex_table(found, ", ".join(a), ", ".join(b)))
        screen.note(verdict(found))


def side_paths(name: str, words: str) -> list[Path]:
    """The files of one side.

    Raises:
        SettingsError: Where one is named twice: a run does not count double.
    """
    paths = [Path(word) for word in words.split(",") if word]
    if not paths or len(set(paths)) < len(paths):
        raise SettingsError(
            f"{name} is {words!r}; expected files with commas between them, each once; for example: {EXAMPLE}."
        )
    return paths


def ranks_of(path: Path, report: Report, score: str) -> QueryRanks:
    """The ranks of every query that a report carries.

    Raises:
        DataError: Where it carries none of that score, or has no such score.
    """
    if score not in report.scores:
        raise DataError(
            f"{path} has no score {score!r}; it has {', '.join(report.scores)}. Name one of them with --score."
        )
    if report.ranks is None or score not in report.ranks:
        named = ", ".join(report.ranks or ()) or "none"
        raise DataError(
            f"{path} holds no ranks of the score {score!r} (it holds {named}), and they are what is resampled; write "
            "it again with tshsr evaluate ... --json FILE."
        )
    return report.ranks[score]


def rank(path: Path, wanted: Compare) -> QueryRanks:
    """Rank every query of a matrix.

    Raises:
        SettingsError: Where its captions are not named.
    """
    if wanted.captions is None:
        raise SettingsError(
            f"{path} is a matrix of scores, which needs its captions: tshsr compare A.npy B.npy --captions FILE "
            "(or a folder of data)."
        )
    scores = read_scores(path, key=wanted.key)
    whose = correspondence(wanted.captions, wanted.split, *scores.shape)
    folds = folds_of(choose_protocol(wanted.protocol, len(scores)), len(scores))
    return query_ranks(scores, whose.image_of_caption, folds=folds)


def check_same_data(reports: Mapping[Path, Report]) -> None:
    """Refuse reports of different data; that captions are the same is checked with the ranks.

    Raises:
        DataError: Names the first report that differs.
    """
    places = {path: f"{each.data}, split {each.split}, protocol {each.protocol}" for path, each in reports.items()}
    first = next(iter(places), None)
    for path, place in places.items():
        if first is not None and place != places[first]:
            raise DataError(
                f"{path} is of {place}, {first} of {places[first]}; evaluate both on the same data to compare."
            )
