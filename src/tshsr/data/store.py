"""The feature store: a folder with a manifest that names, counts and hashes its files.

The manifest is replaced last, atomically, and files of the former store stay until then, so that a kill at any moment
leaves the former store or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.manifest import MANIFEST, VERSION, Manifest, StoreFile, read_manifest, read_records
from tshsr.data.npy import NpyFile, npy_header
from tshsr.data.regions import RegionFeatures, check_boxes, check_mask
from tshsr.errors import DataError
from tshsr.files import explained, is_remote, is_there, replacing

EVERYTHING = "all"
"""The split of all images of a store, with or without captions."""
PICTURES = "pictures"
"""Folder in a store for its pictures."""
FIRST = "regions.npy"
DATA_FILES = (FIRST, "images.jsonl", "captions.jsonl", "boxes.npy", "mask.npy", "pooled.npy")
"""Files that `write_store` writes before the manifest, in this order; an interruption leaves the first of them."""
UNFINISHED = ".unfinished"
"""Marks a folder where `write_store` has no manifest yet: the data files in it are not a user's own."""
BLOCK = 64


@dataclass(frozen=True)
class StoreImage:
    """One line of `images.jsonl`.

    Attributes:
        id: Unique in the store.
        file: Picture file, relative to the folder of pictures.
        width: Of the picture, in pixels; 0 where unknown.
        height: Of the picture, in pixels; 0 where unknown.
    """

    id: str
    file: str | None = None
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class StoreCaption:
    """One line of `captions.jsonl`.

    Attributes:
        id: Unique in the store.
        image: Id of its image.
        text: The raw caption.
        split: train, dev, test, ...
    """

    id: str
    image: str
    text: str
    split: str


def write_store(
    folder: Path,
    *,
    extractor: str,
    settings: dict[str, object],
    images: Sequence[StoreImage],
    captions: Sequence[StoreCaption],
    regions: np.ndarray | Iterable[np.ndarray],
    boxes: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    pooled: Iterable[np.ndarray] | None = None,
) -> None:
    """Write a feature store, or replace the one in the folder; other files there stay as they are.

    Args:
        folder: Made where it is missing.
        extractor: Id of the features' extractor; a model refuses features of another one.
        settings: Of the extractor, and other notes (JSON values).
        images: One record per image.
        captions: Any number of records per image, in any order.
        regions: Images x regions x features, floating point; or consecutive blocks of it, for data larger than the
            memory.
        boxes: Images x regions x 4: x1, y1, x2, y2 as fractions of the picture.
        mask: Images x regions, True where a region is real.
        pooled: Image vectors in consecutive blocks, each images x joint; stored in float32.

    Raises:
        DataError: Where the parts do not match, a feature is not finite, or the disk is full.
    """
    _check_records(folder, images, captions)
    first, blocks = _first_block(folder, regions)
    shape, dtype = (len(images), *first.shape[1:]), first.dtype.newbyteorder("=")
    if mask is not None:
        check_mask(mask, shape[:2], str(folder))
    if boxes is not None:
        check_boxes(boxes, mask, shape[:2], str(folder))
    before = _names_in_use(folder)
    contents = {
        "regions": (FIRST, _region_chunks(folder, blocks, shape, dtype, mask)),
        "images": ("images.jsonl", _lines(images)),
        "captions": ("captions.jsonl", _lines(captions)),
    }
    for role, array in (("boxes", boxes), ("mask", mask)):
        if array is not None:
            contents[role] = (f"{role}.npy", _array_chunks(array))
    if pooled is not None:
        contents["pooled"] = ("pooled.npy", _pooled_chunks(folder, iter(pooled), len(images)))
    splits = dict(Counter(caption.split for caption in captions))
    size = (len(images), len(captions), shape[1], shape[2])
    with _marked_unfinished(folder):
        files = {role: _write_file(folder, _free_name(name, before), data) for role, (name, data) in contents.items()}
        manifest = Manifest(VERSION, extractor, settings, *size, str(dtype), splits, files)
        with replacing(folder / MANIFEST) as file:
            file.write((json.dumps(asdict(manifest), indent=2) + "\n").encode())
    for name in before:  # no longer in the manifest; on Windows a file that is mapped here stays
        with suppress(OSError):
            (folder / name).unlink()


def refuse_foreign(folder: Path, *, allowed: Collection[str] = ()) -> None:
    """Refuse a folder with anything but the remains of an interrupted `write_store`.

    Args:
        folder: The folder of a new store; may be missing.
        allowed: Names of further files that the caller writes.

    Raises:
        DataError: Where there is anything else; the message names an entry.
    """
    if not folder.is_dir():
        return
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    known = {PICTURES, *allowed, *(DATA_FILES if (folder / UNFINISHED).exists() else ())}
    if other := sorted(names - known):
        ours = not names - known - set(DATA_FILES)
        advice = "name a new folder for the store"
        if ours:
            advice += ", or remove what an earlier version of tshsr left there when it was interrupted"
        raise DataError(f"{folder} is no feature store and holds {other[0]}; {advice}.")


def open_store(folder: Path, split: str) -> Split:
    """Open one split of a store: the images that have captions of it, or with "all" every image.

    Counts and sizes are checked here, hashes by `tshsr data check`.

    Raises:
        DataError: Where the store is damaged or has no such split.
    """
    manifest = read_manifest(folder)
    if split != EVERYTHING and split not in manifest.splits:
        known = ", ".join((*manifest.splits, EVERYTHING))
        raise DataError(f"{folder} has no split {split!r}; it has {known}.")
    paths = {role: folder / file.name for role, file in manifest.files.items()}
    images = tuple(read_records(paths["images"], StoreImage, manifest.images))
    records = read_records(paths["captions"], StoreCaption, manifest.captions)
    captions = [caption for caption in records if split in (EVERYTHING, caption.split)]
    rows = _rows_with_captions(paths["images"], images, captions)
    if split == EVERYTHING:
        rows = np.arange(len(images))
    number_of = {images[row].id: number for number, row in enumerate(rows.tolist())}
    return Split(
        data=folder.resolve().name,
        name=split,
        regions=_open_regions(manifest, paths).select(rows),
        captions=tuple(caption.text for caption in captions),
        image_of_caption=np.array([number_of[caption.image] for caption in captions], np.int64),
        image_ids=tuple(number_of),
        extractor=manifest.extractor,
        pictures=_pictures(folder, manifest),
        files=tuple(images[row].file for row in rows),
    )


def _check_records(folder: Path, images: Sequence[StoreImage], captions: Sequence[StoreCaption]) -> None:
    known = {image.id for image in images}
    if len(known) != len(images) or not images:
        raise DataError(f"{folder}: {len(images)} images with {len(known)} different ids; each needs a unique id.")
    if len({caption.id for caption in captions}) != len(captions):
        raise DataError(f"{folder}: two captions share an id; each needs a unique one.")
    for caption in captions:
        if caption.image not in known:
            raise DataError(f"{folder}: caption {caption.id!r} belongs to image {caption.image!r}, which is not there.")
        if not caption.text.strip():
            raise DataError(f"{folder}: caption {caption.id!r} is empty; give it words or leave it out.")
        if caption.split in ("", EVERYTHING):
            raise DataError(f"{folder}: caption {caption.id!r} has split {caption.split!r}; expected train, dev, ...")


@contextmanager
def _marked_unfinished(folder: Path) -> Iterator[None]:
    """Mark a folder without a manifest while the block writes its files; after an interruption, the mark stays."""
    if (folder / MANIFEST).exists():
        yield
        return
    mark = folder / UNFINISHED
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    try:
        yield
    finally:
        if (folder / MANIFEST).exists() or not any((folder / name).exists() for name in DATA_FILES):
            mark.unlink(missing_ok=True)


def _names_in_use(folder: Path) -> set[str]:
    """Files of the current manifest; empty where it is damaged."""
    try:
        return {file.name for file in read_manifest(folder).files.values()}
    except DataError:
        return set()


def _free_name(name: str, taken: set[str]) -> str:
    """The name, or another one where the former store uses it."""
    stem, _, ending = name.rpartition(".")
    return name if name not in taken else f"{stem}.new.{ending}"


def _write_file(folder: Path, name: str, chunks: Iterable[bytes | memoryview]) -> StoreFile:
    digest, size = hashlib.sha256(), 0
    with replacing(folder / name) as file:
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return StoreFile(name, size, digest.hexdigest())


def _lines(records: Sequence[StoreImage] | Sequence[StoreCaption]) -> Iterator[bytes]:
    for record in records:
        yield (json.dumps(asdict(record), ensure_ascii=False) + "\n").encode()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _array_chunks(array: np.ndarray) -> Iterator[bytes | memoryview]:
    yield npy_header(array.shape, array.dtype)
    yield _bytes(array)


def _first_block(folder: Path, regions: np.ndarray | Iterable[np.ndarray]) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """The first block, which has the shape and dtype of all, and an iterator over all blocks."""
    blocks = _sliced(regions) if isinstance(regions, np.ndarray) else iter(regions)
    first = next(blocks, None)
    if first is None or first.ndim != 3 or 0 in first.shape or first.dtype.kind != "f" or first.dtype.itemsize > 8:
        got = "nothing" if first is None else f"{first.dtype} {first.shape}"
        raise DataError(f"{folder}: the regions are {got}; expected floats of shape images x regions x features.")
    return first, chain([first], blocks)


def _sliced(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), BLOCK):
        yield array[start : start + BLOCK]


def _region_chunks(
    folder: Path, blocks: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, mask: np.ndarray | None
) -> Iterator[bytes | memoryview]:
    yield npy_header(shape, dtype)
    written = 0
    for block in blocks:
        stop = written + len(block)
        if block.shape[1:] != shape[1:] or block.dtype.newbyteorder("=") != dtype or stop > shape[0]:
            raise DataError(
                f"{folder}: images {written} to {stop - 1} have regions {block.dtype} {block.shape[1:]}; "
                f"expected {dtype} {shape[1:]} for each of {shape[0]} images."
            )
        block = block.astype(dtype)  # a copy in this machine's byte order
        if mask is not None:
            block[~mask[written:stop]] = 0
        finite = np.isfinite(block)
        if not finite.all():
            image, region, _ = np.argwhere(~finite)[0]
            raise DataError(f"{folder}: image {written + image}, region {region}: a feature is not finite.")
        yield _bytes(block)
        written = stop
    if written != shape[0]:
        raise DataError(f"{folder}: got regions of {written} images; expected {shape[0]}, one for each record.")


def _pooled_chunks(folder: Path, blocks: Iterator[np.ndarray], images: int) -> Iterator[bytes | memoryview]:
    first = next(blocks, np.empty((0, 0)))
    if first.ndim != 2 or 0 in first.shape:
        raise DataError(f"{folder}: the image vectors have shape {first.shape}; expected images x joint.")
    yield npy_header((images, first.shape[1]), np.dtype(np.float32))
    written = 0
    for block in chain([first], blocks):
        values = block.astype(np.float32)
        stop = written + len(values)
        if values.shape[1:] != first.shape[1:] or stop > images:
            raise DataError(
                f"{folder}: images {written} to {stop - 1} have image vectors of shape {values.shape}; expected "
                f"{first.shape[1]} numbers for each of {images} images."
            )
        if not np.isfinite(values).all():
            image = int(np.argwhere(~np.isfinite(values))[0, 0])
            raise DataError(f"{folder}: image {written + image}: a value of the image vector is not finite.")
        yield _bytes(values)
        written = stop
    if written != images:
        raise DataError(f"{folder}: got image vectors of {written} images; expected {images}.")


def _open_regions(manifest: Manifest, paths: dict[str, Path]) -> RegionFeatures:
    boxes = NpyFile.open(paths["boxes"], axes=3).read_all() if "boxes" in paths else None
    mask = NpyFile.open(paths["mask"], axes=2, kinds="b").read_all() if "mask" in paths else None
    pooled = NpyFile.open(paths["pooled"], axes=2) if "pooled" in paths else None
    regions = RegionFeatures.open(paths["regions"], boxes=boxes, mask=mask, pooled=pooled)
    found = (len(regions), regions.regions, regions.feature_dim)
    expected = (manifest.images, manifest.regions, manifest.feature_dim)
    if found != expected:
        raise DataError(f"{paths['regions']} has shape {found}; {MANIFEST} expects {expected}. Write the store again.")
    return regions


def _rows_with_captions(path: Path, images: Sequence[StoreImage], captions: Sequence[StoreCaption]) -> np.ndarray:
    wanted = {caption.image for caption in captions}
    rows = [row for row, image in enumerate(images) if image.id in wanted]
    if missing := wanted - {image.id for image in images}:
        raise DataError(f"{path}: {len(missing)} images with captions are missing. Write the store again.")
    if len({image.id for image in images}) != len(images):
        raise DataError(f"{path}: two images share an id; each needs a unique one. Write the store again.")
    return np.array(rows, np.int64)


def _pictures(folder: Path, manifest: Manifest) -> Path | None:
    """The folder of pictures inside the store, or the recorded one; None on object storage."""
    recorded = manifest.settings.get(PICTURES)
    for pictures in (folder / PICTURES, Path(recorded) if isinstance(recorded, str) else None):
        if pictures is not None and not is_remote(pictures) and is_there(pictures) and pictures.is_dir():
            return pictures
    return None
