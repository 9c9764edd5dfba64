"""Encoders: region features and caption tokens into one joint space.

Axes: images | captions | regions | words | features (extractor) | dim (joint space).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tshsr.config.models import EncoderConfig
from tshsr.data.batches import UNREAD, CaptionBatch, ImageBatch
from tshsr.errors import InputError, SettingsError
from tshsr.models.attention import unit
from tshsr.models.dropout import Dropout
from tshsr.models.pooling import MaskedBatchNorm
from tshsr.models.recurrence import gru_states, padded_states
from tshsr.pretrained.layers import Layers
from tshsr.pretrained.text_network import TextNetwork, node_states
from tshsr.pretrained.text_weights import locate_text_weights, named
from tshsr.pretrained.word_vectors import WordVectors

LONGEST_CAPTION = 256
"""Positions of the transformer word encoder, which rejects longer captions; the GRU has no limit."""
LAST_NORM = "final_layer_norm"
"""Name of the normalisation after the last layer, in CLIP and SigLIP."""
HEADS = ("pooler", "head", "projection")
"""Names of the layers from states to a vector of the whole caption: they are not trained."""


class RegionProjection(nn.Module):
    """W x + b, or residual: the sum of that and of a perceptron of x (VSE-infinity, Chen et al. 2021).

    Args:
        config: `region_projection` chooses; widths.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.projection = nn.Linear(config.feature_dim + 5 * config.boxes, config.dim)
        residual = config.region_projection == "residual"
        self.perceptron = RegionPerceptron(self.projection.in_features, config.dim) if residual else None

    def project(
        self, inputs: Float[Tensor, "images regions inputs"], mask: Bool[Tensor, "images regions"]
    ) -> Float[Tensor, "images regions dim"]:
        """Project the inputs of a batch; padded regions are zero."""
        projected: Tensor = self.projection(inputs)
        if self.perceptron is not None:
            projected = projected + self.perceptron(inputs, mask)
        return projected * mask[..., None]


class RegionEncoder(RegionProjection):
    """Region features (with 5 values of box geometry where `boxes` is on) -> projection -> unit rows."""

    def __init__(self, config: EncoderConfig) -> None:
        if config.feature_dim < 1 or config.dim < 1:
            raise SettingsError(f"encoder widths are {config.feature_dim} -> {config.dim}; expected positive numbers.")
        super().__init__(config)
        self.config = config
        self.dropout = Dropout(config.dropout)

    def forward(self, batch: ImageBatch) -> Float[Tensor, "images regions dim"]:
        """Encode a batch; padded regions are zero.

        Raises:
            InputError: Where features are of another width, or boxes are needed and missing.
        """
        return self.rows(self.inputs(batch), batch.mask)

    def rows(
        self, inputs: Float[Tensor, "images regions inputs"], mask: Bool[Tensor, "images regions"]
    ) -> Float[Tensor, "images regions dim"]:
        """Unit rows from the inputs of a batch; padded regions are zero."""
        return unit(self.project(inputs, mask)) * mask[..., None]

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


class RegionPerceptron(nn.Module):
    """W2 relu( N( W1 x + b1 ) ) + b2,  W1: D/2 x F, N: batch normalisation over the real regions."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, max(1, dim // 2))
        self.norm = MaskedBatchNorm(self.first.out_features)
        self.second = nn.Linear(self.first.out_features, dim)

    def forward(
        self, regions: Float[Tensor, "images regions inputs"], mask: Bool[Tensor, "images regions"]
    ) -> Float[Tensor, "images regions dim"]:
        """Residual of each region's projection."""
        residual: Tensor = self.second(torch.relu(self.norm(self.first(regions), mask[..., None])))
        return residual


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


class WordEncoder(nn.Module, ABC):
    """Words: states -> linear, where the states are of another width than the joint space -> unit rows.

    Args:
        width: Of a state.
        unit_rows: False leaves the rows unnormalised, for methods that pool them first.

    Attributes:
        projection: From states to rows; None where the states are the rows.
    """

    projection: nn.Linear | None

    def __init__(self, width: int, *, unit_rows: bool) -> None:
        super().__init__()
        self.width = width
        self.finish = unit if unit_rows else nn.Identity()

    @abstractmethod
    def states(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "captions words width"], Float[Tensor, "captions pooled"] | None]:
        """The state of each word, and the encoder's own vector of each caption: the batch's, or a tuned network's.

        Raises:
            InputError: Where the batch does not fit the encoder.
        """

    def rows(
        self, states: Float[Tensor, "captions words width"], mask: Bool[Tensor, "captions words"]
    ) -> Float[Tensor, "captions words dim"]:
        """Rows from states; padded words are zero."""
        return self.finish(states if self.projection is None else self.projection(states)) * mask[..., None]

    def forward(self, batch: CaptionBatch) -> Float[Tensor, "captions words dim"]:
        """Encode a batch; padded words are zero.

        Raises:
            InputError: As in `states`.
        """
        return self.rows(self.states(batch)[0], batch.mask)


class WordProjection(nn.Module):
    """W x + b of the states of words."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, dim)

    def project(
        self, states: Float[Tensor, "captions words width"], mask: Bool[Tensor, "captions words"]
    ) -> Float[Tensor, "captions words dim"]:
        """Project the states of a batch; padded words are zero."""
        projected: Tensor = self.projection(states)
        return projected * mask[..., None]


class GruWordEncoder(WordEncoder):
    """Words: embedding -> one-layer bidirectional GRU -> mean of both directions -> unit rows (as in SCAN).

    Args:
        config: Widths, vocabulary and dropout.
        unit_rows: As in WordEncoder.
    """

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        super().__init__(config.dim, unit_rows=unit_rows)
        self.projection = None
        self.embedding = nn.Embedding(config.vocabulary, config.word_dim, padding_idx=0)
        nn.init.uniform_(self.embedding.weight[1:], -0.1, 0.1)
        self.dropout = Dropout(max(config.dropout, config.word_dropout))
        self.gru = nn.GRU(config.word_dim, config.dim, batch_first=True, bidirectional=True)

    @torch.no_grad()
    def load_vectors(self, vectors: WordVectors) -> None:
        """Copy word vectors into the embedding; other words keep theirs."""
        ids = torch.tensor([*vectors.rows], device=self.embedding.weight.device)
        self.embedding.weight[ids] = torch.from_numpy(np.stack([*vectors.rows.values()])).to(self.embedding.weight)

    def states(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "captions words width"], Float[Tensor, "captions pooled"] | None]:
        """Mean of both directions."""
        lengths = batch.mask.sum(dim=1).cpu()  # packing requires lengths on the CPU
        embedded = self.dropout(self.embedding(batch.tokens))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        words = batch.tokens.shape[1]
        if self.training and torch.is_grad_enabled() and embedded.is_cpu and not torch.is_autocast_enabled("cpu"):
            states = gru_states(self.gru, packed, words)
        else:
            states = padded_states(self.gru, packed, words)
        forward, backward = states.chunk(2, dim=-1)
        return (forward + backward) / 2, batch.pooled


class TransformerWordEncoder(WordEncoder):
    """Words: embedding + learned positions -> transformer layers, trained from scratch -> linear -> unit rows.

    Args:
        config: Widths, layers, vocabulary and dropout.
        unit_rows: As in WordEncoder.
    """

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        super().__init__(config.word_dim, unit_rows=unit_rows)
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

    def states(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "captions words width"], Float[Tensor, "captions pooled"] | None]:
        """Outputs of the last layer.

        Raises:
            InputError: Where a caption has more than LONGEST_CAPTION words.
        """
        words = batch.tokens.shape[1]
        if words > LONGEST_CAPTION:
            raise InputError(
                f"a caption has {words} words; the transformer encoder takes {LONGEST_CAPTION}. Shorten it."
            )
        embedded = self.embedding(batch.tokens) + self.position.weight[:words]
        return self.layers(embedded, src_key_padding_mask=~batch.mask), batch.pooled


class FrozenWordEncoder(WordEncoder):
    """Words: states of a frozen pretrained network, which is no part of the matcher -> linear -> unit rows.

    Args:
        config: Widths and dropout.
        unit_rows: As in WordEncoder.
    """

    projection: nn.Linear

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        super().__init__(config.text_width, unit_rows=unit_rows)
        self.dropout = Dropout(max(config.dropout, config.word_dropout))
        self.projection = nn.Linear(config.text_width, config.dim)

    def states(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "captions words width"], Float[Tensor, "captions pooled"] | None]:
        """Those of the batch, after dropout.

        Raises:
            InputError: Where the batch has no states, or states of another width.
        """
        if batch.states is None or batch.states.shape[-1] != self.width:
            found = "no token states" if batch.states is None else f"token states {batch.states.shape[-1]} wide"
            raise InputError(
                f"the captions have {found}; expected those of the network's frozen text encoder, {self.width} wide."
            )
        return self.dropout(batch.states.to(self.projection.weight.dtype)), batch.pooled


class TunedWordEncoder(WordEncoder):
    """Words: pretrained network with its last layers trained -> mean of each word's pieces -> linear -> unit rows.

    The other layers have no gradients and stay in evaluation mode. Where all layers are trained, the embeddings are
    too. The initial weights are random; `load_pretrained` replaces them.

    Args:
        config: Weights, number of tuned layers, width and dropout.
        unit_rows: As in WordEncoder.

    Raises:
        DataError: Where the network's configuration can't be loaded.
        SettingsError: Where it has fewer layers than are to be read or tuned.
    """

    def __init__(self, config: EncoderConfig, *, unit_rows: bool = True) -> None:
        with named(config.text_weights):
            network = TextNetwork.empty(locate_text_weights(config.text_weights), Layers.of(config))
        super().__init__(network.width, unit_rows=unit_rows)
        self.config = config
        self.network = network.requires_grad_(False).eval()
        layers = len(self.network.blocks)
        if config.text_tuned_layers > layers:
            found = f"has {layers} layers" if layers == network.depth else f"is read up to layer {layers}"
            raise SettingsError(
                f"model.encoder.text_tuned_layers is {config.text_tuned_layers}, and {config.text_weights} {found}; "
                f"expected {layers} or fewer."
            )
        for module in self.tuned():
            module.requires_grad_(True)
        for head in _parts(self.network, *HEADS):
            head.requires_grad_(False)
        self.dropout = Dropout(max(config.dropout, config.word_dropout))
        self.projection = nn.Linear(self.network.width, config.dim)

    def tuned(self) -> list[nn.Module]:
        """The parts of the network that are trained."""
        blocks = self.network.blocks
        if self.config.text_tuned_layers == len(blocks):
            return [self.network]
        return [*blocks[len(blocks) - self.config.text_tuned_layers :], *_parts(self.network, LAST_NORM)]

    def train(self, mode: bool = True) -> TunedWordEncoder:
        """Set the mode of all but the layers that are not trained, which stay in evaluation mode."""
        super().train(mode)
        self.network.eval()
        for module in self.tuned():
            module.train(mode)
        return self

    def load_pretrained(self) -> None:
        """Copy the pretrained weights into the network.

        Raises:
            DataError: Where they can't be loaded.
        """
        with named(self.config.text_weights):
            pretrained = TextNetwork.load(locate_text_weights(self.config.text_weights), Layers.of(self.config))
        self.network.load_state_dict(pretrained.state_dict())

    def states(
        self, batch: CaptionBatch
    ) -> tuple[Float[Tensor, "captions words width"], Float[Tensor, "captions pooled"] | None]:
        """Means of the states of each word's pieces, after dropout, and the network's vector of each caption.

        Raises:
            InputError: Where the batch is no word pieces.
        """
        if batch.word_of_token is None:
            raise InputError("the captions are no word pieces; encode them with the tokenizer of this network.")
        states, pooled = self.network(batch.tokens, batch.word_of_token != UNREAD)
        return self.dropout(node_states(states, batch.word_of_token, batch.mask.shape[1])), pooled


def _parts(network: TextNetwork, *names: str) -> list[nn.Module]:
    """The submodules with these names, of the network or its encoder, as far as there are any."""
    found = (getattr(place, name, None) for place in (network, network.encoder) for name in names)
    return [module for module in found if isinstance(module, nn.Module)]


def build_word_encoder(config: EncoderConfig, *, unit_rows: bool = True) -> WordEncoder:
    """The word encoder of a configuration.

    Args:
        config: `text` chooses the encoder.
        unit_rows: As in WordEncoder.

    Raises:
        SettingsError: Where the vocabulary is empty or a width does not fit.
        DataError: Where the configuration of a tuned text encoder can't be loaded.
    """
    if config.vocabulary < 2:
        raise SettingsError(f"the vocabulary has {config.vocabulary} tokens; expected at least 2 (padding and a word).")
    match config.text:
        case "gru":
            return GruWordEncoder(config, unit_rows=unit_rows)
        case "transformer":
            return TransformerWordEncoder(config, unit_rows=unit_rows)
        case "pretrained":
            encoder = TunedWordEncoder if config.text_tuned_layers else FrozenWordEncoder
            return encoder(config, unit_rows=unit_rows)
        case _:
            assert_never(config.text)


def init_xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero bias in every linear layer, as in SCAN, SGRAF and VSE-infinity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
