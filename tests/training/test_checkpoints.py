from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support import tiny
from tshsr.config.run import RunConfig
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, DataError, SettingsError
from tshsr.models.tshsr import Tshsr
from tshsr.training.checkpoints import load_run, load_settings, load_weights, save_model, save_weights

CAPTIONS = ["a red dog", "one blue ball"]


def saved(folder: Path) -> tuple[RunConfig, Tokenizer, Tshsr]:
    """A flat model folder and what is in it."""
    tokenizer = Tokenizer.build(CAPTIONS, minimum_count=1)
    encoder = replace(tiny.ENCODER, vocabulary=len(tokenizer))
    config = RunConfig(recipe="tiny", model=tiny.config(encoder=encoder), extractor="small")
    matcher = Tshsr(config.model)
    save_model(folder, config, tokenizer, matcher)
    return config, tokenizer, matcher


def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    config, tokenizer, matcher = saved(tmp_path)
    config_again, tokenizer_again, again = load_run(tmp_path)
    assert config_again == config
    assert [*tokenizer_again.encode(CAPTIONS).rows()] == [*tokenizer.encode(CAPTIONS).rows()]
    assert not again.training
    assert matcher.state_dict().keys() == again.state_dict().keys()
    for name, weight in matcher.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_loading_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    saved(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_run(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_of_a_run_the_best_or_the_last_weights_are_loaded(tmp_path: Path) -> None:
    config, _, matcher = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    for which, value in (("best", 1.0), ("last", 2.0)):
        with torch.no_grad():
            matcher.streams["word_stream"].bias.fill_(value)
        save_weights(tmp_path / which / "model.safetensors", matcher)
    for which, value in (("best", 1.0), ("last", 2.0)):
        assert float(load_run(tmp_path, which)[2].state_dict()["streams.word_stream.bias"]) == value
    assert load_run(tmp_path)[0] == config


def test_best_weights_are_found_after_a_kill_between_two_renames(tmp_path: Path) -> None:
    _, _, matcher = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    save_weights(tmp_path / "best.former" / "model.safetensors", matcher)
    assert isinstance(load_run(tmp_path)[2], Tshsr)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_weights_file_is_one_sentence(tmp_path: Path, kept: int) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short .*train again"):
        load_run(tmp_path)


def test_a_weights_file_that_is_no_safetensors_is_one_sentence(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"PK\x03\x04 a pickle of old" * 50)
    with pytest.raises(CheckpointError, match="is damaged or cut short"):
        load_run(tmp_path)


def test_weights_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, tiny.network(torch.float32))
    with pytest.raises(CheckpointError, match=r"weight 'streams\.\S+' has shape \(6,\), the settings require \(5,\)"):
        load_weights(path, Tshsr(tiny.config(similarity_dim=5)))
    with pytest.raises(
        CheckpointError, match=r"holds the weight 'streams\.region_stream\S*', which the model does not"
    ):
        load_weights(path, Tshsr(tiny.config(streams="word")))
    save_weights(path, Tshsr(tiny.config(streams="word")))
    with pytest.raises(CheckpointError, match=r"lacks the weight 'streams\.region_stream"):
        load_weights(path, tiny.network(torch.float32))


def test_a_refused_file_changes_no_weight(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", Tshsr(tiny.config(streams="word")))
    matcher = tiny.network(torch.float32)
    before = {name: weight.clone() for name, weight in matcher.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(tmp_path / "w.safetensors", matcher)
    assert all(torch.equal(weight, before[name]) for name, weight in matcher.state_dict().items())


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere is no folder; expected a run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"is no run: it has no config\.json\. Give the folder"):
        load_run(tmp_path)
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no best/model\.safetensors yet: .* --resume"):
        load_run(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"Cannot read the vocabulary .*tokenizer\.json"):
        load_run(tmp_path)


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"margin"', '"margln"'))
    with pytest.raises(SettingsError, match=r"loss\.margln"):
        load_settings(tmp_path)


def test_a_tokenizer_of_another_run_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    Tokenizer.build([*CAPTIONS, "many more words"], minimum_count=1).save(tmp_path / "tokenizer.json")
    with pytest.raises(
        CheckpointError, match=r"has 11 tokens, config\.json says 8; the two files do not belong to one run"
    ):
        load_settings(tmp_path)


def test_a_full_disk_keeps_the_former_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(DataError, match=r"Cannot write .*model\.safetensors: No space left on device"):
            save_weights(tmp_path / "model.safetensors", tiny.network(torch.float32))
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert isinstance(load_run(tmp_path)[2], Tshsr)
