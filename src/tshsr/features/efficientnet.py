"""EfficientNet-Lite2, an ImageNet network that comes as a package: whole picture, windows and grid.

Axes of maps: height | width | features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from tshsr.boxes import cell_weights, grid_boxes
from tshsr.errors import SettingsError
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.pretrained.networks import fingerprint
from tshsr.pretrained.packages import (
    DEVIATION,
    EFFICIENTNET_LITE2,
    MEAN,
    efficientnet_lite2_preprocessing,
    folded_norms,
    load_efficientnet_lite2,
)
from tshsr.system import one_thread

FEATURES = 1280
SIZE, CELLS, WINDOW_SIZE = 416, 0, 192
Windows = Literal["none", "pooled", "crops"]
STRIDE = 32
"""Pixels of the input per row or column of the map."""
HALVES, SIXTHS, NINTHS = 0.5, 0.6, 0.45
"""Sides of the windows, as fractions of the picture's."""
CHUNK_PIXELS = 80_000
"""Pixels per call of the network on a processor: two crops of 192, one picture of 416."""
GPU_CHUNK = 256
"""Inputs per call of the network on another device than the processor."""


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """Inputs of the network for one picture.

    Attributes:
        whole: uint8, size x size x 3.
        windows: uint8, windows x window_size x window_size x 3; no windows unless they are crops.
    """

    whole: np.ndarray
    windows: np.ndarray


class EfficientNetExtractor:
    """The whole picture, fixed windows, then cells x cells regions in reading order.

    A region's feature is the mean of the last map (after the head's convolution) inside its box; that of the whole
    picture is the vector that the network classifies. With `windows` crops, each window is cut out, resized and passed
    through the network by itself, and its feature is the mean of its own map. The image vector is the feature of the
    whole picture, in float32 also where a store's features are in half precision.

    Args:
        size: Width and height of the network's input in pixels; pictures are stretched to it.
        cells: Number of rows, and of columns, of the grid; 0: no grid.
        windows: The 15 boxes of `window_boxes`: none, pooled from the map of the whole picture, or crops.
        window_size: Width and height of the input for crops, in pixels.

    Raises:
        SettingsError: Where a number is out of range, or the packages are not installed.
        DataError: Where the weights are not those that are expected.
    """

    in_processes = False
    feature_dim = FEATURES
    joint_dim = FEATURES

    def __init__(
        self,
        *,
        size: int = SIZE,
        cells: int = CELLS,
        windows: Windows = "crops",
        window_size: int = WINDOW_SIZE,
        device: str = "cpu",
    ) -> None:
        for name, pixels in (("size", size), ("window_size", window_size)):
            if not STRIDE <= pixels <= 2048 or pixels % STRIDE:
                raise SettingsError(
                    f"{name} is {pixels}; expected a multiple of {STRIDE} from {STRIDE} to 2048 pixels."
                )
        if not 0 <= cells <= 64:
            raise SettingsError(f"cells is {cells}; expected 0 to 64 rows and columns of regions.")
        if windows not in get_args(Windows):
            raise SettingsError(f"windows is {windows!r}; expected one of {', '.join(get_args(Windows))}.")
        self.size, self.cells, self.windows, self.window_size = size, cells, windows, window_size
        self.device = device
        self.preprocessing = efficientnet_lite2_preprocessing(size)
        network = load_efficientnet_lite2()
        self._made_of = fingerprint(network, self.preprocessing.values())
        self.network: Any = folded_norms(network).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        whole = np.array([WHOLE], np.float32)
        grid = grid_boxes(cells) if cells else np.empty((0, 4), np.float32)
        self.pooled_boxes = np.concatenate([whole, *([window_boxes()] if windows == "pooled" else []), grid])
        self.boxes = np.concatenate([whole, *([window_boxes()] if windows != "none" else []), grid])

    @property
    def name(self) -> str:
        """The network, its input, the regions, and the fingerprint of the weights as they come."""
        windows = {"none": "", "pooled": "-windows", "crops": f"-crops-{self.window_size}"}[self.windows]
        return f"{EFFICIENTNET_LITE2}-{self.size}-{self.cells}x{self.cells}{windows}-{self._made_of}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        settings = {"size": self.size, "cells": self.cells, "windows": self.windows, "window_size": self.window_size}
        return {"family": EFFICIENTNET_LITE2, **settings}

    @property
    def regions(self) -> int:
        """Number of regions per picture."""
        return len(self.boxes)

    def prepare(self, picture: Image.Image) -> PreparedPicture:
        """The network's inputs for one RGB picture, stretched; bytes, as floats would be four times as large."""
        boxes = list(window_boxes()) if self.windows == "crops" else []
        windows = np.empty((len(boxes), self.window_size, self.window_size, 3), np.uint8)
        for window, box in zip(windows, boxes, strict=True):
            window[:] = stretch(cut_out(picture, box), self.window_size)
        return PreparedPicture(stretch(picture, self.size), windows)

    def pooled(self, inputs: Sequence[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """Means of the maps of inputs of one size inside boxes: float32, inputs x boxes x 1280.

        On a processor a call takes one or two inputs, and as many calls run at a time as PyTorch has threads: larger
        calls leave the cache (four of 416 pixels take 1.8 times as long), and several threads a call wait for each
        other.
        """
        chunk = max(1, CHUNK_PIXELS // len(inputs[0]) ** 2) if self.device == "cpu" else GPU_CHUNK
        chunks = [np.stack(inputs[start : start + chunk]) for start in range(0, len(inputs), chunk)]
        threads = torch.get_num_threads() if self.device == "cpu" else 1
        with (
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),  # the same features on every device
            one_thread(),
            ThreadPoolExecutor(threads) as pool,
        ):
            return np.concatenate(list(pool.map(self._pooled, chunks, [boxes] * len(chunks))))

    @torch.inference_mode()  # of the thread that calls it
    def _pooled(self, inputs: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(inputs).to(self.device)
        scaled = (pixels.movedim(3, 1).float() - MEAN) / DEVIATION
        maps = self.network.extract_features(scaled.contiguous(memory_format=torch.channels_last))
        weights = torch.from_numpy(cell_weights(boxes, *maps.shape[2:])).to(maps)
        found: np.ndarray = torch.einsum("byx,nfyx->nbf", weights, maps).cpu().numpy()
        return found

    def compute(self, prepared: Sequence[PreparedPicture]) -> list[PictureRegions]:
        """The regions of prepared pictures."""
        features = self.pooled([one.whole for one in prepared], self.pooled_boxes)
        if self.windows == "crops":
            # The windows of all pictures together: few large calls.
            crops = self.pooled([window for one in prepared for window in one.windows], self.pooled_boxes[:1])
            windows = crops.reshape(len(prepared), -1, FEATURES)
            features = np.concatenate([features[:, :1], windows, features[:, 1:]], axis=1)
        return [PictureRegions(one, self.boxes, one[0]) for one in features]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])


def settings_of_name(name: str) -> dict[str, Any] | None:
    """The settings that the name of an extractor says; None where it is the name of another family."""
    found = re.fullmatch(rf"{EFFICIENTNET_LITE2}-(\d+)-(\d+)x\2(-windows)?(?:-crops-(\d+))?-[0-9a-f]+", name)
    if found is None:
        return None
    windows = "pooled" if found[3] else "crops" if found[4] else "none"
    settings = {"size": int(found[1]), "cells": int(found[2]), "windows": windows}
    return {"family": EFFICIENTNET_LITE2, **settings, "window_size": int(found[4] or WINDOW_SIZE)}


def stretch(picture: Image.Image, size: int) -> np.ndarray:
    """A picture stretched to a square: uint8, size x size x 3."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def cut_out(picture: Image.Image, box: np.ndarray) -> Image.Image:
    """The pixels of a box in fractions of the picture, rounded outwards: at least one."""
    x1, y1, x2, y2 = (box * (picture.width, picture.height, picture.width, picture.height)).tolist()
    return picture.crop((math.floor(x1 + 0.01), math.floor(y1 + 0.01), math.ceil(x2 - 0.01), math.ceil(y2 - 0.01)))


def window_boxes() -> np.ndarray:
    """Fixed windows: the left and the right half, four of side 0.6, nine of side 0.45: float32, 15 x 4."""
    corners = [(x, 0.0, x + HALVES, 1.0) for x in (0.0, HALVES)]
    for side, steps in ((SIXTHS, 2), (NINTHS, 3)):
        starts = np.linspace(0, 1 - side, steps).tolist()
        corners += [(x, y, x + side, y + side) for y in starts for x in starts]
    return np.array(corners, np.float32).clip(0, 1)
