"""Resumable state of a run: `last/` with weights, the tensors of the optimiser (safetensors) and `state.json`.

With a robust loss it also holds the match z-score of each training pair.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from tshsr.config.strict import STRICT
from tshsr.errors import CheckpointError, first_invalid
from tshsr.files import complete_folder, replacing_folder, write_text
from tshsr.models.base import Matcher
from tshsr.training.checkpoints import WEIGHTS, load_tensors, load_weights, save_tensors, save_weights

LAST = "last"
BEST = "best"
STATE = "state.json"
OPTIMISER = "optimiser.safetensors"
MATCH_ZSCORES, MATCH_ZSCORES_KEY = "standings.safetensors", "standings"
"""File and tensor that hold the match z-scores; existing runs use these names."""


@dataclass(frozen=True)
class State:
    """Progress of a run; no generator state, as order, dropout and candidates follow from the seed and the step.

    Attributes:
        data: Checksum of the training captions.
        step: Steps done; at the end of an epoch the evaluation is done too.
        seconds: Duration of the steps done.
        best_epoch: Epoch (from 1) with the best rSum on dev; 0 before the first evaluation.
        best_rsum: That rSum, by the fused score.
        flat_steps: Consecutive steps with equal scores for all pairs.
        window: Sums of the logged values since the last line of the log.
        scaler: State of the gradient scaler (fp16).
        threads: Threads of a process, on which sums on a CPU depend in their last bits; 0 in states of older versions.
        dev: Checksum of the captions of dev that are evaluated; empty in states of older versions.
    """

    __pydantic_config__ = STRICT

    data: str
    step: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_rsum: float = 0.0
    flat_steps: int = 0
    window: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, int | float] = field(default_factory=dict)
    threads: int = 0
    dev: str = ""


def save_last(
    folder: Path, matcher: Matcher, optimiser: torch.optim.Optimizer, state: State, zscores: Tensor | None = None
) -> None:
    """Replace a run's `last/` atomically.

    Args:
        state: Written as `state.json`.
        zscores: Match z-scores of the training captions, with a robust loss after the warm-up.

    Raises:
        DataError: Where the disk is full or the folder cannot be written; the former state stays.
    """
    with replacing_folder(folder / LAST) as partial:
        save_weights(partial / WEIGHTS, matcher)
        save_tensors(partial / OPTIMISER, optimiser_tensors(optimiser))
        if zscores is not None:
            save_tensors(partial / MATCH_ZSCORES, {MATCH_ZSCORES_KEY: zscores})
        write_text(partial / STATE, json.dumps(asdict(state), indent=2) + "\n")


def save_best(folder: Path, matcher: Matcher, *, epoch: int, step: int, rsum: float) -> None:
    """Replace a run's `best/` atomically.

    Raises:
        DataError: Where the disk is full or the folder cannot be written; the former weights stay.
    """
    with replacing_folder(folder / BEST) as partial:
        save_weights(partial / WEIGHTS, matcher)
        write_text(partial / STATE, json.dumps({"epoch": epoch, "step": step, "rsum": rsum}, indent=2) + "\n")


def is_begun(folder: Path) -> bool:
    """Whether a folder holds a state to resume from."""
    return (complete_folder(folder / LAST) / STATE).is_file()


def load_state(folder: Path) -> State:
    """Read `state.json`.

    Raises:
        CheckpointError: Where it is damaged.
    """
    path = complete_folder(folder / LAST) / STATE
    try:
        return TypeAdapter(State).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        reason = first_invalid(error).reason if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(f"{path} is damaged ({reason}); restore it from a copy, or train again.") from None


def load_last(folder: Path, matcher: Matcher, optimiser: torch.optim.Optimizer) -> None:
    """Read the weights and the tensors of the optimiser, in place.

    Raises:
        CheckpointError: Where something is missing, damaged or does not fit.
    """
    last = complete_folder(folder / LAST)
    load_weights(last / WEIGHTS, matcher)
    set_optimiser_tensors(optimiser, load_tensors(last / OPTIMISER), last / OPTIMISER)


def load_match_zscores(folder: Path, *, captions: int) -> Tensor | None:
    """Read the match z-scores of the training captions; None during the warm-up and without a robust loss.

    Raises:
        CheckpointError: Where they are damaged or of another number of captions.
    """
    path = complete_folder(folder / LAST) / MATCH_ZSCORES
    if not path.is_file():
        return None
    zscores = load_tensors(path).get(MATCH_ZSCORES_KEY)
    if zscores is None or zscores.shape != (captions,) or zscores.dtype != torch.float32:
        raise CheckpointError(f"{path} does not hold a number for each of the {captions} captions; train again.")
    return zscores


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state tensors of each parameter, by "number.name"."""
    by_parameter = optimiser.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, values in by_parameter.items() for name, tensor in values.items()}


def set_optimiser_tensors(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    """The inverse of `optimiser_tensors`.

    Raises:
        CheckpointError: Where a tensor has no parameter, or another shape than its parameter, or where a parameter's
            state is not two moments and a number of steps: Adam's corrections are powers of it. The numbers may differ,
            and a parameter may have no state: those of `loss.relations` have gradients only after its warm-up.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    by_parameter: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        fits = number.isdecimal() and int(number) < len(parameters)
        if not fits or (tensor.ndim and tensor.shape != parameters[int(number)].shape):
            raise CheckpointError(
                f"{path}: {key!r} of shape {tuple(tensor.shape)} does not fit the model; train again."
            )
        by_parameter.setdefault(int(number), {})[name] = tensor
    names = {"step", "exp_avg", "exp_avg_sq"}
    whole = all(set(values) == names and not values["step"].ndim for values in by_parameter.values())
    steps = {float(values["step"]) for values in by_parameter.values()} if whole else {-1.0}
    if not all(0 <= step < 2**53 and step.is_integer() for step in steps):
        raise CheckpointError(f"{path} holds no state of this optimiser: moments and a number of steps; train again.")
    optimiser.load_state_dict({**optimiser.state_dict(), "state": by_parameter})
