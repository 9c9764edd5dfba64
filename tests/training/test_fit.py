import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

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
from tshsr.config.run import read_config
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, CollapseError, DataError, DivergenceError
from tshsr.evaluation.run import evaluate_scores
from tshsr.models.build import build_matcher
from tshsr.scoring.all_pairs import score_split
from tshsr.training import stability
from tshsr.training.checkpoints import load_run, load_tensors
from tshsr.training.events import Evaluated, Event, Saved, Scoring, StepDone, Warned

STEPS = 3
"""Steps of an epoch over 20 captions in batches of 8."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


def test_a_run_learns_and_keeps_what_the_contract_names(data: tuple[Split, Split], tmp_path: Path) -> None:
    wanted = with_optimiser(small_config(epochs=10, save_every_steps=0, evaluate_every=3), learning_rate=0.03)
    result = run(wanted, data, tmp_path / "run")
    assert (result.steps, result.already_finished, result.folder) == (10 * STEPS, False, tmp_path / "run")
    names = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert len(events) == 1
    assert names - events == {
        ".lock",
        "config.json",
        "tokenizer.json",
        "log.jsonl",
        "best/model.safetensors",
        "best/state.json",
        "last/model.safetensors",
        "last/optimiser.safetensors",
        "last/state.json",
    }
    config, tokenizer, matcher = load_run(tmp_path / "run")
    assert config == result.config == read_config(tmp_path / "run" / "config.json")
    scores = score_split(matcher, tokenizer, data[1])
    report = evaluate_scores(
        scores, data[1].image_of_caption, protocol="auto", data="", split="", models=["m"], seconds=0
    )
    assert report.scores["fused"].rsum == result.best_rsum
    first = next(line for line in log(tmp_path / "run") if line["kind"] == "epoch")
    assert result.best_rsum > first["scores"]["fused"]["rsum"] + 50


def test_events_tell_the_whole_run(data: tuple[Split, Split], tmp_path: Path) -> None:
    events: list[Event] = []
    config = with_optimiser(small_config(evaluate_every=2, epochs=3, save_every_steps=2), warmup_steps=2)
    run(config, data, tmp_path / "run", listen=events.append)
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [(event.epoch, event.step, event.steps) for event in steps] == [
        (1 + i // STEPS, 1 + i, 3 * STEPS) for i in range(3 * STEPS)
    ]
    assert [event.learning_rate for event in steps[:3]] == [0.005, 0.01, 0.01]
    assert {"loss", "fused", "word_stream", "region_stream", "pooled", "spread"} <= steps[0].losses.keys()
    assert all(event.seconds > 0 and event.losses["gradient_norm"] > 0 for event in steps)
    assert [event.epoch for event in events if isinstance(event, Evaluated)] == [2, 3]
    saved = [event.step for event in events if isinstance(event, Saved) and event.which == "last"]
    assert saved == [0, 2, 3, 4, 6, 8, 9]
    scoring = [event for event in events if isinstance(event, Scoring)]
    assert (scoring[-1].done, scoring[-1].pairs) == (6 * 12, 6 * 12)


def test_the_log_holds_steps_and_epochs(data: tuple[Split, Split], tmp_path: Path) -> None:
    run(small_config(), data, tmp_path / "run")
    lines = log(tmp_path / "run")
    assert [(line["kind"], line["epoch"], line["step"]) for line in lines] == [
        ("steps", 1, 3),
        ("epoch", 1, 3),
        ("steps", 2, 6),
        ("epoch", 2, 6),
    ]
    assert lines[1]["scores"]["fused"]["image_to_text"].keys() >= {"r1", "r5", "r10"}
    assert lines[1]["best"]


@pytest.mark.parametrize("training", [{}, {"accumulate": 2, "batch": 5}, {"precision": "bf16"}])
def test_the_same_settings_give_the_same_weights_bit_for_bit(
    data: tuple[Split, Split], tmp_path: Path, training: dict[str, Any]
) -> None:
    config = with_loss(small_config(**training), warmup_epochs=1)
    torch.manual_seed(1)
    run(config, data, tmp_path / "a")
    torch.manual_seed(2)
    run(config, data, tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    run(replace(config, training=replace(config.training, seed=1)), data, tmp_path / "c")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_gradients_of_accumulated_batches_add_up_to_one_step(data: tuple[Split, Split], tmp_path: Path) -> None:
    result = run(small_config(accumulate=2, batch=5, epochs=1), data, tmp_path / "run")
    assert result.steps == 2
    optimiser = load_tensors(tmp_path / "run" / "last" / "optimiser.safetensors")
    assert {int(value) for name, value in optimiser.items() if name.endswith(".step")} == {2}


def test_the_callers_generator_is_left_alone(data: tuple[Split, Split], tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(small_config(epochs=1), data, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_dev_is_evaluated_on_its_first_images(data: tuple[Split, Split], tmp_path: Path) -> None:
    events: list[Event] = []
    run(small_config(epochs=1, dev_images=4), data, tmp_path / "run", listen=events.append)
    report = next(event.report for event in events if isinstance(event, Evaluated))
    assert (report.images, report.captions) == (4, 8)


def test_of_epochs_with_equal_recalls_the_first_is_the_best(data: tuple[Split, Split], tmp_path: Path) -> None:
    result = run(with_optimiser(small_config(epochs=3), learning_rate=1e-12), data, tmp_path / "run")
    rsums = [line["scores"]["fused"]["rsum"] for line in log(tmp_path / "run") if line["kind"] == "epoch"]
    assert rsums == [result.best_rsum] * 3
    assert result.best_epoch == 1
    assert json.loads((tmp_path / "run" / "best" / "state.json").read_text())["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    def poison(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            monkeypatch.setattr(
                "tshsr.training.objective.hinge", lambda *_, **__: torch.tensor(float("nan"), requires_grad=True)
            )

    with pytest.raises(
        DivergenceError,
        match=r"epoch 2, step 5: the loss is nan .*last keeps the last complete state\)\. Lower optimiser",
    ):
        run(small_config(), data, out, listen=poison)
    assert json.loads((out / "last" / "state.json").read_text())["step"] == 4
    monkeypatch.undo()
    assert run(small_config(), data, out, resume=True).steps == 2 * STEPS


def test_a_collapsed_network_is_warned_of_and_stopped(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "PATIENCE", 4)
    events: list[Event] = []
    monkeypatch.setattr("tshsr.training.trainer.build_matcher", constant_matcher)
    config = with_optimiser(with_loss(small_config(epochs=9, save_every_steps=0), warmup_epochs=0), learning_rate=1e-12)
    with pytest.raises(
        CollapseError, match=r"has given all pairs the same score for 9 steps .* rSum on dev is .* training stops"
    ):
        run(config, data, tmp_path / "run", listen=events.append)
    assert len([event for event in events if isinstance(event, Warned)]) == 1
    fused = [event.losses["fused"] for event in events if isinstance(event, StepDone)]
    assert fused == pytest.approx([2 * config.loss.margin] * len(fused), rel=0.05)


def test_a_resumed_run_goes_on_counting_steps_of_equal_scores(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "PATIENCE", 4)
    monkeypatch.setattr("tshsr.training.trainer.build_matcher", constant_matcher)
    config = with_optimiser(with_loss(small_config(epochs=4), warmup_epochs=0), learning_rate=1e-12)
    with pytest.raises(StopError):
        run(config, data, tmp_path / "run", listen=stop_at(5))
    with pytest.raises(CollapseError, match="has given all pairs the same score for 9 steps"):
        run(config, data, tmp_path / "run", resume=True)


def constant_matcher(config: Any) -> Any:
    """A network that scores every pair alike, and at a tiny rate goes on doing so."""
    matcher = build_matcher(config)
    with torch.no_grad():
        for weight in matcher.streams.parameters():
            weight.zero_()
    return matcher


def test_an_out_that_is_a_file_is_one_sentence(data: tuple[Split, Split], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*run"):
        run(small_config(), data, tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["best", "last", "log.jsonl", "tensorboard"])
def test_files_that_no_run_wrote_stay(data: tuple[Split, Split], tmp_path: Path, name: str, resume: bool) -> None:
    path = tmp_path / name / "photo.jpg" if "." not in name else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(CheckpointError, match=rf"holds {name} but no config\.json.*; choose another --out"):
        run(small_config(), data, tmp_path, resume=resume)
    assert path.read_text() == "mine"


def test_settings_of_another_program_stay(data: tuple[Split, Split], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds tokenizer\.json but no config\.json.*; continue with --resume"):
        run(small_config(), data, tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": []}')
    with pytest.raises(CheckpointError, match=r"holds the config\.json of something else .*; choose another --out"):
        run(small_config(), data, tmp_path, resume=True)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"holds a saved model, not a run to continue; choose another --out"):
        run(small_config(), data, tmp_path, resume=True)
    assert (tmp_path / "config.json").read_text() == '{"architectures": []}'
