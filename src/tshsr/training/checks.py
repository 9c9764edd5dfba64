"""Validation before training: settings in range, and unchanged on resuming."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tshsr.config.models import EMBEDDING_KINDS, EncoderConfig, ModelConfig, TshsrConfig, knowledge_of
from tshsr.config.run import OptimiserConfig, RunConfig
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, SettingsError, first_line_in
from tshsr.models.build import build_matcher, without_vision
from tshsr.pretrained.layers import check_order
from tshsr.pretrained.names import TEXT_WEIGHTS
from tshsr.system import memory_bytes
from tshsr.training.graphs import check_knowledge, with_placeholders
from tshsr.training.objective import Objective

WIDTHS = ("dim", "word_dim", "transformer_layers", "transformer_heads")
"""Encoder sizes: at least 1."""
LOSSES = (
    "fused",
    "streams",
    "levels",
    "pooled",
    "contrastive",
    "late_interaction",
    "swapped",
    "relations",
    "relations_warmup_epochs",
)
"""Loss weights, and epochs without one: at least 0."""
MODEL_AT_LEAST = {
    "similarity_dim": 1,
    "comparison_dim": 0,
    "steps": 1,
    "region_slots": 0,
    "best_matches": 1,
    "graph_steps": 0,
    "neighbours": 0,
    "relevance_weight": 0,
    "late_weight": 0,
    "late_mean": 0,
}
"""Minimum of settings of the model, where the method has them."""
MODEL_ABOVE = (
    "inverse_temperature",
    "word_inverse_temperature",
    "region_inverse_temperature",
    "word_logsumexp_factor",
    "region_logsumexp_factor",
    "temperature",
)
"""Settings of the model that must be above 0, where the method has them."""
ENCODER_SHARES = ("dropout", "word_dropout", "region_dropout")
MODEL_SHARES = ("pooling_dropout", "similarity_dropout", "size_augmentation", "connected", "item_share")
"""Shares, in [0, 1), of the encoder and of the model, where the method has them."""
PRETRAINED_TEXT = (
    "text_weights",
    "text_nodes",
    "text_layers",
    "text_tuned_layers",
    "text_width",
    "text_pooled_width",
    "text_fingerprint",
)
"""Settings of the encoder that only a pretrained one has."""
MAY_CHANGE = frozenset({"recipe", "training.epochs", "training.save_every_steps", "training.workers"})
"""Settings that may differ on resuming, as they change no weight (epochs may only be raised)."""


def check_training(config: RunConfig) -> None:
    """Reject settings that are out of range or contradict each other.

    Raises:
        SettingsError: Names the first one.
    """
    check_ranges(config)
    check_pixels(config)
    check_knowledge(config)
    if config.optimiser.name == "adam" and config.optimiser.weight_decay:
        raise SettingsError(
            f"optimiser.weight_decay is {config.optimiser.weight_decay}, which adam ignores; set optimiser.name to "
            "adamw."
        )
    check_noise(config)
    check_losses(config)
    check_terms(config.model)
    check_text(config)
    check_pooled_vectors(config)
    check_network(config)


def check_ranges(config: RunConfig) -> None:
    """Reject numbers out of range.

    Raises:
        SettingsError: Names the first one.
    """
    training, optimiser, model = config.training, config.optimiser, vars(config.model)
    at_least = (
        ("training.epochs", training.epochs, 1),
        ("training.batch", training.batch, 2),
        ("training.accumulate", training.accumulate, 1),
        ("training.candidates", training.candidates, 0),
        ("training.seed", training.seed, 0),
        ("training.evaluate_every", training.evaluate_every, 1),
        ("training.dev_images", training.dev_images, 0),
        ("training.save_every_steps", training.save_every_steps, 0),
        ("training.minimum_count", training.minimum_count, 1),
        ("optimiser.warmup_steps", optimiser.warmup_steps, 0),
        ("optimiser.weight_decay", optimiser.weight_decay, 0),
        ("optimiser.decay_epoch", optimiser.decay_epoch, 0),
        ("loss.warmup_epochs", config.loss.warmup_epochs, 0),
        ("model.encoder.image_pooled_width", config.model.encoder.image_pooled_width, 0),
        ("model.encoder.text_tuned_layers", config.model.encoder.text_tuned_layers, 0),
        *((f"loss.{name}", getattr(config.loss, name), 0) for name in LOSSES),
        *((f"model.encoder.{name}", getattr(config.model.encoder, name), 1) for name in WIDTHS),
        *((f"model.{name}", model[name], least) for name, least in MODEL_AT_LEAST.items() if name in model),
    )
    for name, value, least in at_least:
        if not least <= value < math.inf:
            raise SettingsError(f"{name} is {value}; expected {least} or more.")
    above = (
        ("optimiser.learning_rate", optimiser.learning_rate),
        ("optimiser.clip", optimiser.clip),
        ("optimiser.decay", optimiser.decay),
        ("optimiser.text_factor", optimiser.text_factor),
        ("loss.margin", config.loss.margin),
        ("loss.temperature", config.loss.temperature),
        *((f"model.{name}", model[name]) for name in MODEL_ABOVE if name in model),
    )
    for name, value in above:
        if not 0 < value < math.inf:
            raise SettingsError(f"{name} is {value}; expected a number above 0.")
    shares = (
        *((f"model.encoder.{name}", getattr(config.model.encoder, name)) for name in ENCODER_SHARES),
        *((f"model.{name}", model[name]) for name in MODEL_SHARES if name in model),
        ("training.noise", training.noise),
    )
    for name, value in shares:
        if not 0 <= value < 1:
            raise SettingsError(f"{name} is {value}; expected 0 or more, below 1.")
    if not math.isfinite(model.get("late_centre", 0)):
        raise SettingsError(f"model.late_centre is {model['late_centre']}; expected a finite number.")
    if not 0 < training.captions_share <= 1:
        raise SettingsError(f"training.captions_share is {training.captions_share}; expected above 0, at most 1.")


def check_pixels(config: RunConfig) -> None:
    """Reject settings of training from pixels that are out of range, or set without it.

    Raises:
        SettingsError: Names the first one.
    """
    vision, augmentation, optimiser = config.model.encoder.vision, config.training.augmentation, config.optimiser
    for name, value, fits, expected in (
        ("model.encoder.vision.cells", vision.cells, 1 <= vision.cells <= 64, "1 to 64"),
        ("model.encoder.vision.tuned_blocks", vision.tuned_blocks, vision.tuned_blocks >= 0, "0 or more"),
        ("optimiser.vision_factor", optimiser.vision_factor, 0 < optimiser.vision_factor < math.inf, "above 0"),
        ("optimiser.vision_decay", optimiser.vision_decay, 0 < optimiser.vision_decay <= 1, "above 0, at most 1"),
        ("training.workers", config.training.workers, config.training.workers >= 0, "0 or more"),
        ("training.augmentation.crop", augmentation.crop, 0 < augmentation.crop <= 1, "above 0, at most 1"),
        ("training.augmentation.mirror", augmentation.mirror, 0 <= augmentation.mirror <= 1, "0 to 1"),
        ("training.augmentation.colour", augmentation.colour, 0 <= augmentation.colour < 1, "0 or more, below 1"),
    ):
        if not fits:
            raise SettingsError(f"{name} is {value}; expected {expected}.")
    if not vision.weights:
        for group, given in (("model.encoder.vision", vision), ("training.augmentation", augmentation)):
            for name, value in vars(type(given)()).items():
                if getattr(given, name) != value:
                    raise SettingsError(
                        f"{group}.{name} is {getattr(given, name)!r}, which training on stored features ignores; set "
                        "model.encoder.vision.weights to train from pixels."
                    )
    if not (vision.weights and vision.tuned_blocks):
        for name in ("vision_factor", "vision_decay"):
            if getattr(optimiser, name) != getattr(OptimiserConfig(), name):
                raise SettingsError(
                    f"optimiser.{name} is {getattr(optimiser, name):g}, and no block of a vision network is tuned; set "
                    "model.encoder.vision.weights, and model.encoder.vision.tuned_blocks to 1 or more."
                )


def check_losses(config: RunConfig) -> None:
    """Reject loss weights that are all 0, and losses of scores that the method does not have or does not train.

    Raises:
        SettingsError: In these cases.
    """
    loss, kind = config.loss, config.model.kind
    weights = {"loss.fused": loss.fused}
    weights |= {"loss.streams": loss.streams} if kind not in EMBEDDING_KINDS else {}
    weights |= {"loss.levels": loss.levels} if kind == "tshsr" else {}
    if kind in EMBEDDING_KINDS and loss.late_interaction:
        raise SettingsError(
            f"loss.late_interaction is {loss.late_interaction:g}, and {kind} compares pooled vectors alone, not "
            "regions with words; set it to 0."
        )
    if not any((*weights.values(), loss.pooled, loss.contrastive, loss.late_interaction)):
        others = () if kind in EMBEDDING_KINDS else ("loss.late_interaction",)
        names = ", ".join((*weights, "loss.pooled", "loss.contrastive", *others))
        raise SettingsError(f"every loss of this method weighs 0 ({names}); set one, such as loss.fused to 1.")
    if loss.swapped and not any(weights.values()):
        raise SettingsError(
            f"loss.swapped trains the scores of {', '.join(weights)}, which weigh 0; set one, or loss.swapped to 0."
        )
    check_relations(config)


def check_relations(config: RunConfig) -> None:
    """Reject losses of relations that nothing has, that never begin, or that are off where they were asked for.

    Raises:
        SettingsError: In these cases.
    """
    loss, kind, neighbours = config.loss, config.model.kind, getattr(config.model, "neighbours", 0)
    related = kind == "hrem" or knowledge_of(config.model) is not None or neighbours > 0
    if loss.relations and not related:
        raise SettingsError(
            f"loss.relations is {loss.relations:g}, and {kind} has no relations among the pairs of a batch; set it to "
            "0, model.neighbours of tshsr or dsgsl to 1 or more, model.knowledge.method to one with concepts, or train "
            "a recipe hrem-..."
        )
    if loss.relations and loss.relations_warmup_epochs >= config.training.epochs:
        raise SettingsError(
            f"loss.relations begins after loss.relations_warmup_epochs, which is {loss.relations_warmup_epochs:g} of "
            f"{config.training.epochs} epochs; set fewer than those of the run, or loss.relations to 0."
        )
    if kind == "tshsr" and neighbours and not loss.relations:  # those of dsgsl are a default, as the relations of hrem
        raise SettingsError(
            f"model.neighbours is {neighbours}, and only loss.relations trains with them, which is 0; set it to 1, or "
            "model.neighbours to 0."
        )


def check_terms(model: ModelConfig) -> None:
    """Reject settings of TSHSR for a late term or a second stream that the network does not have.

    Raises:
        SettingsError: Names the first one.
    """
    if not isinstance(model, TshsrConfig):
        return
    if not model.late_weight and model.late_centre != TshsrConfig().late_centre:
        raise SettingsError(
            f"model.late_centre is {model.late_centre:g}, and model.late_weight is 0, so that no late term has a "
            f"centre; set a late_weight above 0, or late_centre to {TshsrConfig().late_centre:g}."
        )
    if model.fusion == "learned" and model.streams != "both":
        raise SettingsError(
            f"model.fusion is learned, and model.streams is {model.streams}, so that there is nothing to fuse; set "
            "streams to both, or fusion to mean."
        )


def check_noise(config: RunConfig) -> None:
    """Reject two sources of noise, and a robust loss without a warm-up or without a trained v·t.

    Raises:
        SettingsError: In these cases.
    """
    if config.training.noise and config.training.noise_index:
        raise SettingsError(
            f"training.noise is {config.training.noise} and training.noise_index {config.training.noise_index!r}; set "
            "one of them: draw the noise, or read it."
        )
    warmup, epochs = config.loss.warmup_epochs, config.training.epochs
    if config.loss.robust != "none" and not 0 < warmup < epochs:
        raise SettingsError(
            f"loss.robust {config.loss.robust!r} begins after the warm-up, and loss.warmup_epochs is {warmup:g} of "
            f"{epochs} epochs; set a warm-up above 0 and shorter than the run."
        )
    if (
        config.loss.robust != "none"
        and not (config.loss.pooled or config.loss.contrastive)
        and config.model.kind not in EMBEDDING_KINDS
    ):
        raise SettingsError(
            f"loss.robust {config.loss.robust!r} separates right pairs from wrong ones by v·t, which loss.pooled 0 "
            "leaves untrained; set loss.pooled to 1."
        )


def check_text(config: RunConfig) -> None:
    """Reject settings of a pretrained word encoder without one, and settings of a vocabulary with one.

    Raises:
        SettingsError: Names the first one.
    """
    encoder, tuned = config.model.encoder, config.model.encoder.text_tuned_layers > 0
    check_order(encoder.text_layers)
    if encoder.word_vectors and encoder.text != "gru":
        raise SettingsError(
            f"model.encoder.word_vectors is {encoder.word_vectors!r}, which {encoder.text} ignores; set "
            "model.encoder.text to gru."
        )
    if encoder.text != "pretrained":
        for name in PRETRAINED_TEXT:
            if getattr(encoder, name) != getattr(EncoderConfig(), name):
                raise SettingsError(
                    f"model.encoder.{name} is {getattr(encoder, name)!r}, which {encoder.text} ignores; set "
                    "model.encoder.text to pretrained."
                )
    elif not encoder.text_weights:
        raise SettingsError(
            f"model.encoder.text is pretrained and model.encoder.text_weights is empty; expected one of "
            f"{', '.join(TEXT_WEIGHTS)}, a folder, or a name on the hub."
        )
    elif config.training.vocabulary:
        raise SettingsError(
            f"training.vocabulary is {config.training.vocabulary!r}, and {encoder.text_weights} has a vocabulary of "
            "its own; leave training.vocabulary empty."
        )
    elif config.loss.swapped:
        raise SettingsError(
            f"loss.swapped is {config.loss.swapped:g}, which needs a vocabulary of the training captions and not a "
            "pretrained word encoder; set loss.swapped to 0."
        )
    if not tuned and config.optimiser.text_factor != OptimiserConfig().text_factor:
        raise SettingsError(
            f"optimiser.text_factor is {config.optimiser.text_factor:g}, and no layer of a text encoder is tuned; set "
            "model.encoder.text_tuned_layers to 1 or more."
        )


def check_pooled_vectors(config: RunConfig) -> None:
    """Reject encoders' own vectors without a pretrained text encoder, and losses on scores that nothing trains.

    Raises:
        SettingsError: In these cases.
    """
    encoder, loss, kind = config.model.encoder, config.loss, config.model.kind
    named = f"model.encoder.pooled_vectors is {encoder.pooled_vectors}"
    if encoder.pooled_vectors == "items":
        for name in ("image_pooled_width", "text_pooled_width"):
            if getattr(encoder, name):
                raise SettingsError(
                    f"model.encoder.{name} is {getattr(encoder, name)}, which pooled_vectors items ignores; set "
                    "model.encoder.pooled_vectors to added, frozen or adapter."
                )
        return
    if encoder.text != "pretrained":
        raise SettingsError(
            f"{named}, which takes the vector of the whole caption from a pretrained text encoder, and "
            f"model.encoder.text is {encoder.text}; set it to pretrained, or pooled_vectors to items."
        )
    if encoder.pooled_vectors != "frozen" or encoder.text_tuned_layers:
        return
    if kind in EMBEDDING_KINDS:
        raise SettingsError(
            f"{named}, and v·t is the whole score of {kind}, so that nothing would be trained; set it to adapter or "
            "added."
        )
    if not (loss.fused or loss.streams or loss.late_interaction or (loss.levels and kind == "tshsr")):
        raise SettingsError(
            f"{named}, so that loss.pooled and loss.contrastive train nothing, and every other loss weighs 0; set one, "
            "such as loss.fused to 1."
        )


def check_network(config: RunConfig) -> None:
    """Build the network and its loss on the meta device: they raise their errors before the run's folder is created.

    Raises:
        SettingsError: Where the network or the loss rejects its settings, or a width is beyond any memory.
        DataError: Where the configuration of a tuned text encoder can't be loaded.
    """
    model, encoder = config.model, config.model.encoder
    unknown = getattr(model, "heads", 1)  # a width that fits
    filled = replace(
        encoder,
        feature_dim=encoder.feature_dim or 1,
        vocabulary=encoder.vocabulary or 2,
        text_width=encoder.text_width or 1,
        text_pooled_width=encoder.text_pooled_width or encoder.image_pooled_width or unknown,
        image_pooled_width=encoder.image_pooled_width or encoder.text_pooled_width or unknown,
    )
    try:
        with torch.device("meta"):
            network = build_matcher(without_vision(with_placeholders(replace(model, encoder=filled))))
            Objective(network, config.loss)
    except (RuntimeError, TypeError) as error:  # torch has no error of its own for a size that overflows
        raise SettingsError(
            f"no network can be built of these settings ({first_line_in(error)}); lower its widths, such as "
            "model.encoder.dim."
        ) from error
    wanted, memory = sum(each.nbytes for each in network.parameters()), memory_bytes()
    if memory and wanted > memory:
        raise SettingsError(
            f"the weights of these settings take {wanted / 2**30:,.0f} GiB, and this machine has "
            f"{memory / 2**30:,.0f} GiB; lower the network's widths, such as model.encoder.dim."
        )


def check_unchanged(folder: Path, saved: RunConfig, wanted: RunConfig) -> None:
    """Reject resumption of a run with settings that would change its weights.

    `training.epochs` may be raised, except under the cosine schedule, where every learning rate depends on it. The
    result equals a run with the higher number from the start (plus an evaluation after the former last epoch).

    Raises:
        CheckpointError: Names the first setting that differs.
    """
    before, now = flat_settings(asdict(saved)), flat_settings(asdict(wanted))
    for name in before | now:
        if name not in MAY_CHANGE and before.get(name) != now.get(name):
            raise CheckpointError(
                f"{folder} was begun with {name} = {before.get(name)!r}, now it is {now.get(name)!r}; "
                "resume with the same settings, or choose another --out."
            )
    epochs, more = saved.training.epochs, wanted.training.epochs
    if more < epochs or (more > epochs and saved.optimiser.schedule == "cosine"):
        raise CheckpointError(
            f"{folder} was begun with training.epochs = {epochs}, now it is {more}; on resuming it may only be raised, "
            "and not under the cosine schedule. Resume with the same settings, or choose another --out."
        )


def flat_settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings, flattened to dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def captions_checksum(train: Split) -> str:
    """CRC-32 of the captions and their images, in hexadecimal: identifies the training data of a run."""
    checksum = zlib.crc32(train.image_of_caption.tobytes())
    for caption in train.captions:
        checksum = zlib.crc32(caption.encode("utf-8", "surrogatepass") + b"\n", checksum)
    return f"{checksum:08x}"
