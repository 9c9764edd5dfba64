"""A report on the screen."""

from __future__ import annotations

from tshsr.commands.progress import duration
from tshsr.commands.screen import Screen
from tshsr.render.document import reading_order
from tshsr.reports import HEADER, Report


def show_report(screen: Screen, report: Report) -> None:
    """The figures of a report, and what they were measured on."""
    what = f"{report.data}, split {report.split}: {report.images:,} images, {report.captions:,} captions"
    screen.say(f"{what}; protocol {report.protocol}; {members(report)}; {duration(report.seconds)}")
    header = [name.replace(" text", "\ntext").replace(" image", "\nimage").replace(" R@", "\nR@") for name in HEADER]
    screen.table(header, sorted(report.table(), key=lambda row: reading_order(row[0])))
    shown = (("pointing", "words whose heaviest region is right"), ("binding", "true captions above their foils"))
    for name, meaning in shown:
        shares = getattr(report, name)
        if shares:
            figures = ", ".join(f"{score} {100 * shares[score]:.1f} %" for score in sorted(shares, key=reading_order))
            screen.say(f"{name} ({meaning}): {figures}")


def members(report: Report) -> str:
    """The model, or the ensemble with its members."""
    names = ", ".join(report.models)
    return f"ensemble of {len(report.models)} models ({names})" if len(report.models) > 1 else f"model {names}"
