"""The SCAN "precomp" layout, `{split}_ims.npy` + `{split}_caps.txt`, the most common one of the field.

Captions of an image are consecutive lines. Older files repeat each image row for every one of its captions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.npy import NpyFile
from tshsr.data.regions import RegionFeatures
from tshsr.data.text import read_captions, read_lines
from tshsr.errors import DataError, reason_in

REPEATS = 5
"""Repetitions of an image row in older files; all of these have five captions per image."""
SAMPLED_GROUPS = 8
FEATURES, CAPTIONS = "_ims.npy", "_caps.txt"


def precomp_splits(folder: Path) -> tuple[str, ...]:
    """Splits of a folder with both features and captions."""
    names = (path.name.removesuffix(FEATURES) for path in folder.glob(f"*{FEATURES}"))
    return tuple(sorted(name for name in names if (folder / f"{name}{CAPTIONS}").is_file()))


def open_precomp(folder: Path, split: str) -> Split:
    """Open one split.

    Raises:
        DataError: Where a file is missing or damaged, or the counts don't fit each other.
    """
    source = NpyFile.open(folder / f"{split}{FEATURES}", axes=3)
    path = folder / f"{split}{CAPTIONS}"
    captions = read_captions(path)
    rows = image_rows(source, path, len(captions))
    vectors = folder / f"{split}_pooled.npy"
    pooled = NpyFile.open(vectors, axes=2) if vectors.is_file() else None
    image_of_caption = np.repeat(np.arange(len(rows)), len(captions) // len(rows))
    return Split(
        data=folder.resolve().name,
        name=split,
        regions=RegionFeatures(source, rows, boxes=_boxes(folder, split, source.shape[0], rows), pooled=pooled),
        captions=captions,
        image_of_caption=image_of_caption,
        image_ids=_image_ids(folder / f"{split}_ids.txt", source.shape[0], rows, len(captions)),
        extractor=extractor_name(folder, source.shape[2]),
        pictures=pictures_folder(folder),
    )


def image_rows(source: NpyFile, path: Path, captions: int) -> np.ndarray:
    """The row of each image: every row, or the first of each group of repeated rows.

    Raises:
        DataError: Where the number of captions is not a multiple of the number of images.
    """
    images = source.shape[0]
    if captions % images:
        raise DataError(
            f"{path}: {captions} captions for {images} images. Each image needs the same number of consecutive lines; "
            f"{captions} is not a multiple of {images}. Is {path.name} from another split?"
        )
    if captions == images and images % REPEATS == 0 and _repeated(source):
        return np.arange(0, images, REPEATS)
    return np.arange(images)


def _repeated(source: NpyFile) -> bool:
    """Whether every sampled group consists of equal rows."""
    groups = source.shape[0] // REPEATS
    for group in np.unique(np.linspace(0, groups - 1, SAMPLED_GROUPS).astype(np.int64)):
        rows = source.read(np.arange(group * REPEATS, (group + 1) * REPEATS))
        if not (rows == rows[:1]).all():
            return False
    return True


def extractor_name(folder: Path, feature_dim: int) -> str:
    """Id of the extractor: the first line of `extractor.txt`, or a name with the width."""
    path = folder / "extractor.txt"
    return read_lines(path)[0] if path.is_file() else f"precomp-{feature_dim}"


def pictures_folder(folder: Path) -> Path | None:
    """The folder of the pictures beside the features, if any."""
    return next((folder / name for name in ("pictures", "images") if (folder / name).is_dir()), None)


def _image_ids(path: Path, stored: int, rows: np.ndarray, captions: int) -> tuple[str, ...]:
    """One id per image, from a file with one line per image, per stored row or per caption."""
    numbers = tuple(str(image) for image in range(len(rows)))
    if not path.is_file():
        return numbers
    ids = read_lines(path)
    if len(ids) == len(rows):
        return ids
    if len(ids) not in (stored, captions):
        raise DataError(
            f"{path}: {len(ids)} ids for {len(rows)} images and {captions} captions; expected one for each image "
            f"or for each caption. Is {path.name} from another split?"
        )
    each = len(ids) // len(rows)
    of_images = all(len(set(ids[start : start + each])) == 1 for start in range(0, len(ids), each))
    return ids[::each] if of_images else numbers  # else they are ids of captions


def _boxes(folder: Path, split: str, stored: int, rows: np.ndarray) -> np.ndarray | None:
    boxes = read_boxes(folder / f"{split}_boxes")
    if boxes is None or len(boxes) == len(rows):
        return boxes
    if len(boxes) != stored:
        raise DataError(f"{folder / split}_boxes: boxes of {len(boxes)} images; expected {len(rows)}.")
    of_images: np.ndarray = boxes[rows]
    return of_images


def read_boxes(stem: Path) -> np.ndarray | None:
    """Boxes from `stem`.npz (array `boxes`) or `stem`.npy, where there is one.

    Raises:
        DataError: Where the file holds no boxes.
    """
    plain, packed = stem.with_name(f"{stem.name}.npy"), stem.with_name(f"{stem.name}.npz")
    if plain.is_file():
        return NpyFile.open(plain, axes=3).read_all()
    if not packed.is_file():
        return None
    try:
        with packed.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            boxes = np.asarray(arrays["boxes"])
    except Exception as error:  # noqa: BLE001 - decompression, zip and numpy have errors of their own
        raise DataError(
            f"{packed}: cannot read an array named boxes ({reason_in(error)}); copy or save it again."
        ) from None
    if boxes.ndim != 3 or boxes.dtype.kind != "f":
        raise DataError(
            f"{packed} holds boxes of {boxes.dtype} and shape {boxes.shape}; expected floats of shape images x regions "
            "x 4."
        )
    return boxes
