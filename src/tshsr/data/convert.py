"""Conversion of SCAN and Karpathy layouts to a feature store, in blocks of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from tshsr.data.check import has_row_numbers
from tshsr.data.dataset import Split
from tshsr.data.layouts import find_data, layout_of, open_split, splits_of
from tshsr.data.manifest import MANIFEST
from tshsr.data.pictures import upright_size
from tshsr.data.store import PICTURES, StoreCaption, StoreImage, refuse_foreign, write_store
from tshsr.data.text import numbered_caption_ids
from tshsr.errors import DataError
from tshsr.files import recorded_path
from tshsr.system import Progress, no_progress

LOG = logging.getLogger(__name__)
BLOCK = 64


def convert(
    source: str | Path,
    out: str | Path,
    *,
    extractor: str = "",
    pictures: str | Path | None = None,
    progress: Progress = no_progress,
    opening: Progress = no_progress,
) -> Path:
    """Write all splits of a data set as one feature store; values, order and dtype are kept.

    An image in two splits (COCO's test and testall) is stored once for each.

    Args:
        source: A folder in SCAN's layout, or Karpathy's JSON or its folder.
        out: Folder of the store, new or empty; remains of an interrupted conversion are replaced.
        extractor: Id of the features' extractor; empty: as determined by the reader.
        pictures: Folder of the pictures, recorded in the store; None for the one beside the features, if any.
        progress: Called after each block of images.
        opening: Called before that, while pictures are opened for their sizes.

    Returns:
        The folder of the store.

    Raises:
        DataError: Where the source can't be read or is a store already, the folder holds a store or other things, or
            the store can't be written.
    """
    path, out = find_data(source), Path(out)
    layout = layout_of(path)
    if layout == "store":
        raise DataError(f"{path} is a feature store already; it can be used as it is.")
    _check_destination(path, out)
    if pictures is not None and not Path(pictures).is_dir():
        raise DataError(f"{pictures} is no folder; name the one that holds the pictures, or leave it out.")
    splits = [open_split(path, name) for name in splits_of(path)]
    if pictures is not None:
        splits = [replace(split, pictures=Path(pictures)) for split in splits]
    _check_widths(path, splits)
    settings: dict[str, object] = {"converted_from": layout, "data": splits[0].data}
    if splits[0].pictures is not None:
        settings[PICTURES] = recorded_path(splits[0].pictures)
    ids = unique_ids(splits)
    mask = _mask(splits)
    write_store(
        out,
        extractor=extractor or splits[0].extractor,
        settings=settings,
        images=list(_all_images(splits, ids, opening)),
        captions=[caption for split in splits for caption in _captions(split, ids[split.name])],
        regions=_blocks(splits, progress),
        boxes=_boxes(splits),
        mask=None if mask.all() else mask,
        pooled=_pooled(path, splits),
    )
    return out


def _check_destination(source: Path, out: Path) -> None:
    if out.resolve() in (source.resolve(), source.resolve().parent if source.is_file() else None):
        raise DataError(f"{out} is the source itself; name another folder for the store.")
    if (out / MANIFEST).exists():
        raise DataError(f"{out} is a feature store already; name another folder, or remove it first.")
    refuse_foreign(out)


def unique_ids(splits: list[Split]) -> dict[str, list[str]]:
    """Image ids for one store, by split: unchanged where unique, else with the split's name and the row."""
    taken: set[str] = set()
    ids: dict[str, list[str]] = {}
    # Larger splits first: of test and testall, testall keeps the COCO ids, which extra metrics require.
    for split in sorted(splits, key=lambda split: len(split.regions), reverse=True):
        numbered = has_row_numbers(split)
        ids[split.name] = []
        for row, name in enumerate(split.image_ids):
            short, long = f"{split.name}/{name}", f"{split.name}/{name}/{row}"
            choices = (short, long) if numbered else (name, short, long)
            unique = next((choice for choice in choices if choice not in taken), long)
            taken.add(unique)
            ids[split.name].append(unique)
    return ids


def _check_widths(path: Path, splits: list[Split]) -> None:
    widths = {split.name: split.regions.feature_dim for split in splits}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise DataError(f"{path}: the splits have features of different widths ({listed}); expected one extractor.")


def _all_images(splits: list[Split], ids: dict[str, list[str]], opening: Progress) -> Iterator[StoreImage]:
    total, done = sum(len(split.regions) for split in splits), 0
    for split in splits:
        for image in _images(split, ids[split.name]):
            yield image
            done += 1
            if split.pictures is not None and (done % BLOCK == 0 or done == total):
                opening(done, total)


def _images(split: Split, names: list[str]) -> Iterator[StoreImage]:
    for image, name in enumerate(names):
        picture = split.picture(image)
        file = None if split.files is None else split.files[image]
        if picture is None or split.pictures is None:
            yield StoreImage(name, file)
            continue
        width, height = _size(picture)
        yield StoreImage(name, picture.relative_to(split.pictures).as_posix(), width, height)


def _size(picture: Path) -> tuple[int, int]:
    try:
        with Image.open(picture) as opened:
            return upright_size(opened)
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{picture} is no readable picture ({error}); copy it again or remove it.") from None


def _captions(split: Split, names: list[str]) -> Iterator[StoreCaption]:
    images = [names[image] for image in split.image_of_caption.tolist()]
    for caption_id, image, text in zip(numbered_caption_ids(images), images, split.captions, strict=True):
        yield StoreCaption(caption_id, image, text, split.name)


def _blocks(splits: list[Split], progress: Progress) -> Iterator[np.ndarray]:
    dtype = np.result_type(*{split.regions.dtype for split in splits})
    longest = max(split.regions.regions for split in splits)
    total, done = sum(len(split.regions) for split in splits), 0
    for split in splits:
        for start in range(0, len(split.regions), BLOCK):
            block = split.regions.read_array(np.arange(start, min(start + BLOCK, len(split.regions))))
            yield _padded(block, longest).astype(dtype, copy=False)
            done += len(block)
            progress(done, total)


def _pooled(path: Path, splits: list[Split]) -> Iterator[np.ndarray] | None:
    """Image vectors of all splits in blocks; None where no split has any.

    Raises:
        DataError: Where the splits have vectors of different widths, or some have none.
    """
    widths = {split.name: split.regions.joint_dim for split in splits}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise DataError(f"{path}: the splits have image vectors of different widths ({listed}; 0: none).")
    regions = [split.regions for split in splits]
    return None if not any(widths.values()) else (block for each in regions for block in each.pooled_blocks(BLOCK))


def _padded(array: np.ndarray, regions: int) -> np.ndarray:
    missing = regions - array.shape[1]
    return np.pad(array, ((0, 0), (0, missing), *((0, 0),) * (array.ndim - 2))) if missing else array


def _mask(splits: list[Split]) -> np.ndarray:
    longest = max(split.regions.regions for split in splits)
    masks = []
    for split in splits:
        given = split.regions.mask
        mask = np.ones((len(split.regions), split.regions.regions), np.bool_) if given is None else given
        masks.append(_padded(mask, longest))
    return np.concatenate(masks)


def _boxes(splits: list[Split]) -> np.ndarray | None:
    """Boxes of all splits; warns where some have none, as explanations require boxes."""
    longest = max(split.regions.regions for split in splits)
    known = [split.regions.boxes for split in splits if split.regions.boxes is not None]
    if len(known) == len(splits):
        return np.concatenate([_padded(boxes, longest) for boxes in known])
    if known:
        without = ", ".join(split.name for split in splits if split.regions.boxes is None)
        LOG.warning("Boxes are left out of the store: split %s has none.", without)
    return None
