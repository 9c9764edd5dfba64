"""What ends a run early: SIGTERM, another job in the folder, memory that runs out, a loss that is not a number."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from tests.support.command_line import tshsr
from tests.support.forked import command, forked
from tests.support.small_runs import run, small_config, small_split, weights, with_loss
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError, DivergenceError, SettingsError
from tshsr.files import exclusive_lock
from tshsr.training import fit, objective
from tshsr.training.events import Event, Saved, StepDone
from tshsr.training.memory import memory_explained


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    folder = tmp_path_factory.mktemp("data")
    return small_split(folder, "train"), small_split(folder, "dev", images=6)


@pytest.fixture(scope="module")
def whole(data: tuple[Split, Split], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two epochs of three steps, which saves at the end of each only."""
    return run(small_config(save_every_steps=0), data, tmp_path_factory.mktemp("whole") / "run").folder


@pytest.mark.parametrize("step", [1, 3, 5, 6])
def test_sigterm_completes_the_step_saves_and_reaches_the_former_handler(
    whole: Path, data: tuple[Split, Split], tmp_path: Path, step: int
) -> None:
    received: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        stopped = run(small_config(save_every_steps=0), data, tmp_path / "run", listen=listen)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert (stopped.steps, stopped.stopped) == (step, step < 6)
    assert json.loads((tmp_path / "run" / "last" / "state.json").read_text())["step"] == step
    resumed = run(small_config(save_every_steps=0), data, tmp_path / "run", resume=True)
    assert (resumed.stopped, resumed.steps) == (False, 6)
    for which in ("last", "best"):
        assert weights(tmp_path / "run", which) == weights(whole, which)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no process gets SIGTERM on this system")
def test_the_command_ends_with_zero_after_sigterm_and_names_what_continues_it(tmp_path: Path) -> None:
    from tests.support.command_line import TINY
    from tshsr.data.generated import make_scenes

    scenes = make_scenes(tmp_path / "scenes", train=16, dev=6, test=1, processes=1)
    words = ["train", "tshsr-scenes", "--data", str(scenes), "--out", str(tmp_path / "run"), *TINY]
    words += ["--training.epochs", "5000"]
    with forked(command, *words) as process:
        for line in process.stderr:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    last = errors.splitlines()[-1]
    assert last == "tshsr: stopped by SIGTERM; run the same command with --resume to continue from the last saved step."
    assert json.loads((tmp_path / "run" / "last" / "state.json").read_text())["step"] > 0


def test_two_jobs_in_one_folder_are_refused(data: tuple[Split, Split], tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with exclusive_lock(out / fit.LOCK, ""), pytest.raises(DataError) as caught:
        run(small_config(), data, out)
    assert str(caught.value) == f"another tshsr train works in {out}; wait for it, or choose another --out."
    assert [path.name for path in out.iterdir()] == [fit.LOCK]


def test_a_run_that_another_job_continued_meanwhile_is_refused(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the state and taking the lock."""
    config, out, done = small_config(epochs=1), tmp_path / "run", []

    def make_room(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        if not done:
            done.append(folder)
            run(config, data, out)

    monkeypatch.setattr(fit, "make_folder", make_room)
    with pytest.raises(CheckpointError) as caught:
        run(config, data, out)
    assert str(caught.value) == f"another tshsr train has just worked in {out}; run this again."


@pytest.mark.parametrize(
    ("error", "candidates", "less"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory."),
            0,
            "lower training.batch (now 8) or set training.candidates (now 0, which scores all pairs of a batch)",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 2, "lower training.batch (now 8)"),
    ],
)
def test_memory_that_runs_out_is_a_sentence_with_the_setting(
    data: tuple[Split, Split],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    candidates: int,
    less: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(objective.Objective, "forward", fail)
    out = tmp_path / "run"
    with pytest.raises(SettingsError) as caught:
        run(small_config(candidates=candidates), data, out)
    assert str(caught.value) == (
        f"a step of training needs more memory than there is ({type(error).__name__}); {less}, and train again into "
        f"another --out ({out / 'last'} keeps the last complete state)."
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "noisy_pairs.batch_zscores",
            r"^weighing the training pairs needs more memory .*; lower model\.encoder\.dim \(no",
        ),
        ("trainer.score_split", r"^the evaluation on dev needs more memory .*; set training\.dev_images below 6, and"),
    ],
)
def test_memory_that_runs_out_outside_a_step_is_a_sentence_too(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, message: str
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(f"tshsr.training.{place}", fail)
    config = with_loss(small_config(evaluate_every=2), robust="mixture", warmup_epochs=1.0)
    with pytest.raises(SettingsError, match=message):
        run(config, data, tmp_path / "run")


def test_other_errors_of_a_step_stay_as_they_are() -> None:
    with (
        pytest.raises(RuntimeError, match=r"^shapes differ$"),
        memory_explained("a step of training", "lower training.batch", "nothing is saved"),
    ):
        raise RuntimeError("shapes differ")


def test_a_loss_that_is_not_a_number_keeps_the_state_before_it(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, saved = objective.Objective.forward, []

    def poisoned(self: objective.Objective, *given: object, **more: object) -> dict[str, torch.Tensor]:
        losses = forward(self, *given, **more)  # type: ignore[arg-type]
        return {**losses, "loss": losses["loss"] * float("nan")} if len(saved) == 3 else losses

    def listen(event: Event) -> None:
        if isinstance(event, Saved) and event.which == "last":
            saved.append(event.step)

    monkeypatch.setattr(objective.Objective, "forward", poisoned)
    with pytest.raises(DivergenceError, match=r"epoch 1, step 3: the loss is nan .* keeps the last complete state"):
        run(small_config(), data, tmp_path / "run", listen=listen)
    assert saved == [0, 1, 2]
    monkeypatch.setattr(objective.Objective, "forward", forward)
    assert run(small_config(), data, tmp_path / "run", resume=True).steps == 6
    assert weights(tmp_path / "run") == weights(run(small_config(), data, tmp_path / "whole").folder)


def test_a_process_whose_sibling_got_sigterm_reports_no_end_of_training(
    data: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tshsr.data.layouts.open_split", lambda _, name: data[name == "dev"])
    stopped = fit.FitResult(tmp_path / "run", small_config(), 2, 0, 0.0, 1.0, already_finished=False, stopped=True)
    monkeypatch.setattr(fit, "fit", lambda *_, **__: stopped)
    said = tshsr("train", "tshsr-scenes", "--data", "any", "--out", tmp_path / "run", "--device", "cpu")
    assert said.code == 0
    assert said.out == f"{tmp_path / 'run'} was stopped after 2 steps; its state is saved: continue with --resume.\n"
