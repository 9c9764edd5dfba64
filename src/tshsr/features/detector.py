"""Detector extractors: the boxes of an object detector, with its own queries or another network's map as features.

RT-DETR, DETR, D-FINE, YOLOS and their like (`AutoModelForObjectDetection`), OWLv2 (by its objectness, without words)
and Grounding DINO (with words). Axes of arrays: queries | features, boxes x1, y1, x2, y2 in fractions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from tshsr.errors import SettingsError
from tshsr.features.backbone import Backbone
from tshsr.features.boxes import best_distinct, pool_inside
from tshsr.features.detections import Detector
from tshsr.features.extractor import WHOLE, PictureRegions


@dataclass(frozen=True, eq=False)
class Prepared:
    """One picture as the networks take it.

    Attributes:
        pixels: The detector's input: float32, 3 x height x width.
        size: Width and height of the picture.
        backbone: The other network's inputs, where there is one.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    backbone: dict[str, np.ndarray] | None


class DetectorExtractor:
    """The whole picture, and the best boxes that differ, whatever their class.

    Args:
        weights: Of the detector: a folder, or a name on the Hugging Face hub.
        regions: The most boxes that are kept; the whole picture comes to them.
        overlap: A box is left out where its intersection over union with a better one is larger.
        prompt: What a detector that is asked in words looks for; its usual phrases without it.
        features_from: Weights of a vision network, whose map is pooled inside the boxes; the detector's own queries
            without it.
        device: Where the networks compute.

    Raises:
        SettingsError: Where a number is out of range, a prompt is given to a detector that is not asked in words, or
            transformers is not installed.
        DataError: Where the weights can't be used.
    """

    in_processes = False

    def __init__(
        self,
        weights: str,
        *,
        regions: int = 36,
        overlap: float = 0.7,
        prompt: str | None = None,
        features_from: str | None = None,
        device: str = "cpu",
    ) -> None:
        if regions < 1:
            raise SettingsError(f"regions is {regions}; expected at least 1 box a picture.")
        if not 0 < overlap <= 1:
            raise SettingsError(f"overlap is {overlap:g}; expected more than 0 and at most 1.")
        self.boxes, self.overlap = regions, overlap
        self.detector = Detector(weights, prompt, device)
        self.backbone = None if features_from is None else Backbone(features_from, device)
        # Looked at now, so that an unfit network is refused at once.
        self.feature_dim = self.extract([Image.new("RGB", (64, 64))])[0].features.shape[1]

    @cached_property
    def name(self) -> str:
        """The networks, the number of regions, and the fingerprints of all that features depend on."""
        other = "" if self.backbone is None else f"-{self.backbone.kind}-{self.backbone.fingerprint}"
        return f"detector-{self.detector.kind}-{self.boxes}-{self.overlap:g}-{self.detector.fingerprint}{other}"

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""
        own = {"family": "detector", "weights": self.detector.weights, "regions": self.boxes, "overlap": self.overlap}
        if self.detector.asked:
            own["prompt"] = self.detector.prompt
        return own if self.backbone is None else {**own, "features_from": self.backbone.weights}

    @property
    def regions(self) -> int:
        """The most regions that a picture gets."""
        return self.boxes + 1

    def prepare(self, picture: Image.Image) -> Prepared:
        """The networks' inputs for one RGB picture."""
        other = None if self.backbone is None else self.backbone.prepare(picture)
        return Prepared(self.detector.frame.lay(picture), picture.size, other)

    def compute(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        """The regions of prepared pictures; those of one shape go through the detector together, without padding."""
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, one in enumerate(prepared):
            alike[one.pixels.shape].append(number)
        found: dict[int, PictureRegions] = {}
        for numbers in alike.values():
            found |= zip(numbers, self._detect([prepared[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(prepared))]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """The regions of RGB pictures."""
        return self.compute([self.prepare(picture) for picture in pictures])

    def _detect(self, prepared: Sequence[Prepared]) -> list[PictureRegions]:
        regions = []
        for one, found in zip(prepared, self.detector.detect([one.pixels for one in prepared]), strict=True):
            boxes = self.detector.frame.onto_picture(found.boxes, one.size)
            kept = best_distinct(boxes, found.scores, overlap=self.overlap, most=self.boxes)
            boxes = np.concatenate([np.array([WHOLE], np.float32), boxes[kept]])
            if self.backbone is None:
                weights = found.scores / found.scores.sum()
                features = np.concatenate([(weights @ found.features)[None], found.features[kept]])
            else:
                seen = self.backbone.maps([one.backbone or {}])[0]
                features = np.concatenate([seen.whole[None], pool_inside(seen.patches, boxes[1:])])
            regions.append(PictureRegions(features.astype(np.float32), boxes))
        return regions
