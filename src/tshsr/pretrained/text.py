"""Tokenizers of text encoders: captions -> word pieces, and the words to which they belong.

Each network receives text as it was trained: with its own start, end and padding tokens; SigLIP and SigLIP 2 in lower
case, padded to their full length; CLIP cut at its length.

Axes: captions | tokens (word pieces, start, end, padding).
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import normalizers

from tshsr.data.batches import NO_WORD, UNREAD, CaptionBatch
from tshsr.data.text import WordRules, check_caption
from tshsr.errors import DataError, InputError, reason_in
from tshsr.files import explained
from tshsr.pretrained.networks import load_config, load_tokenizer

Span = tuple[int, int]
Nodes = Literal["words", "pieces"]
"""What a caption's nodes are: its words, or the tokenizer's word pieces."""
SIGLIP = ("siglip", "siglip2", "siglip_text_model", "siglip2_text_model")
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Kinds that number positions from the padding token's id + 1 on, so that they read fewer tokens than positions."""
EXPECTED = "expected a text encoder such as BERT, MiniLM or RoBERTa, or a CLIP, SigLIP or SigLIP 2."
SPACE, BYTE_SPACE, WORD_END = "\N{LOWER ONE EIGHTH BLOCK}", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", "</w>"
"""Marks of a word's start in sentencepiece and byte-level vocabularies, and of its end in CLIP's."""
KNOWN = 50_000
"""Most words whose pieces are remembered."""
PROBES = (
    "A man's black/white T-shirt, on 2 dogs.",
    "Zwei Männer; “eine” Straße -- 10:30 o'clock!",
    "un café à l'été, 雪の犬 \N{DOG FACE}…",
)
"""Captions whose token ids enter a tokenizer's fingerprint."""


@dataclass(frozen=True)
class EncodedCaption:
    """A caption as tokens of a network.

    Attributes:
        ids: Token ids with start and end, and with padding where the network reads a fixed length.
        word_of_token: The node of each token, from 0; `NO_WORD` for start, end and padding.
        spans: First and last + 1 character of each node in the caption.
        cut: Whether the caption is longer than the network reads, so that its last words are left out.
    """

    ids: list[int]
    word_of_token: list[int]
    spans: list[Span]
    cut: bool = False


class TextTokenizer:
    """The tokenizer of a network, which also says which word of the caption each token belongs to.

    Words are those of `tshsr.data.text.Tokenizer`, so that explanations of different encoders speak of the same ones: a
    piece belongs to the word with its first character. Tokenizers without offsets (SigLIP's) have the words between
    spaces.

    Args:
        weights: A folder, or a name on the hub.
        nodes: words: the pieces of a word are one node; pieces: each piece is one.

    Attributes:
        pad_id: Id of the padding token.
        length: Most tokens of a caption, with start and end.
        fixed: Whether every caption is padded to `length`, and padding is part of it.
    """

    def __init__(self, weights: str, nodes: Nodes = "words") -> None:
        self.weights, self.nodes = weights, nodes
        self.rules: Any = load_tokenizer(weights)
        config = load_config(weights)
        kind, text = str(config.model_type), getattr(config, "text_config", config)
        if self.rules.pad_token_id is None:
            raise DataError(f"the tokenizer of {weights} has no padding token; {EXPECTED}")
        self.pad_id = int(self.rules.pad_token_id)
        self.fixed = kind in SIGLIP
        positions = int(getattr(text, "max_position_embeddings", 10**9))
        positions -= self.pad_id + 1 if kind in POSITIONS_AFTER_PADDING else 0
        self.length = positions if self.fixed else min(positions, int(self.rules.model_max_length))
        if self.fixed and self.rules.is_fast:
            _lower_case(self.rules.backend_tokenizer)
        self._word_rules, self._known, self._warned = WordRules(), dict[str, list[int]](), True
        self._probes = [one.ids for one in self.encode(PROBES)]
        self._warned = False

    def __len__(self) -> int:
        """Number of tokens in the vocabulary."""
        return len(self.rules)

    @cached_property
    def fingerprint(self) -> str:
        """Ten hexadecimal digits of a hash of the vocabulary, the length and the tokens of a few captions."""
        content = [sorted(self.rules.get_vocab().items()), self.length, self._probes]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:10]

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's own files.

        Raises:
            DataError: Where they cannot be written.
        """
        with explained(Path(folder)):
            try:
                self.rules.save_pretrained(str(folder))
            except Exception as error:
                if type(error) is not Exception:
                    raise
                raise OSError(reason_in(error)) from error  # the tokenizers library has no error of its own for files

    def words(self, caption: str) -> list[str]:
        """The spelling of each node, as in the caption.

        Raises:
            InputError: As `encode`.
        """
        return [caption[start:stop] for start, stop in self.encode([caption])[0].spans]

    def nodes_of_words(self, caption: str) -> list[int]:
        """For each word of a caption the node with its first character; `NO_WORD` where there is none.

        Raises:
            InputError: As `encode`.
        """
        node_at = dict[int, int]()
        for node, span in enumerate(self.encode([caption])[0].spans):
            node_at |= dict.fromkeys(range(*span), node)
        return [node_at.get(start, NO_WORD) for start, _ in self._word_rules.spans([caption])[0]]

    def are_known(self, caption: str) -> list[bool]:
        """For each node whether none of its tokens is the one of unknown text.

        Raises:
            InputError: As `encode`.
        """
        one = self.encode([caption])[0]
        unknown = {
            node for token, node in zip(one.ids, one.word_of_token, strict=True) if token == self.rules.unk_token_id
        }
        return [node not in unknown for node in range(len(one.spans))]

    def known_words(self) -> list[str]:
        """Whole words of the vocabulary, of letters and digits only, sorted."""
        special = {*self.rules.all_special_tokens}
        words = [word for word in self.rules.get_vocab() if word not in special]
        marked = [word[1:] for word in words if word[0] in (SPACE, BYTE_SPACE)]
        marked += [word.removesuffix(WORD_END) for word in words if word.endswith(WORD_END)]
        return sorted({word for word in marked or words if word.isalnum()})

    def without(self, caption: str, kept: Sequence[bool]) -> str:
        """The caption without some of its nodes, as if these had never been written.

        Args:
            kept: For each node whether it stays.
        """
        one = self.encode([caption])[0]
        if len(one.spans) != len(kept):
            raise InputError(
                f"{caption!r} has {len(one.spans)} nodes; expected a mask of them, got {len(kept)} values."
            )
        text = caption[: one.spans[-1][1]] if one.cut else caption
        return _without(text, [span for span, stays in zip(one.spans, kept, strict=True) if not stays])

    def encode(self, captions: Sequence[str], *, first: int = 0, part: bool = False) -> list[EncodedCaption]:
        """Tokens and nodes of captions; one longer than `length` is cut, the first time with a warning.

        Args:
            first: The first caption's place in its list, for messages.
            part: Whether the captions are remains of others, which may be punctuation alone.

        Raises:
            InputError: Where a caption has no word.
        """
        for number, caption in enumerate(() if part else captions, first):
            check_caption(caption, number)
        if not captions:
            return []
        encoded = self._with_offsets(captions) if self.rules.is_fast else [self._word_by_word(one) for one in captions]
        for number, (caption, one) in enumerate(zip(captions, encoded, strict=True), first):
            if not one.spans:
                raise InputError(
                    f"caption {number} has no word that the tokenizer of {self.weights} knows: {caption!r}. "
                    "Give it at least one word, or leave it out."
                )
            if one.cut and not self._warned:
                self._warned = True
                warnings.warn(
                    f"caption {number} has more than the {self.length} tokens that {self.weights} reads: its last "
                    "words are left out, as are those of other long captions.",
                    stacklevel=2,
                )
        return encoded

    def _padding(self) -> dict[str, Any]:
        return {"truncation": True, "max_length": self.length, "padding": "max_length" if self.fixed else False}

    def _with_offsets(self, captions: Sequence[str]) -> list[EncodedCaption]:
        given = self.rules(
            list(captions), return_offsets_mapping=True, return_special_tokens_mask=True, **self._padding()
        )
        spans = self._word_rules.spans(captions) if self.nodes == "words" else [None] * len(captions)
        names = ("input_ids", "offset_mapping", "special_tokens_mask")
        parts = zip(captions, *(given[name] for name in names), spans, given.encodings, strict=True)
        encoded = []
        for caption, ids, offsets, special, words, whole in parts:
            pieces = [None if mark else span for span, mark in zip(offsets, special, strict=True)]
            found = _own_nodes(caption, pieces) if words is None else _word_nodes(caption, pieces, words)
            encoded.append(EncodedCaption(list(ids), *found, cut=bool(whole.overflowing)))
        return encoded

    def _word_by_word(self, caption: str) -> EncodedCaption:
        """For tokenizers without offsets, whose pieces never cross a space.

        Raises:
            DataError: Where pieces do cross one.
        """
        room = self.length - self.rules.num_special_tokens_to_add()
        pieces, nodes, spans = self._split(caption)
        inner, nodes = pieces[:room], nodes[:room]
        ids = list(self.rules(caption, **self._padding())["input_ids"])
        start = next((at for at in range(len(ids)) if ids[at : at + len(inner)] == inner), None)
        if start is None:
            raise DataError(
                f"the tokenizer of {self.weights} joins words of {caption!r} and has no offsets; name weights "
                "with a tokenizer.json."
            )
        nodes = [NO_WORD] * start + nodes + [NO_WORD] * (len(ids) - start - len(inner))
        return EncodedCaption(ids, nodes, spans[: max(nodes) + 1], cut=len(pieces) > room)

    def _split(self, caption: str) -> tuple[list[int], list[int], list[Span]]:
        """Ids of the words between spaces, the node of each, and the place of each node."""
        ids: list[int] = []
        nodes: list[int] = []
        spans: list[Span] = []
        for word in re.finditer(r"\S+", caption):
            pieces = self._pieces(word[0])
            ids += pieces
            if self.nodes == "words":
                nodes += [len(spans)] * len(pieces)
                spans += [word.span()] if pieces else []
                continue
            at = word.start()
            for piece in self.rules.convert_ids_to_tokens(pieces):
                spelled = piece.removeprefix(SPACE)
                nodes.append(len(spans) if spelled else NO_WORD)
                if spelled:
                    found = caption.lower().find(spelled, at, word.end())
                    spans.append((found, found + len(spelled)) if found >= 0 else word.span())
                    at = max(at, found + len(spelled)) if found >= 0 else at
        return ids, nodes, spans

    def _pieces(self, word: str) -> list[int]:
        """Ids of a word's pieces, remembered: these tokenizers are slow, and captions repeat their words."""
        if word not in self._known:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[word] = list(self.rules(word, add_special_tokens=False)["input_ids"])
        return self._known[word]


def _lower_case(backend: Any) -> None:
    """Lower case before a tokenizer's own rules, where they keep capitals."""
    rules = backend.normalizer
    if rules is None:
        backend.normalizer = normalizers.Lowercase()
    elif rules.normalize_str("A") != rules.normalize_str("a"):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), rules])


def _without(caption: str, spans: Sequence[Span]) -> str:
    """A caption without some spans: one space where two words would touch, and none where two spaces would."""
    text, end = "", 0
    for start, stop in [*spans, (len(caption), len(caption))]:
        between = caption[end:start]
        if end and (not text or text[-1].isspace()):
            between = between.lstrip()
        elif end and text[-1].isalnum() and between[:1].isalnum():
            between = f" {between}"
        text, end = text + between, stop
    return text.rstrip() if spans and spans[-1][1] == len(caption.rstrip()) else text


def _own_nodes(caption: str, pieces: Sequence[Span | None]) -> tuple[list[int], list[Span]]:
    """Each piece with a visible character as a node."""
    nodes: list[int] = []
    spans: list[Span] = []
    for span in pieces:
        spelled = "" if span is None else caption[slice(*span)]
        nodes.append(len(spans) if spelled.strip() else NO_WORD)
        if span is not None and spelled.strip():
            start = span[0] + len(spelled) - len(spelled.lstrip())
            spans.append((start, start + len(spelled.strip())))
    return nodes, spans


def _word_nodes(caption: str, pieces: Sequence[Span | None], words: Sequence[Span]) -> tuple[list[int], list[Span]]:
    """The word of each piece: the one with its first visible character.

    A word without a piece of its own, in the middle of another word's piece, joins that word; a word that no piece
    covers is left out.
    """
    word_at = [NO_WORD] * len(caption)
    for number, (start, stop) in enumerate(words):
        word_at[start:stop] = [number] * (stop - start)
    covered = [[word for word in word_at[slice(*span)] if word != NO_WORD] if span else [] for span in pieces]
    owners = [found[0] if found else NO_WORD for found in covered]
    last = {owner: owner for owner in owners if owner != NO_WORD}
    for owner, found in zip(owners, covered, strict=True):
        if inside := [word for word in found if word not in last]:
            last[owner] = inside[-1]
    nodes = {owner: number for number, owner in enumerate(sorted(last))}
    return [nodes.get(owner, NO_WORD) for owner in owners], [(words[one][0], words[last[one]][1]) for one in nodes]


def token_batch(encoded: Sequence[EncodedCaption], pad_id: int) -> CaptionBatch:
    """Captions as word pieces, padded to the longest of them."""
    tokens = max((len(one.ids) for one in encoded), default=0)
    ids = torch.full((len(encoded), tokens), pad_id)
    nodes = torch.full((len(encoded), tokens), UNREAD)
    for row, one in enumerate(encoded):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        nodes[row, : len(one.ids)] = torch.tensor(one.word_of_token)
    counts = torch.tensor([len(one.spans) for one in encoded])
    return CaptionBatch(ids, torch.arange(int(counts.max())) < counts[:, None], word_of_token=nodes)
