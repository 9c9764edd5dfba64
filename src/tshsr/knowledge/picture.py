"""A picture of a concept graph as SVG: the most frequent concepts, placed by forces, with their edges.

Axes: concepts (those shown) | 2 (x and y, in 0..1).
"""

from __future__ import annotations

from html import escape

import numpy as np

from tshsr.knowledge.graph import ConceptGraph

SHOWN = 80
"""Concepts in a picture, at most."""
WIDTH, HEIGHT, MARGIN = 1200, 900, 60
STEPS, HEAT = 300, 0.1
"""Of the layout, and its largest move in the first step."""
COLOURS = {"noun": "#1f5fa8", "verb": "#b3541e", "adj": "#2f7d4f"}
LINES = {"captions": ("#9aa5b1", ""), "wordnet": ("#8250a8", "4 3")}
"""Colour and dashes of the edges of each kind."""
NAMES = {"noun": "noun", "verb": "verb", "adj": "adjective", "captions": "occur together", "wordnet": "near in WordNet"}


def picture(graph: ConceptGraph, shown: int = SHOWN) -> str:
    """The picture as the text of an SVG file, with a legend; equal graphs give equal pictures.

    Args:
        shown: Number of concepts, the most frequent ones.
    """
    count = min(shown, len(graph))
    edges = graph.edges[:, :count, :count]
    places = layout(edges.max(axis=0)) * (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN) + MARGIN
    lines = [_line(places[i], places[j], kind) for kind, i, j in _pairs(graph.kinds, edges)]
    totals = np.diag(graph.counts)[:count]
    sizes = 11 + 9 * np.sqrt(totals / max(1, totals.max()))
    words = [
        _word(graph.words[number], graph.classes[number], places[number], float(sizes[number]), int(totals[number]))
        for number in range(count)
    ]
    title = f"{count} of {len(graph)} concepts in {graph.captions:,} captions of {graph.data}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *lines,
            *words,
            *_legend(graph, title),
            "</svg>\n",
        ]
    )


def layout(edges: np.ndarray) -> np.ndarray:
    """Places in 0..1 by forces (Fruchterman and Reingold 1991): all concepts repel, those with an edge attract.

        repulsion k^2 / d,  attraction d^2 / k,  k = 1 / sqrt(n),  d: distance

    Moves shrink linearly. Without random numbers: concepts begin on a circle, in order.
    """
    count = len(edges)
    angles = 2 * np.pi * np.arange(count) / count
    places = 0.5 + 0.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ideal = 1 / np.sqrt(count)
    for step in range(STEPS):
        apart = places[:, None] - places[None, :]
        distance = np.maximum(np.linalg.norm(apart, axis=-1), 1e-6)
        force = ideal**2 / distance**2 - edges * distance / ideal
        np.fill_diagonal(force, 0.0)
        move = (apart * force[..., None]).sum(axis=1) + 0.1 * (0.5 - places)  # towards the middle: parts stay near
        length = np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12)
        places += move / length * np.minimum(length, HEAT * (1 - step / STEPS))
    low, high = places.min(axis=0), places.max(axis=0)
    spread: np.ndarray = (places - low) / np.maximum(high - low, 1e-9)
    return spread


def _pairs(kinds: tuple[str, ...], edges: np.ndarray) -> list[tuple[str, int, int]]:
    """Kind and both ends of every edge."""
    return [
        (kind, int(i), int(j))
        for kind, matrix in zip(kinds, edges, strict=True)
        for i, j in zip(*np.nonzero(np.triu(matrix)), strict=True)
    ]


def _line(start: np.ndarray, end: np.ndarray, kind: str) -> str:
    colour, dashes = LINES[kind]
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" stroke="{colour}" '
        f'stroke-opacity="0.5"{style}/>'
    )


def _word(word: str, word_class: str, place: np.ndarray, size: float, captions: int) -> str:
    tip = f"{word} ({NAMES[word_class]}): {captions:,} captions"
    return (
        f'<text x="{place[0]:.1f}" y="{place[1]:.1f}" font-size="{size:.1f}" fill="{COLOURS[word_class]}" '
        f'text-anchor="middle" dominant-baseline="middle" paint-order="stroke" stroke="#ffffff" stroke-width="3">'
        f"{escape(word)}<title>{escape(tip)}</title></text>"
    )


def _legend(graph: ConceptGraph, title: str) -> list[str]:
    """Title, and the colours of words and lines."""
    entries = [(NAMES[word_class], COLOURS[word_class]) for word_class in COLOURS if word_class in graph.classes]
    entries += [(NAMES[kind], LINES[kind][0]) for kind in graph.kinds]
    rows = [f'<text x="16" y="24" font-size="15" fill="#222222">{escape(title)}</text>']
    for number, (name, colour) in enumerate(entries):
        x = 16 + 150 * number
        rows.append(f'<rect x="{x}" y="{HEIGHT - 24}" width="12" height="12" fill="{colour}"/>')
        rows.append(f'<text x="{x + 18}" y="{HEIGHT - 13}" font-size="13" fill="#222222">{escape(name)}</text>')
    return rows
