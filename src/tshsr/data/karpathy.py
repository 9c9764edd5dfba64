"""Karpathy's `dataset*.json` (splits and sentences) with region features beside it.

Features are `features.npy` (one row for each image, in the order of the JSON), or a folder `features` with one .npy
(regions x features, any number of regions) for each image, named by its picture file, its COCO id or its imgid,
all in one way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.npy import NpyFile, NpyFolder
from tshsr.data.precomp import extractor_name, pictures_folder, read_boxes
from tshsr.data.regions import RegionFeatures
from tshsr.errors import DataError, parse_json

SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
"""Name of each split of the JSON in this package; restval joins train, as usual."""


@dataclass(frozen=True)
class KarpathyImage:
    """One image of the JSON: its row, its split (as named in this package), its names and captions."""

    row: int
    split: str
    file: str
    folder: str
    imgid: str
    cocoid: str | None
    captions: tuple[str, ...]


def find_json(data: Path) -> Path | None:
    """The JSON file: `data` itself, or the only `dataset*.json` in it.

    Raises:
        DataError: Where there are several.
    """
    if data.is_file() and data.suffix == ".json":
        return data
    found = sorted(data.glob("dataset*.json"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{data} holds several data sets ({names}); name one of these files instead of the folder.")
    return found[0] if found else None


def karpathy_splits(path: Path) -> tuple[str, ...]:
    """The JSON's splits, as named in this package."""
    return tuple(sorted({image.split for image in read_images(path)}))


def open_karpathy(path: Path, split: str) -> Split:
    """Open one split (train, dev, test).

    Raises:
        DataError: Where the JSON or the features are missing or damaged, or do not match.
    """
    everything = read_images(path)
    images = [image for image in everything if image.split == split]
    if not images:
        names = ", ".join(sorted({image.split for image in everything}))
        raise DataError(f"{path} has no split {split!r}; it has {names}.")
    regions = _open_regions(path.parent, images, everything)
    return Split(
        data=path.stem.removeprefix("dataset_"),
        name=split,
        regions=regions,
        captions=tuple(caption for image in images for caption in image.captions),
        image_of_caption=np.repeat(np.arange(len(images)), [len(image.captions) for image in images]),
        image_ids=tuple(image.cocoid or image.file for image in images),
        extractor=extractor_name(path.parent, regions.feature_dim),
        pictures=pictures_folder(path.parent),
        files=tuple(f"{image.folder}/{image.file}" if image.folder else image.file for image in images),
    )


def read_images(path: Path) -> list[KarpathyImage]:
    """All images of the JSON.

    Raises:
        DataError: Where the file can't be read or an entry lacks a field.
    """
    try:
        values = parse_json(path.read_bytes(), object_hook=_text_only)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); download it again.") from None
    if not isinstance(values, dict) or not isinstance(values.get("images"), list) or not values["images"]:
        raise DataError(f"{path} has no list of images; expected Karpathy's dataset JSON.")
    return [_image(path, row, entry) for row, entry in enumerate(values["images"])]


def _text_only(entry: dict[str, Any]) -> Any:
    """Keep only the text of a sentence; with their tokens, COCO's take most of a gigabyte."""
    if "filename" in entry:
        return entry
    raw, tokens = entry.get("raw"), entry.get("tokens")
    if isinstance(raw, str):
        return raw.strip()
    if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return " ".join(tokens).strip()
    return entry


def _image(path: Path, row: int, entry: Any) -> KarpathyImage:
    where = f"{path}: images[{row}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("filename"), str):
        raise DataError(f"{where} has no filename; expected Karpathy's dataset JSON.")
    if not isinstance(entry.get("split"), str) or entry["split"] not in SPLITS:
        raise DataError(f"{where} has split {entry.get('split')!r:.80}; expected one of {', '.join(SPLITS)}.")
    captions = entry.get("sentences")
    if not isinstance(captions, list) or not captions or not all(isinstance(text, str) and text for text in captions):
        raise DataError(f"{where} ({entry['filename']}) lacks sentences, or one has neither raw text nor tokens.")
    return KarpathyImage(
        row=row,
        split=SPLITS[entry["split"]],
        file=entry["filename"],
        folder=str(_given(entry, "filepath", "")),
        imgid=str(_given(entry, "imgid", row)),
        cocoid=None if entry.get("cocoid") is None else str(entry["cocoid"]),
        captions=tuple(captions),
    )


def _given(entry: dict[str, Any], name: str, default: str | int) -> Any:
    """A value of the entry; the default where it is missing or null."""
    return default if entry.get(name) is None else entry[name]


def _open_regions(folder: Path, images: list[KarpathyImage], everything: list[KarpathyImage]) -> RegionFeatures:
    chosen, rows = np.array([image.row for image in images], np.int64), len(everything)
    boxes = read_boxes(folder / "boxes")
    if boxes is not None and len(boxes) != rows:
        raise DataError(f"{folder}: boxes of {len(boxes)} images; expected {rows}, in the order of the JSON.")
    boxes = None if boxes is None else boxes[chosen]
    if (folder / "features").is_dir():
        names = _feature_names(folder / "features", images, everything)
        source = NpyFolder.open(folder / "features", names)
        mask = np.arange(source.shape[1]) < source.counts[:, None]
        if boxes is not None:  # padded for the whole data set; features only for this split
            boxes = boxes[:, : source.shape[1]]
        return RegionFeatures(source, np.arange(len(images)), boxes, None if mask.all() else mask)
    stored = NpyFile.open(folder / "features.npy", axes=3)
    if stored.shape[0] != rows:
        raise DataError(
            f"{stored.path}: features of {stored.shape[0]} images; expected {rows}, "
            "one row per image in the order of the JSON."
        )
    return RegionFeatures(stored, chosen, boxes)


def _feature_names(folder: Path, images: list[KarpathyImage], everything: list[KarpathyImage]) -> list[str]:
    """Each image's file, named in one way in all splits: one image's imgid may be the COCO id of another.

    Raises:
        DataError: Where files are missing, or two ways give the images different files.
    """
    known = {path.name for path in folder.iterdir()}
    ways = {
        "picture file": [f"{Path(image.file).stem}.npy" for image in everything],
        "COCO id": [f"{image.cocoid}.npy" for image in everything],
        "imgid": [f"{image.imgid}.npy" for image in everything],
    }
    # One file for two images is features of at most one of them; imgids are unique unless the JSON is damaged.
    ways = {way: names for way, names in ways.items() if len(set(names)) == len(names)}
    if not ways:
        raise DataError(f"{folder.parent}: two images of the JSON share their picture file, COCO id and imgid.")
    found = {way: len(known.intersection(names)) for way, names in ways.items()}
    best, *others = [way for way in ways if found[way] == max(found.values())]
    for other in others:
        if found[best] and ways[other] != ways[best]:
            raise DataError(
                f"{folder} has a file for as many images by {best} as by {other}, and these give the images different "
                "files; rename the files after the picture files, or save features.npy with one row per image."
            )
    names = [ways[best][image.row] for image in images]
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(images)} files, for example {missing[0]}; "
            "expected one .npy per image, named by its picture file, COCO id or imgid."
        )
    return names
