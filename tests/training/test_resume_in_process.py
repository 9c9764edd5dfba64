"""Runs that stopped, and what resuming them gives."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

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
from tshsr.config.run import RunConfig, read_config
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError
from tshsr.training.checkpoints import save_settings
from tshsr.training.completion import make_tokenizer
from tshsr.training.events import Event, Saved, Warned
from tshsr.training.fit import FitResult, make_accelerator

STEPS = 3
"""Steps of an epoch over 20 captions in batches of 8."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


@pytest.fixture(scope="module")
def whole(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """An uninterrupted run of two epochs; tests do not change it."""
    return run(small_config(), data, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def one_epoch(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    return run(small_config(epochs=1), data, tmp_path_factory.mktemp("one epoch") / "run").folder


@pytest.fixture
def out(one_epoch: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(one_epoch, tmp_path / "run")


COSINE = with_optimiser(small_config(save_every_steps=2, candidates=2), schedule="cosine")


@pytest.fixture(scope="module")
def cosine(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """An uninterrupted run whose learning rate falls; tests do not change it."""
    return run(COSINE, data, tmp_path_factory.mktemp("cosine") / "run")


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    cosine: FitResult, data: tuple[Split, Split], tmp_path: Path, step: int
) -> None:
    with pytest.raises(StopError):
        run(COSINE, data, tmp_path / "killed", listen=stop_at(step))
    resumed = run(COSINE, data, tmp_path / "killed", resume=True)
    for which in ("last", "best"):
        assert weights(tmp_path / "killed", which) == weights(cosine.folder, which)
    figures = [(result.best_epoch, result.best_rsum, result.steps) for result in (resumed, cosine)]
    assert figures[0] == figures[1]
    same = [{**line, "seconds": 0} for line in log(cosine.folder)]
    assert [{**line, "seconds": 0} for line in log(tmp_path / "killed")] == same


def test_resuming_an_empty_folder_starts_afresh(whole: FitResult, data: tuple[Split, Split], tmp_path: Path) -> None:
    assert run(small_config(), data, tmp_path / "a", resume=True).steps == 2 * STEPS
    assert weights(tmp_path / "a") == weights(whole.folder)


def test_resuming_a_finished_run_says_so_and_changes_nothing(whole: FitResult, data: tuple[Split, Split]) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")}
    again = run(small_config(), data, whole.folder, resume=True)
    assert again == replace(whole, already_finished=True)
    assert {path: path.stat().st_mtime_ns for path in whole.folder.rglob("*")} == before


def test_a_folder_with_a_run_is_refused_without_resume(data: tuple[Split, Split], out: Path) -> None:
    with pytest.raises(
        CheckpointError, match="already holds a run; continue it with --resume, or choose another --out"
    ):
        run(small_config(epochs=1), data, out)


def test_resuming_with_raised_epochs_gives_the_longer_run(
    whole: FitResult, data: tuple[Split, Split], out: Path
) -> None:
    result = run(small_config(epochs=2), data, out, resume=True)
    assert weights(out) == weights(whole.folder)
    assert result.config.training.epochs == read_config(out / "config.json").training.epochs == 2


def test_resuming_with_another_number_of_threads_is_warned_of(
    data: tuple[Split, Split], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    run(small_config(epochs=2), data, out, resume=True, listen=events.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    run(small_config(epochs=3), data, out, resume=True, listen=events.append)
    (warning,) = (event.message for event in events if isinstance(event, Warned))
    assert warning.startswith("The number of threads was 1 and is 3 now: the weights will differ in their last bits")


def test_resuming_goes_on_with_the_scale_of_fp16_gradients(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(config: RunConfig, device: str | None) -> Accelerator:
        accelerator = make_accelerator(config, device)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)  # that of fp16 needs a GPU
        return accelerator

    monkeypatch.setattr("tshsr.training.fit.make_accelerator", scaled)
    run(small_config(), data, tmp_path / "whole")
    with pytest.raises(StopError):
        run(small_config(), data, tmp_path / "killed", listen=stop_at(4))
    run(small_config(), data, tmp_path / "killed", resume=True)
    states = [json.loads((tmp_path / name / "last" / "state.json").read_text()) for name in ("whole", "killed")]
    assert states[0]["scaler"] == states[1]["scaler"]
    assert states[0]["scaler"]["scale"] == 4.0 * 2**3


def test_resuming_with_other_settings_or_data_is_refused(data: tuple[Split, Split], out: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was begun with loss\.margin = 0\.2, now it is 0\.3"):
        run(with_loss(small_config(epochs=2), margin=0.3), data, out, resume=True)
    other = replace(data[0], captions=tuple(reversed(data[0].captions)))
    with pytest.raises(
        CheckpointError, match=r"was begun on other training captions \(checksum \w{8}\) than those of small"
    ):
        run(small_config(epochs=2), (other, data[1]), out, resume=True)


def test_resuming_with_other_dev_images_is_refused(data: tuple[Split, Split], out: Path, tmp_path: Path) -> None:
    train, other = data[0], small_split(tmp_path, "dev", images=3)
    message = r"was begun on other dev captions \(checksum \w{8}\) than those of small, split dev \(checksum \w{8}\)"
    with pytest.raises(CheckpointError, match=message):
        run(small_config(epochs=2), (train, other), out, resume=True)
    path = out / "last" / "state.json"
    state = json.loads(path.read_text())
    del state["dev"]  # as earlier versions wrote it
    path.write_text(json.dumps(state))
    assert run(small_config(epochs=1), (train, other), out, resume=True).already_finished


def test_resuming_from_a_damaged_state_is_one_sentence(data: tuple[Split, Split], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(StopError):
        run(small_config(), data, out, listen=stop_at(2))
    for name, message in (
        ("optimiser.safetensors", r"optimiser\.safetensors is damaged or cut short"),
        ("state.json", r"state\.json is damaged \(.*\); restore it from a copy, or train again"),
    ):
        path = out / "last" / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match=message):
            run(small_config(), data, out, resume=True)
        path.write_bytes(content)
    assert run(small_config(), data, out, resume=True).steps == 2 * STEPS


def test_a_full_disk_keeps_the_last_state_and_the_run_goes_on_from_it(
    whole: FitResult, data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "run", os.fsync
    full: list[bool] = []

    def fsync(handle: int) -> None:
        if full:
            raise OSError(28, "No space left on device")
        real(handle)

    def listen(event: Event) -> None:
        if isinstance(event, Saved) and event.step == 2:
            full.append(True)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(DataError, match=r"Cannot write .*: No space left on device\. Make room"):
            run(small_config(), data, out, listen=listen)
    assert json.loads((out / "last" / "state.json").read_text())["step"] == 2
    assert not list(out.glob(".*.partial"))
    run(small_config(), data, out, resume=True)
    assert weights(out) == weights(whole.folder)


def test_a_run_killed_before_its_first_save_starts_afresh(
    whole: FitResult, data: tuple[Split, Split], tmp_path: Path
) -> None:
    config = small_config()
    save_settings(tmp_path / "killed", with_loss(config, margin=0.5), make_tokenizer(config, data[0]))
    run(config, data, tmp_path / "killed", resume=True)
    assert weights(tmp_path / "killed") == weights(whole.folder)
    assert read_config(tmp_path / "killed" / "config.json").loss.margin == config.loss.margin


@pytest.mark.parametrize("gone", ["last", "last/state.json"])
def test_a_run_without_its_last_state_is_not_replaced(data: tuple[Split, Split], out: Path, gone: str) -> None:
    (shutil.rmtree if gone == "last" else Path.unlink)(out / gone)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"holds best but no last/state\.json to continue from; restore last, or"):
        run(small_config(epochs=1, seed=7), data, out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
