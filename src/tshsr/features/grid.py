"""Grid extractors: the patches of a vision network pooled to cells x cells, and the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from tshsr.errors import SettingsError
from tshsr.features.backbone import Backbone
from tshsr.features.boxes import cell_boxes, pool_inside
from tshsr.features.extractor import WHOLE, PictureRegions


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
