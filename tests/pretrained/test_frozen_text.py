"""A frozen text network: states of words, equal from memory and from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_text import CAPTIONS, TOKENIZER_OF
from tshsr.data.batches import UNREAD
from tshsr.errors import DataError, InputError
from tshsr.pretrained import frozen_text
from tshsr.pretrained.frozen_text import FrozenText, batches
from tshsr.pretrained.text import token_batch
from tshsr.pretrained.text_network import node_states
from tshsr.system import progress_to

Folder = Callable[[str], str]
HALF = 1e-3
"""Rounding of a state of size 1 to half precision."""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSHSR_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", TOKENIZER_OF)
@torch.inference_mode()
def test_states_are_those_of_the_network_from_memory_and_from_the_store(
    kind: str, text_folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = FrozenText(text_folder(kind))
    rows = np.array([3, 0, 5])
    direct = text.encode(CAPTIONS).read(rows)
    monkeypatch.setattr(frozen_text, "KEPT_FROM", 1)
    stored = text.encode(CAPTIONS).read(rows)
    batch = token_batch(text.tokenizer.encode([CAPTIONS[row] for row in rows]), text.tokenizer.pad_id)
    assert batch.word_of_token is not None
    states, pooled = text.network(batch.tokens, batch.word_of_token != UNREAD)
    expected = node_states(states, batch.word_of_token, batch.mask.shape[1])
    for found in (direct, stored):
        assert found.states is not None
        assert torch.equal(found.mask, batch.mask)
        torch.testing.assert_close(found.states, expected, rtol=HALF, atol=HALF)
        assert found.pooled is not None
        assert found.pooled.shape == (3, text.pooled_width)
        torch.testing.assert_close(found.pooled, pooled, rtol=0, atol=2e-6)
    assert direct.states is not None
    assert torch.equal(direct.states, stored.states)
    assert len([*(tmp_path / "cache" / "tokens").iterdir()]) == 1


def test_progress_goes_to_the_block_that_runs(text_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_text, "KEPT_FROM", 1)
    begun, reports = [], []

    def begin(activity: str, unit: str) -> Callable[[int, int], None]:
        begun.append((activity, unit))
        return lambda done, total: reports.append((done, total))

    with progress_to(begin):
        FrozenText(text_folder("bert")).encode(CAPTIONS)
    assert begun == [("reading captions with the text network", "captions")]
    assert reports == [(6, 6)]


def test_nodes_are_words_or_pieces(text_folder: Folder) -> None:
    words, pieces = FrozenText(text_folder("bert")), FrozenText(text_folder("bert"), "pieces")
    assert words.words(CAPTIONS[0])[2:4] == ["'s", "black/white"]
    assert pieces.words(CAPTIONS[0])[2:5] == ["'", "s", "black"]
    assert words.identity() != pieces.identity()
    assert len(words) == len(words.tokenizer.rules)
    assert words.are_known("a \N{DOG FACE}") == [True, False]
    assert "man" in words.known_words()
    assert words.ends == 0
    for text in (words, pieces):
        assert text.encode(CAPTIONS).lengths.tolist() == [len(text.words(caption)) for caption in CAPTIONS]


def test_captions_without_some_nodes_are_read_anew(text_folder: Folder) -> None:
    text = FrozenText(text_folder("clip"))
    kept = [np.array([True, False, True, True]), np.array([True, True])]
    found = text.encode_kept(["two brown dogs run", "two dogs"], kept).read(np.arange(2))
    expected = text.encode(["two dogs run", "two dogs"]).read(np.arange(2))
    torch.testing.assert_close(found.states, expected.states)
    torch.testing.assert_close(found.pooled, expected.pooled)


def test_a_run_refuses_other_weights(text_folder: Folder) -> None:
    text = FrozenText(text_folder("bert"))
    assert FrozenText(text_folder("bert"), fingerprint=text.fingerprint).fingerprint == text.fingerprint
    with pytest.raises(DataError, match=rf"has the fingerprint {text.fingerprint}, the run was trained with abc; name"):
        FrozenText(text_folder("bert"), fingerprint="abc")


def test_a_caption_without_a_word_is_named_by_its_place(text_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FrozenText(text_folder("bert"))
    for least in (1, 1000):
        monkeypatch.setattr(frozen_text, "KEPT_FROM", least)
        with pytest.raises(InputError, match=r"^caption 2 has no word: '!!'"):
            text.encode(["a", "man", "!!"])
    with pytest.raises(InputError):
        text.encode([]).read(np.arange(0))


def test_states_beyond_half_precision_are_refused(text_folder: Folder) -> None:
    text = FrozenText(text_folder("bert"))
    with torch.no_grad():
        text.network.blocks[-1].output.LayerNorm.bias.fill_(1e6)  # type: ignore[union-attr, operator]
    with np.errstate(over="ignore"), pytest.raises(DataError, match=r"gives states beyond half precision; expected"):
        text.encode(["a man"])


def test_batches_have_similar_lengths_and_few_tokens(text_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_text, "BATCH_TOKENS", 30)
    encoded = FrozenText(text_folder("bert")).tokenizer.encode(CAPTIONS)
    found = [*batches(encoded)]
    assert sorted(row for rows in found for row in rows) == [*range(len(CAPTIONS))]
    lengths = [[len(encoded[row].ids) for row in rows] for rows in found]
    assert all(len(rows) == 1 or max(rows) * len(rows) <= 30 for rows in lengths)
    assert [length for rows in lengths for length in rows] == sorted(length for rows in lengths for length in rows)
