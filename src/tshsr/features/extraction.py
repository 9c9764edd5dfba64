"""A folder of pictures -> a feature store: unreadable files are skipped, and interrupted jobs resume."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tshsr.data.picture_captions import PictureCaption
from tshsr.data.pictures import PictureFile, SkippedFile, find_pictures
from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.data.text import numbered_caption_ids
from tshsr.errors import DataError
from tshsr.features.decoding import Decoded, decode_all
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.features.resume import (
    FinishedPicture,
    WorkFolder,
    check_destination,
    copy_existing,
    exclusive_job,
    existing_captions,
    read_existing,
    write_file_list,
    write_skipped,
)
from tshsr.files import remove_partial
from tshsr.system import Begin, Progress, begin_no_progress

Dtype = Literal["float32", "float16"]
PART_PICTURES, PART_SECONDS = 256, 5.0
"""Pictures, or seconds of work, between two writes to the work folder: the maximum loss after a kill."""
BLOCK = 64


@dataclass(frozen=True)
class ExtractionOptions:
    """Speed and precision of an extraction; of these, only `dtype` affects the features.

    Attributes:
        workers: Pictures decoded at a time.
        batch: Pictures per call of a network.
        dtype: Of the features in the store.
    """

    workers: int = 2
    batch: int = 16
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class ExtractionResult:
    """A finished extraction.

    Attributes:
        pictures: Their number in the store.
        reused: Number of these that earlier jobs had finished.
        skipped: Files that are not in the store.
        captions: Their number in the store.
    """

    pictures: int
    reused: int
    skipped: tuple[SkippedFile, ...]
    captions: int = 0


def extract_folder(
    pictures: Path,
    out: Path,
    extractor: Extractor,
    *,
    options: ExtractionOptions = ExtractionOptions(),
    captions: Callable[[Sequence[PictureFile]], Sequence[PictureCaption]] | None = None,
    exclude: Sequence[Path] = (),
    begin: Begin = begin_no_progress,
) -> ExtractionResult:
    """Make a feature store of a folder of pictures, or update one.

    Finished pictures are kept in a hidden work folder beside `out`, from which an interrupted job resumes. An update
    extracts new and changed files only; where there are none, the store's files stay as they are. The store is
    written atomically.

    Args:
        pictures: The folder, with its subfolders.
        extractor: The source of the regions.
        options: Workers, batches and dtype.
        captions: Returns captions of the folder's files; None keeps those of an existing store.
        exclude: Subfolders that are left out, besides `out`.
        begin: Starts the progress of each stage.

    Raises:
        DataError: Where no file is a picture, `out` is not a store of them, or the disk is full or cannot be written.
    """
    check_destination(pictures, out, extractor.name)
    folder = out.resolve().parent / f".{out.resolve().name}.{extractor.name}.{options.dtype}.work"
    files, skipped = find_pictures(pictures, exclude=[out, *exclude])
    given = existing_captions(out) if captions is None else captions(files)
    with exclusive_job(folder, out), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # irregularities of files that can be decoded all the same
        work = WorkFolder(folder, extractor.joint_dim)
        existing = read_existing(out, extractor.name, options.dtype, extractor.joint_dim)
        missing = [file for file in files if not work.has(file) and not existing.has(file)]
        skipped += _extract(pictures, missing, extractor, work, options, begin("extracting", "pictures"))
        finished = [file for file in files if work.has(file) or existing.has(file)]
        if not finished:
            work.remove()
            raise DataError(f"{pictures}: none of its {len(files)} files is a picture; the first: {skipped[0].reason}")
        store_captions = _captions(finished, given)
        settings = {**extractor.settings, "pictures": str(pictures.resolve())}
        remove_partial(out)
        if captions is not None or work.pictures or not existing.is_current(finished, settings):
            copy_existing(existing, work, finished)
            _write(out, extractor.name, settings, finished, store_captions, work, begin("writing", "pictures"))
            write_file_list(out, work, finished)
        skipped.sort(key=lambda one: one.file)
        write_skipped(out, skipped)
        work.remove()
    return ExtractionResult(len(finished), len(files) - len(missing), tuple(skipped), len(store_captions))


def _extract(
    folder: Path,
    files: Sequence[PictureFile],
    extractor: Extractor,
    work: WorkFolder,
    options: ExtractionOptions,
    progress: Progress,
) -> list[SkippedFile]:
    """Extract files into the work folder; returns the unreadable ones."""
    skipped: list[SkippedFile] = []
    pending: list[tuple[PictureFile, Decoded]] = []
    finished: list[tuple[FinishedPicture, PictureRegions]] = []
    written_at = time.monotonic()
    paths = (folder / file.file for file in files)
    decoding = decode_all(paths, extractor.prepare, workers=options.workers, processes=extractor.in_processes)
    with closing(decoding):
        try:
            for number, (file, decoded) in enumerate(zip(files, decoding, strict=True), start=1):
                if decoded.problem:
                    skipped.append(SkippedFile(file.file, decoded.problem))
                else:
                    pending.append((file, decoded))
                if len(pending) == options.batch or number == len(files):
                    finished += _compute(extractor, pending, options.dtype, skipped)
                    pending = []
                    progress(number, len(files))
                if len(finished) >= PART_PICTURES or (finished and time.monotonic() - written_at > PART_SECONDS):
                    part, finished = finished, []
                    _add(work, part)
                    written_at = time.monotonic()
        finally:
            if finished:  # also after Ctrl-C
                _add(work, finished)
    return skipped


def _add(work: WorkFolder, finished: Sequence[tuple[FinishedPicture, PictureRegions]]) -> None:
    work.add([picture for picture, _ in finished], [regions for _, regions in finished])


def _compute(
    extractor: Extractor, pending: Sequence[tuple[PictureFile, Decoded]], dtype: Dtype, skipped: list[SkippedFile]
) -> list[tuple[FinishedPicture, PictureRegions]]:
    """Regions of decoded pictures; a failing batch is repeated picture by picture, to skip only the failing ones."""
    if not pending:
        return []
    try:
        found = extractor.compute([decoded.prepared for _, decoded in pending])
    except (RuntimeError, ValueError) as error:
        if len(pending) > 1:
            return [one for single in pending for one in _compute(extractor, [single], dtype, skipped)]
        reason = " ".join(str(error).split())
        skipped.append(SkippedFile(pending[0][0].file, f"the network failed on it: {reason[:300]}"))
        return []
    finished = []
    for (file, decoded), regions in zip(pending, found, strict=True):
        with np.errstate(over="ignore"):
            features = regions.features.astype(dtype)
        if not np.isfinite(features).all():
            skipped.append(SkippedFile(file.file, f"one of its features is not finite as {dtype}."))
            continue
        if regions.pooled is not None and not np.isfinite(regions.pooled).all():
            skipped.append(SkippedFile(file.file, "its image vector is not finite."))
            continue
        size = (decoded.width, decoded.height, len(features))
        picture = FinishedPicture(file.file, file.bytes, file.changed, *size)
        finished.append((picture, PictureRegions(features, regions.boxes, regions.pooled)))
    return finished


def _captions(files: Sequence[PictureFile], captions: Sequence[PictureCaption]) -> list[StoreCaption]:
    """The captions of these files, with ids."""
    ids = {file.file: file.id for file in files}
    kept = [caption for caption in captions if caption.file in ids]
    images = [ids[caption.file] for caption in kept]
    return [
        StoreCaption(caption_id, image, caption.text, caption.split)
        for caption_id, image, caption in zip(numbered_caption_ids(images), images, kept, strict=True)
    ]


def _write(
    out: Path,
    name: str,
    settings: dict[str, object],
    files: Sequence[PictureFile],
    captions: Sequence[StoreCaption],
    work: WorkFolder,
    progress: Progress,
) -> None:
    """Write the store from the work folder."""
    names = [file.file for file in files]
    pictures = [work.pictures[name].picture for name in names]
    most = max(picture.regions for picture in pictures)
    mask = np.arange(most) < np.array([picture.regions for picture in pictures])[:, None]
    boxes = np.zeros((*mask.shape, 4), np.float32)
    for row, real in zip(boxes, work.read(names, "boxes"), strict=True):
        row[: len(real)] = real
    images = [
        StoreImage(file.id, file.file, picture.width, picture.height)
        for file, picture in zip(files, pictures, strict=True)
    ]
    write_store(
        out,
        extractor=name,
        settings=settings,
        images=images,
        captions=captions,
        regions=_blocks(work.read(names, "features"), len(names), most, progress),
        boxes=boxes,
        mask=None if mask.all() else mask,
        pooled=work.read(names, "pooled") if work.joint_dim else None,
    )


def _blocks(features: Iterator[np.ndarray], images: int, regions: int, progress: Progress) -> Iterator[np.ndarray]:
    """Features of a block of pictures, padded to this number of regions."""
    for start in range(0, images, BLOCK):
        block = [next(features) for _ in range(min(BLOCK, images - start))]
        yield np.stack([np.pad(one, ((0, regions - len(one)), (0, 0))) for one in block])
        progress(start + len(block), images)
