"""The explanation page: pick a word, see its regions; both streams, every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from PIL import Image

from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation, Rows, StreamExplanation
from tshsr.pages.document import (
    document,
    escape,
    json_script,
    label,
    percent,
    picture_symbols,
    reading_order,
    stream_label,
)

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


WHO_LOOKS = {"word_stream": "Words look at regions", "region_stream": "Regions look at words"}

HOW_TO_READ = (
    "Point at a word, tab to it or tap it: the regions it met light up. The two streams look from opposite sides. "
    "The bar below a word is its share of the weight; a level reads single meetings first, then ever wider context. "
    "All levels: a word's map is what its meetings add to the score; what speaks against the pair is left dark."
)


SHOWN_REGIONS = 6
"""Regions whose relevance is listed."""


class View(TypedDict):
    """What the script shows at one setting of the switches: rows of weights, and the share of each word."""

    rows: list[list[float]]
    shares: list[float]


def render_explanations(explanations: Sequence[Explanation], pictures: Sequence[Image.Image | None]) -> str:
    """A page that explains one or more pairs.

    Args:
        explanations: What `explain_pair` returned.
        pictures: The picture of each; None where there is none.

    Returns:
        One HTML file that needs no network; write it with `tshsr.files.write_text`.

    Raises:
        InputError: Where the two sequences differ in length, or there is nothing to explain.
    """
    if len(explanations) != len(pictures) or not explanations:
        raise InputError(
            f"got {len(explanations)} explanations and {len(pictures)} pictures; "
            "expected at least one explanation and a picture (or None) for each."
        )
    known = {f"picture-{number}": picture for number, picture in enumerate(pictures) if picture is not None}
    sections = []
    for number, explanation in enumerate(explanations):
        picture = pictures[number]
        size = None if picture is None else picture.size
        sections.append(explanation_section(explanation, f"pair-{number}", f"picture-{number}", size))
    head = f'<header class="masthead"><h1>Which word met which region</h1><p class="lede">{HOW_TO_READ}</p></header>'
    return document("Which word met which region", "\n".join([picture_symbols(known, side=900), head, *sections]))


def explanation_section(explanation: Explanation, name: str, picture: str, picture_size: tuple[int, int] | None) -> str:
    """One explanation as a part of a page; it can be read without the script, which makes it answer to the pointer.

    Args:
        explanation: What to show.
        name: An element id that no other section of the page has.
        picture: Element id of the picture (see `picture_symbols`).
        picture_size: Its width and height; None where there is no picture.
    """
    stream = next(iter(explanation.streams), "")
    boxed = explanation.boxes is not None
    if stream:
        data = _data(explanation)
        word = _heaviest_word(data["views"][stream][0])
        head = _controls(explanation, name, data, word)
        stage = f'<div class="stage">{_maps(explanation, name, picture, picture_size, word)}{json_script(data)}</div>'
    else:
        head, stage = '<p class="note">This method scores pairs without a trace: there are no maps to show.</p>', ""
    return (
        f'<article class="explanation" id="{name}" aria-labelledby="{name}-caption" data-stream="{stream}">'
        f'<h2 class="caption" id="{name}-caption" dir="auto">{escape(explanation.caption)}</h2>{head}'
        f'<div class="split{" beside-picture" if stream and boxed else ""}">{stage}'
        f'<div class="details">{_relevance(explanation)}{_contributions(explanation)}{_scores(explanation)}</div>'
        "</div></article>"
    )


def _controls(explanation: Explanation, name: str, data: dict[str, dict[str, list[View]]], word: int) -> str:
    """The switches, the words as buttons, and a line for what is shown."""
    views = data["views"]
    levels = max(len(view) for view in views.values()) - 1
    names = {"0": "All levels"} | {str(level + 1): f"Level {level}" for level in range(levels)}
    streams = _switch(f"{name}-stream", "Stream", {stream: WHO_LOOKS[stream] for stream in views})
    words = _words(explanation.words, next(iter(views.values()))[0]["shares"], word)
    return (
        f'<div class="switches">{streams}{_switch(f"{name}-level", "Level", names)}</div>{words}'
        '<p class="status" aria-live="polite"></p>'
    )


def _maps(explanation: Explanation, name: str, picture: str, picture_size: tuple[int, int] | None, word: int) -> str:
    """The lit picture, and the matrix; drawn for the first stream and all levels."""
    rows = next(iter(explanation.streams.values())).word_regions
    table = matrix(explanation.words, rows, selected=word)
    if explanation.boxes is None:
        return f'<p class="note">This picture has no boxes: the map is shown as a table, in percent.</p>{table}'
    drawing = canvas(f"{name}-mask", picture, picture_size, explanation.boxes, rows[word])
    return f"{drawing}<details><summary>All words and regions as a table, in percent</summary>{table}</details>"


def _data(explanation: Explanation) -> dict[str, dict[str, list[View]]]:
    """For the script: by stream, the view of all levels and then that of each level."""
    views = {}
    for name, stream in explanation.streams.items():
        levels = [
            View(rows=_rounded(level.word_regions), shares=_shares(level.word_regions)) for level in stream.levels
        ]
        views[name] = [View(rows=_rounded(stream.word_regions), shares=_mean_shares(stream)), *levels]
    return {"views": views}


def _heaviest_word(view: View) -> int:
    return max(range(len(view["shares"])), key=view["shares"].__getitem__)


def _rounded(rows: Rows) -> list[list[float]]:
    return [[round(weight, 4) for weight in row] for row in rows]


def _shares(rows: Rows) -> list[float]:
    return [round(sum(row), 4) for row in rows]


def _mean_shares(stream: StreamExplanation) -> list[float]:
    """Share of each word in the read-outs, averaged over levels."""
    columns = zip(*(_shares(level.word_regions) for level in stream.levels), strict=True)
    return [round(sum(column) / len(column), 4) for column in columns]


def _switch(name: str, legend: str, choices: dict[str, str]) -> str:
    """A row of radio buttons; the first is chosen."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{"" if number else " checked"}>'
        f"<span>{text}</span></label>"
        for number, (value, text) in enumerate(choices.items())
    )
    return f'<fieldset class="switch" data-switch="{legend.lower()}"><legend>{legend}</legend>{buttons}</fieldset>'


def _words(words: Sequence[str], shares: Sequence[float], selected: int) -> str:
    largest = max(shares) or 1.0
    buttons = "".join(
        f'<button type="button" class="word" aria-pressed="{"true" if number == selected else "false"}" '
        f'style="--w:{share / largest:.3f}" title="{percent(share)} of the weight"><bdi>{escape(word)}</bdi></button>'
        for number, (word, share) in enumerate(zip(words, shares, strict=True))
    )
    return f'<div class="words" role="group" aria-label="Words of the caption">{buttons}</div>'


def _scores(explanation: Explanation) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(label(name))}</th><td>{score:.3f}</td></tr>"
        for name, score in sorted(explanation.scores.items(), key=lambda item: reading_order(item[0]))
    )
    return f'<section><h3>Scores of this pair</h3><table class="figures"><tbody>{rows}</tbody></table></section>'


def _contributions(explanation: Explanation) -> str:
    """What each level adds to the logit of a stream, as bars around zero on one scale for all streams."""
    parts = {
        name: [(f"Level {n}", level.contribution) for n, level in enumerate(stream.levels)]
        + [("Whole (v·t)", stream.pooled), ("Bias", stream.bias)]
        for name, stream in explanation.streams.items()
    }
    largest = max((abs(value) for rows in parts.values() for _, value in rows), default=0.0) or 1.0
    sections = []
    for name, rows in parts.items():
        bars = "".join(_bar(text, value, value / largest) for text, value in rows)
        logit = sum(value for _, value in rows)
        sections.append(
            f'<section class="{name}"><h3>{stream_label(name)}: what adds up to the score</h3>'
            f'<dl class="contributions">{bars}</dl>'
            f"<p class=note>Sum {logit:+.2f}, as a score {explanation.streams[name].score:.3f}</p></section>"
        )
    return "".join(sections)


def _relevance(explanation: Explanation) -> str:
    """What each word adds to the logit, and the regions that add or take most; bars on one scale."""
    words, regions = explanation.word_relevance, explanation.region_relevance
    if not words:
        return ""
    strongest = sorted(range(len(regions)), key=lambda region: -abs(regions[region]))[:SHOWN_REGIONS]
    largest = max(map(abs, (*words, *regions))) or 1.0
    lists = {
        "What each word adds": [(escape(word), words[n]) for n, word in enumerate(explanation.words)],
        "Regions that count most": [(f"Region {region}", regions[region]) for region in strongest],
    }
    parts = []
    for heading, rows in lists.items():
        bars = "".join(_bar(f"<bdi>{text}</bdi>", value, value / largest) for text, value in rows)
        parts.append(f'<section class="relevance"><h3>{heading}</h3><dl class="contributions">{bars}</dl></section>')
    note = "Words and regions are two ways to share out the same sum; both streams, all levels and v·t together."
    return f"{''.join(parts)}<p class=note>{note}</p>"


def _bar(text: str, value: float, share: float) -> str:
    left, width = 50 + min(share, 0) * 50, abs(share) * 50
    return (
        f'<dt>{text}</dt><dd><span class="bar"><span style="left:{left:.1f}%;width:{width:.1f}%"></span></span>'
        f"<span class=value>{value:+.2f}</span></dd>"
    )
