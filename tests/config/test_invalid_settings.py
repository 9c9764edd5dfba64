"""Invalid settings are refused in one sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tiny
from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.config.run import LossConfig, RunConfig, read_config
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import InputError, SettingsError
from tshsr.models.build import build_matcher
from tshsr.models.tshsr import Tshsr
from tshsr.training.checks import check_training
from tshsr.training.objective import Objective


def test_a_level_without_seeds_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"3 levels and seeds \(8, 3\); expected one number of seeds"):
        Tshsr(tiny.config(reasoning=ReasoningConfig(levels=3)))
    with pytest.raises(SettingsError, match="at least 1"):
        Tshsr(tiny.config(reasoning=ReasoningConfig(seeds=(4, 0))))


def test_an_update_without_inputs_is_refused() -> None:
    with pytest.raises(SettingsError, match="turn `context` or `local` on, or set levels to 0"):
        Tshsr(tiny.config(reasoning=ReasoningConfig(context=False, local=False)))
    Tshsr(tiny.config(reasoning=ReasoningConfig(levels=0, context=False, local=False)))


def test_widths_that_are_unknown_are_refused() -> None:
    with pytest.raises(SettingsError, match="encoder widths are 0 -> 12; expected positive numbers"):
        Tshsr(tiny.config(encoder=replace(tiny.ENCODER, feature_dim=0)))
    with pytest.raises(SettingsError, match="the vocabulary has 0 tokens"):
        Tshsr(tiny.config(encoder=replace(tiny.ENCODER, vocabulary=0)))
    with pytest.raises(SettingsError, match="word_dim 8 is no multiple of transformer_heads 3"):
        Tshsr(tiny.config(encoder=replace(tiny.ENCODER, text="transformer", transformer_heads=3)))


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match="region features are 9 wide; this network expects 7"):
        tiny.network().encode_images(ImageBatch(torch.zeros(1, 2, 9), torch.ones(1, 2, dtype=torch.bool)))


def test_missing_boxes_are_refused_where_the_network_needs_them() -> None:
    network = tiny.network(encoder=replace(tiny.ENCODER, boxes=True))
    with pytest.raises(InputError, match="uses box geometry and the images have no boxes"):
        network.encode_images(ImageBatch(torch.zeros(1, 2, 7), torch.ones(1, 2, dtype=torch.bool)))


def test_a_caption_beyond_the_transformers_positions_is_refused() -> None:
    network = tiny.network(encoder=replace(tiny.ENCODER, text="transformer"))
    with pytest.raises(InputError, match="a caption has 257 words; the transformer encoder takes 256"):
        network.encode_captions(
            CaptionBatch(torch.ones(1, 257, dtype=torch.long), torch.ones(1, 257, dtype=torch.bool))
        )


def test_an_objective_without_any_loss_is_refused() -> None:
    with pytest.raises(SettingsError, match="every loss weight is 0"):
        Objective(tiny.network(), LossConfig(fused=0, streams=0, levels=0, pooled=0))


def test_a_late_term_needs_a_loss_of_its_own() -> None:
    losses = LossConfig(pooled=0)
    with pytest.raises(SettingsError, match=r"v·t apart from the streams, and no loss does so; set loss\.contrast"):
        Objective(tiny.network(late_weight=20.0), losses)
    Objective(tiny.network(late_weight=20.0), replace(losses, contrastive=1.0))
    Objective(tiny.network(), losses)


def test_a_negative_late_weight_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"late-weight is -3\.0; expected a positive weight of v·t, or 0 for"):
        tiny.network(late_weight=-3.0)


@pytest.mark.parametrize("settings", [{"late_mean": 2.0}, {"late_mean": -2.0, "late_weight": 9.0}])
def test_a_mean_similarity_needs_a_late_weight_and_a_positive_one_itself(settings: dict[str, float]) -> None:
    found = r"late-mean is -?2\.0 with model\.late-weight [09]\.0; expected 0, or a positive weight beside a positive"
    with pytest.raises(SettingsError, match=found):
        tiny.network(**settings)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"training": {"epochs": "40"}}, r"'training\.epochs': Input should be a valid integer; got '40'"),
        ({"training": {"epochs": True}}, r"'training\.epochs': Input should be a valid integer; got True"),
        (
            {"model": {"kind": "tshsr", "encoder": {"boxes": "yes"}}},
            r"'model\.encoder\.boxes': Input should be a valid boolean; got 'yes'",
        ),
        (
            {"model": {"kind": "vse", "perceptron": "false"}},
            r"'model\.perceptron': Unexpected keyword argument; got 'false'",
        ),
    ],
)
def test_saved_settings_of_another_type_are_refused(values: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    with pytest.raises(SettingsError, match=sentence):
        read_config(path)


def test_saved_settings_that_are_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read \(Is a directory\); expected the settings of a run"):
        read_config(tmp_path)


@pytest.mark.parametrize("dim", [10**9, 10**30])
def test_a_width_that_no_memory_holds_is_refused(dim: int) -> None:
    wanted = RunConfig(model=TshsrConfig(encoder=EncoderConfig(dim=dim)))
    with pytest.raises(SettingsError, match=r"no network can be built of .*flow.*; lower its widths, such as model\."):
        check_training(wanted)


def test_weights_beyond_the_memory_are_refused_before_anything_is_allocated() -> None:
    wanted = RunConfig(model=TshsrConfig(encoder=EncoderConfig(word_dim=10**9)))
    with pytest.raises(SettingsError, match=r"the weights of these settings take [\d,]+ GiB, .* has \d+ GiB; lower"):
        check_training(wanted)


def test_the_same_seed_builds_the_same_network() -> None:
    networks = []
    for _ in range(2):
        torch.manual_seed(5)
        networks.append(build_matcher(tiny.config()))
    for left, right in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(left, right)
