"""The meaning of captions, separate from their wording: phrases that refer to things, and relations between them.

The same evaluator verifies captions (true), foils (false), and captions on the twin scene (false).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

from tshsr.scenes.world import CLEAR, Scene, Thing, tight_box

FoilKind = Literal["attribute", "relation"]
"""Kind of swap in a false caption: an attribute of two phrases, or the two sides of a relation."""
Group = tuple[int, ...]
"""Numbers of the things that a phrase refers to."""
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Word:
    """A content word.

    Attributes:
        attribute: shape, colour, size or texture.
    """

    attribute: str
    meaning: str
    text: str


@dataclass(frozen=True)
class Phrase:
    """A reference to one thing ("a red circle") or to a group of exact size ("two red circles").

    Attributes:
        words: In the order of writing; the shape comes last.
        count: Size of the group; 1 is the indefinite article, which allows more such things in the scene.
    """

    words: tuple[Word, ...]
    count: int = 1

    def fits(self, thing: Thing) -> bool:
        """Whether every word is true of the thing."""
        return all(getattr(thing, word.attribute) == word.meaning for word in self.words)

    def word(self, attribute: str) -> Word | None:
        """The word for an attribute, where there is one."""
        return next((word for word in self.words if word.attribute == attribute), None)

    def with_word(self, new: Word) -> Phrase:
        """The same phrase with another word for one attribute."""
        return replace(self, words=tuple(new if word.attribute == new.attribute else word for word in self.words))


@dataclass(frozen=True)
class Relation:
    """Phrase `first` is left of, right of, above, below or inside phrase `second`."""

    first: int
    kind: str
    second: int


@dataclass(frozen=True)
class Statement:
    """The meaning of a caption, and the order of its parts.

    Attributes:
        phrases: In any order.
        relations: Between phrases.
        layout: Literal words, and numbers of phrases.
    """

    phrases: tuple[Phrase, ...]
    relations: tuple[Relation, ...]
    layout: tuple[str | int, ...]

    def exchange(self, i: int, j: int, attribute: str) -> Statement | None:
        """The same wording with one attribute's words (or "place": the whole phrases) of two phrases swapped."""
        phrases = list(self.phrases)
        if attribute == "place":
            phrases[i], phrases[j] = phrases[j], phrases[i]
            return replace(self, phrases=tuple(phrases))
        mine, theirs = phrases[i].word(attribute), phrases[j].word(attribute)
        if mine is None or theirs is None:
            return None
        phrases[i], phrases[j] = phrases[i].with_word(theirs), phrases[j].with_word(mine)
        return replace(self, phrases=tuple(phrases))


@dataclass(frozen=True)
class SceneEvaluator:
    """Evaluates the truth of statements about a scene."""

    scene: Scene

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """Centre of each thing's tight box, in pixels."""
        boxes = [tight_box(thing) for thing in self.scene.things]
        return [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in boxes]

    def relates(self, kind: str, a: int, b: int, *, clearly: bool) -> bool:
        """Whether thing a is left of, right of, above, below or inside thing b.

        `clearly`: by at least CLEAR pixels and 0.7 of the distance along the other axis, and neither inside the other;
        False: by any distance.
        """
        things = self.scene.things
        if kind == "inside":
            return things[a].inside == b
        across, down = (self.centres[b][axis] - self.centres[a][axis] for axis in (0, 1))
        ahead = {"left": across, "right": -across, "above": down, "below": -down}[kind]
        aside = down if kind in ("left", "right") else across
        if not clearly:
            return ahead > 0
        return ahead >= max(CLEAR, 0.7 * abs(aside)) and things[a].inside != b and things[b].inside != a

    def groundings(self, statement: Statement, *, clearly: bool = True) -> Iterator[tuple[Group, ...]]:
        """Every assignment of the phrases to disjoint groups of things that makes the statement true.

        `clearly`: relations hold clearly and counts are exact. A caption requires a clear grounding, a foil the absence
        of any grounding.
        """
        choices = [self._groups(phrase, exact=clearly) for phrase in statement.phrases]
        yield from self._extend((), choices, statement.relations, clearly=clearly)

    def holds(self, statement: Statement, *, clearly: bool = True) -> bool:
        """Whether there is a grounding."""
        return next(self.groundings(statement, clearly=clearly), None) is not None

    def _groups(self, phrase: Phrase, *, exact: bool) -> list[Group]:
        fitting = [i for i, thing in enumerate(self.scene.things) if phrase.fits(thing)]
        if exact and phrase.count > 1 and len(fitting) != phrase.count:
            return []
        return list(combinations(fitting, phrase.count))

    def _extend(
        self, chosen: tuple[Group, ...], choices: list[list[Group]], relations: tuple[Relation, ...], *, clearly: bool
    ) -> Iterator[tuple[Group, ...]]:
        if len(chosen) == len(choices):
            yield chosen
            return
        taken = {thing for group in chosen for thing in group}
        for group in choices[len(chosen)]:
            extended = (*chosen, group)
            # A relation is checked as soon as both of its phrases are assigned.
            ready = [relation for relation in relations if max(relation.first, relation.second) == len(chosen)]
            if taken.isdisjoint(group) and all(self._related(extended, r, clearly=clearly) for r in ready):
                yield from self._extend(extended, choices, relations, clearly=clearly)

    def _related(self, groups: tuple[Group, ...], relation: Relation, *, clearly: bool) -> bool:
        pairs = [(a, b) for a in groups[relation.first] for b in groups[relation.second]]
        return all(self.relates(relation.kind, a, b, clearly=clearly) for a, b in pairs)


def same_words(a: str, b: str) -> bool:
    """Whether two captions are the same multiset of words in another order."""
    return a != b and Counter(a.split()) == Counter(b.split())
