"""EfficientNet-Lite2, an ImageNet network that comes as a package: whole picture, windows and grid from one pass.

Axes of maps: height | width | features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from tshsr.boxes import grid_boxes, pool_boxes
from tshsr.errors import SettingsError
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.pretrained.networks import fingerprint
from tshsr.pretrained.packages import EFFICIENTNET_LITE2, efficientnet_lite2_preprocessing, load_efficientnet_lite2

FEATURES = 1280
SIZE, CELLS = 288, 6
STRIDE = 32
"""Pixels of the input per row or column of the map."""
HALVES, SIXTHS, NINTHS = 0.5, 0.6, 0.45
"""Sides of the windows, as fractions of the picture's."""
CHUNK = 4
"""Pictures per call of the network on a processor: larger batches leave the cache, and take twice as long."""


class EfficientNetExtractor:
    """The whole picture, fixed windows, then cells x cells regions in reading order, from one pass of the network.

    A region's feature is the mean of the last map (after the head's convolution) inside its box; that of the whole
    picture is the vector that the network classifies.

    Args:
        size: Width and height of the network's input in pixels; pictures are stretched to it.
        cells: Number of rows, and of columns, of the grid; 0: no grid.
        windows: Add the 15 boxes of `window_boxes`.

    Raises:
        SettingsError: Where a number is out of range, or the packages are not installed.
        DataError: Where the weights are not those that are expected.
    """

    in_processes = False
    feature_dim = FEATURES
    joint_dim = 0

    def __init__(self, *, size: int = SIZE, cells: int = CELLS, windows: bool = True, device: str = "cpu") -> None:
        if not STRIDE <= size <= 2048 or size % STRIDE:
            raise SettingsError(f"size is {size}; expected a multiple of {STRIDE} from {STRIDE} to 2048 pixels.")
        if not 0 <= cells <= 64:
            raise SettingsError(f"cells is {cells}; expected 0 to 64 rows and columns of regions.")
        self.size, self.cells, self.windows, self.device = size, cells, windows, device
        self.preprocessing = efficientnet_lite2_preprocessing(size)
        self.network: Any = load_efficientnet_lite2().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = [np.array([WHOLE], np.float32)]
        parts += [window_boxes()] if windows else []
        parts += [grid_boxes(cells)] if cells else []
        self.boxes = np.concatenate(parts)

    @cached_property
    def name(self) -> str:
        """The network, its input, the regions, and the fingerprint."""
        made_of = fingerprint(self.network, self.preprocessing.values())
        windows = "-windows" if self.windows else ""
        return f"{EFFICIENTNET_LITE2}-{self.size}-{self.cells}x{self.cells}{windows}-{made_of}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        return {"family": EFFICIENTNET_LITE2, "size": self.size, "cells": self.cells, "windows": self.windows}

    @property
    def regions(self) -> int:
        """Number of regions per picture."""
        return len(self.boxes)

    def prepare(self, picture: Image.Image) -> np.ndarray:
        """The network's input for one RGB picture: float32, 3 x size x size, (values of 0 to 255 - 127) / 128."""
        return self.preprocessing.apply(picture)

    @torch.inference_mode()
    def maps(self, prepared: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Feature maps of prepared pictures: each float32, size / 32 x size / 32 x 1280."""
        chunk = CHUNK if self.device == "cpu" else len(prepared)
        for start in range(0, len(prepared), chunk):
            pixels = torch.from_numpy(np.stack(prepared[start : start + chunk])).to(self.device)
            found = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
            yield from found.movedim(1, -1).cpu().numpy()

    def compute(self, prepared: Sequence[np.ndarray]) -> list[PictureRegions]:
        """The regions of prepared pictures."""
        return [PictureRegions(pool_boxes(found, self.boxes), self.boxes) for found in self.maps(prepared)]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])


def window_boxes() -> np.ndarray:
    """Fixed windows: the left and the right half, four of side 0.6, nine of side 0.45: float32, 15 x 4."""
    corners = [(x, 0.0, x + HALVES, 1.0) for x in (0.0, HALVES)]
    for side, steps in ((SIXTHS, 2), (NINTHS, 3)):
        starts = np.linspace(0, 1 - side, steps).tolist()
        corners += [(x, y, x + side, y + side) for y in starts for x in starts]
    return np.array(corners, np.float32).clip(0, 1)
