"""Regions computed from picture files on reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tshsr.errors import DataError, InputError
from tshsr.features import computed
from tshsr.features.computed import ComputedRegions
from tshsr.features.extractor import PictureRegions


class MeanColour:
    """Two regions, the picture and its left half, with their mean colour; the last value is the size of the batch."""

    name, feature_dim, joint_dim, regions, in_processes = "mean-colour", 3, 2, 2, False
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1]], np.float32)

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.batches: list[int] = []

    def prepare(self, picture: Image.Image) -> np.ndarray:
        return np.asarray(picture, np.float32)

    def compute(self, prepared: Sequence[np.ndarray]) -> list[PictureRegions]:
        self.batches.append(len(prepared))
        found = []
        for pixels in prepared:
            means = [pixels.mean(axis=(0, 1)), pixels[:, : pixels.shape[1] // 2].mean(axis=(0, 1))]
            features = np.stack(means) / np.float32(0 if pixels.max() == 0 else 1)  # black gives no number
            found.append(PictureRegions(features, self.boxes, means[0][:2]))
        return found

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        return self.compute([self.prepare(picture) for picture in pictures])


@pytest.fixture
def regions(tmp_path: Path) -> ComputedRegions:
    """Five pictures, of 10, 20, ... red."""
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (8, 6), (10 * number + 10, 0, 0)).save(paths[-1])
    return ComputedRegions(MeanColour(), tuple(paths))


def test_pictures_are_read_in_blocks_and_keep_their_order(
    regions: ComputedRegions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computed, "BLOCK", 2)
    batch = regions.read([4, 0, 2, 0, 1])
    assert batch.regions[:, 0, 0].tolist() == [50, 10, 30, 10, 20]
    assert regions.extractor.batches == [2, 2, 1]
    assert batch.pooled is not None
    assert batch.pooled[:, 0].tolist() == [50, 10, 30, 10, 20]
    assert batch.mask.all()
    np.testing.assert_array_equal(batch.boxes, np.broadcast_to(MeanColour.boxes, (5, 2, 4)))


def test_it_has_the_interface_of_stored_regions(regions: ComputedRegions) -> None:
    assert (len(regions), regions.regions, regions.most(), regions.feature_dim, regions.joint_dim) == (5, 2, 2, 3, 2)
    assert regions.boxes.shape == (5, 2, 4)
    np.testing.assert_array_equal(regions.read_array([1, 3])[:, 1, 0], [20, 40])
    assert [block[:, 0].tolist() for block in regions.pooled_blocks(2)] == [[10, 20], [30, 40], [50]]
    chosen = regions.select([3, 1])
    assert chosen.read_array([0, 1])[:, 0, 0].tolist() == [40, 20]
    with pytest.raises(InputError, match=r"pictures: got image 2; expected a list of image numbers from 0 to 1\."):
        chosen.read([2])


def test_a_picture_that_cannot_be_used_is_named(regions: ComputedRegions) -> None:
    Image.new("RGB", (8, 6)).save(regions.paths[1])
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match=r"1\.png: the network gives a feature that"):
        regions.check([0, 1])
    regions.paths[3].write_bytes(b"")
    with pytest.raises(DataError, match=r"3\.png is empty \(0 bytes\); copy or download it again\."):
        regions.read([2, 3])
