"""A vision network of `transformers`: pictures -> a feature map, a pooled vector and, with text, a projected one.

CLIP, SigLIP, SigLIP 2, DINOv2, DINOv3, ViT, Swin, ConvNeXt and similar networks that `AutoModel` loads and that
return one vector per patch. Axes of maps: height | width | features (in patches).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from tshsr.boxes import grid_boxes, pool_boxes
from tshsr.errors import SettingsError
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.pretrained.networks import (
    download_options,
    fingerprint,
    load_preprocessing,
    load_pretrained,
    resolve_weights,
    transformers,
    unusual_settings,
)
from tshsr.pretrained.vision import NAFLEX, POOLER, load_vision, patch_features


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Features of a picture.

    Attributes:
        patches: float32, height x width x features, over the whole picture.
        whole: float32, features: the network's pooled output, or the mean of the patches.
        joint: float32, joint: the pooled output projected into the space of the text encoder, as `get_image_features`
            of transformers returns it; None where there is none.
    """

    patches: np.ndarray
    whole: np.ndarray
    joint: np.ndarray | None = None


class Backbone:
    """A network with its weights; pictures are stretched to its input instead of cropped."""

    def __init__(self, weights: str, device: str) -> None:
        self.weights, self.device = resolve_weights(weights), device
        # Without a pooler, which would be random here, the mean of the patches is the vector of the whole picture.
        self.kind, network, self.pools, projection = load_vision(self.weights)
        self.network: nn.Module = network.to(device)
        self.projection = None if projection is None else projection.to(device)
        self.processor: Any = self._naflex_processor() if self.kind == NAFLEX else None
        self.preprocessing = None if self.kind == NAFLEX else load_preprocessing(self.weights)

    @cached_property
    def fingerprint(self) -> str:
        """Of the weights, the preprocessing and unusual settings."""
        settings = self._unusual_processing() if self.preprocessing is None else self.preprocessing.values()
        settings |= unusual_settings(self.network)
        return fingerprint(self.network, settings, exclude="nothing" if self.pools else POOLER)

    @cached_property
    def feature_dim(self) -> int:
        """Width of the features."""
        return len(self._empty.whole)

    @cached_property
    def joint_dim(self) -> int:
        """Width of the image vectors; 0: there are none."""
        return 0 if self._empty.joint is None else len(self._empty.joint)

    @cached_property
    def _empty(self) -> FeatureMap:
        """Of an empty picture."""
        return self.maps([self.prepare(Image.new("RGB", (64, 64)))])[0]

    def _naflex_processor(self) -> Any:
        auto, options = transformers().AutoImageProcessor, download_options(self.weights)
        return load_pretrained(
            self.weights, lambda: auto.from_pretrained(self.weights, backend="pil", trust_remote_code=False, **options)
        )

    def _unusual_processing(self) -> dict[str, Any]:
        """The processor's settings that differ from those of its class, as `unusual_settings`."""
        given, usual = (json.loads(json.dumps(one.to_dict())) for one in (self.processor, type(self.processor)()))
        changed = {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
        return {name: value for name, value in changed.items() if not name.startswith("_") and "processor" not in name}

    def prepare(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """The network's inputs for one RGB picture."""
        if self.preprocessing is not None:
            return {"pixel_values": self.preprocessing.apply(picture)}
        given = self.processor(images=picture, return_tensors="np")
        return {name: np.asarray(values[0]) for name, values in given.items()}

    @torch.inference_mode()
    def maps(self, prepared: Sequence[dict[str, np.ndarray]]) -> list[FeatureMap]:
        """Feature maps of prepared pictures.

        Raises:
            DataError: Where the network does not return one vector per patch.
        """
        inputs = {name: torch.from_numpy(np.stack([one[name] for one in prepared])) for name in prepared[0]}
        on_device = {name: values.to(self.device) for name, values in inputs.items()}
        maps, wholes = patch_features(self.network, on_device, kind=self.kind, pools=self.pools, where=self.weights)
        joints: list[Any] = [None] * len(maps)
        if self.projection is not None:
            joints = list(self.projection(torch.stack(wholes)).cpu().numpy())
        return [
            FeatureMap(one.cpu().numpy(), whole.cpu().numpy(), vector)
            for one, whole, vector in zip(maps, wholes, joints, strict=True)
        ]


class GridExtractor:
    """The whole picture, then cells x cells regions in reading order.

    Args:
        weights: A folder, or a name on the Hugging Face hub.
        cells: Number of rows, and of columns, of the grid.

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
        self.feature_dim = self.backbone.feature_dim  # run now, so that an unsuitable network is refused at once
        self.joint_dim = self.backbone.joint_dim
        self.boxes = np.concatenate([np.array([WHOLE], np.float32), grid_boxes(cells)])

    @cached_property
    def name(self) -> str:
        """The network, the grid, and the fingerprint."""
        return f"grid-{self.backbone.kind}-{self.cells}x{self.cells}-{self.backbone.fingerprint}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        return {"family": "grid", "weights": self.backbone.weights, "cells": self.cells}

    @property
    def regions(self) -> int:
        """Maximum number of regions per picture."""
        return len(self.boxes)

    def prepare(self, picture: Image.Image) -> dict[str, np.ndarray]:
        """The network's inputs for one RGB picture."""
        return self.backbone.prepare(picture)

    def compute(self, prepared: Sequence[dict[str, np.ndarray]]) -> list[PictureRegions]:
        """The regions of prepared pictures."""
        return [
            PictureRegions(
                np.concatenate([found.whole[None], pool_boxes(found.patches, self.boxes[1:])]), self.boxes, found.joint
            )
            for found in self.backbone.maps(prepared)
        ]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])
