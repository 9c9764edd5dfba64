"""Build a concept graph: concepts and edges from captions, vectors from pretrained word vectors or a text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tshsr.errors import SettingsError
from tshsr.knowledge.concepts import FoundConcepts, find_concepts
from tshsr.knowledge.edges import PATH_THRESHOLD, binarised, co_occurrence_edges
from tshsr.knowledge.graph import KINDS, ConceptGraph
from tshsr.knowledge.lexicon import Lexicon, RuleLexicon, WordNetLexicon
from tshsr.knowledge.wordnet import WordNet, open_wordnet, wordnet_folder
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.word_vectors import GLOVE_50D, read_word_vectors

LexiconName = Literal["wordnet", "rules"]
RANDOM = "random"
"""Concept vectors without pretraining: normal random numbers of a fixed seed."""
RANDOM_WIDTH, RANDOM_SEED = 50, 0
GLOVE_WIDTH = 50
WIDTH_OPTIONS = "--vectors-width (in training model.knowledge.vectors_width)"
"""What sets the width of vectors in a file."""


@dataclass(frozen=True)
class GraphSettings:
    """What a graph is built from.

    Attributes:
        count: Most concepts.
        lexicon: wordnet: its word classes, and its edges as a second kind; rules: neither.
        vectors: glove-50d, random, or a file of word vectors; with a text encoder, its name for the manifest.
        vectors_width: Of vectors in a file.
    """

    count: int = 300
    lexicon: LexiconName = "wordnet"
    vectors: str = GLOVE_50D
    vectors_width: int = 300


def build_graph(
    captions: Sequence[str], settings: GraphSettings, *, data: str, encoder: FrozenText | None = None
) -> ConceptGraph:
    """The graph of training captions; equal captions and settings give an equal graph.

    Args:
        data: Names of the data and the split, for people.
        encoder: Gives the vectors; None: `settings.vectors`.

    Raises:
        SettingsError: Where a package is needed and not installed, or word vectors have another width.
        DataError: Where captions have too few concepts, or files of WordNet or of vectors can't be used.
    """
    wordnet = open_wordnet(wordnet_folder()) if settings.lexicon == "wordnet" else None
    lexicon: Lexicon = RuleLexicon() if wordnet is None else WordNetLexicon(wordnet)
    found = find_concepts(captions, lexicon, settings.count)
    edges = {KINDS[0]: co_occurrence_edges(found.counts)}
    if wordnet is not None:
        edges[KINDS[1]] = wordnet_edges(found, wordnet)
    vectors = word_vectors(found.words, settings) if encoder is None else encoder_vectors(found.words, encoder)
    return ConceptGraph(
        found.words,
        found.classes,
        tuple(edges),
        found.counts,
        np.stack([*edges.values()]),
        vectors,
        found.captions,
        data,
        lexicon.name,
        settings.vectors if encoder is None else f"{encoder.weights} {encoder.fingerprint}",
    )


def wordnet_edges(found: FoundConcepts, wordnet: WordNet) -> np.ndarray:
    """G of WordNet: 1 between two concepts of one class with a path similarity of `PATH_THRESHOLD` or more."""
    count = len(found.words)
    values = np.zeros((count, count), np.float32)
    for i in range(count):
        for j in range(i):
            if found.classes[i] == found.classes[j]:
                values[i, j] = wordnet.path_similarity(found.words[i], found.words[j], found.classes[i])
    return binarised(values, PATH_THRESHOLD)


def word_vectors(words: Sequence[str], settings: GraphSettings) -> np.ndarray:
    """`centred` vectors of a file or package, zero for words without; or random ones."""
    if settings.vectors == RANDOM:
        return unit_rows(np.random.default_rng(RANDOM_SEED).standard_normal((len(words), RANDOM_WIDTH)))
    width = GLOVE_WIDTH if settings.vectors == GLOVE_50D else settings.vectors_width
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    try:
        rows = read_word_vectors(settings.vectors, numbers, width).rows
    except SettingsError as error:
        told = str(error).replace("set model.encoder.word_dim", f"set {WIDTH_OPTIONS}")
        raise SettingsError(told.replace("model.encoder.word_dim", "the width of concept vectors")) from None
    vectors = np.zeros((len(words), width), np.float32)
    known = np.array([numbers[word] in rows for word in words])
    vectors[known] = centred(np.stack([rows[numbers[word]] for word, has in zip(words, known, strict=True) if has]))
    return vectors


def encoder_vectors(words: Sequence[str], encoder: FrozenText) -> np.ndarray:
    """`centred` states of a frozen text encoder for each word alone, the mean over its nodes."""
    block = encoder.compute(words, 0)
    starts = np.concatenate([[0], np.cumsum(block.lengths)])
    means = [block.states[a:b].astype(np.float32).mean(axis=0) for a, b in pairwise(starts)]
    return centred(np.stack(means))


def centred(vectors: np.ndarray) -> np.ndarray:
    """`unit_rows` of vectors minus their mean: word vectors have a large part in common."""
    return unit_rows(vectors - vectors.mean(axis=0))


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of length one, in float32; a zero row stays zero."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    rows: np.ndarray = (vectors / lengths).astype(np.float32)
    return rows
