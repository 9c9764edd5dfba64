"""Text encoders of `transformers`: word pieces -> states of words, and a vector of the whole caption.

SigLIP and SigLIP 2 read padding without a mask, as they were trained.

Axes: captions | tokens (word pieces, start, end, padding) | words (nodes) | width (of a state) | pooled (of a
caption's vector).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.errors import DataError
from tshsr.pretrained.layers import LAST, Layers
from tshsr.pretrained.networks import fingerprint, load_config, load_network, transformers
from tshsr.pretrained.text import EXPECTED, SIGLIP

CLIP = ("clip", "clip_text_model")
TEXT_ONLY = {"siglip_text_model": "SiglipTextModel", "siglip2_text_model": "Siglip2TextModel"}
"""Classes of text towers that `AutoModel` does not know."""
POOLER = "encoder.pooler"
LAST_NORMS = ("final_layer_norm", "final_norm", "norm")
"""Names of the normalisation after the last layer, which the states of lower layers do not pass."""
SETTINGS = ("num_attention_heads", "hidden_act", "layer_norm_eps", "eos_token_id", "pad_token_id")
"""Settings of a network, beside its weights, that change its outputs."""


class TextNetwork(nn.Module):
    """A network that gives a state to each token and a vector to each caption.

    Args:
        encoder: Of `transformers`, called with `input_ids` and `attention_mask`.
        projection: From CLIP's pooled state to the joint space; SigLIP's encoder has its own.
        layers: Those that a token's state is made of.

    Raises:
        SettingsError: Where it has fewer layers.

    Attributes:
        kind: `model_type` of its configuration.
        depth: Number of its layers, with those that are left out.
        width: Of a token's state: that of one layer times the number of layers read.
        joint_dim: Width of the joint space; 0 for a network without one.
        pooled_width: Of a caption's vector: `joint_dim`, otherwise the width of the last layer; 0 where this is left
            out.
    """

    def __init__(self, encoder: Any, projection: nn.Linear | None = None, layers: Layers = LAST) -> None:
        super().__init__()
        self.config: Any = encoder.config
        self.encoder: nn.Module = encoder
        self.projection = projection
        self.kind, self.depth = str(self.config.model_type), int(self.config.num_hidden_layers)
        self.layers = layers.within(self.depth)
        width = int(self.config.hidden_size)
        self.width = width * max(1, len(self.layers.numbers))
        if self.kind in SIGLIP:
            self.joint_dim = int(self.config.projection_size)
        else:
            self.joint_dim = 0 if projection is None else projection.out_features
        self.pooled_width = self.joint_dim or width
        self._computed = self.depth

    @classmethod
    def load(cls, weights: str, layers: Layers = LAST) -> TextNetwork:
        """A network with its weights, in evaluation mode; of a CLIP or SigLIP the text tower.

        Args:
            weights: A folder, or a name on the hub.
            layers: Those that a token's state is made of.

        Raises:
            DataError: Where it can't be loaded, or is no text encoder.
            SettingsError: Where transformers is not installed, or the network has fewer layers.
        """
        config = load_config(weights)
        network, _ = load_network(_class_name(config), weights, optional="pooler")
        return cls._of(network, weights, layers)

    @classmethod
    def empty(cls, folder: str, layers: Layers = LAST) -> TextNetwork:
        """A network with random weights, from the configuration of `save_config`.

        Raises:
            DataError: Where there is no configuration of a text encoder.
            SettingsError: Where it has fewer layers.
        """
        config = load_config(folder)
        kind = getattr(transformers(), _class_name(config))
        network = kind.from_config(config) if _class_name(config) == "AutoModel" else kind(config)
        return cls._of(network, folder, layers)

    @classmethod
    def _of(cls, network: Any, weights: str, layers: Layers) -> TextNetwork:
        encoder = getattr(network, "text_model", network)
        kind = str(getattr(encoder.config, "model_type", ""))
        joint = hasattr(network, "text_model") and kind not in CLIP + SIGLIP
        if joint or "text" not in network.input_modalities or network.config.is_encoder_decoder:
            raise DataError(f"{weights} holds a {type(network).__name__}; {EXPECTED}")
        found = cls(encoder, getattr(network, "text_projection", None), layers)
        found.cut()
        return found.eval()

    def cut(self) -> None:
        """Leave out the layers above those read, where the vectors of whole captions are not needed.

        Raises:
            DataError: Where its layers are not found.
        """
        computed = self.layers.computed(self.depth)
        if computed == self.depth:
            return
        if next(self.parameters()).device.type != "meta":
            _ = self.fingerprint  # of the whole network
        del self.blocks[computed:]
        for name in LAST_NORMS:
            if hasattr(self.encoder, name):
                setattr(self.encoder, name, nn.Identity())
        self._computed, self.pooled_width = computed, 0

    def save_config(self, folder: str | Path) -> None:
        """Write the configuration, for `empty`."""
        architecture = type(self.encoder).__name__
        self.config.architectures = [architecture if self.projection is None else f"{architecture}WithProjection"]
        if self.projection is not None:
            self.config.projection_dim = self.projection.out_features
        self.config.save_pretrained(str(folder))

    @property
    def masks(self) -> bool:
        """Whether padding is masked: not with SigLIP, which reads it, nor with CLIP, whose attention is causal."""
        return self.kind not in CLIP + SIGLIP

    @cached_property
    def fingerprint(self) -> str:
        """Ten hexadecimal digits of a hash of the weights and the settings, whichever layers are read."""
        settings = {name: getattr(self.config, name, None) for name in SETTINGS}
        activation = getattr(self.config, "hidden_activation", None)  # the name of hidden_act in ModernBERT
        if activation is not None and activation != type(self.config)().hidden_activation:
            settings["hidden_activation"] = activation
        return fingerprint(self, {"kind": self.kind, **settings}, exclude=POOLER)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers that are computed, from the first to the last.

        Raises:
            DataError: Where they are not found.
        """
        for module in self.encoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self._computed:
                return module
        raise DataError(f"the layers of a {type(self.encoder).__name__} are not known; {EXPECTED}")

    def forward(
        self, ids: Int[Tensor, "captions tokens"], attention_mask: Bool[Tensor, "captions tokens"]
    ) -> tuple[Float[Tensor, "captions tokens width"], Float[Tensor, "captions pooled"]]:
        """States of tokens, and the vector of each caption: the projected one where there is a joint space.

            state_t = [h_t^l for l in layers]       the last layer alone: as the network gives it, normalised

        Without a joint space the vector is the mean of the last layer over all tokens, start and end too, which is the
        sentence embedding of all-MiniLM-L6-v2 before its normalisation (sentence-transformers, mean pooling).

        Args:
            ids: Of `TextTokenizer`, padded with its `pad_id`.
            attention_mask: True for all tokens but the padding of the batch.
        """
        mask = attention_mask if self.masks else None
        wanted = {"output_hidden_states": True} if self.layers.numbers else {}
        given = self.encoder(input_ids=ids, attention_mask=mask, **wanted)
        last = given.last_hidden_state
        states = self.layers.join(last, given.hidden_states if wanted else None, self.depth)
        if not self.pooled_width:
            return states, last.new_zeros(len(last), 0)
        if not self.joint_dim:
            read = attention_mask[..., None]
            return states, (last * read).sum(dim=1) / read.sum(dim=1)
        pooled = given.pooler_output
        return states, pooled if self.projection is None else self.projection(pooled)


def _class_name(config: Any) -> str:
    """The class of `transformers` that loads a configuration's network."""
    kind, named = str(config.model_type), list(getattr(config, "architectures", None) or [])
    if kind == "clip_text_model":
        return "CLIPTextModelWithProjection" if "CLIPTextModelWithProjection" in named else "CLIPTextModel"
    return TEXT_ONLY.get(kind, "AutoModel")


def node_states(
    states: Float[Tensor, "captions tokens width"], word_of_token: Int[Tensor, "captions tokens"], words: int
) -> Float[Tensor, "captions words width"]:
    """The state of each node: the mean of its tokens.

        n_w = sum_{t: word(t) = w} state_t / |{t: word(t) = w}|

    Args:
        states: Of each token.
        word_of_token: The node of each token; negative for those that have none.
        words: Number of nodes in the result; nodes without tokens are zero.
    """
    belongs = word_of_token[:, None, :] == torch.arange(words, device=states.device)[None, :, None]
    weights = belongs / belongs.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.einsum("cwt,ctd->cwd", weights.to(states.dtype), states)
