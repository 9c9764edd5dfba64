"""The resumable state of a run: `last/` with weights, the optimiser's tensors (safetensors) and its numbers (JSON).

A run with a robust loss also keeps there how far each training caption stood above random pairs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from tshsr.config.models import STRICT
from tshsr.errors import CheckpointError, first_invalid
from tshsr.files import replacing_folder, whole_folder, write_text
from tshsr.models.base import Matcher
from tshsr.training.checkpoints import WEIGHTS, load_tensors, load_weights, save_tensors, save_weights

LAST = "last"
BEST = "best"
STATE = "state.json"
OPTIMISER = "optimiser.safetensors"
STANDINGS = "standings.safetensors"


@dataclass(frozen=True)
class State:
    """Where a run stands. Order, dropout and candidates follow from the seed and the step, so no generator is in it.

    Attributes:
        data: Checksum of the training captions.
        step: Steps done; at a multiple of an epoch's steps the evaluation after it is done too.
        seconds: Time of the steps done.
        best_epoch: Epochs after which dev was best; 0 before the first evaluation.
        best_rsum: rSum of the fused score then.
        flat_steps: Consecutive steps in which every pair was scored alike.
        window: Sums of the log since its last line.
        scaler: State of the gradient scaler (fp16).
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


def save_last(
    folder: Path, matcher: Matcher, optimiser: torch.optim.Optimizer, state: State, standings: Tensor | None = None
) -> None:
    """Replace a run's `last/`; a kill at any moment leaves a whole one.

    Args:
        folder: The run's folder.
        matcher: The network.
        optimiser: Its optimiser.
        state: The numbers.
        standings: Of the training captions, where a robust loss has measured them.

    Raises:
        DataError: Where the disk is full or the folder cannot be written; the former state stays.
    """
    with replacing_folder(folder / LAST) as partial:
        save_weights(partial / WEIGHTS, matcher)
        save_tensors(partial / OPTIMISER, optimiser_tensors(optimiser))
        if standings is not None:
            save_tensors(partial / STANDINGS, {"standings": standings})
        write_text(partial / STATE, json.dumps(asdict(state), indent=2) + "\n")


def save_best(folder: Path, matcher: Matcher, *, epoch: int, step: int, rsum: float) -> None:
    """Replace a run's `best/`.

    Raises:
        DataError: Where the disk is full or the folder cannot be written; the former weights stay.
    """
    with replacing_folder(folder / BEST) as partial:
        save_weights(partial / WEIGHTS, matcher)
        write_text(partial / STATE, json.dumps({"epoch": epoch, "step": step, "rsum": rsum}, indent=2) + "\n")


def is_begun(folder: Path) -> bool:
    """Whether a folder holds a state to resume from."""
    return (whole_folder(folder / LAST) / STATE).is_file()


def load_state(folder: Path) -> State:
    """Read the numbers of a run's state.

    Raises:
        CheckpointError: Where they are damaged.
    """
    path = whole_folder(folder / LAST) / STATE
    try:
        return TypeAdapter(State).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        reason = first_invalid(error).reason if isinstance(error, ValidationError) else error.strerror
        raise CheckpointError(f"{path} is damaged ({reason}); restore it from a copy, or train again.") from None


def load_last(folder: Path, matcher: Matcher, optimiser: torch.optim.Optimizer) -> None:
    """Read weights and the optimiser's tensors in place.

    Raises:
        CheckpointError: Where something is missing, damaged or does not fit.
    """
    last = whole_folder(folder / LAST)
    load_weights(last / WEIGHTS, matcher)
    set_optimiser_tensors(optimiser, load_tensors(last / OPTIMISER), last / OPTIMISER)


def load_standings(folder: Path, *, captions: int) -> Tensor | None:
    """Read the standings of a run's training captions; None where none had been measured.

    Raises:
        CheckpointError: Where they are damaged or of another number of captions.
    """
    path = whole_folder(folder / LAST) / STANDINGS
    if not path.is_file():
        return None
    standings = load_tensors(path).get("standings")
    if standings is None or standings.shape != (captions,) or standings.dtype != torch.float32:
        raise CheckpointError(f"{path} does not hold a number for each of the {captions} captions; train again.")
    return standings


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser remembers of each parameter, by "number.name"."""
    remembered = optimiser.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, values in remembered.items() for name, tensor in values.items()}


def set_optimiser_tensors(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], path: Path) -> None:
    """The inverse of `optimiser_tensors`.

    Raises:
        CheckpointError: Where a tensor is of no parameter, or of another shape than its parameter.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        fits = number.isdecimal() and int(number) < len(parameters)
        if not fits or (tensor.ndim and tensor.shape != parameters[int(number)].shape):
            raise CheckpointError(
                f"{path}: {key!r} of shape {tuple(tensor.shape)} does not fit the model; train again."
            )
        remembered.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": remembered})
