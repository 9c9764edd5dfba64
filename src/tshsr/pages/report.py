"""The report page of a run: what was run, curves, recalls, probes, galleries, and word-region maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.explain.attribution import Explanation
from tshsr.metrics.recall import ScoreMetrics
from tshsr.metrics.report import Report
from tshsr.pages.charts import Chart, line_chart
from tshsr.pages.document import (
    document,
    escape,
    label,
    percent,
    picture_symbols,
    picture_use,
    reading_order,
    stream_label,
)
from tshsr.pages.explanation import HOW_TO_READ, canvas, explanation_section


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        item: A caption, or the name of a picture.
        score: Its score.
        right: Whether it is a right answer.
    """

    item: str
    score: float
    right: bool


@dataclass(frozen=True)
class Search:
    """A query, its first answers, and the rank of the best right one.

    Attributes:
        query: A caption (pictures are searched) or the name of a picture (captions are searched).
        hits: The first answers, best first.
        rank: Rank of the best right answer, from 1; ties count against it.
        answer: The best right answer.
    """

    query: str
    hits: tuple[Hit, ...]
    rank: int
    answer: Hit

    def shown(self) -> list[tuple[int, Hit]]:
        """Ranks and answers to show: the first ones, and the right one where it is not among them."""
        first = list(enumerate(self.hits, start=1))
        return first if any(hit.right for hit in self.hits) else [*first, (self.rank, self.answer)]


def search_pictures(scores: np.ndarray, split: Split, caption: int, *, names: Sequence[str], k: int = 5) -> Search:
    """The pictures that a caption finds.

    Args:
        scores: Images x captions.
        split: Whose images and captions these are.
        caption: Number of the caption.
        names: Name of each image's picture.
        k: Number of answers to keep.
    """
    right = np.arange(len(scores)) == split.image_of_caption[caption]
    return _search(split.captions[caption], scores[:, caption], right, names, k)


def search_captions(scores: np.ndarray, split: Split, image: int, *, names: Sequence[str], k: int = 5) -> Search:
    """The captions that a picture finds.

    Args:
        scores: Images x captions.
        split: Whose images and captions these are.
        image: Number of the image.
        names: Name of each image's picture.
        k: Number of answers to keep.

    Raises:
        InputError: Where the image has no caption.
    """
    return _search(names[image], scores[image], split.image_of_caption == image, split.captions, k)


def _search(query: str, scores: np.ndarray, right: np.ndarray, items: Sequence[str], k: int) -> Search:
    if not right.any():
        raise InputError(f"nothing is a right answer to {query!r}; expected an image with captions of its own.")
    order = np.lexsort((right, -scores))  # equal scores: the right one last, as the rank has it
    best = int(order[right[order]][0])
    rank = 1 + int((scores[~right] >= scores[best]).sum())
    hits = tuple(Hit(items[i], float(scores[i]), bool(right[i])) for i in order[:k].tolist())
    return Search(query, hits, rank, Hit(items[best], float(scores[best]), right=True))


def first_examples(ranks: np.ndarray, *, found: int, missed: int) -> list[int]:
    """The first queries answered right at rank 1 and the first that were not: examples that nobody picked."""
    return [int(query) for query in (*np.flatnonzero(ranks == 1)[:found], *np.flatnonzero(ranks > 1)[:missed])]


def picture_gallery(search: Search, ids: Mapping[str, str], pictures: Mapping[str, Image.Image]) -> str:
    """A caption and the pictures it found.

    Args:
        search: The search.
        ids: Element id of each picture on the page.
        pictures: The pictures by name.
    """
    items = "".join(
        f"<li{' class=is-right' if hit.right else ''}>{picture_use(ids[hit.item], pictures[hit.item].size, hit.item)}"
        f"{number} · {hit.score:.2f}{' ✓ right' if hit.right else ''}</li>"
        for number, hit in search.shown()
    )
    return (
        f'<article class="search"><h3 class="caption" dir="auto">{escape(search.query)}</h3>'
        f'{_rank_verdict(search, "The right picture")}<ol class="hits">{items}</ol></article>'
    )


def caption_gallery(search: Search, ids: Mapping[str, str], pictures: Mapping[str, Image.Image]) -> str:
    """A picture and the captions it found; arguments as in `picture_gallery`."""
    items = "".join(
        f'<li value="{number}"{" class=is-right" if hit.right else ""}>'
        f"<bdi>{escape(hit.item)}</bdi>{' ✓' if hit.right else ''}"
        f'<span class="score">{hit.score:.2f}</span></li>'
        for number, hit in search.shown()
    )
    picture = picture_use(ids[search.query], pictures[search.query].size, search.query)
    return (
        f'<article class="search beside">{picture}<div>{_rank_verdict(search, "The first right caption")}'
        f'<ol class="ranked">{items}</ol></div></article>'
    )


def _rank_verdict(search: Search, what: str) -> str:
    mark, css = ("✓", "right") if search.rank == 1 else ("✗", "wrong")
    return f'<p class="verdict {css}">{mark} {what} is at rank {search.rank}</p>'


ABOUT = (
    "TSHSR, the Two-stream Hierarchical Similarity Reasoning network, matches pictures with sentences from two sides: "
    "in the word stream every word looks at the regions of the picture, in the region stream every region looks at the "
    "words. Each stream turns its looks into similarity vectors and reasons over them on several levels, from single "
    "words or regions up to the whole pair. It was proposed by Chen, Wang, Wang and Kwong (arXiv 2203.05349, 2022). "
    "Only the abstract of that work was available to us, and no code of it has been published: what the abstract "
    "leaves open is our own instantiation, and no figure on this page is taken from the paper."
)

SIDE = 360
"""Longest side of a picture on the page, in pixels."""


@dataclass(frozen=True)
class WordMaps:
    """The maps of some words of a pair, with the truth beside them.

    Attributes:
        picture: Name of the picture.
        explanation: What the network did.
        true_regions: For the position of each word to show, the regions it is about; none where nobody knows.
    """

    picture: str
    explanation: Explanation
    true_regions: Mapping[int, Sequence[int]]


@dataclass(frozen=True)
class ReportPage:
    """Everything that the report shows; what is empty is left out.

    Attributes:
        title: The headline.
        report: The figures.
        facts: What was run, in the order of reading: seed, sizes, time of training, ...
        charts: Training curves.
        pointing_chance: Pointing accuracy of a blind guess, 0..1.
        pictures: Pictures by name; every name used below is here.
        text_to_image: Captions and the pictures they found.
        image_to_text: Pictures and the captions they found.
        maps: Words and where they looked.
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
    ids = {name: f"picture-{number}" for number, name in enumerate(page.pictures)}
    parts = [
        picture_symbols({ids[name]: picture for name, picture in page.pictures.items()}, side=SIDE),
        _masthead(page),
        _part("Results on " + page.report.split, _results(page)),
        _part("Training", f'<div class="charts">{"".join(map(line_chart, page.charts))}</div>' if page.charts else ""),
        _part(
            "Pictures found by a caption", "".join(picture_gallery(s, ids, page.pictures) for s in page.text_to_image)
        ),
        _part(
            "Captions found by a picture", "".join(caption_gallery(s, ids, page.pictures) for s in page.image_to_text)
        ),
        _part("Where the words looked", _map_cards(page, ids)),
        _part("Look for yourself", _explanations(page, ids)),
        f"<footer>Made by tshsr, commit {escape(page.report.commit)}. One file; it loads nothing.</footer>",
    ]
    return document(page.title, "\n".join(filter(None, parts)))


def _part(title: str, body: str) -> str:
    return f'<section class="part"><h2>{escape(title)}</h2>{body}</section>' if body else ""


def _masthead(page: ReportPage) -> str:
    report = page.report
    facts = {
        "Data": f"{report.data}, split {report.split}: {report.images:,} images, {report.captions:,} captions",
        "Model": ", ".join(report.models),
        **page.facts,
        "Encoding and scoring": f"{report.seconds:,.1f} s",
        "Machine": report.hardware,
        "Commit": report.commit,
    }
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return (
        f'<header class="masthead"><h1>{escape(page.title)}</h1><p class="lede">{ABOUT}</p>'
        f'<dl class="facts">{rows}</dl></header>'
    )


def _results(page: ReportPage) -> str:
    report = page.report
    guess = (
        f"Recalls in percent; the best of each column is bold. With {report.images:,} images, a blind guess puts the "
        f"right picture first for {100 / report.images:.2g} % of the captions. A tie counts against the model."
    )
    probes = _shares(
        "Pointing: the heaviest region of a word is one it is about", report.pointing, page.pointing_chance
    )
    probes += _shares(
        "Binding: the true caption scores above a foil that ties its words together wrongly", report.binding, 0.5
    )
    probes += _shares("Binding by what is swapped, of the fused score", report.binding_by_kind, 0.5)
    return f'{recall_table(report.scores)}<p class="note">{guess}</p><div class="columns">{probes}</div>'


def recall_table(scores: Mapping[str, ScoreMetrics]) -> str:
    """Recalls of every score; the best of each column is bold (all of them where several are equal)."""
    figures = {name: _figures(scores[name]) for name in sorted(scores, key=reading_order)}
    best = [max(column) for column in zip(*figures.values(), strict=True)]
    lines = []
    for name, row in figures.items():
        cells = (
            f"<b>{value:.1f}</b>" if value == top else f"{value:.1f}" for value, top in zip(row, best, strict=True)
        )
        main = ' class="main"' if name == "fused" else ""
        lines.append(
            f"<tr{main}><th scope=row>{escape(label(name))}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        )
    recalls = "<th scope=col>R@1</th><th scope=col>R@5</th><th scope=col>R@10</th>"
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="Recalls"><table class="recalls"><thead>'
        '<tr><th></th><th class="group" colspan="3" scope="colgroup">Captions for a picture</th>'
        '<th class="group" colspan="3" scope="colgroup">Pictures for a caption</th><th></th></tr>'
        f"<tr><th scope=col>Score</th>{recalls}{recalls}<th scope=col>rSum</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _figures(metrics: ScoreMetrics) -> list[float]:
    """The figures as they are shown, so that what reads equal is equally bold."""
    sides = (metrics.image_to_text, metrics.text_to_image)
    recalls = [figure for side in sides for figure in (side.r1, side.r5, side.r10)]
    return [round(figure, 1) for figure in (*recalls, metrics.rsum)]


def _shares(title: str, shares: Mapping[str, float] | None, chance: float | None) -> str:
    """Horizontal bars from 0 to 1, with a mark where a blind guess ends."""
    if not shares:
        return ""
    mark = "" if chance is None else f'<i style="left:{100 * chance:.1f}%"></i>'
    rows = "".join(
        f'<div class="series-{escape(name)}"><dt>{escape(label(name))}</dt>'
        f'<span class="track"><span style="width:{100 * shares[name]:.1f}%"></span>{mark}</span>'
        f"<dd>{100 * shares[name]:.1f} %</dd></div>"
        for name in sorted(shares, key=reading_order)
    )
    note = "" if chance is None else f'<p class="note">The mark is a blind guess, {100 * chance:.1f} %.</p>'
    return f'<section><h3>{title}</h3><dl class="shares">{rows}</dl>{note}</section>'


def _map_cards(page: ReportPage, ids: Mapping[str, str]) -> str:
    """A card for each word: the picture lit by either stream, and whether the heaviest region is a true one."""
    if not page.maps:
        return ""
    note = (
        "Each picture is dark but where the word's weight lies. ✓ marks a word whose heaviest region is one that it is "
        "about, ✗ one that points elsewhere."
    )
    articles = []
    for number, maps in enumerate(page.maps):
        size = page.pictures[maps.picture].size
        cards = "".join(
            _card(maps, word, f"map-{number}-{word}", ids[maps.picture], size) for word in sorted(maps.true_regions)
        )
        heading = f'<h3 class="caption" dir="auto">{escape(maps.explanation.caption)}</h3>'
        articles.append(f'<article class="search">{heading}<div class="cards">{cards}</div></article>')
    return f'<p class="note">{note}</p>{"".join(articles)}'


def _card(maps: WordMaps, word: int, name: str, picture: str, size: tuple[int, int]) -> str:
    explanation, true = maps.explanation, maps.true_regions[word]
    figures = []
    for stream, traced in explanation.streams.items():
        row = traced.word_regions[word]
        if explanation.boxes is None:
            continue
        drawing = canvas(f"{name}-{stream}", picture, size, explanation.boxes, row)
        figures.append(
            f'<figure class="figure-{escape(stream)}">{drawing}'
            f"<figcaption><span>{stream_label(stream)}</span><span>{_verdict(row, true)}</span></figcaption></figure>"
        )
    return f"<div><h4><bdi>{escape(explanation.words[word])}</bdi></h4>{''.join(figures)}</div>"


def _verdict(row: Sequence[float], true: Sequence[int]) -> str:
    """The heaviest weight, marked right or wrong where the truth is known; a tie with a wrong region is wrong."""
    weight = escape(percent(max(row)))
    if not true:
        return weight
    wrong = max((value for region, value in enumerate(row) if region not in true), default=0.0)
    right = max(row[region] for region in true) > wrong
    return f'{weight} <span class="{"right" if right else "wrong"}">{"✓" if right else "✗"}</span>'


def _explanations(page: ReportPage, ids: Mapping[str, str]) -> str:
    sections = "".join(
        explanation_section(maps.explanation, f"pair-{n}", ids[maps.picture], page.pictures[maps.picture].size)
        for n, maps in enumerate(page.maps)
    )
    return f'<p class="note">{HOW_TO_READ}</p>{sections}' if sections else ""
