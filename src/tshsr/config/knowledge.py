"""Settings of concepts of a graph, which several methods can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tshsr.config.strict import STRICT


@dataclass(frozen=True)
class KnowledgeConfig:
    """Concepts of a graph as a second representation u beside v and t (docs/model.md, section 8)."""

    __pydantic_config__ = STRICT

    method: Literal["none", "progressive", "consistent", "consensus"] = "none"
    """From concepts to u: progressive, after EKDM; consistent, after CSRC; consensus, after CVSE; none: no concepts."""
    graph: str = ""
    """File of tshsr knowledge build; empty: built from the training captions."""
    count: int = 300
    """Most concepts of a graph that is built."""
    lexicon: Literal["wordnet", "rules"] = "wordnet"
    """Of a graph that is built: WordNet's word classes, and its edges as a second kind; or rules without data."""
    vectors: str = "glove-50d"
    """Of a graph that is built, the concepts' vectors: glove-50d, a file of word vectors, encoder for states of the
    frozen pretrained word encoder, or random."""
    vectors_width: int = 300
    """Width of the vectors in a file."""
    inverse_temperature: float = 10.0
    """Sharpness (lambda) of the attention of v, t and u over the concepts."""
    share: float = 0.25
    """Initial share of u_v·u_t in v·t, above 0 and below 1; learned."""
    active: int = 16
    """Concepts of an image or caption that update u: those with the largest attention (progressive, consistent)."""
    steps: int = 2
    """Updates of u (progressive)."""
    geometry: bool = True
    """Gate edges, and filter concepts, by the boxes of regions (progressive); requires boxes."""
    node: bool = True
    """Add the similarity vector of u_v and u_t as a node of each stream."""
    consistency: float = 1.0
    """Weight of the divergence of both sides' concepts, in loss.relations."""
    concepts: tuple[str, ...] = ()
    """Words of the concepts, most frequent first; taken from the graph."""
    width: int = 0
    """Width of the concepts' vectors; taken from the graph."""
    edges: tuple[str, ...] = ()
    """Kinds of edges; taken from the graph."""
    fingerprint: str = ""
    """Fingerprint of the graph; taken from it."""
