"""Encoders: region features and caption tokens into one joint space.

Axes: images | captions | regions | words | features (extractor) | dim (joint space).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import InputError, SettingsError
from tshsr.models.attention import unit
from tshsr.models.recurrence import gru_states, padded_states

LONGEST_CAPTION = 256
"""Positions of the transformer word encoder, which rejects longer captions; the GRU has no limit."""


class RegionEncoder(nn.Module):
    """Region features (with 5 values of box geometry where `boxes` is on) -> linear -> unit rows."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if config.feature_dim < 1 or config.dim < 1:
            raise SettingsError(f"encoder widths are {config.feature_dim} -> {config.dim}; expected positive numbers.")
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.projection = nn.Linear(config.feature_dim + 5 * config.boxes, config.dim)

    def forward(self, batch: ImageBatch) -> Float[Tensor, "images regions dim"]:
        """Encode a batch; padded regions are zero.

        Raises:
            InputError: Where features are of another width, or boxes are needed and missing.
        """
        return unit(self.projection(self.inputs(batch))) * batch.mask[..., None]

    def inputs(self, batch: ImageBatch) -> Float[Tensor, "images regions inputs"]:
        """Input of the projection: features after dropout, and box geometry.

        Raises:
            InputError: Where features are of another width, or boxes are needed and missing.
        """
        dtype = self.projection.weight.dtype
        regions = batch.regions.to(dtype)
        if regions.shape[-1] != self.config.feature_dim:
            raise InputError(
                f"region features are {regions.shape[-1]} wide; this network expects {self.config.feature_dim}. "
                "Use features of the extractor that it was trained on."
            )
        regions = self.dropout(regions)
        if self.config.boxes:
            if batch.boxes is None:
                raise InputError(
                    "this network uses box geometry and the images have no boxes; give boxes or retrain without."
                )
            regions = torch.cat([regions, box_geometry(batch.boxes.to(dtype))], dim=-1)
        return regions


def drop_items(mask: Bool[Tensor, "rows items"], share: float) -> Bool[Tensor, "rows items"]:
    """Mask out a random share of the items; at least one per row stays."""
    random = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, -1)
    return mask & ((random > share) | (random == random.amax(dim=1, keepdim=True)))


def drop_regions(batch: ImageBatch, share: float) -> ImageBatch:
    """Mask out a random share of the regions (region dropout); at least one per image stays."""
    if not share:
        return batch
    return ImageBatch.unchecked(batch.regions, drop_items(batch.mask, share), batch.boxes, batch.pooled)


def box_geometry(boxes: Float[Tensor, "images regions 4"]) -> Float[Tensor, "images regions 5"]:
    """x1, y1, x2, y2 and the area, all in 0..1."""
    size = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0)
    return torch.cat([boxes, size.prod(dim=-1, keepdim=True)], dim=-1)


class GruWordEncoder(nn.Module):
    """Words: embedding -> one-layer bidirectional GRU -> mean of both directions -> unit rows (as in SCAN).

    Args:
        config: Widths, vocabulary and dropout.
        unit_rows: False leaves the rows unnormalised, for methods that pool them first.
    """

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        super().__init__()
        self.finish = unit if unit_rows else nn.Identity()
        self.embedding = nn.Embedding(config.vocabulary, config.word_dim, padding_idx=0)
        nn.init.uniform_(self.embedding.weight[1:], -0.1, 0.1)
        self.dropout = nn.Dropout(max(config.dropout, config.word_dropout))
        self.gru = nn.GRU(config.word_dim, config.dim, batch_first=True, bidirectional=True)

    def forward(self, batch: CaptionBatch) -> Float[Tensor, "captions words dim"]:
        """Encode a batch; padded words are zero."""
        lengths = batch.mask.sum(dim=1).cpu()  # packing requires lengths on the CPU
        embedded = self.dropout(self.embedding(batch.tokens))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        words = batch.tokens.shape[1]
        if self.training and torch.is_grad_enabled() and embedded.is_cpu and not torch.is_autocast_enabled("cpu"):
            states = gru_states(self.gru, packed, words)
        else:
            states = padded_states(self.gru, packed, words)
        forward, backward = states.chunk(2, dim=-1)
        return self.finish((forward + backward) / 2) * batch.mask[..., None]


class TransformerWordEncoder(nn.Module):
    """Words: embedding + learned positions -> transformer layers, trained from scratch -> linear -> unit rows.

    Args:
        config: Widths, layers, vocabulary and dropout.
        unit_rows: As in GruWordEncoder.
    """

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        super().__init__()
        self.finish = unit if unit_rows else nn.Identity()
        if config.word_dim % config.transformer_heads:
            raise SettingsError(
                f"word_dim {config.word_dim} is no multiple of "
                f"transformer_heads {config.transformer_heads}; change one."
            )
        self.embedding = nn.Embedding(config.vocabulary, config.word_dim, padding_idx=0)
        self.position = nn.Embedding(LONGEST_CAPTION, config.word_dim)
        for table in (self.embedding.weight[1:], self.position.weight):
            nn.init.normal_(table, std=0.02)
        layer = nn.TransformerEncoderLayer(
            config.word_dim,
            config.transformer_heads,
            4 * config.word_dim,
            max(config.dropout, config.word_dropout),
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, config.transformer_layers, enable_nested_tensor=False)
        self.projection = nn.Linear(config.word_dim, config.dim)

    def forward(self, batch: CaptionBatch) -> Float[Tensor, "captions words dim"]:
        """Encode a batch; padded words are zero.

        Raises:
            InputError: Where a caption has more than LONGEST_CAPTION words.
        """
        words = batch.tokens.shape[1]
        if words > LONGEST_CAPTION:
            raise InputError(
                f"a caption has {words} words; the transformer encoder takes {LONGEST_CAPTION}. Shorten it."
            )
        embedded = self.embedding(batch.tokens) + self.position.weight[:words]
        states = self.layers(embedded, src_key_padding_mask=~batch.mask)
        return self.finish(self.projection(states)) * batch.mask[..., None]


def build_word_encoder(config: EncoderConfig, *, unit_rows: bool = True) -> nn.Module:
    """The word encoder of a configuration.

    Args:
        config: `text` chooses the encoder.
        unit_rows: As in GruWordEncoder.

    Raises:
        SettingsError: Where the vocabulary is empty or a width does not fit.
    """
    if config.vocabulary < 2:
        raise SettingsError(f"the vocabulary has {config.vocabulary} tokens; expected at least 2 (padding and a word).")
    encoder = GruWordEncoder if config.text == "gru" else TransformerWordEncoder
    return encoder(config, unit_rows=unit_rows)


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero bias in every linear layer, as in SCAN, SGRAF and VSE-infinity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
