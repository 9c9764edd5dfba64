"""The concept graph and its file: safetensors with a manifest, written atomically and never pickled.

Axes: kinds (of edges) | concepts | width (of a concept's vector).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tshsr.errors import DataError, parse_json
from tshsr.files import write_bytes
from tshsr.knowledge.edges import normalised
from tshsr.knowledge.wordnet import CLASSES

VERSION = 1
FIELDS = ("version", "words", "classes", "edges", "captions", "data", "lexicon", "vectors", "fingerprint")
"""Entries of the manifest, JSON in the file's metadata."""
KINDS = ("captions", "wordnet")
"""Kinds of edges: co-occurrence, and path similarity in WordNet."""
DTYPES = {"counts": np.int64, "edges": np.float32, "vectors": np.float32}
TENSORS = tuple(DTYPES)
BUILD = "make it with `tshsr knowledge build DATA --out FILE`"


@dataclass(frozen=True, eq=False)
class ConceptGraph:
    """Concepts, their edges and vectors.

    Attributes:
        words: Lemmas, most frequent first.
        classes: noun, verb or adj.
        kinds: Of edges: captions, and wordnet where WordNet was used.
        counts: int64, concepts x concepts: captions with both, and on the diagonal with one.
        edges: float32, kinds x concepts x concepts: G, 0 or 1, symmetric, 0 on the diagonal.
        vectors: float32, concepts x width; unit rows, or zero where a word has no vector.
        captions: Number of captions that were read.
        data: Names of the data and the split, for people.
        lexicon: What gave the classes.
        vectors_of: What gave the vectors.
    """

    words: tuple[str, ...]
    classes: tuple[str, ...]
    kinds: tuple[str, ...]
    counts: np.ndarray
    edges: np.ndarray
    vectors: np.ndarray
    captions: int
    data: str
    lexicon: str
    vectors_of: str

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self.words)

    @property
    def width(self) -> int:
        """Width of a vector."""
        return int(self.vectors.shape[1])

    @property
    def fingerprint(self) -> str:
        """Hash of what a network reads: words, classes, kinds, edges and vectors."""
        named = json.dumps([self.words, self.classes, self.kinds]).encode()
        parts = (named, self.edges.astype("<f4").tobytes(), self.vectors.astype("<f4").tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def adjacency(self) -> np.ndarray:
        """`normalised` edges of each kind: kinds x concepts x concepts."""
        return np.stack([normalised(edges) for edges in self.edges])

    def without_vector(self) -> list[str]:
        """Words whose vector is zero."""
        return [word for word, vector in zip(self.words, self.vectors, strict=True) if not vector.any()]

    def save(self, path: Path) -> None:
        """Write the file, atomically.

        Raises:
            DataError: Where the disk is full or the folder cannot be written.
        """
        manifest = {
            "version": VERSION,
            "words": self.words,
            "classes": self.classes,
            "edges": self.kinds,
            "captions": self.captions,
            "data": self.data,
            "lexicon": self.lexicon,
            "vectors": self.vectors_of,
            "fingerprint": self.fingerprint,
        }
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        write_bytes(path, save(tensors, {"tshsr": json.dumps(manifest)}))

    @classmethod
    def load(cls, path: Path) -> ConceptGraph:
        """Read a file.

        Raises:
            DataError: Where it is missing, damaged, of another kind or version, or its parts do not fit each other.
        """
        manifest, tensors = _read(path)
        if manifest.get("version") != VERSION:
            raise DataError(
                f"{path} is a concept graph of version {manifest.get('version')}; expected {VERSION}: {BUILD}."
            )
        missing = [name for name in FIELDS if name not in manifest] + [name for name in TENSORS if name not in tensors]
        if missing:
            raise DataError(f"{path} lacks {missing[0]!r}, a part of every concept graph; {BUILD}.")
        if type(manifest["captions"]) is not int or manifest["captions"] < 0:
            raise DataError(f"{path} has captions {manifest['captions']!r}; expected their number: {BUILD}.")
        graph = cls(
            _texts(path, manifest, "words"),
            _texts(path, manifest, "classes", CLASSES),
            _texts(path, manifest, "edges", KINDS),
            tensors["counts"],
            tensors["edges"],
            tensors["vectors"],
            manifest["captions"],
            *(_text(path, manifest, name) for name in ("data", "lexicon", "vectors")),
        )
        _check(path, graph)
        if graph.fingerprint != manifest["fingerprint"]:
            raise DataError(
                f"{path} has the fingerprint {graph.fingerprint}, its manifest says {manifest['fingerprint']}; the "
                f"file was changed: {BUILD}."
            )
        return graph


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest and the tensors of a file."""
    if not path.is_file():
        raise DataError(f"{path} is missing; expected a concept graph: {BUILD}.")
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        manifest = parse_json(metadata.get("tshsr", "null"))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:  # the latter: types numpy lacks
        raise DataError(f"{path} is damaged, or no concept graph ({error}); {BUILD}.") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{path} is no concept graph: it has no manifest; {BUILD}.")
    return manifest, tensors


def _text(path: Path, manifest: dict[str, Any], name: str) -> str:
    """A text of the manifest."""
    found = manifest[name]
    if not isinstance(found, str):
        raise DataError(f"{path} has {name} {found!r}; expected a text: {BUILD}.")
    return found


def _texts(path: Path, manifest: dict[str, Any], name: str, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    """A list of texts of the manifest, each one of those allowed; without these any."""
    found = manifest[name]
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError(f"{path} has {name} {found!r}; expected a list of texts: {BUILD}.")
    for each in found:
        if allowed and each not in allowed:
            raise DataError(f"{path} has {name} {each}; expected {', '.join(allowed)}: {BUILD}.")
    return tuple(found)


def _check(path: Path, graph: ConceptGraph) -> None:
    """Refuse parts that do not fit each other, and values that `ConceptGraph` excludes."""
    count = len(graph.words)
    for name, kind in DTYPES.items():
        found = getattr(graph, name).dtype
        if found != kind:
            raise DataError(f"{path}: {name} are {found}; expected {np.dtype(kind)}: {BUILD}.")
    expected = {
        "classes": (len(graph.classes), count),
        "counts": (graph.counts.shape, (count, count)),
        "edges": (graph.edges.shape, (len(graph.kinds), count, count)),
        "vectors": (graph.vectors.shape, (count, max((1, *graph.vectors.shape[1:2])))),
    }
    for name, (found, wanted) in expected.items():
        if found != wanted:
            raise DataError(f"{path}: {name} are {found} for {count} concepts; expected {wanted}: {BUILD}.")
    if count < 2 or not graph.kinds:
        raise DataError(
            f"{path} has {count} concepts and {len(graph.kinds)} kinds of edges; expected at least 2 and 1: {BUILD}."
        )
    if not np.isfinite(graph.vectors).all():
        raise DataError(f"{path} has a vector that is not finite; {BUILD}.")
    if (graph.counts < 0).any():
        raise DataError(f"{path} has a count below 0; {BUILD}.")
    edges = graph.edges
    looped = edges.diagonal(axis1=1, axis2=2).any()
    if looped or not (np.isin(edges, (0, 1)).all() and (edges == edges.swapaxes(1, 2)).all()):
        raise DataError(
            f"{path} has edges that are not 0 or 1, or not symmetric, or from a concept to itself; {BUILD}."
        )
