"""The report page of a run: settings, training curves, recalls, probes, example searches, word-region maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation
from tshsr.metrics.labels import reading_order
from tshsr.metrics.recall import ScoreMetrics
from tshsr.metrics.report import Report, recall_table
from tshsr.pages.charts import Chart, plot
from tshsr.pages.document import EmbeddedPicture, embed_pictures, render_page
from tshsr.pages.explanation import HOW_TO_READ, Canvas, canvas_of, view_of


@dataclass(frozen=True)
class Hit:
    """One result of a search.

    Attributes:
        item: A caption, or the name of a picture.
        right: Whether it is relevant.
    """

    item: str
    score: float
    right: bool


@dataclass(frozen=True)
class Search:
    """A query, its first results, and the rank of the best relevant one.

    Attributes:
        query: A caption (pictures are searched) or the name of a picture (captions are searched).
        hits: The first results, best first.
        rank: Rank of the best relevant result, from 1; ties count against it.
    """

    query: str
    hits: tuple[Hit, ...]
    rank: int
    answer: Hit

    def shown(self) -> list[tuple[int, Hit]]:
        """Ranks and results to display: the first ones, and the relevant one where it is not among them."""
        first = list(enumerate(self.hits, start=1))
        return first if any(hit.right for hit in self.hits) else [*first, (self.rank, self.answer)]


def search_pictures(scores: np.ndarray, split: Split, caption: int, *, names: Sequence[str], k: int = 5) -> Search:
    """Text-to-image search: the pictures of a caption.

    Args:
        scores: Images x captions.
        names: Name of each image's picture.
        k: Number of results to keep.
    """
    right = np.arange(len(scores)) == split.image_of_caption[caption]
    return _search(split.captions[caption], scores[:, caption], right, names, k)


def search_captions(scores: np.ndarray, split: Split, image: int, *, names: Sequence[str], k: int = 5) -> Search:
    """Image-to-text search: the captions of a picture.

    Args:
        scores: Images x captions.
        names: Name of each image's picture.
        k: Number of results to keep.

    Raises:
        InputError: Where the image has no caption.
    """
    return _search(names[image], scores[image], split.image_of_caption == image, split.captions, k)


def _search(query: str, scores: np.ndarray, right: np.ndarray, items: Sequence[str], k: int) -> Search:
    if not right.any():
        raise InputError(f"nothing is relevant to {query!r}; expected an image with at least one caption.")
    order = np.lexsort((right, -scores))  # equal scores: the relevant one last, consistent with the rank
    best = int(order[right[order]][0])
    rank = 1 + int((scores[~right] >= scores[best]).sum())
    hits = tuple(Hit(items[i], float(scores[i]), bool(right[i])) for i in order[:k].tolist())
    return Search(query, hits, rank, Hit(items[best], float(scores[best]), right=True))


def first_examples(ranks: np.ndarray, *, found: int, missed: int) -> list[int]:
    """Indices of the first queries with rank 1 and of the first with a worse rank: examples without selection."""
    return [int(query) for query in (*np.flatnonzero(ranks == 1)[:found], *np.flatnonzero(ranks > 1)[:missed])]


METHOD = (
    "TSHSR, the Two-stream Hierarchical Similarity Reasoning network, scores pictures with sentences in two streams: "
    "in the word stream every word attends to the regions of the picture, in the region stream every region attends "
    "to the words. Each stream computes similarity vectors of the attended pairs and reasons over them on several "
    "levels, from single words or regions up to the whole pair. It was proposed by Chen, Wang, Wang and Kwong (arXiv "
    "2203.05349, 2022). Only the abstract of that work was available to us, and no code of it has been published: what "
    "the abstract leaves open is our own instantiation, and no figure on this page is taken from the paper."
)

SIDE = 360
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True)
class WordMaps:
    """An explained pair with the ground truth of its words.

    Attributes:
        true_regions: By position of each displayed word, the regions that it describes; empty where unknown.
    """

    picture: str
    explanation: Explanation
    true_regions: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class ReportPage:
    """The contents of the report page; empty parts are omitted.

    Attributes:
        facts: Seed, sizes, training time and so on, in the order of display.
        pointing_chance: Pointing accuracy of random guesses, 0..1.
        pictures: By name; holds every name used below.
        text_to_image: Searches by captions.
        image_to_text: Searches by pictures.
        maps: Explained pairs.
    """

    title: str
    report: Report
    facts: Mapping[str, str] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()
    pointing_chance: float | None = None
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)
    text_to_image: tuple[Search, ...] = ()
    image_to_text: tuple[Search, ...] = ()
    maps: tuple[WordMaps, ...] = ()


def render_report(page: ReportPage) -> str:
    """The page as one HTML file that needs no network; write it with `tshsr.files.write_text`."""
    pictures = embed_pictures(page.pictures, side=SIDE)
    return render_page(
        "report.html.jinja",
        title=page.title,
        method=METHOD,
        how_to_read=HOW_TO_READ,
        report=page.report,
        facts=_facts(page),
        recalls=recall_rows(page.report.scores),
        probes=_probes(page),
        charts=[(chart, plot(chart)) for chart in page.charts],
        pictures=pictures,
        text_to_image=page.text_to_image,
        image_to_text=page.image_to_text,
        maps=[
            MapCards(maps.explanation.caption, _cards(maps, f"map-{number}", pictures[maps.picture]))
            for number, maps in enumerate(page.maps)
        ],
        views=[
            view_of(maps.explanation, f"pair-{number}", pictures[maps.picture]) for number, maps in enumerate(page.maps)
        ],
    )


def _facts(page: ReportPage) -> dict[str, str]:
    report = page.report
    return {
        "Data": f"{report.data}, split {report.split}: {report.images:,} images, {report.captions:,} captions",
        "Model": ", ".join(report.models),
        **page.facts,
        "Encoding and scoring": f"{report.seconds:,.1f} s",
        "Machine": report.hardware,
        "Commit": report.commit,
    }


@dataclass(frozen=True)
class Figure:
    """A recall or rSum, rounded as displayed, and whether it is the largest of its column."""

    value: float
    best: bool


@dataclass(frozen=True)
class RecallRow:
    """The recalls of one score, in both directions, and their sum."""

    name: str
    figures: tuple[Figure, ...]


def recall_rows(scores: Mapping[str, ScoreMetrics]) -> list[RecallRow]:
    """Recalls of every score; the best of each column is marked (all of them where several are equal)."""
    figures = recall_table(scores)
    best = [max(column) for column in zip(*figures.values(), strict=True)]
    return [
        RecallRow(name, tuple(Figure(value, value == top) for value, top in zip(row, best, strict=True)))
        for name, row in figures.items()
    ]


@dataclass(frozen=True)
class ShareBars:
    """Horizontal bars from 0 to 1.

    Attributes:
        chance: Accuracy of random guesses, 0..1; None where unknown.
    """

    title: str
    shares: Mapping[str, float]
    chance: float | None


def _probes(page: ReportPage) -> list[ShareBars]:
    report = page.report
    probes = (
        ("Pointing: the heaviest region of a word is one that it describes", report.pointing, page.pointing_chance),
        ("Binding: the true caption scores above a foil with swapped words", report.binding, 0.5),
        ("Binding of the fused score by what is swapped", report.binding_by_kind, 0.5),
    )
    return [
        ShareBars(title, {name: shares[name] for name in sorted(shares, key=reading_order)}, chance)
        for title, shares, chance in probes
        if shares
    ]


@dataclass(frozen=True)
class MapFigure:
    """The map of a word in one stream.

    Attributes:
        canvas: The picture, lit.
        weight: The largest weight.
        right: Whether it lies on a true region; None where the truth is unknown.
    """

    stream: str
    canvas: Canvas
    weight: float
    right: bool | None


@dataclass(frozen=True)
class MapCard:
    """The maps of a word in all streams."""

    word: str
    figures: tuple[MapFigure, ...]


@dataclass(frozen=True)
class MapCards:
    """The maps of the words of a caption."""

    caption: str
    cards: tuple[MapCard, ...]


def _cards(maps: WordMaps, id: str, picture: EmbeddedPicture) -> tuple[MapCard, ...]:  # noqa: A002
    explanation, boxes = maps.explanation, maps.explanation.boxes
    cards = []
    for word in sorted(maps.true_regions):
        rows = {} if boxes is None else {name: it.word_regions[word] for name, it in explanation.streams.items()}
        figures = tuple(
            MapFigure(
                stream,
                canvas_of(f"{id}-{word}-{stream}", picture, boxes or (), row),
                max(row),
                _points_right(row, maps.true_regions[word]),
            )
            for stream, row in rows.items()
        )
        cards.append(MapCard(explanation.words[word], figures))
    return tuple(cards)


def _points_right(row: Sequence[float], true: Sequence[int]) -> bool | None:
    """Whether the heaviest region is a true one (a tie with a wrong one is not); None where the truth is unknown."""
    if not true:
        return None
    wrong = max((value for region, value in enumerate(row) if region not in true), default=0.0)
    return max(row[region] for region in true) > wrong
