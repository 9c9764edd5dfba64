"""Summary and verification of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.layouts import Layout, find_data, layout_of, open_split, splits_of
from tshsr.data.manifest import read_manifest, sha256_of
from tshsr.data.picture_folder import caption_problems, find_captions
from tshsr.data.store import EVERYTHING
from tshsr.errors import DataError
from tshsr.system import Progress, no_progress

BLOCK = 64


@dataclass(frozen=True)
class SplitInfo:
    """Summary of a split; `regions` is the maximum of an image."""

    name: str
    images: int
    captions: int
    regions: int
    boxes: bool
    masked: bool


@dataclass(frozen=True)
class DataInfo:
    """Summary of a data set.

    `joint_dim` is the width of the image vectors (0: none). `bytes` counts all files in its folder, with
    pictures. The split `all` comes last where images of a store have no captions and therefore no split.
    """

    data: str
    layout: Layout
    extractor: str
    feature_dim: int
    joint_dim: int
    dtype: str
    bytes: int
    splits: tuple[SplitInfo, ...]


def inspect(data: str | Path) -> DataInfo:
    """Summarise a data set; reads captions and headers, no features.

    Raises:
        DataError: Where the data can't be opened.
    """
    path = find_data(data)
    splits = [open_split(path, name) for name in splits_of(path)]
    return _info(path, splits, _everything(path, splits))


def _everything(path: Path, splits: list[Split]) -> list[Split]:
    """The split `all` of a store, where some images are in no other split; otherwise empty."""
    if layout_of(path) != "store":
        return []
    in_splits = {name for split in splits for name in split.image_ids}
    return [open_split(path, EVERYTHING)] if len(in_splits) < read_manifest(path).images else []


def _info(path: Path, splits: list[Split], everything: list[Split]) -> DataInfo:
    folder = path if path.is_dir() else path.parent
    return DataInfo(
        data=str(path),
        layout=layout_of(path),
        extractor=splits[0].extractor,
        feature_dim=splits[0].regions.feature_dim,
        joint_dim=splits[0].regions.joint_dim,
        dtype=str(splits[0].regions.dtype),
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        splits=tuple(_split_info(split) for split in (*splits, *everything)),
    )


def _split_info(split: Split) -> SplitInfo:
    regions = split.regions
    boxes, masked = regions.boxes is not None, regions.mask is not None
    return SplitInfo(split.name, len(regions), len(split.captions), regions.regions, boxes, masked)


def check_data(
    data: str | Path, progress: Progress = no_progress, *, hashing: Progress = no_progress
) -> tuple[list[str], DataInfo | None]:
    """Read all of a data set and collect its problems.

    Args:
        data: As for `open_split`.
        progress: Called after each block of images.
        hashing: Called before that, after each block of a store's files, with bytes.

    Returns:
        One sentence for each problem, and a summary (None where a part can't be opened).

    Raises:
        DataError: Where there is no such data, or no known layout.
    """
    path = find_data(data)
    layout = layout_of(path)
    try:
        names = splits_of(path)
        problems = _wrong_hashes(path, hashing) if layout == "store" else []
        if layout == "pictures" and (captions := find_captions(path)) is not None:
            problems += caption_problems(captions)
    except DataError as error:
        return [str(error)], None
    splits: list[Split] = []
    for name in names:
        try:
            splits.append(open_split(path, name))
        except DataError as error:
            problems.append(str(error))
    everything: list[Split] | None = None
    if len(splits) == len(names):
        try:
            everything = _everything(path, splits)
        except DataError as error:
            problems.append(str(error))
    for split in splits:
        problems += _caption_problems(split)
    problems += _all_feature_problems(everything or splits, progress)
    problems += _split_problems(splits)
    return problems, None if everything is None else _info(path, splits, everything)


def _wrong_hashes(folder: Path, progress: Progress) -> list[str]:
    files = read_manifest(folder).files.values()
    total, before, problems = sum(file.bytes for file in files), 0, []
    for file in files:
        if sha256_of(folder / file.name, progress, before=before, total=total) != file.sha256:
            problems.append(
                f"{folder / file.name} has changed since the store was written: its hash differs. "
                "Copy or write it again."
            )
        before += file.bytes
    return problems


def _caption_problems(split: Split) -> list[str]:
    where = f"{split.data}, split {split.name}"
    problems = [
        f"{where}: caption {number} has no word: {caption!r}."
        for number, caption in enumerate(split.captions)
        if not any(letter.isalnum() for letter in caption)
    ]
    bare = np.bincount(split.image_of_caption, minlength=len(split.regions)) == 0
    if split.captions and bare.any():
        problems.append(f"{where}: {bare.sum()} images have no caption, the first is {np.flatnonzero(bare)[0]}.")
    if len(set(split.image_ids)) != len(split.image_ids):
        problems.append(f"{where}: {len(split.image_ids)} images share {len(set(split.image_ids))} ids.")
    return problems


def _all_feature_problems(splits: list[Split], progress: Progress) -> list[str]:
    total, done, problems = sum(len(split.regions) for split in splits), 0, []
    for split in splits:
        problems += _feature_problems(split, progress, done, total)
        done += len(split.regions)
    return problems


def _feature_problems(split: Split, progress: Progress, done: int, total: int) -> list[str]:
    """Read every image; only the first invalid one of a block is reported."""
    problems = []
    for start in range(0, len(split.regions), BLOCK):
        stop = min(start + BLOCK, len(split.regions))
        try:
            split.regions.check(np.arange(start, stop))
        except DataError as error:
            problems.append(str(error))
        progress(done + stop, total)
    return problems


def _split_problems(splits: list[Split]) -> list[str]:
    """Different feature widths, and training images in other splits."""
    problems = []
    for split in splits[1:]:
        if split.regions.feature_dim != splits[0].regions.feature_dim:
            widths = f"{split.regions.feature_dim} and {splits[0].regions.feature_dim}"
            problems.append(f"{split.data}: splits {split.name} and {splits[0].name} have features of widths {widths}.")
    named = {split.name: set(split.image_ids) for split in splits if not has_row_numbers(split)}
    training = named.pop("train", set())
    for name, ids in named.items():
        if shared := len(ids & training):
            problems.append(f"{splits[0].data}: {shared} images of split {name} are training images too.")
    return problems


def has_row_numbers(split: Split) -> bool:
    """Whether the image ids are row numbers, which identify nothing outside their split."""
    return split.image_ids == tuple(str(image) for image in range(len(split.image_ids)))
