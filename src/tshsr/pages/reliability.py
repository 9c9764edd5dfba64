"""The reliability diagram of a calibration: how often results of each probability match, as one SVG file."""

from __future__ import annotations

from tshsr.metrics.calibration import CalibrationFigures
from tshsr.pages.charts import Chart, Curve, plot
from tshsr.pages.document import ENVIRONMENT


def render_reliability(before: CalibrationFigures, after: CalibrationFigures, title: str) -> str:
    """Bins of the scores and of the probabilities, with the diagonal of perfect calibration.

    Args:
        before: Of the scores themselves.
        after: Of the probabilities.
        title: Description for screen readers.
    """
    curves = (
        Curve("perfectly calibrated", ((0.0, 0.0), (1.0, 1.0))),
        Curve(f"score as it is: error {before.error:.3f}", points_of(before)),
        Curve(f"probability: error {after.error:.3f}", points_of(after)),
    )
    chart = Chart(title, "probability; above it, the share of results that match", curves)
    return ENVIRONMENT.get_template("reliability.svg.jinja").render(
        plot=plot(chart), title=chart.title, x_label=chart.x_label
    )


def points_of(figures: CalibrationFigures) -> tuple[tuple[float, float], ...]:
    """Mean probability and frequency of each bin."""
    return tuple((each.probability, each.frequency) for each in figures.bins)
