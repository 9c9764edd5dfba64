"""The protocol of extractors: pictures -> regions with boxes."""

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
        pooled: float32, joint: the image vector, the encoder's own vector of the whole picture, not normalised: the
            projected one of a joint encoder (CLIP, SigLIP), a mean over the map otherwise; None where there is none.
    """

    features: np.ndarray
    boxes: np.ndarray
    pooled: np.ndarray | None = None


class Extractor(Protocol):
    """Pictures -> regions, in two steps.

    `prepare` takes one picture, in threads or processes; `compute` takes a batch. A picture's regions do not depend on
    the rest of its batch.
    """

    @property
    def name(self) -> str:
        """The id in a store's manifest, unique to these features; a model refuses features of another one."""

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values, enough to build the extractor again; `family` is its family in `catalog`."""

    @property
    def feature_dim(self) -> int:
        """Width of a region's features."""

    @property
    def joint_dim(self) -> int:
        """Width of the image vectors; 0 where there are none."""

    @property
    def regions(self) -> int:
        """Maximum number of regions per picture."""

    @property
    def in_processes(self) -> bool:
        """Whether `prepare` holds the interpreter's lock and needs processes; threads otherwise."""

    def prepare(self, picture: Image.Image) -> Any:
        """The input of `compute` for an RGB picture; small, as it may pass between processes."""

    def compute(self, prepared: Sequence[Any]) -> list[PictureRegions]:
        """The regions of prepared pictures, in their order."""

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        """Both steps: the regions of RGB pictures."""
