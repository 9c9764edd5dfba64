"""What every extractor gives: for each picture regions with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

WHOLE = (0.0, 0.0, 1.0, 1.0)
"""The box of the whole picture."""


@dataclass(frozen=True, eq=False)
class PictureRegions:
    """The regions of one picture.

    Attributes:
        features: float32, regions x feature_dim.
        boxes: float32, regions x 4: x1, y1, x2, y2 as fractions of the upright picture.
    """

    features: np.ndarray
    boxes: np.ndarray


class Extractor(Protocol):
    """Pictures -> regions, in two steps.

    `prepare` is done for one picture at a time, in threads or processes, `compute` for many at once. What a picture
    gets does not depend on those beside it.
    """

    @property
    def name(self) -> str:
        """The id in a store's manifest, which a model remembers and checks; other features have another one."""

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again."""

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""

    @property
    def regions(self) -> int:
        """The most regions that a picture gets."""

    @property
    def in_processes(self) -> bool:
        """Whether `prepare` is Python work, which only processes do side by side; else threads serve."""

    def prepare(self, picture: Image.Image) -> Any:
        """What `compute` needs of an RGB picture; small, so that it can be handed on."""

    def compute(self, prepared: Sequence[Any]) -> list[PictureRegions]:
        """The regions of prepared pictures, in their order."""

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """Both steps: the regions of RGB pictures."""
