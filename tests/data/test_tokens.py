"""Encoded captions: read row by row, and without some of their words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tshsr.data.batches import pad_sequences
from tshsr.data.text import Tokenizer
from tshsr.data.tokens import TokenIds, by_length
from tshsr.errors import InputError

ROWS = st.lists(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=6), min_size=1, max_size=8)


@given(rows=ROWS, data=st.data())
def test_rows_are_read_as_they_were_given_in_any_order(rows: list[list[int]], data: st.DataObject) -> None:
    tokens = TokenIds.of(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    batch, expected = tokens.read(np.array(chosen)), pad_sequences([rows[row] for row in chosen])
    assert torch.equal(batch.tokens, expected.tokens)
    assert batch.tokens.dtype == expected.tokens.dtype
    assert torch.equal(batch.mask, expected.mask)
    assert list(tokens.rows()) == rows
    assert tokens.lengths.tolist() == [len(row) for row in rows]


def test_parts_are_joined_in_order() -> None:
    parts = [[[3, 4], [5]], [[6]], []]
    joined = TokenIds.joined(TokenIds.of(part) for part in parts)
    assert list(joined.rows()) == [row for part in parts for row in part]
    assert len(TokenIds.joined([])) == 0


def test_no_rows_are_refused() -> None:
    with pytest.raises(InputError, match=r"tokens have shape \(0, 0\); expected 2 axes, none of them empty"):
        TokenIds.of([[1]]).read(np.array([], np.int64))


def test_captions_are_ordered_by_length() -> None:
    assert by_length(TokenIds.of([[1, 2], [3], [4, 5], [6]])).tolist() == [1, 3, 0, 2]


def test_captions_without_some_words_have_the_ids_of_the_rest(tmp_path: Path) -> None:
    tokenizer = Tokenizer.build(["a dog is n't red"], 1)
    kept = [np.array([True, False, True, False]), np.array([False, True])]
    (first, second) = tokenizer.encode_kept(["a dog isn't", "red dog"], kept).rows()
    whole = list(tokenizer.encode(["a dog isn't", "red dog"]).rows())
    assert first == [whole[0][0], whole[0][2]]
    assert second == whole[1][1:]
    assert tokenizer.ends == 0
    words = ["<pad>", "<start>", "<end>", "<unk>", "red", "x2"]
    (tmp_path / "words.json").write_text(json.dumps({"word2idx": {word: n for n, word in enumerate(words)}}))
    assert Tokenizer.from_file(tmp_path / "words.json", boundaries=True).ends == 1


def test_a_vocabulary_names_its_words_and_what_it_does_not_know() -> None:
    tokenizer = Tokenizer.build(["a red-ish Dog 's ball"], 1)
    assert tokenizer.are_known("The dog 's ball!") == [False, True, True, True, False]
    assert tokenizer.known_words() == ["a", "ball", "dog"]
    assert tokenizer.identity() == Tokenizer.build(["a red-ish Dog 's ball"], 1).identity()
    assert tokenizer.identity() != Tokenizer.build(["a"], 1).identity()
