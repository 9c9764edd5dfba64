"""Every setting of a run, as frozen dataclasses; their docstrings are the command line's help.

Settings are saved as JSON beside the weights, never pickled, and read back strictly: an unknown name is an error.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tshsr.config.models import KINDS
from tshsr.config.models import STRICT as STRICT
from tshsr.config.models import EncoderConfig as EncoderConfig
from tshsr.config.models import ModelConfig as ModelConfig
from tshsr.config.models import ReasoningConfig as ReasoningConfig
from tshsr.config.models import ScanConfig as ScanConfig
from tshsr.config.models import SgrafConfig as SgrafConfig
from tshsr.config.models import TshsrConfig as TshsrConfig
from tshsr.config.models import TwoStreamSgrConfig as TwoStreamSgrConfig
from tshsr.config.models import VseConfig as VseConfig
from tshsr.errors import SettingsError, first_invalid


@dataclass(frozen=True)
class LossConfig:
    """Weights of the summed hinge losses (model.md section 5)."""

    __pydantic_config__ = STRICT

    margin: float = 0.2
    """How far a positive pair must score above a negative one."""
    fused: float = 1.0
    """Weight of the hinge on the fused score."""
    streams: float = 1.0
    """Weight of the hinge on each stream's score."""
    levels: float = 1.0
    """Weight of the hinge on each level's score (deep supervision): every level learns to match by itself."""
    pooled: float = 1.0
    """Weight of the hinge on v·t."""
    swapped: float = 0.0
    """Weight of the hinge that sets each caption above itself with two words swapped, so that words are bound together;
    0: without."""
    warmup_epochs: float = 2.0
    """Epochs on the mean over negatives before the hardest negative counts alone."""
    robust: Literal["none", "mixture"] = "none"
    """For data with wrong pairs: after the warm-up, mixture weighs each caption by the probability that its pair is
    right, from a mixture of two normal distributions over how v·t ranks the pairs, fitted anew each epoch; and a pair
    whose hardest negative is far above it teaches nothing."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser and schedule."""

    __pydantic_config__ = STRICT

    name: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with decoupled weight decay."""
    learning_rate: float = 2e-4
    """Rate at the start."""
    weight_decay: float = 0.0
    """Decay of the weights (AdamW)."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """Step multiplies the rate by `decay` at `decay_epoch`; cosine falls to zero over all epochs."""
    decay: float = 0.1
    """Factor of the step schedule."""
    decay_epoch: float = 30
    """Epoch of the step."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from zero."""
    clip: float = 2.0
    """Largest norm of the gradient."""


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how much at once, and what is kept."""

    __pydantic_config__ = STRICT

    epochs: int = 40
    """Passes over the training captions."""
    batch: int = 128
    """Captions a batch (each with its image). Of N processes under torchrun each gets an Nth, and finds its negatives
    there: a batch of 128 a process is one of 128 N here."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    candidates: int = 0
    """Negatives scored per image and per caption: random in the warm-up, then half mined by v·t, half random; 0 scores
    all pairs of a batch."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of the forward pass."""
    seed: int = 0
    """Seed of weights, order and dropout."""
    evaluate_every: int = 1
    """Epochs between evaluations on dev."""
    dev_images: int = 0
    """Evaluate on the first so many dev images; 0 takes them all."""
    save_every_steps: int = 500
    """Steps between saves of the resumable state, besides the one at each epoch's end; 0 saves at epochs only."""
    minimum_count: int = 4
    """Words seen less often in the training captions are unknown."""
    vocabulary: str = ""
    """A vocabulary of the field (word2idx JSON) or a tokenizer.json; empty builds one from the training captions."""
    noise: float = 0.0
    """Share of the training captions whose images are shuffled among them (noisy correspondence, to test what a loss
    stands); dev and test stay clean."""
    noise_index: str = ""
    """A published .npy file of such noise instead: the number of the image that each training caption (or image)
    gets."""


@dataclass(frozen=True)
class RunConfig:
    """One complete run: what a recipe returns and what `config.json` holds."""

    __pydantic_config__ = STRICT

    recipe: str = ""
    """Name of the recipe this run came from."""
    model: ModelConfig = field(default_factory=TshsrConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The losses."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Optimiser and schedule."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length, batches, seeds."""
    extractor: str = ""
    """Who made the region features; filled in from the training data, checked wherever the model is used."""


def write_config(config: RunConfig) -> str:
    """The settings as JSON text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def read_config(path: Path) -> RunConfig:
    """Read settings strictly.

    Raises:
        SettingsError: Where the file is missing, is no JSON, or holds an unknown name or a value of a wrong type.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing; expected the settings that a run keeps as config.json.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SettingsError(f"{path} is not valid JSON ({error}); restore it from the run's backup.") from None
    try:
        return TypeAdapter(RunConfig).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"].startswith("union_tag"):
            kind = first["input"].get("kind", "missing")
            expected = ", ".join(KINDS)
            raise SettingsError(f"{path}: setting 'model.kind' is {kind!r}; expected one of {expected}.") from None
        invalid = first_invalid(error, omit=KINDS)  # pydantic puts the tag of the union into the path
        raise SettingsError(f"{path}: setting {invalid.place!r}: {invalid.reason}; got {invalid.value!r}.") from None
