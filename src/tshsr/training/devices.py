"""The engine that trains on one or many devices, and reproducibility on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from tshsr.config.run import RunConfig
from tshsr.errors import SettingsError

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
