"""benchmarks.slices: captions by length, by what they name, and by the captions that are alike."""

from __future__ import annotations

import numpy as np

from benchmarks.slices import captions_alike, slices_of, thirds

CAPTIONS = (
    "A dog runs .",
    "Two dogs run across a red bridge .",
    "A man , in a blue hat , stands next to his boat .",
    "A dog is running !",
    "A girl sits in front of a house with a cat and a bird .",
    "Some men stand up .",
)


def test_captions_are_divided_by_what_they_hold() -> None:
    slices = slices_of(CAPTIONS, np.array([0, 0, 1, 1, 2, 2]))
    found = {(each.group, each.title): np.flatnonzero(each.captions).tolist() for each in slices}
    assert found["a number", "yes"] == [1]
    assert found["a colour", "yes"] == [1, 2]
    assert found["a colour", "no"] == [0, 3, 4, 5]
    assert found["a spatial relation", "yes"] == [1, 2, 4, 5]
    assert found["length", "up to 4 words"] == [0, 3, 5], "marks are no words"
    assert found["length", "over 7 words"] == [2, 4]
    assert found["objects", "up to 2 nouns"] == [0, 3, 5], "runs and stand are nouns of the rules"
    for group in {each.group for each in slices}:
        assert np.sum([each.captions for each in slices if each.group == group], axis=0).tolist() == [1] * len(CAPTIONS)


def test_captions_are_alike_by_common_concepts_of_other_pictures() -> None:
    dog, cat, run, red = (("dog", "noun"), ("cat", "noun"), ("run", "verb"), ("red", "adj"))
    concepts = [frozenset(found) for found in ([dog, run], [dog, run], [dog], [cat, red], [], [dog, cat, red])]
    assert captions_alike(concepts, np.array([0, 0, 1, 2, 3, 4])).tolist() == [1, 1, 2, 1, 0, 1]
    assert captions_alike(concepts, np.array([0, 1, 2, 3, 4, 5])).tolist() == [2, 2, 2, 1, 0, 1]


def test_equal_values_stay_in_one_third() -> None:
    slices = thirds("length", "words", np.array([5, 5, 5, 5, 9, 9]))
    assert [(each.title, int(each.captions.sum())) for each in slices] == [("up to 5 words", 4), ("over 5 words", 2)]
