"""`tshsr calibrate`: probabilities from a run's scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tshsr.cli.options import Argument, Flag, Name, Output, OutputPath, choose_device, load_retriever, parse
from tshsr.cli.screen import Screen
from tshsr.errors import DataError, SettingsError
from tshsr.files import write_text

if TYPE_CHECKING:
    from tshsr.data.dataset import Split
    from tshsr.evaluation.calibrate import CalibrationReport, Refusals
    from tshsr.scoring.calibration import Calibration

EXAMPLE = "tshsr calibrate runs/first --data DIR"
POPULATIONS = {"first": "first results", "shown": "ten shown results", "candidates": "all candidates"}
"""Titles of the populations of results."""


@dataclass(frozen=True)
class Calibrate:
    """Fit probabilities of a match to a run's scores, and measure them; they are kept in the run's folder.

    The fit takes the results of a search with every caption of a split: its best candidates by v·t, one of which is
    right. tshsr search then shows probabilities, and --min-probability leaves out unlikely results.
    """

    run: Annotated[str, Argument("RUN", positional=True)]
    """A run's folder, or a saved model's."""
    data: Annotated[str, Argument("DIR")]
    """A folder of data, or the word scenes."""
    split: str = "dev"
    """The split of the fit; its pictures must not have trained the run."""
    test: str = "test"
    """The split on which probabilities are measured."""
    candidates: int = 100
    """Results of a search: pictures by v·t that the network scores."""
    others: tuple[Path, ...] = ()
    """Files with captions of other collections, one per line: how often does a search for them say that nothing
    matches?"""
    picture: OutputPath = None
    """Write the reliability diagram of the shown results to this file, as SVG."""
    json: Output = None
    """Write the figures to this file; - writes them to stdout, in place of the tables."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Fit, keep and measure."""
    wanted = parse(Calibrate, "tshsr calibrate", arguments, example=EXAMPLE)
    check(wanted)
    from tshsr.data.layouts import open_split
    from tshsr.evaluation.calibrate import check_pictures, fit_calibration, measure_calibration, search_split
    from tshsr.pages.reliability import render_reliability
    from tshsr.scoring.calibration import settings_digest, weights_digest
    from tshsr.scoring.options import ScoringOptions
    from tshsr.system import provenance

    device = choose_device(wanted.device)
    names = [path.name for path in wanted.others]
    unique = len(set(names)) == len(names)
    others = {path.name if unique else str(path): read_others(path) for path in wanted.others}
    retriever = load_retriever(wanted.run, device)
    known, test = (retriever.readable(open_split(wanted.data, name)) for name in (wanted.split, wanted.test))
    check_pictures(known, test)
    check_splits(known, test)
    options = ScoringOptions(device=device)
    with screen.progress(quiet=wanted.quiet) as begin:
        fitted = replace(options, progress=begin(f"searching {known.name}", "pairs"))
        lists = search_split(retriever, known, wanted.candidates, fitted)
        run = Path(wanted.run)
        probabilities = retriever.matcher.has_probabilities
        calibration = fit_calibration(lists, known, weights_digest(run), probabilities=probabilities)
        calibration = replace(calibration, settings=settings_digest(run))
        calibration.save(run)
        options = replace(options, progress=begin(f"searching {test.name}", "pairs"))
        report = measure_calibration(calibration, retriever, test, others, options)
    if wanted.json != "-":
        screen.say(f"{Path(wanted.run) / 'calibration.json'}: {formula(calibration)}")
        show(screen, test, report)
    if wanted.picture is not None:
        title = f"{retriever.name} on {test.data}, split {test.name}"
        write_text(wanted.picture, render_reliability(report.before["shown"], report.after["shown"], title))
    if wanted.json is not None:
        values = {"command": command_of(wanted, retriever.name, test.data), **provenance()}
        values |= {"test": test.name, "pictures": len(test.regions), "calibration": asdict(calibration)}
        values |= asdict(report)
        screen.json(json.dumps(values, indent=2), wanted.json)


def command_of(wanted: Calibrate, model: str, data: str) -> str:
    """The command of a report, with names in place of folders."""
    others = "".join(f" {path.name}" for path in wanted.others)
    return (
        f"tshsr calibrate {model} --data {data} --split {wanted.split} --test {wanted.test} "
        f"--candidates {wanted.candidates}{' --others' if others else ''}{others}"
    )


def check(wanted: Calibrate) -> None:
    """Refuse a run without a folder and fewer than two candidates.

    Raises:
        SettingsError: Where there is one; the message says what to do.
    """
    if not Path(wanted.run).is_dir():
        raise SettingsError(
            f"{wanted.run} is no folder; a calibration is kept beside the weights. Download the model first, or name "
            "the folder of a run."
        )
    if wanted.candidates < 2:
        raise SettingsError(f"--candidates is {wanted.candidates}; expected at least 2, a right and a wrong one.")


def check_splits(known: Split, test: Split) -> None:
    """Refuse a measurement on pictures of the fit, on which probabilities look better than they are.

    Raises:
        SettingsError: Where there are any.
    """
    from tshsr.data.check import has_row_numbers

    shared = set() if has_row_numbers(known) or has_row_numbers(test) else {*known.image_ids} & {*test.image_ids}
    if known.name == test.name or shared:
        number = len(test.regions) if known.name == test.name else len(shared)
        raise SettingsError(
            f"--split {known.name} and --test {test.name} share {number:,} pictures, and probabilities must be "
            "measured on others than those of the fit; name another split."
        )


def read_others(path: Path) -> list[str]:
    """The captions of a file, one per line.

    Raises:
        DataError: Where it cannot be read, or has no caption.
    """
    from tshsr.evaluation.calibrate import other_captions

    try:
        found = other_captions(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected one caption per line.") from None
    if not found:
        raise DataError(f"{path} has no captions; expected one per line.")
    return found


def formula(calibration: Calibration) -> str:
    """The fitted map, and its data."""
    terms = f"{calibration.low:.3f} s"
    if calibration.link == "beta":
        terms = f"{calibration.low:.3f} ln s - {calibration.high:.3f} ln(1 - s)"
    return (
        f"log-odds {terms} {calibration.intercept:+.3f} in a collection of {calibration.pictures:,} pictures; "
        f"fitted on {calibration.data}, split {calibration.split}, {calibration.candidates} candidates a caption."
    )


def show(screen: Screen, test: Split, report: CalibrationReport) -> None:
    """Calibration before and after, by population and by size of the collection, and queries without a result."""
    figures = ("error", "Brier", "log loss")
    header = ("results", "pairs", "match", *(head for name in figures for head in (f"{name}\nbefore", "after")))
    rows = []
    for name, title in POPULATIONS.items():
        one, other = report.before[name], report.after[name]
        pairs = [f"{getattr(each, key):.4f}" for key in ("error", "brier", "log_loss") for each in (one, other)]
        rows.append((title, f"{one.pairs:,}", f"{100 * one.matches / one.pairs:.1f} %", *pairs))
    screen.say(f"calibration on {test.data}, split {test.name}: {len(test.regions):,} pictures")
    screen.table(header, rows)
    parts = [f"{size:,} pictures {own:.3f} ({fixed:.3f})" for size, (fixed, own) in report.sizes.items()]
    screen.say(f"error of shown results in parts of the collection (with the prior of the fit): {', '.join(parts)}")
    levels = list(next(iter(report.refusals.values())).nothing)
    screen.say("queries for which nothing matches, in percent, by --min-probability (in brackets: own picture found):")
    screen.table(
        ("queries", "number", "mean of the\nhighest", *(f"{level:g}" for level in levels)),
        [refusal_row(name, each, levels) for name, each in report.refusals.items()],
    )


def refusal_row(name: str, refusals: Refusals, levels: Sequence[float]) -> tuple[str, ...]:
    """A line of the second table."""
    cells = []
    for level in levels:
        right = "" if refusals.right is None else f" ({100 * refusals.right[level]:.0f})"
        cells.append(f"{100 * refusals.nothing[level]:.0f}{right}")
    values: tuple[Any, ...] = (f"{refusals.queries:,}", f"{refusals.highest:.3f}")
    return (name, *values, *cells)
