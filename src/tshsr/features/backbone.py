"""A vision network of `transformers` as pictures -> a map of features over the picture, and one vector of the whole.

CLIP, SigLIP, SigLIP 2, DINOv2, DINOv3, ViT, Swin, ConvNeXt and their like: whatever `AutoModel` loads that gives one
vector for each patch. Axes of maps: y | x | features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tshsr.boxes import cell_boxes, pool_inside
from tshsr.errors import DataError, SettingsError
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.features.networks import (
    download_options,
    fingerprint,
    load_config,
    load_frame,
    load_network,
    place_of,
    transformers,
)

NAFLEX = "siglip2"
"""The kind of network that takes patches in the place of pictures, and so keeps their shape."""

EXPECTED = "expected a vision network such as CLIP, SigLIP or DINOv2 (object detectors go with --extractor detector)."
POOLER = "pooler"
CLIP_KINDS = ("clip", "clip_vision_model", "metaclip_2")


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """What a network sees in a picture.

    Attributes:
        patches: float32, y x x x features; the whole of it covers the whole picture.
        whole: float32, features.
    """

    patches: np.ndarray
    whole: np.ndarray


class Backbone:
    """A network with its weights; stretches every picture to its input, so that nothing is cut off."""

    def __init__(self, weights: str, device: str) -> None:
        self.weights, self.device = place_of(weights), device
        self.kind = str(load_config(self.weights).model_type)
        # A classifier's weights have no pooler: its own would be random, and the mean of the patches stands for it.
        loaded, self.pools = load_network("AutoModel", self.weights, dispensable=POOLER)
        self.network: nn.Module = getattr(loaded, "vision_model", loaded).to(device)
        self.processor: Any = self._patching() if self.kind == NAFLEX else None
        self.frame = None if self.kind == NAFLEX else load_frame(self.weights)

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights and of how pictures are laid before them."""
        frame = {} if self.frame is None else self.frame.values()
        return fingerprint(self.network, frame, without="nothing" if self.pools else POOLER)

    @cached_property
    def feature_dim(self) -> int:
        """Width of the features, found by looking at an empty picture."""
        return len(self.maps([self.prepare(Image.new("RGB", (64, 64)))])[0].whole)

    def _patching(self) -> Any:
        return transformers().AutoImageProcessor.from_pretrained(
            self.weights, backend="pil", **download_options(self.weights)
        )

    def prepare(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """The network's inputs for one RGB picture."""
        if self.frame is not None:
            return {"pixel_values": self.frame.lay(picture)}
        given = self.processor(images=picture, return_tensors="np")
        return {name: np.asarray(values[0]) for name, values in given.items()}

    @torch.inference_mode()
    def maps(self, prepared: Sequence[dict[str, np.ndarray]]) -> list[FeatureMap]:
        """The maps of prepared pictures.

        Raises:
            DataError: Where the network gives no vector for each patch.
        """
        inputs = {name: torch.from_numpy(np.stack([one[name] for one in prepared])) for name in prepared[0]}
        given = self.network(**{name: values.to(self.device) for name, values in inputs.items()})
        found = getattr(given, "last_hidden_state", None)
        if found is None or found.ndim not in (3, 4):
            raise DataError(f"{self.weights}: a {type(self.network).__name__} gives no features of patches; {EXPECTED}")
        if self.kind in CLIP_KINDS and isinstance(norm := getattr(self.network, "post_layernorm", None), nn.Module):
            found = norm(found)  # CLIP itself does so with the class token alone
        maps = self._unfold(found, inputs)
        pooled = getattr(given, "pooler_output", None) if self.pools else None
        wholes = [one.mean(dim=(0, 1)) for one in maps] if pooled is None else list(pooled.flatten(1))
        return [FeatureMap(one.cpu().numpy(), whole.cpu().numpy()) for one, whole in zip(maps, wholes, strict=True)]

    def _unfold(self, found: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
        """Patches back in their places: for each picture y x x x features.

        Raises:
            DataError: Where their number fits no grid.
        """
        if found.ndim == 4:  # convolutions: pictures x features x y x x
            return list(found.movedim(1, -1))
        if "spatial_shapes" in inputs:
            shapes = inputs["spatial_shapes"].tolist()
            return [row[: y * x].reshape(y, x, -1) for row, (y, x) in zip(found, shapes, strict=True)]
        y, x = self._grid(found.shape[1], *inputs["pixel_values"].shape[2:])
        return list(found[:, found.shape[1] - y * x :].reshape(len(found), y, x, -1))

    def _grid(self, tokens: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patches; class and register tokens come before them."""
        patch = getattr(self.network.config, "patch_size", None)
        if isinstance(patch, int):
            y, x = height // patch, width // patch
            if 0 <= tokens - y * x <= 64:
                return y, x
        side = math.isqrt(tokens)  # networks such as Swin join patches on the way
        if side * side == tokens and height == width:
            return side, side
        raise DataError(
            f"{self.weights}: a {type(self.network).__name__} gives {tokens} tokens for {height} x {width} pixels, "
            f"which form no grid; {EXPECTED}"
        )


class GridExtractor:
    """cells x cells regions in reading order, after the whole picture.

    Args:
        weights: A folder, or a name on the Hugging Face hub.
        cells: Rows, and columns, of regions.
        device: Where the network computes.

    Raises:
        SettingsError: Where `cells` is out of range, or transformers is not installed.
        DataError: Where the weights can't be used.
    """

    in_processes = False

    def __init__(self, weights: str, *, cells: int = 6, device: str = "cpu") -> None:
        if not 1 <= cells <= 64:
            raise SettingsError(f"cells is {cells}; expected 1 to 64 rows and columns of regions.")
        self.cells = cells
        self.backbone = Backbone(weights, device)
        self.feature_dim = self.backbone.feature_dim  # looked at now, so that an unfit network is refused at once
        self.boxes = np.concatenate([np.array([WHOLE], np.float32), cell_boxes(cells)])

    @cached_property
    def name(self) -> str:
        """The network, the cells, and the weights' fingerprint."""
        return f"grid-{self.backbone.kind}-{self.cells}x{self.cells}-{self.backbone.fingerprint}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        return {"family": "grid", "weights": self.backbone.weights, "cells": self.cells}

    @property
    def regions(self) -> int:
        """The most regions that a picture gets."""
        return len(self.boxes)

    def prepare(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """The network's inputs for one RGB picture."""
        return self.backbone.prepare(picture)

    def compute(self, prepared: Sequence[dict[str, np.ndarray]]) -> list[PictureRegions]:
        """The regions of prepared pictures."""
        return [
            PictureRegions(np.concatenate([found.whole[None], pool_inside(found.patches, self.boxes[1:])]), self.boxes)
            for found in self.backbone.maps(prepared)
        ]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])
