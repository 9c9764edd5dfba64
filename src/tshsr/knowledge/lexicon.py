"""Concepts of a word: its lemma and whether that is a noun, a verb or an adjective.

Two lexicons: WordNet's, by the frequency of lemmas in its sense-tagged texts, and rules of endings without any data.
Neither reads the sentence: a word has one class, which is enough for lists of frequent concepts.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

from tshsr.knowledge.wordnet import ALL_CLASSES, CLASSES, WordClass, WordNet

FUNCTION_WORDS = frozenset(
    """a an the this that these those each every some any no none all both either neither many much more most
    few several other another such own same one two three four five six seven eight nine ten first second lot lots kind
    sort type
    i me my mine you your yours he him his she her hers it its we us our ours they them their theirs who whom whose
    which what someone somebody something anyone anything everyone everything nothing himself herself
    itself themselves
    and or but nor so yet if while as than because though although until unless whether when where why how
    in on at by for from of off to into onto upon with within without over under above below beneath beside besides
    between among through throughout during before after behind near next against along across around about up down out
    inside outside towards toward past like via per away back together apart left right front top bottom side
    be am is are was were been being do does did doing done have has had having can could may might must shall should
    will would not n't 's 're 've 'll 'd 'm there here then also very too just only even still ever never again almost
    picture image photo photograph we see""".split()  # noqa: SIM905
)
"""Words that are no concept: closed classes, numbers, parts of prepositions (in front of), and the picture itself."""
INFLECTED_SHARE = 0.2
"""Share of a verb's uses that one of its inflected forms has, approximately: WordNet counts lemmas, not forms."""
ADJECTIVES = frozenset(
    """red green blue yellow white black brown gray grey orange purple pink violet golden silver dark light bright big
    large small tiny little tall short long young old new plain solid striped stripy dotted spotted checked chequered
    wet dry empty full open wooden happy beautiful colorful""".split()  # noqa: SIM905
)
"""Frequent adjectives of captions, for the lexicon of rules, which has no other way to know them."""
NOUNS_IN_ING = frozenset("ring string spring wing king thing building ceiling clothing evening morning swing".split())  # noqa: SIM905
IRREGULAR = {
    "men": "man", "women": "woman", "children": "child", "leaves": "leaf", "knives": "knife", "shelves": "shelf",
    "wolves": "wolf", "buses": "bus", "movies": "movie", "cookies": "cookie",
}  # fmt: skip
SINGULAR_IN_S = ("ss", "us", "is")
"""Endings of singular nouns."""
PLURAL_IN_ES = ("ches", "shes", "xes", "sses", "zzes")
"""Endings of plurals whose singular has no e."""


class Lexicon(Protocol):
    """What knows the classes of words."""

    @property
    def name(self) -> str:
        """Name in the manifest of a graph."""

    def concept(self, word: str) -> tuple[str, WordClass] | None:
        """Lemma and class of a lower-case word; None for a function word, an adverb, a number or an unknown word."""


class RuleLexicon:
    """Rules without data: function words and adjectives by lists, verbs by -ing, and every other word is a noun.

    A heuristic: verbs in other forms count as nouns, and verbs keep their -ing.
    """

    name = "rules"

    def concept(self, word: str) -> tuple[str, WordClass] | None:
        """Lemma and class of a word."""
        if not word.isalpha() or len(word) < 2 or word in FUNCTION_WORDS:
            return None
        if word in ADJECTIVES:
            return word, "adj"
        if word.endswith("ing") and word not in NOUNS_IN_ING:
            return word, "verb"
        return singular(word), "noun"


def singular(noun: str) -> str:
    """A noun without its plural ending; irregular plurals stay, but for those of `IRREGULAR`."""
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if not noun.endswith("s") or noun.endswith(SINGULAR_IN_S) or len(noun) < 4:
        return noun
    if noun.endswith("ies") and len(noun) > 4:  # and not in ties or pies
        return f"{noun.removesuffix('ies')}y"
    return noun.removesuffix("es" if noun.endswith(PLURAL_IN_ES) else "s")


class WordNetLexicon:
    """The class of a word is that of its most frequent lemma; ties go to nouns, then verbs.

        score(lemma, class) = (1 + uses of the lemma in this class) * (1 if the word is the lemma, else share)

    share: 1 for nouns, `INFLECTED_SHARE` for the many forms of verbs and adjectives.
    """

    def __init__(self, wordnet: WordNet) -> None:
        self.wordnet = wordnet

    @cached_property
    def name(self) -> str:
        """Folder of WordNet, with its version."""
        return self.wordnet.name

    def concept(self, word: str) -> tuple[str, WordClass] | None:
        """Lemma and class of a word."""
        if not word.isalpha() or len(word) < 2 or word in FUNCTION_WORDS:
            return None
        found = [
            (self.score(word, lemma, word_class), lemma, word_class)
            for word_class in ALL_CLASSES
            for lemma in self.wordnet.lemmas(word, word_class)
        ]
        if not found:
            return None
        _, lemma, word_class = max(found, key=lambda each: each[0])  # the first of equal ones
        return next(((lemma, known) for known in CLASSES if known == word_class), None)

    def score(self, word: str, lemma: str, word_class: str) -> float:
        """See the class."""
        share = 1.0 if word == lemma or word_class == "noun" else INFLECTED_SHARE
        return (1 + self.wordnet.counts[word_class].get(lemma, 0)) * share
