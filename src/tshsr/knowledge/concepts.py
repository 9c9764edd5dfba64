"""Concepts of captions: the most frequent nouns, verbs and adjectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tshsr.data.text import WordRules
from tshsr.errors import DataError
from tshsr.knowledge.edges import co_occurrences
from tshsr.knowledge.lexicon import Lexicon
from tshsr.knowledge.wordnet import WordClass

LEAST_CAPTIONS = 2
"""Smallest number of captions of a concept."""
BLOCK = 4096
"""Captions split into words per call."""


@dataclass(frozen=True)
class FoundConcepts:
    """Concepts of captions, most frequent first.

    Attributes:
        words: Lemmas; one may stand twice, with different classes.
        counts: c_ij, the captions with both concepts, and on the diagonal those with one.
        captions: Number of captions that were read.
    """

    words: tuple[str, ...]
    classes: tuple[WordClass, ...]
    counts: np.ndarray
    captions: int


def find_concepts(captions: Sequence[str], lexicon: Lexicon, count: int) -> FoundConcepts:
    """The `count` most frequent concepts; of equally frequent ones the first in alphabetical order.

    Raises:
        DataError: Where fewer than two concepts are in `LEAST_CAPTIONS` captions.
    """
    found = list(concepts_of(captions, lexicon))
    totals = Counter(concept for concepts in found for concept in concepts)
    ranked = sorted((-total, concept) for concept, total in totals.items() if total >= LEAST_CAPTIONS)
    chosen = [concept for _, concept in ranked[:count]]
    if len(chosen) < 2:
        raise DataError(
            f"{len(captions):,} captions have {len(chosen)} concepts by the lexicon {lexicon.name}, in "
            f"{LEAST_CAPTIONS} captions or more each; expected two at least: give more captions, in English."
        )
    number = {concept: row for row, concept in enumerate(chosen)}
    rows = ([number[concept] for concept in concepts if concept in number] for concepts in found)
    words, classes = zip(*chosen, strict=True)
    return FoundConcepts(words, classes, co_occurrences(rows, len(chosen)), len(captions))


def concepts_of(captions: Sequence[str], lexicon: Lexicon) -> Iterator[list[tuple[str, WordClass]]]:
    """The concepts of each caption, each once, in order."""
    rules, known = WordRules(), dict[str, tuple[str, WordClass] | None]()
    for start in range(0, len(captions), BLOCK):
        block = captions[start : start + BLOCK]
        for caption, spans in zip(block, rules.spans(block), strict=True):
            words = [caption[start:stop].lower() for start, stop in spans]
            for word in words:
                if word not in known:
                    known[word] = lexicon.concept(word)
            yield list(dict.fromkeys(concept for word in words if (concept := known[word]) is not None))
