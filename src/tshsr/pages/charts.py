"""Line charts of a run: their data and their layout; `chart.html.jinja` draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tshsr.metrics.labels import LABELS, label

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 230, 44, 10, 8, 34
"""Size of a chart and of its margins, in SVG units."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: Scores have their own colours.
        points: (x, y) in the order of x; points that are not finite are omitted.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """A line chart with a heading and a label of the x axis."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]


def training_charts(log: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """The losses, rSum on dev, and the spread of the fused scores (0 indicates collapse).

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
    """Ticks that cover low..high: multiples of 1, 2 or 5 times a power of ten, at most `most` steps."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True)
class Tick:
    """A round number of an axis and its place."""

    value: float
    position: float


@dataclass(frozen=True)
class Line:
    """A curve in the coordinates of the SVG."""

    label: str
    css_class: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """A chart laid out in SVG coordinates: axes, ticks, lines, and a description for screen readers."""

    width: int
    height: int
    left: int
    right: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    description: str


def plot(chart: Chart) -> Plot | None:
    """Lay out a chart; None where it has no finite point."""
    curves = {curve.name: [p for p in curve.points if all(map(math.isfinite, p))] for curve in chart.curves}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    points = [point for line in curves.values() for point in line]
    x_ticks = nice_ticks(min(x for x, _ in points), max(x for x, _ in points))
    y_ticks = nice_ticks(min(0.0, *(y for _, y in points)), max(y for _, y in points))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x_of(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - LEFT)

    def y_of(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - TOP)

    return Plot(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        bottom=bottom,
        x_ticks=tuple(Tick(tick, x_of(tick)) for tick in x_ticks),
        y_ticks=tuple(Tick(tick, y_of(tick)) for tick in y_ticks),
        lines=tuple(
            Line(label(name), _css_class(name, number), tuple((x_of(x), y_of(y)) for x, y in line))
            for number, (name, line) in enumerate(curves.items())
        ),
        description="; ".join(
            f"{label(name)}: from {line[0][1]:.4g} to {line[-1][1]:.4g}" for name, line in curves.items()
        ),
    )


def _css_class(name: str, number: int) -> str:
    """The class that colours a line: by name for the known scores, by position for the others."""
    named = name in ("word_stream", "region_stream", "pooled", "fused", "loss")
    return f"series-{name}" if named else f"series-{number if number == 0 else 4 + (number - 1) % 4}"
