"""`fit`: from settings and two splits to a run's folder, or on with a run that was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from tshsr.config.run import RunConfig, read_config
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.errors import CheckpointError, SettingsError
from tshsr.files import remove_partial
from tshsr.training.batching import Order
from tshsr.training.checkpoints import CONFIG, TOKENIZER, save_settings
from tshsr.training.checks import check_same, check_training, complete, fingerprint, make_tokenizer
from tshsr.training.events import Event, Listener
from tshsr.training.noisy_pairs import with_noise
from tshsr.training.state import State, is_begun, load_state
from tshsr.training.trainer import Job, Trainer

EVALUATION_AT_MOST = timedelta(hours=12)
"""How long the other processes wait for the one that evaluates."""


def make_accelerator(config: RunConfig, device: str | None) -> Accelerator:
    """The engine for these settings: one process here, or one of several under torchrun.

    Args:
        config: The settings, of which precision and accumulation count.
        device: "cpu", "cuda" or "mps"; None takes the best one here. CUDA_VISIBLE_DEVICES chooses among several.

    Raises:
        SettingsError: Where this machine lacks the device, or the precision needs another one.
    """
    if not torch.distributed.is_initialized():
        # The engine's state is global: a run in bf16 after one in float32 would be refused in the same program.
        AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision=config.training.precision,
            gradient_accumulation_steps=config.training.accumulate,
            kwargs_handlers=[
                # Some settings leave weights without a gradient, such as the pooling's without its loss and node.
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=EVALUATION_AT_MOST),
            ],
        )
    except ValueError as error:
        raise SettingsError(
            f"training.precision {config.training.precision!r} cannot be used here ({error}); choose no or bf16."
        ) from None
    if config.training.precision == "fp16" and accelerator.device.type == "cpu":
        raise SettingsError("training.precision 'fp16' needs a GPU, and this is a CPU; choose no or bf16.")
    if device is not None and accelerator.device.type != device:
        raise SettingsError(
            f"device {device!r} is not to be had here, but {accelerator.device.type!r} is; choose it or none."
        )
    return accelerator


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Leave the caller's generators alone, and on the CPU take the deterministic form of every operation.

    Sums at repeated indices, such as the gradient of a gather, otherwise depend on the timing of threads.
    """
    before = torch.get_deterministic_debug_mode()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if device.type == "cpu":
                torch.set_deterministic_debug_mode("error")
            yield
        finally:
            torch.set_deterministic_debug_mode(before)


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        folder: The run's folder: `load_run(folder)` gives the best weights.
        config: The settings, completed from the data.
        steps: Steps done since the run began.
        best_epoch: Epochs after which dev was best.
        best_rsum: rSum of the fused score on dev then.
        seconds: Time of all steps, over all resumptions.
        already_finished: True where the run was complete before, and nothing was done.
    """

    folder: Path
    config: RunConfig
    steps: int
    best_epoch: int
    best_rsum: float
    seconds: float
    already_finished: bool


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
    """Train a network; the same settings, data and kind of CPU give the same weights, bit for bit, interrupted or not.

    The folder gets `config.json`, `tokenizer.json`, `log.jsonl`, `tensorboard/`, `best/` (by the fused rSum on dev) and
    `last/` (the resumable state). Under torchrun every process calls this; each batch is shared among them, and the
    negatives of a pair are of its process's share. The same weights need the same number of processes.

    Args:
        config: The settings; 0 and "" in feature_dim, vocabulary and extractor are filled from the data.
        train: What to train on, clean: noise that the settings ask for is made here.
        dev: What chooses the best weights.
        out: The run's folder.
        resume: Go on with the run in the folder; an empty folder starts one, a finished run is left as it is. All
            settings must be the run's own, but `training.epochs` may be raised (not under the cosine schedule).
        device: "cpu", "cuda" or "mps"; None takes the best one here.
        listen: Called with events.

    Raises:
        SettingsError: Where settings make no sense, contradict the data or the machine.
        DataError: Where the splits contradict each other, can't be read, or the folder not be written.
        CheckpointError: Where the folder holds a run and `resume` is False, or a run of other settings or data.
        CollapseError: Where the network scores every pair alike for good.
        DivergenceError: Where the loss or its gradient is no finite number.
    """
    check_training(config)
    out = Path(out)
    train = with_noise(train, config.training)
    accelerator = make_accelerator(config, device)
    begun = check_folder(out, resume=resume)
    tokenizer = Tokenizer.from_file(out / TOKENIZER) if begun else make_tokenizer(config, train)
    config = complete(config, tokenizer, train, dev)
    order = Order(
        captions=len(train.captions),
        batch=config.training.batch,
        accumulate=config.training.accumulate,
        processes=accelerator.num_processes,
        seed=config.training.seed,
    )
    state = load_begun(out, config, train) if begun else State(fingerprint(train))
    if state.step >= order.steps_per_epoch * config.training.epochs:
        return result(out, config, state, already_finished=True)
    accelerator.wait_for_everyone()  # all have looked into the folder before one changes it
    prepare_folder(out, config, tokenizer, accelerator)
    with reproducible(accelerator.device):
        trainer = Trainer(Job(config, tokenizer, train, dev, out), order, state, accelerator, listen or ignore)
        if begun:
            trainer.resume()
        else:
            trainer.begin()
        state = trainer.run()
    return result(out, config, state, already_finished=False)


def check_folder(out: Path, *, resume: bool) -> bool:
    """Whether the folder holds a state to go on from.

    Raises:
        CheckpointError: Where it holds a run that was not to be resumed.
    """
    if (out / CONFIG).exists() and not resume:
        raise CheckpointError(f"{out} already holds a run; go on with it with --resume, or choose another --out.")
    return (out / CONFIG).exists() and is_begun(out)


def load_begun(out: Path, config: RunConfig, train: Split) -> State:
    """The state of the run in the folder.

    Raises:
        CheckpointError: Where it was begun with other settings or data, or is damaged.
    """
    check_same(out, read_config(out / CONFIG), config)
    state, here = load_state(out), fingerprint(train)
    if state.data != here:
        raise CheckpointError(
            f"{out} was begun on other training captions (checksum {state.data}) than those of {train.data}, split "
            f"{train.name} (checksum {here}); resume on the same data, or choose another --out."
        )
    return state


def prepare_folder(out: Path, config: RunConfig, tokenizer: Tokenizer, accelerator: Accelerator) -> None:
    """Clear what a kill left, and write settings (epochs may have been raised) and tokenizer."""
    if accelerator.is_main_process:
        remove_partial(out)
        save_settings(out, config, tokenizer)


def result(out: Path, config: RunConfig, state: State, *, already_finished: bool) -> FitResult:
    """What the state says at the end."""
    return FitResult(
        folder=out,
        config=config,
        steps=state.step,
        best_epoch=state.best_epoch,
        best_rsum=state.best_rsum,
        seconds=state.seconds,
        already_finished=already_finished,
    )


def ignore(event: Event) -> None:
    """Listen to nothing."""
    del event
