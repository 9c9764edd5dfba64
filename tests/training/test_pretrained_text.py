"""Runs whose words are the states of a pretrained text encoder, frozen or tuned."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.small_runs import StopError, run, small_config, small_split, stop_at, weights, with_loss
from tests.support.tiny_text import save_text
from tshsr.config.models import VseConfig
from tshsr.config.run import OptimiserConfig, RunConfig
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.models.build import build_matcher
from tshsr.models.encoders import TunedWordEncoder
from tshsr.pretrained.text_network import TextNetwork
from tshsr.pretrained.text_weights import load_text
from tshsr.retriever import Retriever
from tshsr.training.checkpoints import load_tensors
from tshsr.training.checks import check_training
from tshsr.training.completion import complete, make_tokenizer
from tshsr.training.trainer import make_optimiser, parameter_groups

LAYERS = 2
"""Layers of the tiny encoder."""
CAPTIONS = ["a red dog here", "one blue boat", "the white tree, again"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_text("bert", tmp_path_factory.mktemp("text") / "bert")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


def settings(encoder: Path | str, tuned: int = 0, **changes: Any) -> RunConfig:
    """A small run over a text encoder."""
    config = small_config(epochs=2, save_every_steps=1)
    text = {"text": "pretrained", "text_weights": str(encoder), "text_tuned_layers": tuned, **changes}
    return replace(config, model=replace(config.model, encoder=replace(config.model.encoder, **text)))


@pytest.fixture(scope="module")
def runs(encoder: Path, data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Finished runs by their number of tuned layers."""
    folder = tmp_path_factory.mktemp("runs")
    return {tuned: run(settings(encoder, tuned), data, folder / str(tuned)).folder for tuned in (0, 1, LAYERS)}


def test_a_frozen_encoder_is_no_part_of_the_weights(runs: dict[int, Path], encoder: Path) -> None:
    tensors = load_tensors(runs[0] / "best" / "model.safetensors")
    assert {name for name in tensors if name.startswith("word_encoder")} == {
        "word_encoder.projection.weight",
        "word_encoder.projection.bias",
    }
    assert not (runs[0] / "text").exists()
    assert not (runs[0] / "tokenizer.json").exists()


def test_only_the_last_layers_are_tuned(runs: dict[int, Path], encoder: Path) -> None:
    before = TextNetwork.load(str(encoder)).state_dict()
    changed = {}
    for tuned in (1, LAYERS):
        after = load_tensors(runs[tuned] / "last" / "model.safetensors")
        names = {name for name in before if not torch.equal(before[name], after[f"word_encoder.network.{name}"])}
        changed[tuned] = {name.removeprefix("encoder.").rpartition("attention")[0] or name for name in names}
        assert not any("pooler" in name for name in names)
        assert any("embeddings" in name for name in names) == (tuned == LAYERS)
        assert any("layer.0." in name for name in names) == (tuned == LAYERS)
        assert any("layer.1." in name for name in names)


@pytest.mark.parametrize("tuned", [0, 1])
def test_a_run_continues_bit_for_bit(
    runs: dict[int, Path], encoder: Path, data: tuple[Split, Split], tmp_path: Path, tuned: int
) -> None:
    with pytest.raises(StopError):
        run(settings(encoder, tuned), data, tmp_path / "run", listen=stop_at(4))
    run(settings(encoder, tuned), data, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(runs[tuned])


def test_a_tuned_run_loads_without_the_original_weights(
    data: tuple[Split, Split], encoder: Path, runs: dict[int, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(runs[1], copy)
    config = json.loads((copy / "config.json").read_text())
    config["model"]["encoder"]["text_weights"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    expected, found = (Retriever.from_pretrained(folder).score(data[1], CAPTIONS) for folder in (runs[1], copy))
    assert torch.equal(expected, found)
    (copy / "text").rename(copy / "moved")
    with pytest.raises(DataError, match=r"text is missing: the configuration and the tokenizer of the run's text enc"):
        Retriever.from_pretrained(copy)


def test_a_frozen_run_refuses_other_weights(runs: dict[int, Path], tmp_path: Path) -> None:
    config = json.loads((runs[0] / "config.json").read_text())
    config["model"]["encoder"]["text_fingerprint"] = "other"
    shutil.copytree(runs[0], tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="the run was trained with other; name the weights that it was trained with"):
        Retriever.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("tuned", [0, 1])
def test_a_published_model_scores_as_its_run(
    data: tuple[Split, Split], runs: dict[int, Path], tmp_path: Path, tuned: int
) -> None:
    retriever = Retriever.from_pretrained(runs[tuned])
    retriever.save_pretrained(tmp_path / "flat")
    again = Retriever.from_pretrained(tmp_path / "flat")
    assert torch.equal(again.score(data[1], CAPTIONS), retriever.score(data[1], CAPTIONS))
    assert [retriever.tokenizer.words(caption) for caption in CAPTIONS] == [
        ["a", "red", "dog", "here"],
        ["one", "blue", "boat"],
        ["the", "white", "tree", ",", "again"],
    ]


def test_tuned_words_are_those_of_a_frozen_encoder_before_training(encoder: Path) -> None:
    tokenizer, _ = load_text(str(encoder))
    config = settings(encoder, 1, vocabulary=len(tokenizer)).model
    words = TunedWordEncoder(replace(config.encoder, dim=4)).eval()
    assert not torch.equal(words.network.blocks[0].state_dict()["output.dense.weight"], torch.zeros(1))
    words.load_pretrained()
    frozen = make_tokenizer(settings(encoder), None).encode(CAPTIONS).read(np.arange(3))  # type: ignore[arg-type]
    pieces = make_tokenizer(settings(encoder, 1), None).encode(CAPTIONS).read(np.arange(3))  # type: ignore[arg-type]
    assert torch.equal(frozen.mask, pieces.mask)
    assert frozen.states is not None
    expected = torch.nn.functional.normalize(words.projection(frozen.states), dim=-1) * frozen.mask[..., None]
    torch.testing.assert_close(words(pieces), expected, atol=2e-3, rtol=0)  # frozen states have half precision


def test_layers_that_are_not_tuned_stay_in_evaluation_mode(encoder: Path) -> None:
    words = TunedWordEncoder(replace(settings(encoder, 1).model.encoder, text_width=32)).train()
    training = {name for name, module in words.network.named_modules() if module.training}
    assert training
    assert all(name.startswith("encoder.encoder.layer.1") for name in training)
    assert not any(module.training for module in words.eval().modules())


def test_tuned_layers_have_their_own_learning_rate(encoder: Path) -> None:
    config = settings(encoder, 1, feature_dim=6, vocabulary=9)
    matcher = build_matcher(config.model)
    groups = parameter_groups(OptimiserConfig(text_factor=0.25), matcher)
    assert [group["factor"] for group in groups] == [1.0, 0.25]
    tuned = {name for name, values in matcher.named_parameters() if any(values is one for one in groups[1]["params"])}
    assert tuned
    assert all(name.startswith("word_encoder.network.encoder.encoder.layer.1.") for name in tuned)
    trained = sum(values.requires_grad for values in matcher.parameters())
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == trained


def test_a_network_without_tuned_layers_has_one_group_in_the_order_of_its_parameters() -> None:
    config = small_config()
    matcher = build_matcher(replace(config.model, encoder=replace(config.model.encoder, feature_dim=6, vocabulary=9)))
    optimiser = make_optimiser(config.optimiser, matcher)
    assert [group["factor"] for group in optimiser.param_groups] == [1.0]
    assert all(
        one is other for one, other in zip(optimiser.param_groups[0]["params"], matcher.parameters(), strict=True)
    )


def test_the_steps_of_tuned_layers_are_smaller_by_the_factor(
    encoder: Path, data: tuple[Split, Split], tmp_path: Path
) -> None:
    """Adam's first step moves every weight by its learning rate."""
    config = replace(settings(encoder, 1), optimiser=OptimiserConfig(learning_rate=0.01, text_factor=0.5))
    with pytest.raises(StopError):
        run(config, data, tmp_path / "run", listen=stop_at(2))
    tensors = load_tensors(tmp_path / "run" / "last" / "model.safetensors")
    before = TextNetwork.load(str(encoder)).state_dict()
    name = "encoder.encoder.layer.1.output.dense.weight"
    moved = (tensors[f"word_encoder.network.{name}"] - before[name]).abs().max()
    assert float(moved) == pytest.approx(0.005, rel=0.02)


@pytest.mark.parametrize("tuned", [0, 1])
def test_other_methods_read_pretrained_text(
    encoder: Path, data: tuple[Split, Split], tmp_path: Path, tuned: int
) -> None:
    config = settings(encoder, tuned)
    config = replace(config, model=VseConfig(encoder=config.model.encoder, size_augmentation=0.4))
    run(with_loss(config, warmup_epochs=1), data, tmp_path / "run")
    assert Retriever.from_pretrained(tmp_path / "run").score(data[1], CAPTIONS).isfinite().all()


def test_word_pieces_can_be_the_nodes(encoder: Path, data: tuple[Split, Split], tmp_path: Path) -> None:
    for tuned in (0, 1):
        out = tmp_path / str(tuned)
        run(replace(settings(encoder, tuned, text_nodes="pieces")), data, out)
        words = Retriever.from_pretrained(out).tokenizer.words("a red house here")
        assert len(words) > 4
        assert "".join(words) == "aredhousehere"


@pytest.mark.parametrize(("tuned", "layers"), [(0, (1, 2)), (1, (1, 2)), (1, (1,))])
def test_words_are_made_of_several_layers(
    encoder: Path, data: tuple[Split, Split], tmp_path: Path, tuned: int, layers: tuple[int, ...]
) -> None:
    config = settings(encoder, tuned, text_layers=layers)
    folder = run(config, data, tmp_path / "run").folder
    retriever = Retriever.from_pretrained(folder)
    found = retriever.config.model.encoder
    assert (found.text_layers, found.text_width) == (layers, 32 * len(layers))
    retriever.save_pretrained(tmp_path / "flat")
    expected, again = (Retriever.from_pretrained(one).score(data[1], CAPTIONS) for one in (folder, tmp_path / "flat"))
    assert torch.equal(expected, again)
    if tuned:
        after, before = load_tensors(folder / "last" / "model.safetensors"), TextNetwork.load(str(encoder)).state_dict()
        names = {name for name in before if f"word_encoder.network.{name}" in after}
        assert any("layer.1." in name for name in names) == (2 in layers), "layers above those read are no part of it"
        changed = {name for name in names if not torch.equal(before[name], after[f"word_encoder.network.{name}"])}
        part = f"layer.{layers[-1] - 1}." if layers == (1, 2) else ""
        assert changed
        assert all(part in name for name in changed)
    with pytest.raises(CheckpointError, match=r"was begun with model\.encoder\.text_layers = .*, now it is"):
        run(settings(encoder, tuned), data, folder, resume=True)


def test_tuned_words_of_several_layers_are_those_of_a_frozen_encoder_before_training(encoder: Path) -> None:
    own = {"text_layers": (1, 2), "text_width": 64, "vocabulary": 9, "dim": 4}
    words = TunedWordEncoder(settings(encoder, 1, **own).model.encoder).eval()
    words.load_pretrained()
    frozen = make_tokenizer(settings(encoder, **own), None).encode(CAPTIONS).read(np.arange(3))  # type: ignore[arg-type]
    pieces = make_tokenizer(settings(encoder, 1, **own), None).encode(CAPTIONS).read(np.arange(3))  # type: ignore[arg-type]
    assert frozen.states is not None
    expected = torch.nn.functional.normalize(words.projection(frozen.states), dim=-1) * frozen.mask[..., None]
    torch.testing.assert_close(words(pieces), expected, atol=2e-3, rtol=0)  # frozen states have half precision


def test_wrong_settings_of_text_are_one_sentence(encoder: Path) -> None:
    swapped = with_loss(settings(encoder), swapped=1.0)
    factor = replace(settings(encoder), optimiser=OptimiserConfig(text_factor=0.5))
    vocabulary = replace(settings(encoder), training=replace(small_config().training, vocabulary="words.json"))
    for wrong, message in (
        (settings(""), r"text_weights is empty; expected one of minilm, bert, .*, a folder, or a name on the hub"),
        (
            settings(encoder, text="gru"),
            r"text_weights is '.*bert', which gru ignores; set model\.encoder\.text to pre",
        ),
        (settings("", 2, text="gru"), r"text_tuned_layers is 2, which gru ignores"),
        (settings("", text="gru", text_layers=(1, 2)), r"text_layers is \(1, 2\), which gru ignores"),
        (settings(encoder, text_layers=(2, 1)), r"text_layers is 2 1; expected each layer once, .* highest: 1 2\."),
        (settings(encoder, 1, text_layers=(1, 3)), r"text_layers is 1 3, and .* has 2 layers; expected .* 1 to 2\."),
        (settings(encoder, 2, text_layers=(1,)), r"is 2, and .*bert is read up to layer 1; expected 1 or fewer"),
        (settings(encoder, -1), r"model\.encoder\.text_tuned_layers is -1; expected 0 or more"),
        (settings(encoder, 3), r"text_tuned_layers is 3, and .*bert has 2 layers; expected 2 or fewer"),
        (swapped, r"loss\.swapped is 1, which needs a vocabulary .*; set loss\.swapped to 0"),
        (vocabulary, r"training\.vocabulary is 'words\.json', and .*bert has a vocabulary of its own; leave"),
        (factor, r"text_factor is 0\.5, and no layer .* is tuned; set model\.encoder\.text_tuned_layers to 1 or more"),
    ):
        with pytest.raises(SettingsError, match=message):
            check_training(wrong)
    with pytest.raises(DataError, match=r"cannot load .*nowhere"):
        check_training(settings("./nowhere", 1))


def test_what_the_weights_decide_is_filled_in(encoder: Path, data: tuple[Split, Split]) -> None:
    wanted = settings(encoder)
    tokenizer = make_tokenizer(wanted, data[0])
    config = complete(wanted, tokenizer, *data)
    found = config.model.encoder
    assert (found.text_width, found.vocabulary) == (32, len(tokenizer))
    assert found.text_fingerprint == make_tokenizer(settings(encoder, 1), data[0]).fingerprint  # type: ignore[attr-defined]
    assert complete(config, tokenizer, *data) == config
    with pytest.raises(SettingsError, match=r"text_fingerprint is 'other', that of .*bert is '.*'; leave it empty"):
        complete(settings(encoder, text_fingerprint="other"), tokenizer, *data)


def test_a_run_is_not_continued_with_another_number_of_tuned_layers(
    runs: dict[int, Path], encoder: Path, data: tuple[Split, Split]
) -> None:
    with pytest.raises(CheckpointError, match=r"was begun with model\.encoder\.text_tuned_layers = 1, now it is 2"):
        run(settings(encoder, 2), data, runs[1], resume=True)
