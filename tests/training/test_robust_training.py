"""Training with the robust loss: pair weights, files of the run, refused settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_runs import (
    StopError,
    log,
    run,
    small_config,
    small_split,
    stop_at,
    weights,
    with_loss,
    with_optimiser,
)
from tshsr.config.models import ScanConfig, VseConfig
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, SettingsError
from tshsr.training.checks import check_training
from tshsr.training.noisy_pairs import clean_probabilities, with_noise


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train", images=25, each=8), small_split(folder, "dev", images=6)


def robust_config(**training: object) -> RunConfig:
    """Small settings with the robust loss from the second epoch on."""
    return with_loss(small_config(**training), robust="mixture", warmup_epochs=1.0)


def test_right_pairs_get_higher_weights_than_wrong_ones(data: tuple[Split, Split], tmp_path: Path) -> None:
    config = robust_config(epochs=6, noise=0.4, batch=32, save_every_steps=0, evaluate_every=6)
    config = with_optimiser(with_loss(config, warmup_epochs=3.0), learning_rate=0.03)
    run(config, data, tmp_path / "run")
    zscores = load_file(tmp_path / "run" / "last" / "standings.safetensors")["standings"]
    right = with_noise(data[0], config.training).image_of_caption == data[0].image_of_caption
    weight = clean_probabilities(zscores).numpy()
    # A third of the wrong pairs share the colour or the thing; the separation of the rest depends on rounding.
    assert weight[right].mean() > weight[~right].mean() + 0.3


def test_the_log_has_the_mean_pair_weight(data: tuple[Split, Split], tmp_path: Path) -> None:
    run(robust_config(epochs=2, noise=0.4, batch=64), data, tmp_path / "run")
    steps = [line for line in log(tmp_path / "run") if line["kind"] == "steps"]
    assert [line["trust"] == 1.0 for line in steps] == [True, False]
    assert 0.2 < steps[1]["trust"] < 1.0


CUT = robust_config(epochs=3, noise=0.4, batch=64, save_every_steps=2)
"""Four steps an epoch."""


@pytest.fixture(scope="module")
def whole(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    return run(CUT, data, tmp_path_factory.mktemp("whole") / "run").folder


@pytest.mark.parametrize("step", [3, 4, 6, 8])
def test_a_resumed_robust_run_ends_with_the_weights_of_an_uninterrupted_one(
    data: tuple[Split, Split], whole: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(StopError):
        run(CUT, data, tmp_path / "killed", listen=stop_at(step))
    run(CUT, data, tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(whole)
    files = [folder / "last" / "standings.safetensors" for folder in (tmp_path / "killed", whole)]
    assert files[0].read_bytes() == files[1].read_bytes()
    same = [{**line, "seconds": 0} for line in log(whole)]
    assert [{**line, "seconds": 0} for line in log(tmp_path / "killed")] == same


def test_a_run_without_robust_loss_saves_no_zscores(data: tuple[Split, Split], tmp_path: Path) -> None:
    run(small_config(epochs=1, batch=64), data, tmp_path / "run")
    assert not (tmp_path / "run" / "last" / "standings.safetensors").exists()


def test_zscores_of_other_captions_are_refused(data: tuple[Split, Split], tmp_path: Path) -> None:
    config = robust_config(epochs=2, batch=64)
    with pytest.raises(StopError):
        run(config, data, tmp_path / "run", listen=stop_at(6))
    path = tmp_path / "run" / "last" / "standings.safetensors"
    for tensors in ({"standings": torch.zeros(3)}, {"others": torch.zeros(200)}):
        save_file(tensors, path)
        with pytest.raises(CheckpointError, match="does not hold a number for each of the 200 captions; train again"):
            run(config, data, tmp_path / "run", resume=True)


def test_a_robust_loss_needs_scores_that_are_trained() -> None:
    config = robust_config()
    config = with_loss(config, pooled=0.0)
    message = (
        r"loss\.robust 'mixture' separates right pairs from wrong ones by v·t, which loss\.pooled 0 leaves untrained; "
        r"set loss\.pooled"
    )
    for model in (config.model, ScanConfig(encoder=config.model.encoder)):
        with pytest.raises(SettingsError, match=message):
            check_training(replace(config, model=model))
    check_training(replace(config, model=VseConfig(encoder=config.model.encoder)))


@pytest.mark.parametrize("warmup", [0.0, 2.0, 99.0])
def test_a_robust_loss_needs_a_warm_up_that_ends(warmup: float) -> None:
    config = with_loss(small_config(epochs=2), robust="mixture", warmup_epochs=warmup)
    message = (
        rf"loss\.robust 'mixture' begins after the warm-up, and loss\.warmup_epochs is {warmup:g} of 2 epochs; set"
    )
    with pytest.raises(SettingsError, match=message):
        check_training(config)
