"""One split of a data set: regions, captions, and which caption belongs to which image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.data.regions import RegionFeatures


@dataclass(frozen=True)
class Split:
    """Images and captions of one split; correspondence is data, never a constant 5.

    Attributes:
        data: Name of the data set (its folder's name).
        name: Name of the split: train, dev, test, ...
        regions: The region features; row i belongs to image i.
        captions: Raw captions.
        image_of_caption: int64, for each caption the number of its image.
        image_ids: The name of each image: a file name, a COCO id, or its row number.
        extractor: Who made the features. A model refuses features of another extractor.
        pictures: Folder that holds the picture files, where there is one.
    """

    data: str
    name: str
    regions: RegionFeatures
    captions: tuple[str, ...]
    image_of_caption: np.ndarray
    image_ids: tuple[str, ...]
    extractor: str
    pictures: Path | None = None
