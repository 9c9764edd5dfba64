"""The job: a folder of pictures -> a feature store, whatever else lies in the folder and however often it is killed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.data.text import numbered_caption_ids
from tshsr.errors import DataError
from tshsr.features.captions import PictureCaption
from tshsr.features.decoding import Decoded, decode_all
from tshsr.features.extractor import Extractor, PictureRegions
from tshsr.features.pictures import PictureFile, Skipped, find_pictures
from tshsr.features.place import (
    Done,
    Work,
    captions_before,
    check_place,
    only_one,
    read_stored,
    take_over,
    write_files,
    write_skipped,
)
from tshsr.files import remove_partial
from tshsr.system import Begin, Progress, begin_no_progress

Dtype = Literal["float32", "float16"]
PART_PICTURES, PART_SECONDS = 256, 20.0
"""How much is kept at a time: so many pictures, or what came in so many seconds; a kill costs no more than that."""
BLOCK = 64


@dataclass(frozen=True)
class How:
    """How a job goes about it; no picture's features depend on it, but for their dtype.

    Attributes:
        workers: Pictures that are decoded at a time.
        batch: Pictures that a network is given at a time.
        dtype: Of the features in the store.
    """

    workers: int = 2
    batch: int = 16
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class Extracted:
    """What a job came to.

    Attributes:
        pictures: In the store.
        before: Of them, done before this job, which only went on.
        skipped: What is not in the store.
        captions: In the store.
    """

    pictures: int
    before: int
    skipped: tuple[Skipped, ...]
    captions: int = 0


def extract_folder(
    pictures: Path,
    out: Path,
    extractor: Extractor,
    *,
    how: How = How(),
    captions: Callable[[Sequence[PictureFile]], Sequence[PictureCaption]] | None = None,
    begin: Begin = begin_no_progress,
) -> Extracted:
    """Make a feature store of a folder of pictures.

    What is done is kept in a hidden folder beside `out`; a job that was killed goes on from there when it is run
    again, and one whose store is finished does only what is new or has changed; where nothing is, the store's files
    stay as they are. The store appears at once.

    Args:
        pictures: The folder; folders in it count too.
        out: The store.
        extractor: Who makes the regions.
        how: Workers, batches and dtype.
        captions: Given the folder's files, the captions of some of them; without it those of an earlier store stay.
        begin: Told how far the job is.

    Raises:
        DataError: Where no file is a picture, `out` is something else, or the disk is full or cannot be written.
    """
    check_place(pictures, out, extractor.name)
    folder = out.resolve().parent / f".{out.resolve().name}.{extractor.name}.{how.dtype}.work"
    files, skipped = find_pictures(pictures, leave_out=[out])
    told = captions_before(out) if captions is None else captions(files)
    with only_one(folder, str(out)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # of what is odd in a file that can be read all the same
        work = Work(folder)
        stored = read_stored(out, extractor.name, how.dtype)
        left = [file for file in files if not work.has(file) and not stored.has(file)]
        skipped += _extract(pictures, left, extractor, work, how, begin("extracting", "pictures"))
        there = [file for file in files if work.has(file) or stored.has(file)]
        if not there:
            work.remove()
            raise DataError(f"{pictures}: none of its {len(files)} files is a picture; the first: {skipped[0].reason}")
        own = _captions(there, told)
        settings = {**extractor.settings, "pictures": str(pictures.resolve())}
        remove_partial(out)
        if captions is not None or work.kept or not stored.is_of(there, settings):
            take_over(stored, work, there)
            _write(out, extractor.name, settings, there, own, work, begin("writing", "pictures"))
            write_files(out, work, there)
        skipped.sort(key=lambda one: one.file)
        write_skipped(out, skipped)
        work.remove()
    return Extracted(len(there), len(files) - len(left), tuple(skipped), len(own))


def _extract(
    folder: Path, files: Sequence[PictureFile], extractor: Extractor, work: Work, how: How, tell: Progress
) -> list[Skipped]:
    """Do the files that are left; what can't be read is told, not raised."""
    skipped: list[Skipped] = []
    pending: list[tuple[PictureFile, Decoded]] = []
    finished: list[tuple[Done, PictureRegions]] = []
    kept_at = time.monotonic()
    paths = (folder / file.file for file in files)
    decoding = decode_all(paths, extractor.prepare, workers=how.workers, processes=extractor.in_processes)
    with closing(decoding):
        try:
            for number, (file, decoded) in enumerate(zip(files, decoding, strict=True), start=1):
                if decoded.problem:
                    skipped.append(Skipped(file.file, decoded.problem))
                else:
                    pending.append((file, decoded))
                if len(pending) == how.batch or number == len(files):
                    finished += _compute(extractor, pending, how.dtype, skipped)
                    pending = []
                    tell(number, len(files))
                if len(finished) >= PART_PICTURES or (finished and time.monotonic() - kept_at > PART_SECONDS):
                    keeping, finished = finished, []
                    _keep(work, keeping)
                    kept_at = time.monotonic()
        finally:
            if finished:  # also after Ctrl-C
                _keep(work, finished)
    return skipped


def _keep(work: Work, finished: Sequence[tuple[Done, PictureRegions]]) -> None:
    work.keep([done for done, _ in finished], [regions for _, regions in finished])


def _compute(
    extractor: Extractor, pending: Sequence[tuple[PictureFile, Decoded]], dtype: Dtype, skipped: list[Skipped]
) -> list[tuple[Done, PictureRegions]]:
    """Regions of decoded pictures; where the network fails on them, one by one, so that the others are kept."""
    if not pending:
        return []
    try:
        found = extractor.compute([decoded.prepared for _, decoded in pending])
    except (RuntimeError, ValueError) as error:
        if len(pending) > 1:
            return [one for single in pending for one in _compute(extractor, [single], dtype, skipped)]
        what = " ".join(str(error).split())
        skipped.append(Skipped(pending[0][0].file, f"the network can't take it: {what[:300]}"))
        return []
    finished = []
    for (file, decoded), regions in zip(pending, found, strict=True):
        with np.errstate(over="ignore"):
            features = regions.features.astype(dtype)
        if not np.isfinite(features).all():
            skipped.append(Skipped(file.file, f"one of its features is not finite as {dtype}."))
            continue
        size = (decoded.width, decoded.height, len(features))
        finished.append((Done(file.file, file.bytes, file.changed, *size), PictureRegions(features, regions.boxes)))
    return finished


def _captions(files: Sequence[PictureFile], told: Sequence[PictureCaption]) -> list[StoreCaption]:
    """Captions of the pictures that are there, numbered within each."""
    ids = {file.file: file.id for file in files}
    kept = [caption for caption in told if caption.file in ids]
    images = [ids[caption.file] for caption in kept]
    return [
        StoreCaption(own, image, caption.text, caption.split)
        for own, image, caption in zip(numbered_caption_ids(images), images, kept, strict=True)
    ]


def _write(
    out: Path,
    name: str,
    settings: dict[str, object],
    files: Sequence[PictureFile],
    captions: Sequence[StoreCaption],
    work: Work,
    tell: Progress,
) -> None:
    """Put the store together from what was kept."""
    names = [file.file for file in files]
    done = [work.kept[name].done for name in names]
    most = max(one.regions for one in done)
    mask = np.arange(most) < np.array([one.regions for one in done])[:, None]
    boxes = np.zeros((*mask.shape, 4), np.float32)
    for row, own in zip(boxes, work.read(names, "boxes"), strict=True):
        row[: len(own)] = own
    write_store(
        out,
        extractor=name,
        settings=settings,
        images=[StoreImage(file.id, file.file, one.width, one.height) for file, one in zip(files, done, strict=True)],
        captions=captions,
        regions=_blocks(work.read(names, "features"), len(names), most, tell),
        boxes=boxes,
        mask=None if mask.all() else mask,
    )


def _blocks(features: Iterator[np.ndarray], images: int, most: int, tell: Progress) -> Iterator[np.ndarray]:
    """Features of many pictures, padded to the most regions."""
    for start in range(0, images, BLOCK):
        own = [next(features) for _ in range(min(BLOCK, images - start))]
        yield np.stack([np.pad(one, ((0, most - len(one)), (0, 0))) for one in own])
        tell(start + len(own), images)
