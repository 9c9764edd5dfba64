"""The real WordNet and GloVe, where their packages are installed."""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest

from tshsr.errors import SettingsError
from tshsr.knowledge.build import GraphSettings, build_graph
from tshsr.knowledge.lexicon import WordNetLexicon
from tshsr.knowledge.wordnet import WordNet, open_wordnet, wordnet_folder
from tshsr.pretrained.word_vectors import GLOVE_MODULE

CAPTIONS = (
    "A man in a red shirt is walking a small dog .",
    "Two men are walking their dogs on the beach .",
    "A little dog plays with a red ball on the beach .",
    "A woman wearing a red dress holds a ball .",
    "The woman walked past a tall building wearing a shirt .",
)


@cache
def real() -> WordNet:
    try:
        return open_wordnet(wordnet_folder())
    except SettingsError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("word", "concept"),
    [
        ("men", ("man", "noun")),
        ("wearing", ("wear", "verb")),
        ("walked", ("walk", "verb")),
        ("building", ("building", "noun")),
        ("sitting", ("sit", "verb")),
        ("red", ("red", "adj")),
        ("quickly", None),
    ],
)
def test_frequent_words_of_captions_have_their_class(word: str, concept: tuple[str, str] | None) -> None:
    assert WordNetLexicon(real()).concept(word) == concept


def test_path_similarity_is_that_of_other_readers_of_wordnet() -> None:
    """1/5 and 1/3 are what NLTK's interface gives for the first senses."""
    assert real().path_similarity("dog", "cat", "noun") == pytest.approx(1 / 5)
    assert real().path_similarity("man", "woman", "noun") == pytest.approx(1 / 3)


def test_two_instances_of_one_synset_are_two_steps_apart() -> None:
    assert real().path_similarity("paris", "london", "noun") == pytest.approx(1 / 3)


def test_a_graph_has_both_kinds_of_edges_and_vectors_of_glove() -> None:
    real()
    if importlib.util.find_spec(GLOVE_MODULE) is None:
        pytest.skip("GloVe's package is not installed")
    graph = build_graph(CAPTIONS, GraphSettings(), data="x")
    assert graph.kinds == ("captions", "wordnet")
    assert graph.edges[1, graph.words.index("man"), graph.words.index("woman")] == 1
    assert graph.width == 50
    assert graph.without_vector() == []
