"""Captions are true, foils have the same words and are false, and words have the right regions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tshsr.scenes.generate import choose_foils, regions_of_words, scene_and_twin
from tshsr.scenes.grammar import SYNONYMS, Caption, describe_scene, foils, write
from tshsr.scenes.meaning import Phrase, Relation, SceneEvaluator, Statement, Word, same_words
from tshsr.scenes.world import Background, Scene, Thing, sample_scene

BACKGROUND = Background("plain", (200, 200, 200), (200, 200, 200), 0.0, 0)
MEANING = {text: meaning for meaning, texts in SYNONYMS.items() for text in texts}
NUMBER = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}


def put(shape: str, colour: str, x: float, y: float, *, radius: float = 15.0, inside: int | None = None) -> Thing:
    size = "small" if radius < 20 else "large"
    return Thing(shape, colour, size, "plain", x, y, radius, 0.0, 0.0, (0, 0, 0), inside)


def phrase(text: str, count: int = 1) -> Phrase:
    """ "red circle" -> its phrase."""
    attribute = {"red": "colour", "blue": "colour", "small": "size", "large": "size", "plain": "texture"}
    words = [Word(attribute.get(MEANING[word], "shape"), MEANING[word], word) for word in text.split()]
    return Phrase(tuple(words), count)


def relating(first: str, kind: str, second: str) -> Statement:
    return Statement((phrase(first), phrase(second)), (Relation(0, kind, 1),), (0, kind, 1))


SCENE = Scene((put("circle", "red", 30, 80), put("square", "blue", 120, 85), put("star", "red", 80, 20)), BACKGROUND)
NESTED = Scene((put("ring", "blue", 60, 60, radius=38), put("star", "red", 68, 60, radius=13, inside=0)), BACKGROUND)
GROUP = Scene((put("circle", "red", 30, 30), put("circle", "red", 100, 30), put("star", "blue", 60, 100)), BACKGROUND)


@pytest.mark.parametrize(
    ("statement", "clear", "possible"),
    [
        (relating("red circle", "left", "blue square"), True, True),
        (relating("blue square", "left", "red circle"), False, False),
        (relating("blue square", "right", "red circle"), True, True),
        (
            relating("red circle", "above", "blue square"),
            False,
            True,
        ),  # by 5 pixels: neither captions nor foils may say so
        (relating("red star", "above", "blue square"), True, True),
        (relating("red star", "right", "red circle"), True, True),
        (relating("red square", "right", "red circle"), False, False),  # there is no red square
        (relating("red star", "inside", "blue square"), False, False),
    ],
)
def test_a_relation_holds_clearly_possibly_or_not_at_all(statement: Statement, clear: bool, possible: bool) -> None:
    assert SceneEvaluator(SCENE).holds(statement) is clear
    assert SceneEvaluator(SCENE).holds(statement, clearly=False) is possible


def test_inside_is_neither_left_nor_right() -> None:
    assert SceneEvaluator(NESTED).holds(relating("red star", "inside", "blue ring"))
    assert not SceneEvaluator(NESTED).holds(relating("blue ring", "inside", "red star"), clearly=False)
    assert not SceneEvaluator(NESTED).holds(relating("red star", "right", "blue ring"))
    assert SceneEvaluator(NESTED).holds(relating("red star", "right", "blue ring"), clearly=False)


@pytest.mark.parametrize(("count", "clear", "possible"), [(1, True, True), (2, True, True), (3, False, False)])
def test_counts_are_exact_and_an_article_is_at_least_one(count: int, clear: bool, possible: bool) -> None:
    statement = Statement((phrase("red circle", count),), (), (0,))
    assert SceneEvaluator(GROUP).holds(statement) is clear
    assert SceneEvaluator(GROUP).holds(statement, clearly=False) is possible


def test_a_group_must_not_be_larger_than_its_count() -> None:
    three = Scene((*GROUP.things, put("circle", "red", 140, 100)), BACKGROUND)
    statement = Statement((phrase("red circle", 2),), (), (0,))
    assert not SceneEvaluator(three).holds(statement)
    assert SceneEvaluator(three).holds(statement, clearly=False)


def test_two_phrases_name_two_things() -> None:
    statement = Statement((phrase("red star"), phrase("star")), (), (0, "and", 1))
    assert not SceneEvaluator(SCENE).holds(statement, clearly=False)


def test_an_ambiguous_phrase_has_several_groundings() -> None:
    groundings = list(SceneEvaluator(SCENE).groundings(relating("red circle", "left", "blue square")))
    assert groundings == [((0,), (1,))]
    either = Statement((Phrase((Word("colour", "red", "red"),)),), (), (0,))
    assert list(SceneEvaluator(SCENE).groundings(either)) == [((0,),), ((2,),)]


def test_writing_finds_articles_plurals_and_word_positions() -> None:
    an_orange = Phrase((Word("colour", "orange", "orange"), Word("shape", "ring", "hoop")))
    statement = Statement((phrase("red cross", 2), an_orange), (Relation(0, "left", 1),), ("we see", 0, "left of", 1))
    written = write(statement)
    assert written.text == "we see two red crosses left of an orange hoop"
    assert written.phrase_of_word == ((2, 0), (3, 0), (4, 0), (8, 1), (9, 1))


def claims(text: str) -> list[tuple[int, list[str]]]:
    """An independent parser of captions: count and attributes of each phrase."""
    singular = {word + "s": word for word in MEANING} | {"crosses": "cross", "rhombuses": "rhombus"}
    found: list[tuple[int, list[str]]] = []
    for word in re.sub(r"^(a picture of|an image of|we see|there is|there are)", "", text).split():
        if word in NUMBER:
            found.append((NUMBER[word], []))
        elif singular.get(word, word) in MEANING:
            found[-1][1].append(MEANING[singular.get(word, word)])
    return found


def test_captions_are_true_by_an_independent_parser() -> None:
    for index in range(150):
        rng = np.random.default_rng([3, index])
        scene = sample_scene(rng)
        for caption in describe_scene(rng, SceneEvaluator(scene)):
            for count, properties in claims(caption.text):
                fitting = [thing for thing in scene.things if set(properties) <= set(thing.kind)]
                assert len(fitting) == count or (count == 1 and fitting), (caption.text, scene)


def test_relations_of_captions_hold_in_the_picture() -> None:
    checked = Counter[str]()
    for index in range(150):
        rng = np.random.default_rng([4, index])
        scene = sample_scene(rng)
        for caption in describe_scene(rng, SceneEvaluator(scene)):
            groups = next(SceneEvaluator(scene).groundings(caption.statement))
            for relation in caption.statement.relations:
                for a in groups[relation.first]:
                    for b in groups[relation.second]:
                        checked[relation.kind] += 1
                        one, other = scene.things[a], scene.things[b]
                        dx, dy = other.x - one.x, other.y - one.y
                        ahead = {"left": dx, "right": -dx, "above": dy, "below": -dy}.get(relation.kind)
                        # A triangle's tight box is not quite centred on its x and y.
                        assert one.inside == b if ahead is None else ahead > 8
    assert min(checked.values()) > 30
    assert set(checked) == {"left", "right", "above", "below", "inside"}


def test_captions_are_plain_words_and_mostly_name_two_coloured_shapes() -> None:
    rich = total = 0
    for index in range(100):
        rng = np.random.default_rng([5, index])
        captions = describe_scene(rng, SceneEvaluator(sample_scene(rng)))
        assert len({caption.text for caption in captions}) == 5
        for caption in captions:
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", caption.text)
            words = [[word.attribute for word in part.words] for part in caption.statement.phrases]
            rich += sum({"colour", "shape"} <= set(names) for names in words) >= 2
            total += 1
    assert rich / total > 0.8


def test_one_caption_of_each_scene_names_everything() -> None:
    for index in range(50):
        rng = np.random.default_rng([6, index])
        scene = sample_scene(rng)
        named = [sum(part.count for part in c.statement.phrases) for c in describe_scene(rng, SceneEvaluator(scene))]
        assert max(named) == len(scene.things)


def test_foils_have_the_same_words_and_are_false() -> None:
    kinds = Counter[str]()
    for index in range(100):
        rng = np.random.default_rng([7, index])
        scene = sample_scene(rng)
        for caption in describe_scene(rng, SceneEvaluator(scene)):
            for kind, text in foils(rng, SceneEvaluator(scene), caption):
                kinds[kind] += 1
                assert Counter(text.split()) == Counter(caption.text.split())
                assert text != caption.text
                same_claims = sorted(map(repr, claims(text))) == sorted(map(repr, claims(caption.text)))
                assert same_claims or kind == "attribute"
                if kind == "relation":
                    assert caption.statement.relations
                    continue
                # Without relations, the parsed foil must mention something that is not in the scene.
                if not caption.statement.relations:
                    assert not satisfiable(claims(text), scene), (text, scene)
    assert kinds["attribute"] > 100
    assert kinds["relation"] > 100


def satisfiable(parts: list[tuple[int, list[str]]], scene: Scene, taken: frozenset[int] = frozenset()) -> bool:
    """Exhaustive search for distinct things that match all phrases (a group of n as n single things)."""
    if not parts:
        return True
    (count, properties), rest = parts[0], parts[1:]
    if count > 1:
        rest = [(count - 1, properties), *rest]
    fitting = [i for i, thing in enumerate(scene.things) if set(properties) <= set(thing.kind) and i not in taken]
    return any(satisfiable(rest, scene, taken | {i}) for i in fitting)


def test_a_swap_that_stays_true_is_no_foil() -> None:
    two = Scene((put("circle", "red", 30, 80), put("circle", "blue", 120, 80)), BACKGROUND)
    listing = Statement((phrase("red circle"), phrase("blue circle")), (), (0, "and", 1))
    rng = np.random.default_rng(0)
    assert list(foils(rng, SceneEvaluator(two), write(listing))) == []
    related = relating("red circle", "left", "blue circle")
    found = set(foils(rng, SceneEvaluator(two), write(related)))
    swapped = "a blue circle left a red circle"
    assert found == {("attribute", swapped), ("relation", swapped)}


def test_a_group_and_a_single_thing_do_not_swap_places() -> None:
    statement = Statement(
        (phrase("red circle", 2), phrase("blue star")), (Relation(0, "above", 1),), ("there are", 0, "above", 1)
    )
    assert SceneEvaluator(GROUP).holds(statement)
    assert [kind for kind, _ in foils(np.random.default_rng(0), SceneEvaluator(GROUP), write(statement))] == [
        "attribute"
    ]


def test_at_most_one_foil_of_each_kind_is_kept() -> None:
    rng, scene, _ = scene_and_twin(0, "dev", 3)
    written = describe_scene(rng, SceneEvaluator(scene))
    kept = choose_foils(rng, SceneEvaluator(scene), written)
    assert Counter(kind for _, kind, _ in kept) == {"attribute": 1, "relation": 1}
    assert all(same_words(text, written[number].text) for number, _, text in kept)


def test_twins_are_neighbours_and_their_captions_distinguish_them() -> None:
    apart = total = 0
    for pair in range(12):
        _, first, its_twin = scene_and_twin(0, "test", 10 * pair + 8)
        rng, second, neighbour = scene_and_twin(0, "test", 10 * pair + 9)
        assert its_twin == second
        assert neighbour == first
        captions = describe_scene(rng, SceneEvaluator(second), SceneEvaluator(first))
        total += len(captions)
        apart += sum(not SceneEvaluator(first).holds(caption.statement, clearly=False) for caption in captions)
    assert apart / total > 0.9


@pytest.mark.parametrize(("split", "index"), [("test", 7), ("train", 9), ("dev", 8)])
def test_other_scenes_have_no_twin(split: str, index: int) -> None:
    assert scene_and_twin(0, split, index)[2] is None


def test_words_have_the_regions_of_all_their_possible_things() -> None:
    regions = [(4,), (7, 9), (2,)]
    red_circle = write(relating("red circle", "left", "blue square"))
    assert regions_of_words(SceneEvaluator(SCENE), red_circle, regions) == {1: (4,), 2: (4,), 5: (7, 9), 6: (7, 9)}
    group = Caption("two red circles", Statement((phrase("red circle", 2),), (), (0,)), ((0, 0), (1, 0), (2, 0)))
    assert regions_of_words(SceneEvaluator(GROUP), group, [(1,), (0,), (5,)]) == dict.fromkeys(range(3), (0, 1))


def test_an_attribute_that_a_phrase_lacks_is_not_swapped() -> None:
    statement = relating("red circle", "left", "square")
    assert statement.exchange(0, 1, "colour") is None
    swapped = statement.exchange(0, 1, "shape")
    assert swapped == replace(statement, phrases=(phrase("red square"), phrase("circle")))
