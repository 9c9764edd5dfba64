"""`tshsr compare`: is A better than B?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from tshsr.cli.metrics import check_key
from tshsr.cli.options import Argument, File, Output, parse
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError
from tshsr.metrics.comparison import Comparison, compare
from tshsr.metrics.comparison_tables import (
    TableKind,
    comparison_json,
    grouped_rows,
    header,
    latex_table,
    markdown_table,
    procedure,
    verdict,
)
from tshsr.metrics.ranks import QueryRanks, query_ranks
from tshsr.metrics.report import ProtocolName, Report, read_report

EXAMPLE = "tshsr compare A.json B.json"
OF_RANKS = "Lower median and mean ranks are better; medians have no p value."


@dataclass(frozen=True)
class Compare:
    """Is A better than B? Paired bootstrap and permutation test over images, with intervals for every figure.

    A and B are reports (evaluate --json), or matrices (evaluate --save-scores) with --captions. Several runs of a side,
    such as other seeds, are separated by commas: tshsr compare a0.json,a1.json b0.json,b1.json
    """

    a: Annotated[str, Argument("A[,A...]", positional=True)]
    """The first side."""
    b: Annotated[str, Argument("B[,B...]", positional=True)]
    """The other side; differences are A minus B."""
    paired: bool = False
    """Run n of A and run n of B have the same seed: the variation between seeds is that of their difference."""
    score: str = "fused"
    """Which score of the reports."""
    captions: File = None
    """For matrices, the image of each caption: a file with one line per caption, JSON lines, or a folder of data."""
    split: str = "test"
    """Which split of a folder of data."""
    protocol: Literal["auto", "flickr", "coco-1k", "coco-5k"] = "auto"
    """Ranking of matrices; reports record theirs."""
    key: str = "scores"
    """Name of the matrix in an .npz, or in a dictionary of tensors."""
    resamples: int = 10_000
    """Resamples of the images."""
    confidence: float = 0.95
    """Confidence of the intervals."""
    seed: int = 0
    """Seed of the resampling."""
    table: Literal["plain", "markdown", "latex"] = "plain"
    """Format of the table."""
    json: Output = None
    """Write the comparison to this file; - writes it to stdout, in place of the table."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Compare."""
    wanted = parse(Compare, "tshsr compare", arguments, example=EXAMPLE)
    sides = [side_paths(name, words) for name, words in (("A", wanted.a), ("B", wanted.b))]
    check_for_matrices(wanted, [path for side in sides for path in side])
    runs = [[read_run(path, wanted) for path in side] for side in sides]
    for one, other in combinations([run for side in runs for run in side], 2):
        check_same_data(one, other)
    models = [models_of(side) for side in runs]
    ranks = [[run.ranks for run in side] for side in runs]
    found = compare(
        *ranks, resamples=wanted.resamples, seed=wanted.seed, confidence=wanted.confidence, pairs=wanted.paired
    )
    found = replace(found, models_a=models[0], models_b=models[1])
    note_missing_places([run for side in runs for run in side], screen)
    a, b = ([str(path) for path in side] for side in sides)
    if wanted.json != "-":
        show(found, a, b, wanted.table, screen)
    if wanted.json is not None:  # after the table, which is kept if the file cannot be written
        screen.json(json.dumps(comparison_json(found, a, b, wanted.seed), indent=2, allow_nan=False), wanted.json)


def note_missing_places(runs: Sequence[Run], screen: Screen) -> None:
    """Report why metrics with several relevant captions are missing: an old report lacks the ranks of captions."""
    for run in [run for run in runs if run.ranks.caption_places is None][:1]:
        screen.note(
            f"{run.path} has the rank of every query but not of every caption, so mAP@R, R-Precision, true "
            "recall and all found are left out; write it again with tshsr evaluate ... --json FILE to compare them."
        )


def show(found: Comparison, a: Sequence[str], b: Sequence[str], table: TableKind, screen: Screen) -> None:
    """The table and the verdict."""
    if table == "plain":
        screen.say(f"A: {', '.join(a)}\nB: {', '.join(b)}")
        screen.table(header(found), grouped_rows(found))
        screen.say(OF_RANKS)
        screen.say(verdict(found))
        screen.say(procedure(found))
    else:
        screen.say(markdown_table(found) if table == "markdown" else latex_table(found, ", ".join(a), ", ".join(b)))
        screen.note(verdict(found))


def side_paths(name: str, words: str) -> list[Path]:
    """The files of one side.

    Raises:
        SettingsError: Where a file is named twice, or none is.
    """
    paths = [Path(word) for word in words.split(",") if word]
    if not paths or len(set(paths)) < len(paths):
        raise SettingsError(
            f"{name} is {words!r}; expected files with commas between them, each once; for example: {EXAMPLE}."
        )
    return paths


@dataclass(frozen=True)
class Run:
    """One run to compare.

    Attributes:
        protocol: None for a matrix.
        digest: SHA-256 of the captions; None where their texts are unknown.
        models: Models of a report, more than one for an ensemble; None for a matrix.
    """

    path: Path
    ranks: QueryRanks
    place: str
    protocol: ProtocolName | None
    digest: str | None
    models: int | None = None


def read_run(path: Path, wanted: Compare) -> Run:
    """Read a report, or rank every query of a matrix.

    Raises:
        DataError: Where a file is missing or damaged, or a report has no ranks of the score.
        SettingsError: Where the captions of a matrix are not named.
    """
    if path.suffix != ".json":
        return rank(path, wanted)
    report = read_report(path)
    place = f"{report.data}, split {report.split}"
    ranks = ranks_of(path, report, wanted.score)
    return Run(path, ranks, place, report.protocol, report.captions_digest, len(report.models))


def check_for_matrices(wanted: Compare, paths: Sequence[Path]) -> None:
    """Refuse options of matrices where all files are reports, and the other way round.

    Raises:
        SettingsError: Where one is given; the message names it.
    """
    matrices = [path for path in paths if path.suffix != ".json"]
    if matrices:
        check_key(wanted.key, matrices)
        if len(matrices) == len(paths) and wanted.score != Compare.score:
            raise SettingsError(
                f"--score {wanted.score} is for reports, and A and B are matrices, each of one score; leave it out."
            )
        return
    if wanted.protocol != "auto":
        raise SettingsError(
            f"--protocol {wanted.protocol} is for matrices, and reports were ranked by a protocol already; leave it "
            "out, or evaluate again with that protocol."
        )
    for name in (name for name in ("captions", "split", "key") if getattr(wanted, name) != getattr(Compare, name)):
        raise SettingsError(
            f"--{name} {getattr(wanted, name)} is for matrices, and A and B are reports, which "
            "record this already; leave it out, or name a matrix of scores (.npy, .npz, .pt)."
        )


def ranks_of(path: Path, report: Report, score: str) -> QueryRanks:
    """The ranks of every query in a report.

    Raises:
        DataError: Where the report lacks the score or its ranks.
    """
    if score not in report.scores:
        raise DataError(
            f"{path} has no score {score!r}; it has {', '.join(report.scores)}. Name one of them with --score."
        )
    if report.ranks is None or score not in report.ranks:
        named = ", ".join(report.ranks or ()) or "none"
        raise DataError(
            f"{path} holds no ranks of the score {score!r} (it holds {named}), which the bootstrap resamples; write "
            "it again with tshsr evaluate ... --json FILE."
        )
    return report.ranks[score]


def rank(path: Path, wanted: Compare) -> Run:
    """Rank every query of a matrix.

    Raises:
        DataError: Where there is no such file.
        SettingsError: Where its captions are not named.
    """
    if wanted.captions is None:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what}; expected a report (.json) or a matrix of scores (.npy, .npz, .pt).")
        raise SettingsError(
            f"{path} is a matrix of scores, which needs its captions: tshsr compare A.npy B.npy --captions FILE "
            "(or a folder of data)."
        )
    from tshsr.evaluation.ground_truth import read_ground_truth
    from tshsr.evaluation.run import choose_protocol, folds_of
    from tshsr.evaluation.score_files import read_scores

    scores = read_scores(path, key=wanted.key)
    truth = read_ground_truth(wanted.captions, wanted.split, *scores.shape)
    folds = folds_of(choose_protocol(wanted.protocol, len(scores)), len(scores))
    ranks = query_ranks(scores, truth.image_of_caption, folds=folds)
    return Run(path, ranks, f"{truth.data}, split {truth.split}", None, truth.digest)


def check_same_data(one: Run, other: Run) -> None:
    """Refuse runs on different data, by the digests of their captions, or else by the names in reports.

    Raises:
        DataError: Where the data differ; the message names both runs.
    """
    ends = "evaluate both on the same data to compare."
    if one.digest and other.digest:
        if one.digest != other.digest:
            raise DataError(
                f"{other.path} ({other.place}) and {one.path} ({one.place}) are of different captions, or the captions "
                f"of different images; {ends}"
            )
    elif one.protocol and other.protocol and one.place != other.place:
        raise DataError(f"{other.path} is of {other.place}, {one.path} of {one.place}; {ends}")
    if one.protocol and other.protocol and one.protocol != other.protocol:
        raise DataError(
            f"{other.path} is by the protocol {other.protocol}, {one.path} by {one.protocol}; evaluate both by one "
            "protocol to compare."
        )


def models_of(side: Sequence[Run]) -> int:
    """Models of each run of a side; 1 where all are matrices.

    Raises:
        DataError: Where a side mixes single models and ensembles, or ensembles of several sizes.
    """
    known = [run for run in side if run.models is not None]
    for run in known:
        if run.models != known[0].models:
            raise DataError(
                f"{run.path} is of {run.models} models, {known[0].path} of {known[0].models}, and runs of one side "
                "differ in their seeds only; compare ensembles of one size, or single models."
            )
    return (known[0].models or 1) if known else 1
