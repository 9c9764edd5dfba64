"""What the data decide about the settings of a run: tokenizer, word vectors, widths; and whether both fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tshsr.config.models import EncoderConfig, ModelConfig
from tshsr.config.run import RunConfig
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import DataError, SettingsError
from tshsr.metrics.recall import check_captioned
from tshsr.models.concepts import reads_boxes
from tshsr.models.whole import check_widths, starts_at_encoder
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.layers import Layers
from tshsr.pretrained.names import TEXT_WEIGHTS
from tshsr.pretrained.networks import resolve_weights
from tshsr.pretrained.pieces import PieceTokenizer, PretrainedTokenizer
from tshsr.pretrained.word_vectors import WordVectors, read_word_vectors


def make_tokenizer(config: RunConfig, train: Split) -> CaptionTokenizer:
    """The tokenizer of a pretrained word encoder or of `training.vocabulary`, or one built from the training captions.

    Raises:
        DataError: Where the file or the encoder can't be used.
        SettingsError: Where transformers is needed and not installed.
    """
    encoder = config.model.encoder
    if encoder.text == "pretrained" and encoder.text_tuned_layers:
        return PieceTokenizer.load(encoder.text_weights, encoder.text_nodes, Layers.of(encoder))
    if encoder.text == "pretrained":
        return FrozenText(encoder.text_weights, encoder.text_nodes, layers=Layers.of(encoder))
    if config.training.vocabulary:
        return Tokenizer.from_file(config.training.vocabulary)
    return Tokenizer.build(train.captions, config.training.minimum_count)


def make_vectors(config: RunConfig, tokenizer: CaptionTokenizer) -> WordVectors | None:
    """The word vectors that the embedding starts from; None where it starts from random numbers.

    Raises:
        DataError: Where their file is missing or damaged, or has none of the words.
        SettingsError: Where they have another width than the embedding, or a package is not installed.
    """
    encoder = config.model.encoder
    if not encoder.word_vectors or not isinstance(tokenizer, Tokenizer):
        return None
    return read_word_vectors(encoder.word_vectors, tokenizer.word_ids(), encoder.word_dim)


def complete(config: RunConfig, tokenizer: CaptionTokenizer, train: Split, dev: Split) -> RunConfig:
    """Fill in the settings that depend on the data and on pretrained weights.

    These are feature width, vocabulary size, extractor, of a pretrained word encoder the width of its states, the
    fingerprint and the absolute path, and where they are used the widths of vectors of the whole picture and caption.

    Raises:
        SettingsError: Where a setting contradicts the data or the weights.
        DataError: Where the splits contradict each other or `extractor`, or required boxes are missing.
    """
    check_compatible(train, dev)
    encoder = config.model.encoder
    found: dict[str, Any] = {"feature_dim": train.regions.feature_dim, "vocabulary": len(tokenizer)}
    if encoder.pooled_vectors != "items":
        found["image_pooled_width"] = pooled_width(encoder.pooled_vectors, train, dev)
    for name, number in found.items():
        given = getattr(encoder, name)
        if given not in (0, number):
            raise SettingsError(
                f"model.encoder.{name} is {given}, the data has {number}; leave it 0 to take the data's."
            )
    if config.extractor not in ("", train.extractor):
        raise DataError(
            f"the settings are for features of {config.extractor}; {train.data} has features of {train.extractor}. "
            "Leave extractor empty to train on these."
        )
    check_regions(config.model, train, dev)
    model = replace(config.model, encoder=replace(encoder, **found, **text_settings(encoder, tokenizer)))
    check_widths(model.encoder)
    check_joint(model.encoder, tokenizer, train.extractor)
    return replace(config, model=model, extractor=train.extractor)


def text_settings(encoder: EncoderConfig, tokenizer: CaptionTokenizer) -> dict[str, Any]:
    """The settings that follow from the weights of a pretrained word encoder; none for other encoders.

    Raises:
        SettingsError: Where the given settings are of other weights.
    """
    if not isinstance(tokenizer, PretrainedTokenizer):
        return {}
    found = {"text_width": tokenizer.width, "text_fingerprint": tokenizer.fingerprint}
    if encoder.pooled_vectors != "items":  # so that older runs are resumed with the same settings
        found["text_pooled_width"] = tokenizer.pooled_width
    for name, value in found.items():
        given = getattr(encoder, name)
        if given and given != value:
            raise SettingsError(
                f"model.encoder.{name} is {given!r}, that of {encoder.text_weights} is {value!r}; leave it empty to "
                "take the latter, or name the weights of the former."
            )
    named = encoder.text_weights in TEXT_WEIGHTS
    return {**found, "text_weights": encoder.text_weights if named else resolve_weights(encoder.text_weights)}


def check_joint(encoder: EncoderConfig, tokenizer: CaptionTokenizer, extractor: str) -> None:
    """Reject encoders' own vectors as v and t where they are not of one joint encoder, as far as their kinds tell.

    Two encoders of one kind and width, such as CLIP B/32 and B/16, can't be told apart.

    Raises:
        SettingsError: In this case.
    """
    if not starts_at_encoder(encoder) or not isinstance(tokenizer, PretrainedTokenizer):
        return
    named = f"model.encoder.pooled_vectors is {encoder.pooled_vectors}, which requires one joint encoder"
    if not tokenizer.network.joint_dim:
        raise SettingsError(
            f"{named}, and {encoder.text_weights} has no space in common with pictures; take the text encoder of that "
            "which made the image vectors, such as clip, or set it to added."
        )
    text, image = tokenizer.network.kind.removesuffix("_text_model"), image_encoder_kind(extractor)
    if image not in ("", text):
        raise SettingsError(
            f"{named}: the image vectors are of {extractor}, and {encoder.text_weights} is of the kind {text}; take "
            "both from one encoder, or set it to added."
        )


def image_encoder_kind(extractor: str) -> str:
    """Kind of the network that gives image vectors, by the name of its extractor; empty for those of other tools."""
    family, *parts = extractor.split("-")
    places = {"grid": 0, "detector": -2, "efficientnet": 0}  # of the kind; of detectors, that of `features_from`
    return parts[places[family]] if family in places and len(parts) > 1 else ""


def pooled_width(kind: str, train: Split, dev: Split) -> int:
    """Width of the vectors of whole pictures.

    Raises:
        DataError: Where a split has none, or the splits differ.
    """
    for split in (train, dev):
        if not split.regions.joint_dim:
            raise DataError(
                f"{split.data}, split {split.name} has no vectors of whole pictures, which "
                f"model.encoder.pooled_vectors {kind} takes; extract the pictures again with an encoder that gives "
                "them, or set it to items."
            )
    if train.regions.joint_dim != dev.regions.joint_dim:
        raise DataError(
            f"{train.name} and {dev.name} differ in the width of the vectors of whole pictures "
            f"({train.regions.joint_dim} and {dev.regions.joint_dim}); extract both in the same way."
        )
    return train.regions.joint_dim


def check_regions(model: ModelConfig, *splits: Split) -> None:
    """Reject splits with more regions than the network has slots, or without the boxes that it needs.

    Raises:
        SettingsError: In the first case.
        DataError: In the second one.
    """
    slots = getattr(model, "region_slots", 0)
    for split in splits:
        most = split.regions.most()
        if 0 < slots < most:
            raise SettingsError(
                f"model.region-slots is {slots}, and {split.data}, split {split.name} has images of {most} regions; "
                f"set it to {most} or more, or to 0: one normalisation for all positions."
            )
        if model.encoder.boxes and split.regions.boxes is None:
            places = " and model.place-term" if getattr(model, "place_term", False) else ""
            raise DataError(
                f"{split.data}, split {split.name} has no boxes, which model.encoder.boxes requires; "
                f"switch model.encoder.boxes{places} off."
            )
        if reads_boxes(model) and split.regions.boxes is None:
            raise DataError(
                f"{split.data}, split {split.name} has no boxes, which model.knowledge.geometry requires; switch it "
                "off."
            )


def check_compatible(train: Split, dev: Split) -> None:
    """Reject splits with features of different extractors or widths, or without captions.

    Raises:
        DataError: Where they differ, or train has no captions.
        InputError: Where an image of dev has no caption.
    """
    if not len(train.captions):
        raise DataError(f"{train.data}, split {train.name} has no captions; training needs captioned images.")
    if not train.regions.feature_dim:
        train.regions.read(np.arange(1))  # refuses pictures without features
    check_captioned(len(dev.regions), dev.image_of_caption)  # here, not in the first evaluation after an epoch
    for name, first, second in (
        ("extractor", train.extractor, dev.extractor),
        ("width", train.regions.feature_dim, dev.regions.feature_dim),
    ):
        if first != second:
            raise DataError(
                f"{train.name} and {dev.name} differ in the {name} of their features ({first} and {second}); "
                "extract both in the same way."
            )
