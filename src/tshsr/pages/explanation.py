"""The explanation page: weights of each word over the regions, for both streams and every level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup
from PIL import Image

from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation, Rows, StreamExplanation
from tshsr.metrics.labels import STREAM_CHOICES, reading_order
from tshsr.pages.document import EmbeddedPicture, embed_pictures, json_script, percent, render_page

WIDTH = 100.0
"""Width of a canvas in user units; its height follows the picture."""

EMPTY_SIZE = (4, 3)
"""Proportions of a canvas without a picture."""

HOW_TO_READ = (
    "Point at a word, focus it or tap it to highlight its regions. In one stream words attend to regions, in the other "
    "regions attend to words. The bar below a word is its share of the weight. Level 0 compares single words and "
    "regions, higher levels use wider context. All levels: the contribution of each region to the score through this "
    "word; negative contributions stay dark."
)

SHOWN_REGIONS = 6
"""Regions whose relevance is listed."""

SIDE = 900
"""Longest side of an embedded picture, in pixels."""


@dataclass(frozen=True)
class Box:
    """A region on a canvas: user units and the weight relative to the largest, formatted for SVG and CSS."""

    x: str
    y: str
    width: str
    height: str
    weight: str


@dataclass(frozen=True)
class Canvas:
    """A darkened picture with its regions lit by weight.

    Attributes:
        id: Element id of the mask, unique in the page.
        picture: Element id of the picture; None for an empty canvas.
        width: User units.
        height: User units.
        description: The three heaviest regions in words.
        boxes: One for each region.
    """

    id: str
    picture: str | None
    width: str
    height: str
    description: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Cell:
    """A weight of the matrix: its value, and its ratio to the largest of the row."""

    value: float
    weight: float


@dataclass(frozen=True)
class MatrixRow:
    """The weights of a word over the regions."""

    word: str
    selected: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """Words x regions as a table."""

    regions: int
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True)
class Bar:
    """A signed value as a bar from the middle of its track.

    Attributes:
        text: Label.
        left: Start of the bar, in percent of the track.
        width: In percent of the track.
    """

    text: str
    value: float
    left: float
    width: float


@dataclass(frozen=True)
class Contributions:
    """The terms of the logit of a stream, and its score."""

    name: str
    bars: tuple[Bar, ...]
    logit: float
    score: float


@dataclass(frozen=True)
class WordButton:
    """A word of the caption, its share of the weight, and that share relative to the largest."""

    text: str
    share: float
    weight: float
    selected: bool


@dataclass(frozen=True)
class ExplanationView:
    """The displayed values of one explanation.

    Attributes:
        id: Element id, unique in the page.
        stream: The stream that is displayed without the script; empty for a method without a trace.
        streams: Display names by stream.
        levels: Display names by value of the switch.
        words: Buttons.
        canvas: The picture; None without boxes or trace.
        matrix: The weights as a table; None without a trace.
        data: Script element with the weights of all streams and levels, shaped as `Explanation.streams`.
        relevance: By heading, bars of words or regions.
        contributions: One for each stream.
        scores: By name, in reading order.
        whole: Term of the whole picture and caption in the logit, mean of the streams, to two decimals.
    """

    id: str
    caption: str
    stream: str
    streams: Mapping[str, str]
    levels: Mapping[str, str]
    words: tuple[WordButton, ...]
    canvas: Canvas | None
    matrix: Matrix | None
    data: Markup
    relevance: Mapping[str, tuple[Bar, ...]]
    contributions: tuple[Contributions, ...]
    scores: Mapping[str, float]
    whole: float = 0.0


def render_explanations(explanations: Sequence[Explanation], pictures: Sequence[Image.Image | None]) -> str:
    """A page that explains one or more pairs.

    Args:
        explanations: Results of `explain_pair`.
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
    known = {str(number): picture for number, picture in enumerate(pictures) if picture is not None}
    embedded = embed_pictures(known, side=SIDE)
    return render_page(
        "explanations.html.jinja",
        title="Explanation by words and regions",
        how_to_read=HOW_TO_READ,
        pictures=list(embedded.values()),
        views=[
            view_of(explanation, f"pair-{number}", embedded.get(str(number)))
            for number, explanation in enumerate(explanations)
        ],
    )


def view_of(explanation: Explanation, id: str, picture: EmbeddedPicture | None) -> ExplanationView:  # noqa: A002
    """The displayed values of an explanation.

    Args:
        id: Element id, unique in the page.
        picture: The picture in the page.
    """
    streams = list(explanation.streams)
    if not streams:
        return ExplanationView(
            id, explanation.caption, "", {}, {}, (), None, None, Markup(), {}, (), _in_order(explanation.scores)
        )
    shares = _mean_shares(explanation.streams[streams[0]])
    word = max(range(len(shares)), key=shares.__getitem__)
    rows = explanation.streams[streams[0]].word_regions
    boxes = explanation.boxes
    count = max(len(stream.levels) for stream in explanation.streams.values())
    levels = {str(level + 1): f"Level {level}" for level in range(count)}
    return ExplanationView(
        id=id,
        caption=explanation.caption,
        stream=streams[0],
        streams={name: STREAM_CHOICES[name] for name in streams},
        levels={"0": "All levels"} | levels,
        words=_word_buttons(explanation.words, shares, word),
        canvas=None if boxes is None else canvas_of(f"{id}-mask", picture, boxes, rows[word]),
        matrix=_matrix(explanation.words, rows, word),
        data=json_script({name: _weights(stream) for name, stream in explanation.streams.items()}),
        relevance=_relevance(explanation),
        contributions=_contributions(explanation),
        scores=_in_order(explanation.scores),
        whole=round(fmean(one.whole for one in explanation.streams.values()), 2),
    )


def canvas_of(id: str, picture: EmbeddedPicture | None, boxes: Rows, weights: Sequence[float]) -> Canvas:  # noqa: A002
    """A picture with its regions lit by weight, relative to the heaviest.

    Args:
        id: Element id of the mask, unique in the page.
        picture: The picture; None draws the boxes on an empty canvas.
        boxes: x1, y1, x2, y2 of each region as fractions of the picture.
        weights: One for each region.
    """
    width, height = EMPTY_SIZE if picture is None else picture.size
    units = WIDTH * height / width
    largest = max(weights, default=0.0) or 1.0
    heaviest = sorted(range(len(weights)), key=lambda region: -weights[region])[:3]
    return Canvas(
        id=id,
        picture=None if picture is None else picture.id,
        width=f"{WIDTH:g}",
        height=f"{units:.2f}",
        description=", ".join(f"region {region} {percent(weights[region])}" for region in heaviest),
        boxes=tuple(
            Box(
                x=f"{x1 * WIDTH:.2f}",
                y=f"{y1 * units:.2f}",
                width=f"{max(x2 - x1, 0) * WIDTH:.2f}",
                height=f"{max(y2 - y1, 0) * units:.2f}",
                weight=f"{weight / largest:.3f}",
            )
            for (x1, y1, x2, y2), weight in zip(boxes, weights, strict=True)
        ),
    )


def _weights(stream: StreamExplanation) -> dict[str, Any]:
    """Words x regions of a stream and of each of its levels, for the script."""
    levels = [{"word_regions": _rounded(level.word_regions)} for level in stream.levels]
    return {"word_regions": _rounded(stream.word_regions), "levels": levels}


def _rounded(rows: Rows) -> list[list[float]]:
    return [[round(weight, 5) for weight in row] for row in rows]


def _mean_shares(stream: StreamExplanation) -> list[float]:
    """Share of each word in the weight, averaged over the levels."""
    columns = zip(*(map(sum, level.word_regions) for level in stream.levels), strict=True)
    return [sum(column) / len(column) for column in columns]


def _word_buttons(words: Sequence[str], shares: Sequence[float], selected: int) -> tuple[WordButton, ...]:
    largest = max(shares) or 1.0
    return tuple(
        WordButton(word, share, share / largest, number == selected)
        for number, (word, share) in enumerate(zip(words, shares, strict=True))
    )


def _matrix(words: Sequence[str], rows: Rows, selected: int) -> Matrix:
    """The weights as a table, each relative to the largest of its word."""
    lines = []
    for number, (word, row) in enumerate(zip(words, rows, strict=True)):
        largest = max(row, default=0.0) or 1.0
        lines.append(MatrixRow(word, number == selected, tuple(Cell(weight, weight / largest) for weight in row)))
    return Matrix(len(rows[0]), tuple(lines))


def _in_order(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in sorted(scores, key=reading_order)}


def _contributions(explanation: Explanation) -> tuple[Contributions, ...]:
    """Terms of the logit of each stream: levels, v·t and the bias; bars on one scale for all streams."""
    terms = {
        name: [(f"Level {n}", level.contribution) for n, level in enumerate(stream.levels)]
        + [("Pooled (v·t)", stream.pooled), ("Bias", stream.bias)]
        for name, stream in explanation.streams.items()
    }
    largest = max((abs(value) for rows in terms.values() for _, value in rows), default=0.0) or 1.0
    return tuple(
        Contributions(
            name,
            bars=tuple(_bar(text, value, largest) for text, value in rows),
            logit=sum(value for _, value in rows),
            score=explanation.streams[name].score,
        )
        for name, rows in terms.items()
    )


def _relevance(explanation: Explanation) -> dict[str, tuple[Bar, ...]]:
    """Relevance of every word, and of the regions with the largest magnitude; bars on one scale."""
    words, regions = explanation.word_relevance, explanation.region_relevance
    if not words:
        return {}
    strongest = sorted(range(len(regions)), key=lambda region: -abs(regions[region]))[:SHOWN_REGIONS]
    largest = max(map(abs, (*words, *regions))) or 1.0
    return {
        "Relevance of words": tuple(
            _bar(word, value, largest) for word, value in zip(explanation.words, words, strict=True)
        ),
        "Regions of largest relevance": tuple(
            _bar(f"Region {region}", regions[region], largest) for region in strongest
        ),
    }


def _bar(text: str, value: float, largest: float) -> Bar:
    share = value / largest
    return Bar(text, value, left=50 + min(share, 0) * 50, width=abs(share) * 50)
