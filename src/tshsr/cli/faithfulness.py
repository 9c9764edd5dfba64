"""`tshsr faithfulness`: deletion and insertion curves of a run's explanations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, Flag, Name, OptionalPath, Output, load_retriever, parse
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError

if TYPE_CHECKING:
    from tshsr.data.dataset import Split
    from tshsr.metrics.report import Report

EXAMPLE = "tshsr faithfulness runs/first --data DIR"


@dataclass(frozen=True)
class FaithfulnessCommand:
    """Measure whether the score falls without the regions and words that an explanation ranks first."""

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or owner/name on the Hugging Face hub."""
    data: Annotated[str, Argument("DIR")]
    """A folder of data, or the word scenes."""
    split: str = "test"
    """Which split of the data."""
    pairs: int = 500
    """Pairs of an image and one of its captions, no image twice; all images where there are fewer."""
    report: OptionalPath = None
    """Add the figures to this report, which tshsr evaluate --json wrote of the same run and split."""
    json: Output = None
    """Write the figures to this file; - writes them to stdout, in place of the table."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Measure explanations.

    Raises:
        SettingsError: Where no pair is to be measured.
    """
    wanted = parse(FaithfulnessCommand, "tshsr faithfulness", arguments, example=EXAMPLE)
    if wanted.pairs < 1:
        raise SettingsError(f"--pairs is {wanted.pairs}; expected at least 1.")
    from tshsr.cli.tables import show_explanations
    from tshsr.data.entities import read_entities
    from tshsr.data.layouts import find_data, open_split
    from tshsr.data.text import WordRules
    from tshsr.data.truth import read_truth
    from tshsr.explain.faithfulness import measure_explanations

    place, split = find_data(wanted.data), open_split(wanted.data, wanted.split)
    retriever = load_retriever(wanted.run, wanted.device)
    split = retriever.readable(split)
    report = None if wanted.report is None else open_report(wanted.report, retriever.name, split)
    truth = read_truth(place, split.name) or read_entities(place, split, WordRules().words)
    with screen.progress(quiet=wanted.quiet) as begin:
        progress = begin("explaining", "pairs")
        figures = measure_explanations(retriever, split, pairs=wanted.pairs, truth=truth, progress=progress)
    if wanted.json != "-":
        show_explanations(screen, figures)
    if wanted.json is not None:
        about = {"data": split.data, "split": split.name, "models": [retriever.name]}
        screen.json(json.dumps({**about, "explanations": asdict(figures)}, indent=2, allow_nan=False), wanted.json)
    if report is not None and wanted.report is not None:
        replace(report, explanations=figures).write(wanted.report)


def open_report(path: Path, model: str, split: Split) -> Report:
    """The report of a model on a split.

    Raises:
        DataError: Where the file is no report, or one of another model, split or captions.
    """
    from tshsr.metrics.report import read_report

    report = read_report(path)
    same_captions = report.captions_digest in (None, split.captions_digest)
    if (report.models, report.data, report.split) != ((model,), split.data, split.name) or not same_captions:
        raise DataError(
            f"{path} is of {', '.join(report.models)} on {report.data}, split {report.split}; expected a report of "
            f"{model} on {split.data}, split {split.name}, and the same captions. Write it with tshsr evaluate --json."
        )
    return report
