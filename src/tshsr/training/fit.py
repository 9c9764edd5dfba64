"""`fit`: train a network from settings and two splits into a run's folder, or resume an interrupted run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from tshsr.config.run import RunConfig, TrainingConfig, read_config
from tshsr.data.dataset import Split
from tshsr.data.text import TOKENIZER
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import CheckpointError, SettingsError
from tshsr.files import complete_folder, exclusive_lock, make_folder, remove_partial
from tshsr.scoring.processes import WAIT_AT_MOST, launched
from tshsr.system import termination_delayed
from tshsr.training.batching import Order
from tshsr.training.captions_share import with_captions_share
from tshsr.training.checkpoints import CONFIG, WEIGHTS, load_settings, save_settings
from tshsr.training.checks import captions_checksum, check_training, check_unchanged
from tshsr.training.completion import complete, make_tokenizer, make_vectors
from tshsr.training.events import Event, Listener
from tshsr.training.graphs import with_graph
from tshsr.training.log import LOG, TENSORBOARD
from tshsr.training.noisy_pairs import with_noise
from tshsr.training.pixels import open_pictures
from tshsr.training.state import BEST, LAST, STATE, State, is_begun, load_state
from tshsr.training.trainer import Trainer, TrainingInputs, processes_of, select_dev

LOCK = ".lock"
"""File in a run's folder that one job at a time holds."""


def make_accelerator(config: RunConfig, device: str | None) -> Accelerator:
    """The accelerator of this process: a single one, or one of several under torchrun.

    Args:
        config: Precision and gradient accumulation.
        device: "cpu", "cuda" or "mps"; None: the best available. CUDA_VISIBLE_DEVICES selects among several GPUs.

    Raises:
        SettingsError: Where the device is not available, or does not support the precision; as `launched`.
    """
    launched()  # before accelerate, whose error for them is one of any cause
    if not torch.distributed.is_initialized():
        # Accelerate's state is global: without this it rejects a bf16 run after a float32 run in the same process.
        AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=config.training.precision,
            # A plugin, as the number alone would yield to ACCELERATE_GRADIENT_ACCUMULATION_STEPS of the environment.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.training.accumulate),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT_AT_MOST)],
        )
    except ValueError as error:
        raise SettingsError(
            f"training.precision {config.training.precision!r} cannot be used here ({error}); choose no or bf16."
        ) from None
    if config.training.precision == "fp16" and accelerator.device.type == "cpu":
        raise SettingsError("training.precision 'fp16' needs a GPU, and this is a CPU; choose no or bf16.")
    if device is not None and accelerator.device.type != device:
        raise SettingsError(
            f"device {device!r} is not available here, but {accelerator.device.type!r} is; choose it or none."
        )
    return accelerator


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Restore the caller's random generators at the end; on the CPU require deterministic operations.

    Sums at repeated indices, such as the gradient of a gather, otherwise depend on the timing of threads. Memory that
    is not yet written is not filled: that guards against reading it, and takes 4 % of a step.
    """
    options: Any = torch.utils.deterministic  # its attribute is set at import, where type checkers do not see it
    before, filled = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if device.type == "cpu":
                torch.set_deterministic_debug_mode("error")
                options.fill_uninitialized_memory = False
            yield
        finally:
            options.fill_uninitialized_memory = filled
            torch.set_deterministic_debug_mode(before)


@dataclass(frozen=True)
class FitResult:
    """Outcome of training.

    Attributes:
        folder: The run's folder; `load_run(folder)` returns the best weights.
        config: The settings, completed from the data.
        steps: Steps of the whole run, over all resumptions.
        best_epoch: Epoch (from 1) with the best fused rSum on dev.
        seconds: Duration of all steps, over all resumptions.
        already_finished: True where the run was complete already, and no step was made.
        stopped: True where SIGTERM ended it early, with its state saved.
    """

    folder: Path
    config: RunConfig
    steps: int
    best_epoch: int
    best_rsum: float
    seconds: float
    already_finished: bool
    stopped: bool = False


def fit(
    config: RunConfig,
    *,
    train: Split,
    dev: Split,
    out: Path,
    resume: bool = False,
    device: str | None = None,
    listen: Listener | None = None,
) -> FitResult:
    """Train a network; the same settings and data give the same weights, interrupted or not.

    Contents of the folder: `config.json`, `tokenizer.json`, `log.jsonl`, `tensorboard/`, `best/` (by the fused rSum on
    dev) and `last/` (the resumable state). Under torchrun every process calls this with the same arguments; they share
    each batch, with the loss and the gradient that one process has for it (but for rounding; dropout is drawn by each).
    Weights are the same bit for bit only on one type of CPU, with the same numbers of threads and processes.

    SIGTERM completes the current step and saves the state; the process then gets the signal as before.

    Args:
        config: The settings; 0 and "" in feature_dim, vocabulary and extractor are filled from the data.
        train: Clean training split; the noise of the settings is added here.
        dev: Split that chooses the best weights.
        resume: Continue the run in the folder; without one, start one; a finished run stays unchanged. All settings
            must equal those of the run, but `training.epochs` may be raised (not under the cosine schedule).
        device: "cpu", "cuda" or "mps"; None takes the best available.

    Raises:
        SettingsError: Where settings are invalid, or contradict the data or the machine, such as its memory.
        DataError: Where the splits contradict each other or can't be read, or the folder can't be written or is in use.
        CheckpointError: Where the folder holds a run and `resume` is False, another run, or files that no run wrote.
        CollapseError: Where the network gives all pairs the same score for more than an epoch.
        DivergenceError: Where the loss or its gradient is not finite.
        ProcessError: Where another process of the run was lost.
    """
    check_training(config)
    out = Path(out)
    train = with_captions_share(with_noise(train, config.training), config.training)
    accelerator = make_accelerator(config, device)
    begun = check_folder(out, resume=resume)
    tokenizer = load_settings(out)[1] if begun else make_tokenizer(config, train)
    tokenizer.to(accelerator.device)
    saved = read_config(out / CONFIG) if begun else None
    opened = open_pictures(config, train, dev, saved)
    train, dev = opened.train, opened.dev
    config, graph = with_graph(complete(opened.config, tokenizer, train, dev), train, tokenizer, saved)
    order = make_order(config.training, train)
    vectors = None if begun else make_vectors(config, tokenizer)
    evaluated = select_dev(dev, config.training.dev_images)
    fresh = State(captions_checksum(train), dev=captions_checksum(evaluated))
    state = load_begun(out, config, train, evaluated) if begun else fresh
    if state.step >= order.steps_per_epoch * config.training.epochs:
        return fit_result(out, config, state, already_finished=True)
    processes_of(accelerator).wait()  # the main process changes the folder only after all have read it
    inputs = TrainingInputs(config, tokenizer, train, dev, out, vectors, opened.vision, graph)
    with only_writer(out, accelerator), reproducible(accelerator.device), termination_delayed() as stopping:
        prepare_folder(out, config, tokenizer, accelerator, state if begun else None)
        trainer = Trainer(inputs, order, state, accelerator, listen or ignore)
        trainer.stopping = stopping
        (trainer.resume if begun else trainer.begin)()
        state = trainer.run()
    return fit_result(out, config, state, already_finished=False, stopped=state.step < trainer.steps)


def make_order(config: TrainingConfig, train: Split) -> Order:
    """The order of batches of a run.

    Raises:
        SettingsError: Where a batch would have fewer than two captions.
    """
    return Order(captions=len(train.captions), batch=config.batch, accumulate=config.accumulate, seed=config.seed)


def check_folder(out: Path, *, resume: bool) -> bool:
    """Whether the folder holds a state to resume from.

    Raises:
        CheckpointError: Where it holds a run and `resume` is False, a run without its last state, or files that no run
            wrote and a run would replace.
    """
    if not (out / CONFIG).exists():
        # A run writes its settings before these, and only its tokenizer before the settings.
        names = (BEST, LAST, LOG, TENSORBOARD, *(() if resume else (TOKENIZER,)))
        for name in (name for name in names if (out / name).exists()):
            advice = "choose another --out"
            if name == TOKENIZER:
                advice = f"continue with --resume if a run was killed at its start, or {advice}"
            raise CheckpointError(f"{out} holds {name} but no {CONFIG}, so that no run has made it; {advice}.")
        return False
    if not resume:
        raise CheckpointError(f"{out} already holds a run; continue it with --resume, or choose another --out.")
    if is_begun(out):
        return True
    if (out / WEIGHTS).exists():
        raise CheckpointError(f"{out} holds a saved model, not a run to continue; choose another --out.")
    # A run saves last/ before these, so that one killed at its start has none of them.
    for name in (name for name in (BEST, LAST, LOG) if complete_folder(out / name).exists()):
        raise CheckpointError(
            f"{out} holds {name} but no {LAST}/{STATE} to continue from; restore {LAST}, or choose another --out."
        )
    try:
        read_config(out / CONFIG)  # as a run has them that was killed at its start
    except SettingsError as error:
        raise CheckpointError(f"{out} holds the {CONFIG} of something else ({error}); choose another --out.") from None
    return False


def load_begun(out: Path, config: RunConfig, train: Split, dev: Split) -> State:
    """Read the state of the run in the folder.

    Args:
        dev: The images that are evaluated.

    Raises:
        CheckpointError: Where the run has other settings or data, or the state is damaged.
    """
    check_unchanged(out, read_config(out / CONFIG), config)
    state = load_state(out)
    for use, before, split in (("training", state.data, train), ("dev", state.dev, dev)):
        here = captions_checksum(split)
        if before not in ("", here):  # states of older versions have none of dev
            raise CheckpointError(
                f"{out} was begun on other {use} captions (checksum {before}) than those of {split.data}, split "
                f"{split.name} (checksum {here}); resume on the same data, or choose another --out."
            )
    return state


@contextmanager
def only_writer(out: Path, accelerator: Accelerator) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made where it is missing; the main process has it for all of a job.

    Raises:
        DataError: Where another job holds it, or the folder cannot be written.
    """
    if not accelerator.is_main_process:
        yield
        return
    make_folder(out)
    with exclusive_lock(out / LOCK, f"another tshsr train works in {out}; wait for it, or choose another --out."):
        yield


def prepare_folder(
    out: Path, config: RunConfig, tokenizer: CaptionTokenizer, accelerator: Accelerator, begun: State | None
) -> None:
    """Remove partial files of a killed process; write settings (epochs may have been raised) and tokenizer.

    Args:
        begun: The state that this job has read; None: there was none.

    Raises:
        CheckpointError: Where another job has changed the folder since.
    """
    if accelerator.is_main_process:
        if (load_state(out) if (out / CONFIG).exists() and is_begun(out) else None) != begun:
            raise CheckpointError(f"another tshsr train has just worked in {out}; run this again.")
        remove_partial(out)
        save_settings(out, config, tokenizer)


def fit_result(
    out: Path, config: RunConfig, state: State, *, already_finished: bool, stopped: bool = False
) -> FitResult:
    """The result of a finished or stopped run."""
    return FitResult(
        folder=out,
        config=config,
        steps=state.step,
        best_epoch=state.best_epoch,
        best_rsum=state.best_rsum,
        seconds=state.seconds,
        already_finished=already_finished,
        stopped=stopped,
    )


def ignore(event: Event) -> None:
    """No-op listener."""
    del event
