"""Slices of captions, by the captions alone: their length, what they name, and how many other captions are alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from tshsr.data.text import WordRules
from tshsr.knowledge.concepts import concepts_of
from tshsr.knowledge.lexicon import RuleLexicon

COLOURS = frozenset("black white red green yellow blue brown purple pink orange gray grey".split())  # noqa: SIM905
"""Basic colour terms of English (Berlin and Kay 1969)."""
NUMBERS = frozenset("two three four five six seven eight nine ten eleven twelve".split())  # noqa: SIM905
"""Number words above one, which is mostly a pronoun in captions."""
PREPOSITIONS = frozenset(
    """above across against along alongside amid among around atop behind below beneath beside besides between beyond
    down inside near off onto opposite outside over past through throughout toward towards under underneath
    up""".split()  # noqa: SIM905
)
"""Spatial prepositions of English (Landau and Jackendoff 1993), without those that hardly say how two things lie:
about, after, at, by, from, in, into, on, out, to, upon, via, with, within, without."""
PHRASES = re.compile(r"\b(?:in (?:front|back) of|on top of|next to|far from|to the (?:left|right|side) of)\b")
"""Their compounds that hold none of `PREPOSITIONS`."""
ALIKE = 0.5
"""Smallest share of common concepts of captions that are alike: intersection over union."""
MANY_ALIKE = 3
"""Captions alike from which on a caption has many."""


@dataclass(frozen=True, eq=False)
class Slice:
    """Some captions of a split.

    Attributes:
        group: The property by which captions are divided; the slices of a group are disjoint and hold all captions.
        title: Its value.
        captions: bool, one per caption.
    """

    group: str
    title: str
    captions: np.ndarray


def slices_of(captions: Sequence[str], image_of_caption: np.ndarray) -> list[Slice]:
    """All slices of a split; in each group the last one is that of more: longer, with the property, with more alike.

    Args:
        captions: Of the split.
        image_of_caption: For each caption the row of its image.
    """
    words = [[word for word in of_caption if word[0].isalnum()] for of_caption in words_of(captions)]
    concepts = [frozenset(found) for found in concepts_of(captions, RuleLexicon())]
    nouns = np.array([sum(kind == "noun" for _, kind in found) for found in concepts])
    alike = captions_alike(concepts, image_of_caption)
    relations = [bool(PREPOSITIONS & set(found) or PHRASES.search(" ".join(found))) for found in words]
    return [
        *thirds("length", "words", np.array([len(found) for found in words])),
        *bands("captions of other pictures that are alike", alike, (1, MANY_ALIKE)),
        *yes_or_no("a number", [bool(NUMBERS & set(found)) for found in words]),
        *yes_or_no("a colour", [bool(COLOURS & set(found)) for found in words]),
        *yes_or_no("a spatial relation", relations),
        *thirds("objects", "nouns", nouns),
    ]


def words_of(captions: Sequence[str]) -> list[list[str]]:
    """The lower-case words and marks of each caption."""
    spans = WordRules().spans(list(captions))
    return [
        [caption[start:stop].lower() for start, stop in of_caption]
        for caption, of_caption in zip(captions, spans, strict=True)
    ]


def captions_alike(concepts: Sequence[frozenset[tuple[str, str]]], image_of_caption: np.ndarray) -> np.ndarray:
    """For each caption the number of captions of other images that share at least `ALIKE` of their concepts.

    share = |a & b| / |a | b|;   a caption without a concept is like no other one
    """
    number = {concept: row for row, concept in enumerate(sorted(frozenset().union(*concepts)))}
    rows = np.repeat(np.arange(len(concepts)), [len(found) for found in concepts])
    columns = [number[concept] for found in concepts for concept in found]
    holds = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(concepts), max(1, len(number))))
    sizes = np.array([len(found) for found in concepts])
    common = (holds @ holds.T).tocoo()
    one, other = common.coords
    union = sizes[one] + sizes[other] - common.data
    near = (common.data >= ALIKE * union) & (image_of_caption[one] != image_of_caption[other])
    return np.bincount(one[near], minlength=len(concepts))


def thirds(group: str, unit: str, values: np.ndarray) -> list[Slice]:
    """Slices of about a third of the captions each, by the values at their borders; equal values stay together."""
    first, second = (int(np.quantile(values, share, method="inverted_cdf")) for share in (1 / 3, 2 / 3))
    return [
        Slice(group, title, chosen)
        for title, chosen in (
            (f"up to {first} {unit}", values <= first),
            (f"{first + 1} to {second} {unit}", (values > first) & (values <= second)),
            (f"over {second} {unit}", values > second),
        )
        if chosen.any()
    ]


def bands(group: str, counts: np.ndarray, borders: tuple[int, int]) -> list[Slice]:
    """Slices by a count: below the first border, below the second, and from there on."""
    low, high = borders
    named = {
        "none" if low == 1 else f"below {low}": counts < low,
        f"{low} to {high - 1}": (counts >= low) & (counts < high),
        f"{high} or more": counts >= high,
    }
    return [Slice(group, title, chosen) for title, chosen in named.items() if chosen.any()]


def yes_or_no(group: str, found: Sequence[bool]) -> list[Slice]:
    """Captions without and with a property."""
    has = np.array(found, dtype=bool)
    return [Slice(group, title, chosen) for title, chosen in (("no", ~has), ("yes", has)) if chosen.any()]
