"""Small data sets on the disk, in each layout, for tests; and the place of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.errors import DataError
from tshsr.files import replacing

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def real_data(name: str) -> Path:
    """A folder of real data, or skip."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"the real data {name} is not beside this checkout")
    return folder


def random_regions(
    images: int, regions: int = 3, features: int = 4, dtype: str = "float32", seed: int = 0
) -> np.ndarray:
    """Features that differ everywhere."""
    return np.random.default_rng(seed).normal(size=(images, regions, features)).astype(dtype)


def random_boxes(images: int, regions: int = 3, seed: int = 0) -> np.ndarray:
    """Boxes with x1 <= x2 and y1 <= y2."""
    corners = np.random.default_rng(seed).random((images, regions, 2, 2), dtype=np.float32)
    return np.sort(corners, axis=2).reshape(images, regions, 4)


def write_precomp(
    folder: Path,
    split: str,
    regions: np.ndarray,
    *,
    each: int = 5,
    ids: list[str] | None = None,
    boxes: np.ndarray | None = None,
    pooled: np.ndarray | None = None,
) -> None:
    """A split in SCAN's layout with `each` captions an image."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{split}_ims.npy", regions)
    lines = [f"image {image} caption {caption}\n" for image in range(len(regions)) for caption in range(each)]
    (folder / f"{split}_caps.txt").write_text("".join(lines), encoding="utf-8")
    if ids is not None:
        (folder / f"{split}_ids.txt").write_text("".join(f"{name}\n" for name in ids))
    if boxes is not None:
        np.savez(folder / f"{split}_boxes.npz", boxes=boxes)
    if pooled is not None:
        np.save(folder / f"{split}_pooled.npy", pooled)


def write_karpathy(folder: Path, splits: list[str], captions: list[int], **more: object) -> Path:
    """A dataset JSON: the split of each image (in the JSON's words) and its number of sentences."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [
        {
            "filename": f"picture{i}.jpg",
            "imgid": i,
            "cocoid": 1000 + i,
            "split": split,
            "sentences": [{"raw": f"Image {i} caption {j}.", "tokens": ["image"], "imgid": i} for j in range(count)],
            **more,
        }
        for i, (split, count) in enumerate(zip(splits, captions, strict=True))
    ]
    path = folder / "dataset_small.json"
    path.write_text(json.dumps({"images": images, "dataset": "small"}))
    return path


def failing_at(name: str) -> Callable[[Path], AbstractContextManager[BinaryIO]]:
    """Stands for `replacing`: the disk is full when this file is written."""

    def replace_or_fail(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.name == name:
            raise DataError(f"Cannot write {path}: the disk is full.")
        return replacing(path)

    return replace_or_fail


def small_store(folder: Path, **changes: object) -> Path:
    """A store of four images, two captions each, the last image in split test."""
    images = 4
    records = [StoreImage(f"i{i}", f"i{i}.jpg", 640, 480) for i in range(images)]
    captions = [
        StoreCaption(f"i{i}#{j}", f"i{i}", f"image {i} caption {j}", "test" if i == images - 1 else "train")
        for i in range(images)
        for j in range(2)
    ]
    values = {
        "extractor": "small",
        "settings": {"windows": 3},
        "images": records,
        "captions": captions,
        "regions": random_regions(images),
        "boxes": random_boxes(images),
    }
    write_store(folder, **{**values, **changes})
    return folder
