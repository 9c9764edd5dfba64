"""Every setting of the package, as frozen dataclasses; their docstrings are the command line's help.

Settings are saved as JSON beside the weights, never pickled, and read back strictly: an unknown name is an error.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tshsr.errors import SettingsError

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class EncoderConfig:
    """How regions and words come into the joint space (model.md section 1)."""

    __pydantic_config__ = STRICT

    dim: int = 1024
    """Width of the joint space (D)."""
    feature_dim: int = 0
    """Width of a region feature; 0 takes it from the data."""
    vocabulary: int = 0
    """Number of tokens; 0 takes it from the tokenizer."""
    boxes: bool = False
    """Append x1, y1, x2, y2 and area of each region (fractions of the picture) to its features."""
    text: Literal["gru", "transformer"] = "gru"
    """Word encoder: a one-layer bidirectional GRU, or a transformer trained from scratch."""
    word_dim: int = 300
    """Width of a word embedding."""
    transformer_layers: int = 2
    """Layers of the transformer word encoder."""
    transformer_heads: int = 4
    """Attention heads of the transformer word encoder."""
    dropout: float = 0.0
    """Dropout on region features and word embeddings while training."""


@dataclass(frozen=True)
class ReasoningConfig:
    """Hierarchical similarity reasoning (model.md section 4); every switch is a row of the ablation table."""

    __pydantic_config__ = STRICT

    levels: int = 2
    """Number of reasoning levels K; 0 reads out the similarity vectors alone."""
    seeds: tuple[int, ...] = (8, 3)
    """Learned context seeds of each level; the first `levels` are used."""
    context: bool = True
    """Let a level's update attend to the extracted context nodes."""
    local: bool = True
    """Let a level's update attend to the nodes themselves."""
    gate: bool = True
    """Gate each update by a learned sigmoid."""


@dataclass(frozen=True)
class TshsrConfig:
    """The two-stream hierarchical similarity reasoning network."""

    __pydantic_config__ = STRICT

    kind: Literal["tshsr"] = "tshsr"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    streams: Literal["both", "word", "region"] = "both"
    """Word stream: words look at regions. Region stream: regions look at words."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    global_node: bool = False
    """Add the similarity vector of the pooled picture and the pooled caption as a node of its own."""
    pooled_term: bool = True
    """Add v·t, with a learned weight, to each stream's logit: the reasoning then learns what v·t leaves undecided."""
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    """Hierarchical reasoning, the same settings in both streams (weights are not shared)."""
    fusion: Literal["mean", "learned"] = "mean"
    """How the two stream scores become one."""


ModelConfig = TshsrConfig
"""The union of the methods' settings, told apart by `kind`."""


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
    warmup_epochs: float = 2.0
    """Epochs on the mean over negatives before the hardest negative counts alone."""


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
    """Captions a step (each with its image)."""
    accumulate: int = 1
    """Batches whose gradients are added up before a step."""
    candidates: int = 0
    """Negatives scored per image and per caption, half mined by v·t, half random; 0 scores all pairs of a batch."""
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
        place = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: setting {place!r}: {first['msg']}; got {first['input']!r}.") from None
