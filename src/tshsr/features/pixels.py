"""The vision network of a matcher as an extractor: pictures -> pixels at its input size -> regions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from tshsr.data.augmentation import UNCHANGED, Augmentation
from tshsr.data.dataset import Split
from tshsr.features.computed import compute_regions
from tshsr.features.extractor import PictureRegions
from tshsr.pretrained.networks import Preprocessing
from tshsr.pretrained.vision import VisionEncoder


class VisionExtractor:
    """The regions of pictures by a vision network, in evaluation mode and without augmentation.

    Its name is that of the extractor `grid` with these weights, to which it is equal.
    """

    in_processes = False

    def __init__(self, vision: VisionEncoder, run: str = "") -> None:
        self.vision, self.run = vision, run

    @property
    def name(self) -> str:
        """The network, the grid, and the fingerprint of the current weights."""
        return self.vision.extractor_name

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values; the run's folder takes the place of weights."""
        return {"family": "run", "weights": self.run, "cells": self.vision.config.cells}

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""
        return self._widths[0]

    @property
    def joint_dim(self) -> int:
        """Width of the projected image vectors; 0 where the network has no joint space."""
        return self._widths[1]

    @cached_property
    def _widths(self) -> tuple[int, int]:
        return self.vision.widths()

    @property
    def regions(self) -> int:
        """Number of regions of every picture."""
        return len(self.vision.boxes)

    @cached_property
    def boxes(self) -> np.ndarray:
        """float32, regions x 4."""
        return np.asarray(self.vision.boxes.cpu().numpy(), np.float32)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """Pixels at the size of the network's input."""
        return prepare_pixels(picture, self.vision.design.preprocessing)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[np.ndarray]) -> list[PictureRegions]:
        """The regions of prepared pictures."""
        training = self.vision.training
        pixels = torch.from_numpy(np.stack(prepared)).to(self.vision.boxes.device)
        self.vision.eval()
        try:
            found = self.vision.encode(pixels)
        finally:
            self.vision.train(training)
        pooled = [None] * len(prepared) if found.pooled is None else list(found.pooled.float().cpu().numpy())
        features = found.regions.float().cpu().numpy()
        return [PictureRegions(one, self.boxes, joint) for one, joint in zip(features, pooled, strict=True)]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])


def with_own_regions(split: Split, vision: VisionEncoder | None) -> Split:
    """The split with regions that a matcher's vision network computes; unchanged without one, or where it made them.

    Raises:
        DataError: Where the split has no pictures, or some are missing.
    """
    name = split.extractor if vision is None else vision.extractor_name
    return split if vision is None or split.extractor == name else compute_regions(split, VisionExtractor(vision), name)


def prepare_pixels(
    picture: Image.Image, preprocessing: Preprocessing, augmentation: Augmentation = UNCHANGED
) -> np.ndarray:
    """uint8, 3 x height x width: a picture, cropped, at the size of a network's input, mirrored and recoloured."""
    resized = preprocessing.resize(augmentation.crop(picture))
    return np.ascontiguousarray(np.moveaxis(np.asarray(augmentation.finish(resized)), 2, 0))
