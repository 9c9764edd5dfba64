"""The extractor without a network: proposed boxes, and descriptors of their pixels.

It makes the features of the built-in scenes (`scenes-pixels-1`): twelve regions, which are the whole picture, the
proposals, and random windows that match none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tshsr.boxes import intersection_over_union
from tshsr.features.extractor import WHOLE, PictureRegions
from tshsr.scenes.descriptor import CONTEXT, CROP, EXTRACTOR, FEATURES, describe
from tshsr.scenes.generate import MATCH, REGIONS, window
from tshsr.scenes.proposals import propose_boxes
from tshsr.scenes.world import SIDE

WINDOWS = 2
"""Smallest number of windows among the regions; every training picture has some."""


class ScenesExtractor:
    """Regions of drawn pictures: coloured shapes, clip art, icons, diagrams."""

    name = EXTRACTOR
    feature_dim = FEATURES
    joint_dim = 0
    regions = REGIONS
    in_processes = True

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        return {"family": "scenes", "crop": CROP, "context": CONTEXT}

    def prepare(self, picture: Image.Image) -> PictureRegions:
        """The regions of an RGB picture."""
        boxes = region_boxes(picture)
        return PictureRegions(describe(picture, boxes), boxes)

    def compute(self, prepared: Sequence[PictureRegions]) -> list[PictureRegions]:
        """The regions, as prepared."""
        return list(prepared)

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return [self.prepare(picture) for picture in pictures]


def region_boxes(picture: Image.Image) -> np.ndarray:
    """The whole picture, then proposals, then windows: float32, REGIONS x 4, as fractions of the picture."""
    proposals = propose_boxes(picture, REGIONS - 1 - WINDOWS)
    boxes = np.concatenate([np.array([WHOLE], np.float32), proposals, windows()])
    matches = intersection_over_union(boxes, proposals) >= MATCH
    kept = np.flatnonzero((np.arange(len(boxes)) <= len(proposals)) | ~matches.any(axis=1))
    return boxes[kept[:REGIONS]]


@cache
def windows() -> np.ndarray:
    """Random boxes (float32, 10 REGIONS x 4) with the sizes of the scenes' distractors; always the same."""
    rng = np.random.default_rng(0)
    return (np.array([window(rng) for _ in range(10 * REGIONS)]) / SIDE).astype(np.float32)
