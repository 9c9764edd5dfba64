"""Settings of a run as frozen dataclasses; attribute docstrings are the help texts of the command line.

Settings are saved as JSON with the weights and read strictly: an unknown name is an error.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from tshsr.config.models import KINDS, ModelConfig, TshsrConfig, current_names
from tshsr.config.strict import STRICT
from tshsr.errors import SettingsError, first_invalid, parse_json


@dataclass(frozen=True)
class LossConfig:
    """Kinds and weights of the summed losses (docs/model.md, section 5)."""

    __pydantic_config__ = STRICT

    margin: float = 0.2
    """Margin of the hinge, in units of the score."""
    fused: float = 1.0
    """Weight of the loss of the fused score."""
    streams: float = 1.0
    """Weight of the loss of each stream's score."""
    levels: float = 1.0
    """Weight of the loss of each level's score (deep supervision)."""
    pooled: float = 1.0
    """Weight of the hinge on v·t."""
    scores: Literal["hinge", "contrastive"] = "hinge"
    """Loss of the fused score, the streams and the levels: the hinge, or InfoNCE on their logits over the scored pairs,
    for methods whose scores are probabilities."""
    contrastive: float = 0.0
    """Weight of InfoNCE on v·t over the pairs of a batch; 0: none."""
    late_interaction: float = 0.0
    """Weight of InfoNCE on late interaction over the pairs of a batch: the mean over words of the best region's cosine,
    and the mean over regions of the best word's; 0: none."""
    temperature: float = 0.05
    """Temperature of InfoNCE on cosines."""
    swapped: float = 0.0
    """Weight of the hinge between each caption and a copy with two words swapped, for the binding of words; 0: none."""
    relations: float = 0.0
    """HREM, batch graphs (`model.neighbours`): weight of the hinges on scores with the relations among the pairs of a
    batch. With concepts: weight of the hinges on their scores alone, and of the divergence of both sides' concepts.
    0: none."""
    relations_warmup_epochs: float = 0.0
    """Initial epochs without these hinges."""
    warmup_epochs: float = 2.0
    """Initial epochs with the mean over all negatives instead of the hardest negative."""
    robust: Literal["none", "mixture"] = "none"
    """For noisy correspondence: after the warm-up, mixture weighs each caption by the probability that its pair is
    clean, from a two-component normal mixture over z-scores of v·t, fitted each epoch; hinges ignore a pair with a
    negative that scores far above it."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser and schedule."""

    __pydantic_config__ = STRICT

    name: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW with decoupled weight decay."""
    learning_rate: float = 2e-4
    """Initial learning rate."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step: the learning rate times `decay` at `decay_epoch`; cosine: to zero over all epochs."""
    decay: float = 0.1
    """Factor of the step schedule."""
    decay_epoch: float = 30
    """Epoch of the step."""
    warmup_steps: int = 0
    """Steps of a linear rise of the learning rate from zero."""
    clip: float = 2.0
    """Largest norm of the gradient, by clipping."""
    text_factor: float = 0.1
    """Factor on the learning rate of the tuned layers of a pretrained word encoder."""
    vision_factor: float = 0.1
    """Factor on the learning rate for the last trained block of a vision network."""
    vision_decay: float = 0.75
    """Factor on the learning rate from each block of a vision network to the one before it; 1: none."""


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of pictures in training from pixels, drawn from seed, epoch and picture."""

    __pydantic_config__ = STRICT

    crop: float = 0.5
    """Smallest area of a random crop, as a fraction of the picture; 1: no crop."""
    mirror: float = 0.5
    """Probability of a mirror image; 0 for pictures with a caption that says left or right."""
    colour: float = 0.1
    """Largest relative change of brightness, contrast and saturation."""


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches, evaluation and checkpoints of a training run."""

    __pydantic_config__ = STRICT

    epochs: int = 40
    """Passes over the training captions."""
    batch: int = 128
    """Captions per batch, each with its image; the processes of torchrun share it, with negatives from all of it."""
    accumulate: int = 1
    """Batches per step, with accumulated gradients."""
    candidates: int = 0
    """Negatives scored for each image and each caption: random in the warm-up, then half mined by v·t, half random; 0:
    all pairs of a batch."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision of the forward pass."""
    seed: int = 0
    """Seed of weights, order and dropout."""
    evaluate_every: int = 1
    """Epochs between evaluations on dev."""
    dev_images: int = 0
    """Number of dev images for evaluations, from the first; 0: all."""
    save_every_steps: int = 500
    """Steps between saves of the resumable state, in addition to the end of each epoch; 0: only there."""
    minimum_count: int = 4
    """Smallest count in the training captions of a word in the vocabulary; rarer ones are unknown."""
    vocabulary: str = ""
    """A vocabulary of the field (word2idx JSON) or a tokenizer.json; empty builds one from the training captions."""
    captions_share: float = 1.0
    """Share of the training captions that training reads, drawn from the seed; a vocabulary or a concept graph is made
    from these alone."""
    noise: float = 0.0
    """Fraction of the training captions whose images are shuffled among them (synthetic noisy correspondence); dev and
    test stay clean."""
    noise_index: str = ""
    """A published .npy file of such noise, in place of `noise`: for each training caption (or image) the index of its
    assigned image."""
    workers: int = 4
    """Training from pixels: processes that decode and augment pictures, without effect on the weights; 0: a thread."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Training from pixels: random changes of pictures."""


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run: the result of a recipe and the content of `config.json`."""

    __pydantic_config__ = STRICT

    recipe: str = ""
    """Name of the recipe."""
    model: ModelConfig = field(default_factory=TshsrConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The losses."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    """Optimiser and schedule."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length, batches, evaluation, seed."""
    extractor: str = ""
    """Id of the extractor of the region features; taken from the training data, checked wherever the model is used."""


MOST_LAYERS = 1000
"""Of saved settings; a network of more takes hours to build."""


def write_config(config: RunConfig) -> str:
    """The settings as JSON text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def read_config(path: Path) -> RunConfig:
    """Read settings strictly.

    Raises:
        SettingsError: Where the file can't be read, is no JSON, or holds an unknown name or a value of a wrong type.
    """
    try:
        values: Any = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path} is missing; expected the settings of a run, config.json.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}); expected the settings of a run.") from None
    except ValueError as error:
        raise SettingsError(f"{path} is not valid JSON ({error}); restore it from the run's backup.") from None
    try:
        config = config_of(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"].startswith("union_tag"):
            kind = first["input"].get("kind", "missing")
            expected = ", ".join(KINDS)
            raise SettingsError(f"{path}: setting 'model.kind' is {kind!r}; expected one of {expected}.") from None
        invalid = first_invalid(error, omit=KINDS)  # pydantic puts the tag of the union into the path
        got = f"{invalid.value!r:.80}"
        raise SettingsError(f"{path}: setting {invalid.place!r}: {invalid.reason}; got {got}.") from None
    for place, count in layer_counts(config):
        if count > MOST_LAYERS:
            raise SettingsError(f"{path}: setting {place!r} is {count}; expected at most {MOST_LAYERS:,}.")
    return config


def config_of(values: Any) -> RunConfig:
    """Settings from the values of their JSON text, also in names of earlier versions.

    Raises:
        pydantic.ValidationError: Where a name is unknown, or a value has a wrong type.
    """
    if isinstance(values, dict) and "model" in values:
        values = {**values, "model": current_names(values["model"])}
    # As text: strict validation of Python's values takes no list for a tuple.
    return TypeAdapter(RunConfig).validate_json(json.dumps(values), strict=True)


def layer_counts(config: RunConfig) -> list[tuple[str, int]]:
    """Settings that are numbers of layers, which a network has one by one."""
    of_method = [(f"model.{name}", getattr(config.model, name, 0)) for name in ("steps", "graph_steps")]
    return [*of_method, ("model.encoder.transformer_layers", config.model.encoder.transformer_layers)]
