"""Captions: reading files of them, tokenising into words, ids and digests."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

from tshsr.data.tokens import CaptionTokenizer, TokenIds
from tshsr.errors import DataError, InputError, parse_json
from tshsr.files import replacing

BLOCK = 4096
"""Captions tokenised per call: the library's records of all of COCO take a gigabyte."""
TOKENIZER = "tokenizer.json"
"""Name of the vocabulary in a run's folder."""
PAD, START, END, UNKNOWN = "<pad>", "<start>", "<end>", "<unk>"

# Rules of the Penn Treebank tokeniser that matter in captions, in order; any other mark is a separate token.
WORD = "|".join(
    (
        r"(?:\w\.){2,}",  # u.s.
        r"\w+?(?=n't\b)",  # do|n't
        r"n't\b",
        r"'(?:s|re|ve|ll|d|m)\b",  # man|'s
        r"\w+(?:(?:[-/.]|[:,](?=\d)|'(?!(?:s|re|ve|ll|d|m)\b))\w+)*",  # t-shirt, black/white, o'clock, 10:30
        r"\.{2,}",
        r"-{2,}",
        r"``",
        r"''",
        r"\S",
    )
)
NORMALIZER = normalizers.Sequence(
    [
        normalizers.NFC(),
        normalizers.Lowercase(),
        normalizers.Replace("\u2019", "'"),
        normalizers.Replace("\u201c", "``"),
        normalizers.Replace("\u201d", "''"),
        normalizers.Replace(
            Regex(r"""(?<![^\s(\[{<])("|'')"""), "``"
        ),  # a quote after a space opens, any other one closes
        normalizers.Replace('"', "''"),
    ]
)


class WordRules:
    """Where the words of a caption are: clitics and punctuation split off, as `Tokenizer` does."""

    def __init__(self) -> None:
        self.rules = _rules({PAD: 0, UNKNOWN: 1})

    def words(self, caption: str) -> list[str]:
        """The spelling of each word of a caption."""
        return [caption[start:stop] for start, stop in self.spans([caption])[0]]

    def spans(self, captions: Sequence[str]) -> list[list[tuple[int, int]]]:
        """First and last + 1 character of each word of each caption."""
        found = []
        for caption, encoding in zip(captions, self.rules.encode_batch(list(captions)), strict=True):
            starts = {start for start, _ in encoding.offsets}
            found.append(
                [(start, start + len(spelling(caption, start, stop, starts))) for start, stop in encoding.offsets]
            )
        return found


class Tokenizer(CaptionTokenizer):
    """A word-level tokeniser: lower case, clitics and punctuation split off; `<pad>` is 0, unseen words are `<unk>`."""

    def __init__(self, rules: tokenizers.Tokenizer) -> None:
        self.rules = rules

    @classmethod
    def build(cls, captions: Iterable[str], minimum_count: int) -> Tokenizer:
        """The vocabulary of the training captions, most frequent words first.

        Args:
            minimum_count: Smallest count of a word in the vocabulary.
        """
        rules = _rules({PAD: 0, UNKNOWN: 1})
        counts: Counter[str] = Counter()
        for caption in captions:
            counts.update(token for token, _ in _split(rules, caption))
        kept = sorted((-count, word) for word, count in counts.items() if count >= minimum_count)
        return cls(_rules({word: number for number, word in enumerate([PAD, UNKNOWN, *(word for _, word in kept)])}))

    @classmethod
    def from_file(cls, path: str | Path, *, boundaries: bool = False) -> Tokenizer:
        """Read a `tokenizer.json` of this package, or a `word2idx` JSON of published checkpoints.

        Args:
            path: The file, of either kind.
            boundaries: For `word2idx`: put `<start>` and `<end>` around every caption, as published GRU checkpoints
                expect. A `tokenizer.json` contains this setting.

        Raises:
            DataError: Where the file is missing, is neither of the two, or its numbers can't be used.
        """
        path = Path(path)
        values = _read_json(path)
        if "word2idx" in values:
            return cls(_rules(_field_vocabulary(path, values["word2idx"]), boundaries=boundaries))
        if boundaries:
            raise DataError(
                f"{path} is no word2idx list; whether <start> and <end> are added is part of a tokenizer.json."
            )
        return cls(_saved_rules(path, values))

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` atomically."""
        with replacing(Path(path)) as file:
            file.write((self.rules.to_str(pretty=True) + "\n").encode())

    def save_into(self, folder: Path) -> None:
        """Write `tokenizer.json` into a run's folder, atomically."""
        self.save(folder / TOKENIZER)

    def __len__(self) -> int:
        """Number of tokens, with `<pad>` and `<unk>`."""
        return int(self.rules.get_vocab_size())

    def encode(self, captions: Sequence[str]) -> TokenIds:
        """Token ids of each caption.

        Raises:
            InputError: Where a caption has no word.
        """
        for number, caption in enumerate(captions):
            check_caption(caption, number)
        starts = range(0, len(captions), BLOCK)
        blocks = (self.rules.encode_batch(list(captions[start : start + BLOCK])) for start in starts)
        return TokenIds.joined(TokenIds.of([encoding.ids for encoding in block]) for block in blocks)

    def encode_kept(self, captions: Sequence[str], kept: Sequence[np.ndarray]) -> TokenIds:
        """Token ids of each caption without those that its mask excludes.

        Raises:
            InputError: Where a caption has no word.
        """
        rows = zip(self.encode(captions).rows(), kept, strict=True)
        return TokenIds.of([[*compress(row, mask.tolist())] for row, mask in rows])

    def words(self, caption: str) -> list[str]:
        """Each token of `encode`, unknown words included, as spelled in the caption.

        Raises:
            InputError: Where the caption has no word.
        """
        check_caption(caption, 0)
        encoding = self.rules.encode(caption)
        parts = list(zip(encoding.offsets, encoding.tokens, encoding.special_tokens_mask, strict=True))
        starts = {start for (start, _), _, special in parts if not special}
        return [token if special else spelling(caption, *span, starts) for span, token, special in parts]

    @property
    def ends(self) -> int:
        """1 where every caption has `<start>` and `<end>` around it, else 0."""
        return int(self.rules.encode("a").tokens[0] == START)

    def are_known(self, caption: str) -> list[bool]:
        """For each token whether it is another than `<unk>`.

        Raises:
            InputError: Where the caption has no word.
        """
        unknown = self.rules.token_to_id(UNKNOWN)
        return [number != unknown for row in self.encode([caption]).rows() for number in row]

    def word_ids(self) -> dict[str, int]:
        """The id of each word of the vocabulary, without those of padding, start, end and unknown words."""
        words = self.rules.get_vocab()
        return {word: number for word, number in words.items() if word not in (PAD, START, END, UNKNOWN)}

    def known_words(self) -> list[str]:
        """Words of the vocabulary, of letters and digits only, sorted."""
        return sorted(word for word in self.rules.get_vocab() if word.isalnum())

    def identity(self) -> str:
        """The content of `tokenizer.json`."""
        return str(self.rules.to_str())


def spelling(caption: str, start: int, stop: int, starts: set[int]) -> str:
    """A span of the caption with the accents after its last letter, which the library's offsets omit.

    An accent unknown to the library (its version of Unicode is not Python's) is a separate token.
    """
    while stop < len(caption) and stop not in starts and unicodedata.combining(caption[stop]):
        stop += 1
    return caption[start:stop]


def check_caption(caption: object, number: int) -> None:
    """Refuse what is no text, or has no letter and no digit.

    Args:
        number: The caption's place in its list, for the message.

    Raises:
        InputError: Where the caption has no word.
    """
    if not isinstance(caption, str):
        raise InputError(f"caption {number} is {caption!r} ({type(caption).__name__}); expected text.")
    if not any(letter.isalnum() for letter in caption):
        raise InputError(f"caption {number} has no word: {caption!r}. Give it at least one word, or leave it out.")
    if not caption.isascii() and any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise InputError(f"caption {number} has half a character: {caption!r:.80}. Write it as UTF-8.")


def _split(rules: tokenizers.Tokenizer, caption: str) -> list[tuple[str, tuple[int, int]]]:
    normalized = rules.normalizer.normalize_str(caption)
    return list(rules.pre_tokenizer.pre_tokenize_str(normalized))


def _rules(vocabulary: dict[str, int], *, boundaries: bool = False) -> tokenizers.Tokenizer:
    rules = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    rules.normalizer = NORMALIZER
    rules.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    if boundaries:
        rules.post_processor = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
        )
    return rules


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"Cannot read the vocabulary {path}: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); expected a tokenizer.json or a word2idx list.") from None
    if not isinstance(values, dict):
        raise DataError(f"{path} holds a JSON {type(values).__name__}; expected a tokenizer.json or a word2idx list.")
    return values


def _field_vocabulary(path: Path, words: object) -> dict[str, int]:
    """Check a `word2idx`: ids 0..n-1, each once, with the four special tokens at their places."""
    if not isinstance(words, dict) or not all(type(number) is int for number in words.values()):
        raise DataError(f"{path}: word2idx must map words to whole numbers.")
    if sorted(words.values()) != list(range(len(words))):
        raise DataError(f"{path}: word2idx must use each number from 0 to {len(words) - 1} once; it does not.")
    for number, mark in enumerate((PAD, START, END, UNKNOWN)):
        if words.get(mark) != number:
            raise DataError(
                f"{path}: word2idx has {mark} = {words.get(mark)}; expected {number}, as in published lists."
            )
    return dict(words)


def _saved_rules(path: Path, values: dict[str, Any]) -> tokenizers.Tokenizer:
    """Load a tokenizer.json and check its type and special tokens."""
    model = values.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "WordLevel":
        raise DataError(
            f"{path} holds a tokenizer of type {kind}; expected WordLevel (one token per word), or a word2idx list."
        )
    try:
        rules = tokenizers.Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise DataError(f"{path} is no usable tokenizer.json: {error}.") from None
    if rules.token_to_id(PAD) != 0 or rules.token_to_id(UNKNOWN) is None:
        got = f"{rules.token_to_id(PAD)} and {rules.token_to_id(UNKNOWN)}"
        raise DataError(f"{path}: expected {PAD} = 0 and a number for {UNKNOWN}; got {got}.")
    largest = max(rules.get_vocab().values())
    if largest >= rules.get_vocab_size():
        raise DataError(
            f"{path} has {rules.get_vocab_size()} words and the number {largest}; expected each number from 0 once."
        )
    return rules


def read_lines(path: Path) -> tuple[str, ...]:
    """Stripped lines of a UTF-8 file; only a line feed ends one, as captions contain Unicode's other separators.

    Raises:
        DataError: Where the file can't be read, is no UTF-8, or holds an empty line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from None
    lines = tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
    if "" in lines:
        raise DataError(
            f"{path}:{lines.index('') + 1}: the line is empty; expected one entry per line, none of them empty."
        )
    return lines


def read_captions(path: Path) -> tuple[str, ...]:
    """Captions of a file, one per line.

    Raises:
        DataError: As `read_lines`, and where every line is a printed bytes object, b'...': a mistake of Python 2 code
            under Python 3, which adds a wrong word to each caption.
    """
    captions = read_lines(path)
    if all(caption[:2] in ("b'", 'b"') and caption[-1] == caption[1] for caption in captions):
        raise DataError(
            f"{path}: every caption is a printed bytes object, like {captions[0]!r}; expected plain text. "
            "Write the file again with text decoded as UTF-8."
        )
    return captions


def numbered_caption_ids(image_ids: Iterable[str]) -> list[str]:
    """An id IMAGE#K for each caption: the k-th caption of its image (0-based), as in Flickr30K.

    Args:
        image_ids: For each caption the id of its image.
    """
    counts: Counter[str] = Counter()
    ids = []
    for image in image_ids:
        ids.append(f"{image}#{counts[image]}")
        counts[image] += 1
    return ids


def captions_digest(captions: Sequence[str], image_of_caption: np.ndarray) -> str:
    """SHA-256 of captions and their images, in order, to identify data.

    Args:
        captions: Texts; surrounding spaces and a byte-order mark do not count.
        image_of_caption: For each caption the row of its image.
    """
    texts = [caption.removeprefix("\ufeff").strip() for caption in captions]
    return hashlib.sha256(json.dumps([texts, image_of_caption.tolist()]).encode()).hexdigest()
