"""Word-region maps as drawings: a spotlight on the picture, or a matrix."""

from __future__ import annotations

from collections.abc import Sequence

from tshsr.explain.attribution import Rows
from tshsr.pages.document import escape, percent

WIDTH = 100.0
"""Width of a canvas in its own units; its height follows the picture."""

EMPTY_SIZE = (4, 3)
"""Proportions of the canvas where there is no picture."""


def canvas(name: str, picture: str, picture_size: tuple[int, int] | None, boxes: Rows, weights: Sequence[float]) -> str:
    """The picture in the dark, its boxes lit by weight: every box has a hole in the veil and an outline.

    Args:
        name: An element id that nothing else on the page has.
        picture: Element id of the picture.
        picture_size: Its width and height; None draws the boxes on an empty canvas.
        boxes: x1, y1, x2, y2 of each region as fractions of the picture.
        weights: One weight a region; the heaviest is lit fully.
    """
    width, height = picture_size or EMPTY_SIZE
    height_units = WIDTH * height / width
    largest = max(weights, default=0.0) or 1.0
    lit = [f'style="--w:{weight / largest:.3f}"' for weight in weights]
    shapes = [_rectangle(box, height_units) for box in boxes]
    holes = "".join(f'<rect class="hole" {shape} {light}/>' for shape, light in zip(shapes, lit, strict=True))
    outlines = "".join(f'<rect class="box" {shape} {light}/>' for shape, light in zip(shapes, lit, strict=True))
    whole = f'width="{WIDTH:g}" height="{height_units:.2f}"'
    back = f'<use href="#{escape(picture)}" {whole}/>' if picture_size else f'<rect class="empty" {whole}/>'
    veil = f'<rect class="veil" {whole} mask="url(#{name})"/>' if picture_size else ""
    return (
        f'<svg class="canvas{"" if picture_size else " bare"}" viewBox="0 0 {WIDTH:g} {height_units:.2f}" role="img" '
        f'aria-label="{_describe(weights)}">{back}<mask id="{name}"><rect fill="white" {whole}/>{holes}</mask>{veil}'
        f'{outlines}<g class="labels"></g></svg>'
    )


def _rectangle(box: Sequence[float], height: float) -> str:
    x1, y1, x2, y2 = box
    return (
        f'x="{x1 * WIDTH:.2f}" y="{y1 * height:.2f}" width="{max(x2 - x1, 0) * WIDTH:.2f}" '
        f'height="{max(y2 - y1, 0) * height:.2f}"'
    )


def _describe(weights: Sequence[float]) -> str:
    """The three heaviest regions in words."""
    order = sorted(range(len(weights)), key=lambda region: -weights[region])[:3]
    return ", ".join(f"region {region} {escape(percent(weights[region]))}" for region in order)


def matrix(words: Sequence[str], rows: Rows, *, selected: int | None = None) -> str:
    """Words x regions as a table; the darker a cell, the heavier, against the heaviest of its word."""
    head = "".join(f"<th scope=col>{region}</th>" for region in range(len(rows[0])))
    lines = "".join(
        f"<tr{' class=selected' if number == selected else ''}>"
        f"<th scope=row><bdi>{escape(word)}</bdi></th>{_cells(row)}</tr>"
        for number, (word, row) in enumerate(zip(words, rows, strict=True))
    )
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Weights of words and regions">'
        f'<table class="matrix"><thead><tr><th scope=col>word \\ region</th>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cells(row: Sequence[float]) -> str:
    largest = max(row, default=0.0) or 1.0
    return "".join(f'<td style="--w:{weight / largest:.3f}">{100 * weight:.0f}</td>' for weight in row)
