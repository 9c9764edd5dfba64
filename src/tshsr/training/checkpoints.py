"""Files of a run: weights (safetensors), settings and tokenizer (JSON), written atomically and never pickled.

A run's folder holds `config.json`, `tokenizer.json`, `best/model.safetensors` and `last/` (the resumable state). A
published model is flat: `config.json`, `tokenizer.json`, `model.safetensors`. Both layouts are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from tshsr.config.run import RunConfig, read_config, write_config
from tshsr.data.text import TOKENIZER, Tokenizer
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import CheckpointError, TshsrError, reason_in
from tshsr.files import complete_folder, is_remote, write_bytes, write_text
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.layers import Layers
from tshsr.pretrained.pieces import TEXT_FOLDER, PieceTokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"

Which = Literal["best", "last"]
"""The best weights on dev, or the latest ones."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, atomically.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    write_bytes(path, to_safetensors({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors.

    Raises:
        CheckpointError: Where the file is missing or damaged.
    """
    try:
        return load(path.read_bytes()) if is_remote(path) else load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; give the folder of a complete run, or train it again.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); restore it from a copy, or train again."
        ) from None


def save_weights(path: Path, matcher: Matcher) -> None:
    """Write the weights of a network, atomically.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    save_tensors(path, matcher.state_dict())


def load_weights(path: Path, matcher: Matcher) -> None:
    """Read weights into a network, in place and onto its device.

    Raises:
        CheckpointError: Where the file is missing or damaged, or a name or shape does not fit the network.
    """
    tensors = load_tensors(path)
    check_fit(path, tensors, matcher.state_dict())
    matcher.load_state_dict(tensors)


def check_fit(path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Reject tensors with other names or shapes than expected.

    Raises:
        CheckpointError: Names the first such tensor.
    """
    for name, tensor in expected.items():
        if name not in given:
            raise CheckpointError(
                f"{path} lacks the weight {name!r}; it belongs to other settings than the {CONFIG} beside it."
            )
        if given[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: weight {name!r} has shape {tuple(given[name].shape)}, the settings require "
                f"{tuple(tensor.shape)}; it belongs to another {CONFIG}."
            )
    for name in given:
        if name not in expected:
            raise CheckpointError(
                f"{path} holds the weight {name!r}, which the model does not have; "
                f"it belongs to other settings than the {CONFIG} beside it."
            )


def save_model(folder: Path, config: RunConfig, tokenizer: CaptionTokenizer, matcher: Matcher) -> None:
    """Write a flat model folder: settings, tokenizer and weights.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    save_weights(folder / WEIGHTS, matcher)
    save_settings(folder, config, tokenizer)


def save_settings(folder: Path, config: RunConfig, tokenizer: CaptionTokenizer) -> None:
    """Write the tokenizer, then the settings, so that settings never exist without a tokenizer.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    tokenizer.save_into(folder)
    write_text(folder / CONFIG, write_config(config))


def load_settings(folder: Path) -> tuple[RunConfig, CaptionTokenizer]:
    """Read the settings and the tokenizer of a run or of a flat model folder.

    Raises:
        CheckpointError: Where the folder is missing or no run, or settings and tokenizer differ in vocabulary size.
        SettingsError: Where the settings can't be read.
        DataError: Where the tokenizer can't be read.
    """
    folder = complete_folder(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; expected a run of `tshsr train` or a saved model.")
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder} is no run: it has no {CONFIG}. Give the folder that `tshsr train --out` made.")
    config = read_config(folder / CONFIG)
    tokenizer = load_tokenizer(folder, config)
    if config.model.encoder.vocabulary != len(tokenizer):
        files = folder / (TEXT_FOLDER if config.model.encoder.text == "pretrained" else TOKENIZER)
        raise CheckpointError(
            f"{files} has {len(tokenizer)} tokens, {CONFIG} says {config.model.encoder.vocabulary}; "
            "the two files do not belong to one run."
        )
    return config, tokenizer


def load_tokenizer(folder: Path, config: RunConfig) -> CaptionTokenizer:
    """Read the tokenizer of a run or of a flat model folder; with a frozen pretrained word encoder, the encoder.

    Raises:
        DataError: Where its files can't be read, or the encoder's weights are others than in training.
        SettingsError: Where transformers is needed and not installed.
    """
    encoder = config.model.encoder
    if encoder.text != "pretrained":
        return Tokenizer.from_file(folder / TOKENIZER)
    layers = Layers.of(encoder)
    if encoder.text_tuned_layers:
        return PieceTokenizer.open(folder, encoder.text_nodes, encoder.text_fingerprint, layers)
    return FrozenText(encoder.text_weights, encoder.text_nodes, layers=layers, fingerprint=encoder.text_fingerprint)


def build_saved(folder: Path, config: RunConfig) -> Matcher:
    """The network of a run, with random weights; the configuration of a tuned text encoder is in the folder.

    Raises:
        DataError: Where that configuration can't be read.
    """
    model = config.model
    if model.encoder.text == "pretrained" and model.encoder.text_tuned_layers:
        model = replace(model, encoder=replace(model.encoder, text_weights=str(folder / TEXT_FOLDER)))
    return build_matcher(model)


def load_run(folder: Path, which: Which = "best") -> tuple[RunConfig, CaptionTokenizer, Matcher]:
    """Read a trained network on the CPU, from a run or from a flat model folder.

    Args:
        which: For a run: the best weights on dev, or the latest ones. A flat folder has one set of weights.

    Raises:
        CheckpointError: Where a file is missing or damaged, or weights do not fit the settings.
        SettingsError: Where the settings can't be read.
        DataError: Where the tokenizer can't be read.
    """
    folder = complete_folder(folder)
    config, tokenizer = load_settings(folder)
    weights = weights_of(folder, which)
    tensors = load_tensors(weights)
    check_fit(weights, tensors, expected_shapes(folder, config))
    with torch.random.fork_rng(devices=[]):  # preserves the caller's random state; the initial weights are overwritten
        matcher = build_saved(folder, config)
    matcher.load_state_dict(tensors)
    return config, tokenizer, matcher.eval()


def expected_shapes(folder: Path, config: RunConfig) -> dict[str, Tensor]:
    """The weights that settings require, without their values: wrong settings may require any amount of memory.

    Raises:
        CheckpointError: Where the settings are those of no network.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return build_saved(folder, config).state_dict()
    except TshsrError:
        raise
    except Exception as error:  # noqa: BLE001 - torch has no common base of errors of sizes
        raise CheckpointError(
            f"{folder / CONFIG} describes no network ({reason_in(error)}); restore it from a copy, or train again."
        ) from None


def weights_of(folder: Path, which: Which) -> Path:
    """File of the weights of a run or of a flat model.

    Raises:
        CheckpointError: Where it does not exist yet.
    """
    for path in (complete_folder(folder / which) / WEIGHTS, folder / WEIGHTS):
        if path.is_file():
            return path
    raise CheckpointError(
        f"{folder} has no {which}/{WEIGHTS} yet: training stopped before it saved any. Continue it with --resume."
    )
