"""Line charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tshsr.pages.document import LABELS, escape, label

WIDTH, HEIGHT, LEFT, BOTTOM = 400, 230, 44, 34
"""Size of a chart and of its margins, in units of its own."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: A score's name (it has its own colour) or any other.
        points: (x, y) in the order of x; points that are not finite are left out.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """One small chart.

    Attributes:
        title: What is drawn.
        x_label: What runs to the right.
        curves: The lines.
    """

    title: str
    x_label: str
    curves: tuple[Curve, ...]


def training_charts(log: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """The losses, rSum on dev, and the spread of the fused scores (0 is collapse).

    Args:
        log: The lines of a run's `log.jsonl`.
    """
    steps = [line for line in log if line["kind"] == "steps"]
    epochs = [line for line in log if line["kind"] == "epoch"]
    losses = [name for name in ("loss", *LABELS) if any(name in line for line in steps)]
    scores = [name for name in LABELS if any(name in line["scores"] for line in epochs)]
    rsums = {name: [(line["epoch"], line["scores"][name]["rsum"]) for line in epochs] for name in scores}
    return (
        Chart("Loss", "steps", tuple(_logged(steps, name) for name in losses)),
        Chart("rSum on dev", "epochs", tuple(Curve(name, tuple(points)) for name, points in rsums.items())),
        Chart("Spread of the fused scores", "steps", (_logged(steps, "spread"),)),
    )


def _logged(steps: Sequence[Mapping[str, Any]], name: str) -> Curve:
    return Curve(name, tuple((line["step"], line[name]) for line in steps if name in line))


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover low..high: steps of 1, 2 or 5 times a power of ten, at most `most` steps."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def line_chart(chart: Chart) -> str:
    """The chart with its legend; a line of one point is a dot."""
    curves = {curve.name: [p for p in curve.points if all(map(math.isfinite, p))] for curve in chart.curves}
    curves = {name: points for name, points in curves.items() if points}
    legend = "".join(
        f'<li class="{_series(name, number)}"><span>{escape(label(name))}</span></li>'
        for number, name in enumerate(curves)
    )
    title = f"<h3>{escape(chart.title)}</h3>"
    if not curves:
        return f'<figure class="chart">{title}<p class="note">Nothing was logged.</p></figure>'
    return (
        f'<figure class="chart">{title}<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(_describe(curves))}">{_plot(chart.x_label, curves)}</svg>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _plot(x_label: str, curves: dict[str, list[tuple[float, float]]]) -> str:
    points = [point for line in curves.values() for point in line]
    x_ticks = nice_ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = nice_ticks(min(0.0, *(y for _, y in points)), max(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - 10), (HEIGHT - BOTTOM) - up * (HEIGHT - BOTTOM - 8)

    parts = []
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in x_ticks:
        x, y = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{tick:.4g}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 3}" text-anchor="end">{escape(x_label)}</text>')
    for number, (name, line) in enumerate(curves.items()):
        parts.append(f'<g class="{_series(name, number)}">{_line([place(*point) for point in line])}</g>')
    return "".join(parts)


def _line(points: list[tuple[float, float]]) -> str:
    if len(points) == 1:
        return f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    return '<path d="M{}"/>'.format("L".join(f"{x:.1f} {y:.1f}" for x, y in points))


def _series(name: str, number: int) -> str:
    """The class that colours a line: streams and pooled have their own, others go by their place."""
    own = name in ("word_stream", "region_stream", "pooled", "fused", "loss")
    return f"series-{name}" if own else f"series-{number if number == 0 else 4 + (number - 1) % 4}"


def _describe(curves: dict[str, list[tuple[float, float]]]) -> str:
    """First and last value of each line, for those who can't see it."""
    return "; ".join(f"{label(name)}: from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in curves.items())
