"""Captions of a scene, true by construction, and foils, false by construction.

Captions are lower-case words with single spaces between them, so that word i is token i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from tshsr.scenes.meaning import FoilKind, Group, Phrase, Relation, SceneEvaluator, Statement, Word, same_words
from tshsr.scenes.world import COLOURS, SHAPES, Kind, Thing, pick

SYNONYMS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in (*SHAPES, *COLOURS)},
    "circle": ("circle", "circle", "disc"),
    "diamond": ("diamond", "diamond", "rhombus"),
    "ring": ("ring", "ring", "hoop"),
    "purple": ("purple", "purple", "violet"),
    "large": ("large", "big"),
    "small": ("small", "tiny", "little"),
    "plain": ("plain", "solid"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "spotted"),
    "checked": ("checked", "checked", "chequered"),
}
PLURALS = {"cross": "crosses", "rhombus": "rhombuses"}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
    "inside": ("inside", "inside", "within"),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
OPENINGS = ("a picture of", "an image of", "we see", "")
CAPTIONS = 5
MAX_ATTEMPTS = 60
"""Attempts at a statement that is true, new, and false for the twin; then any true one is accepted."""


@dataclass(frozen=True)
class Caption:
    """A statement in words.

    Attributes:
        phrase_of_word: For each content or count word its position and phrase.
    """

    text: str
    statement: Statement
    phrase_of_word: tuple[tuple[int, int], ...]


def write(statement: Statement) -> Caption:
    """Express a statement in words."""
    words: list[str] = []
    phrase_of_word: list[tuple[int, int]] = []
    for part in statement.layout:
        if isinstance(part, str):
            words += part.split()
            continue
        phrase = statement.phrases[part]
        content = [word.text for word in phrase.words]
        if phrase.count > 1:
            content = [NUMBERS[phrase.count], *content[:-1], PLURALS.get(content[-1], content[-1] + "s")]
        else:
            words.append("an" if content[0][0] in "aeiou" else "a")
        phrase_of_word += [(len(words) + i, part) for i in range(len(content))]
        words += content
    return Caption(" ".join(words), statement, tuple(phrase_of_word))


def phrase_for(rng: np.random.Generator, thing: Thing, count: int, detail: float) -> Phrase:
    """A phrase for a thing or a group of its kind.

    Args:
        rng: Chooses the words.
        count: Size of the group.
        detail: Probability that size, and texture, is mentioned; the colour nearly always is.
    """
    size, texture = (name if rng.random() < detail else "" for name in ("size", "texture"))
    colour = "colour" if not (size or texture) or rng.random() < 0.93 else ""
    middle = (texture, colour) if rng.random() < 0.5 else (colour, texture)
    names = [name for name in (size, *middle, "shape") if name]
    words = tuple(Word(name, getattr(thing, name), pick(rng, SYNONYMS[getattr(thing, name)])) for name in names)
    return Phrase(words, count)


def describe_scene(
    rng: np.random.Generator, evaluator: SceneEvaluator, twin: SceneEvaluator | None = None
) -> list[Caption]:
    """Five captions in random order, true for the scene; if possible all different, and false for its twin."""
    statements: list[Statement] = []
    for plan in range(CAPTIONS):
        statements.append(find_statement(rng, evaluator, twin, plan, statements))
    return [write(statements[i]) for i in rng.permutation(CAPTIONS)]


def find_statement(
    rng: np.random.Generator,
    evaluator: SceneEvaluator,
    twin: SceneEvaluator | None,
    plan: int,
    known: Sequence[Statement],
) -> Statement:
    """A true statement; a known one, or one that is true for the twin too, only after MAX_ATTEMPTS."""
    attempt = 0
    while True:
        # A list of things is true for a twin with swapped positions; two relations may be false.
        statement = propose(rng, evaluator, plan if attempt < MAX_ATTEMPTS // 2 else 3)
        attempt += 1
        if not evaluator.holds(statement):
            continue
        distinguishes = twin is None or not twin.holds(statement, clearly=False)
        if attempt >= MAX_ATTEMPTS or (distinguishes and statement not in known):
            return statement


def propose(rng: np.random.Generator, evaluator: SceneEvaluator, plan: int) -> Statement:
    """A candidate statement of one of five plans.

    Plan 0 lists all things; 1 relates two and lists the rest; 2 relates two in rich detail; 3 chains two relations;
    4 lists two or three things.
    """
    groups = groups_of(evaluator)
    order = [groups[i] for i in rng.permutation(len(groups))]
    detail = (0.5, 0.45, 0.9, 0.45, 0.75)[plan]
    related = [] if plan in (0, 4) else relate(rng, evaluator, order, links=2 if plan == 3 else 1)
    if related:
        order = list(dict.fromkeys(group for a, _, b in related for group in (a, b)))
        if plan == 1:
            order += [groups[i] for i in rng.permutation(len(groups)) if groups[i] not in order]
    elif plan == 4:
        order = order[: int(rng.integers(2, 4))]
    things = evaluator.scene.things
    phrases = tuple(phrase_for(rng, things[group[0]], len(group), detail) for group in order)
    relations = tuple(Relation(order.index(a), kind, order.index(b)) for a, kind, b in related)
    return Statement(phrases, relations, lay_out(rng, phrases, relations))


def groups_of(evaluator: SceneEvaluator) -> list[Group]:
    """Things grouped by kind."""
    groups: dict[Kind, Group] = {}
    for i, thing in enumerate(evaluator.scene.things):
        groups[thing.kind] = (*groups.get(thing.kind, ()), i)
    return list(groups.values())


Link = tuple[Group, str, Group]


def relate(rng: np.random.Generator, evaluator: SceneEvaluator, groups: list[Group], *, links: int) -> list[Link]:
    """One clear relation between two groups, or two that share a group; fewer where there are none."""
    clear: list[Link] = [
        (a, kind, b)
        for a, b in product(groups, groups)
        for kind in RELATIONS
        if a != b and all(evaluator.relates(kind, i, j, clearly=True) for i, j in product(a, b))
    ]
    inside = [link for link in clear if link[1] == "inside"]
    if not clear:
        return []
    first = pick(rng, inside) if inside and rng.random() < 0.5 else pick(rng, clear)
    seconds = [link for link in clear if link[0] == first[2] and link[2] != first[0]]
    return [first, pick(rng, seconds)] if links == 2 and seconds else [first]


def lay_out(
    rng: np.random.Generator, phrases: tuple[Phrase, ...], relations: tuple[Relation, ...]
) -> tuple[str | int, ...]:
    """The layout of a statement, with the phrases in their order."""
    verbs = ["are" if phrase.count > 1 else "is" for phrase in phrases]
    opening = pick(rng, (*OPENINGS, f"there {verbs[0]}"))
    layout: list[str | int] = [opening, 0]
    if relations:
        link = pick(rng, RELATIONS[relations[0].kind])
        layout += [link if opening or rng.random() < 0.5 else f"{verbs[0]} {link}", 1]
    if len(relations) == 2:
        layout += [f"{pick(rng, ('which', 'that'))} {verbs[1]} {pick(rng, RELATIONS[relations[1].kind])}", 2]
    rest = range(len(relations) + 1, len(phrases))
    for i in rest:
        first_of_rest = bool(relations) and i == rest[0]
        layout += [f"and there {verbs[i]} also" if first_of_rest else "and", i]
    return tuple(part for part in layout if part != "")


def foils(rng: np.random.Generator, evaluator: SceneEvaluator, written: Caption) -> Iterator[tuple[FoilKind, str]]:
    """Kind and text of every foil of a caption, in random order: the same words, false for the scene."""
    statement = written.statement
    pairs = list(combinations(range(len(statement.phrases)), 2))
    exchanges = list(product(pairs, ("colour", "shape", "size", "texture", "place")))
    for number in rng.permutation(len(exchanges)):
        (i, j), attribute = exchanges[number]
        related = any({i, j} == {relation.first, relation.second} for relation in statement.relations)
        same_number = statement.phrases[i].count == statement.phrases[j].count
        if attribute == "place" and not (
            related and same_number
        ):  # else the meaning is the same, or the verb's number is wrong
            continue
        foil = statement.exchange(i, j, attribute)
        if foil is None or evaluator.holds(foil, clearly=False):
            continue
        text = write(foil).text
        if same_words(text, written.text):
            yield "relation" if attribute == "place" else "attribute", text
