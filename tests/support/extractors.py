"""An extractor that counts and can be told to fail, and what a job leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tshsr.data.check import check_data
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.features.extractor import PictureRegions


@dataclass
class Means:
    """An extractor whose features are a picture's mean colour and its size; it counts, and can be told to fail.

    A picture has as many regions as its width has hundreds of pixels, and at least one.
    """

    name: str = "means"
    fails_after: int = 10**9
    refuses: float = -1.0
    seen: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=lambda: {"family": "none"})
    feature_dim: int = 4
    joint_dim: int = 0
    regions: int = 9
    in_processes: bool = False

    def prepare(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        return np.asarray(picture, np.float32).mean(axis=(0, 1)), picture.width

    def compute(self, prepared: Sequence[tuple[np.ndarray, int]]) -> list[PictureRegions]:
        self.seen.append(len(prepared))
        if sum(self.seen) > self.fails_after:
            raise KeyboardInterrupt
        if any(abs(mean[0] - self.refuses) < 1 for mean, _ in prepared):
            raise RuntimeError("Kernel size can't be greater\n than the input")
        return [self.of(mean, width) for mean, width in prepared]

    def of(self, mean: np.ndarray, width: int) -> PictureRegions:
        count = max(1, width // 100)
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1))
        return PictureRegions(np.tile(np.append(mean, width).astype(np.float32), (count, 1)), boxes)

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        return self.compute([self.prepare(picture) for picture in pictures])


@dataclass
class Joint(Means):
    """As Means, with a projected vector: two of the mean colours, and the width."""

    joint_dim: int = 3

    def of(self, mean: np.ndarray, width: int) -> PictureRegions:
        regions = super().of(mean, width)
        return PictureRegions(regions.features, regions.boxes, np.append(mean[:2], width).astype(np.float32))


def everything(out: Path) -> Split:
    problems, _ = check_data(str(out))
    assert problems == []
    return open_split(out, "all")


def work_folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob(".*"))
