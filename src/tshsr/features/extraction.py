"""A folder of pictures -> a feature store: unreadable files are skipped, and interrupted jobs resume."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tshsr.data.picture_captions import PictureCaption
from tshsr.data.pictures import IS_FOLDER, PictureFile, SkippedFile, find_pictures
from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.data.text import numbered_caption_ids
from tshsr.engines.work import SHARD, Engine
from tshsr.errors import DataError
from tshsr.features.decoding import decode_all
from tshsr.features.extractor import Extractor
from tshsr.features.resume import (
    WorkFolder,
    check_destination,
    copy_existing,
    exclusive_job,
    existing_captions,
    read_existing,
    write_file_list,
    write_skipped,
)
from tshsr.features.shards import DEFAULT_OPTIONS, ExtractionOptions, Finished, ShardExtraction, extract_shard
from tshsr.files import recorded_path, remove_partial
from tshsr.system import Begin, Progress, begin_no_progress

BLOCK = 64


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
    options: ExtractionOptions = DEFAULT_OPTIONS,
    captions: Callable[[Sequence[PictureFile]], Sequence[PictureCaption]] | None = None,
    exclude: Sequence[Path] = (),
    begin: Begin = begin_no_progress,
    engine: Engine | None = None,
    open_extractor: Callable[[], Extractor] | None = None,
) -> ExtractionResult:
    """Make a feature store of a folder of pictures, or update one.

    Finished pictures are kept in a hidden work folder beside `out`, from which an interrupted job resumes. An update
    extracts new and changed files; without any, the store's files stay as they are. It is written atomically.

    Args:
        pictures: The folder, with its subfolders, or a URL of object storage (`files.place_of`).
        out: A folder of this machine.
        extractor: The source of the regions.
        options: Workers, batches and dtype.
        captions: Returns captions of the folder's files; None keeps those of an existing store.
        exclude: Subfolders that are left out, besides `out`.
        begin: Starts the progress of each stage.
        engine: Extracts in shards on its workers; None: in this process.
        open_extractor: Opens the extractor on a worker; picklable. None: the extractor itself is sent to them.

    Raises:
        DataError: Where none is a picture, one with captions cannot be read, `out` is another store, or a write fails.
    """
    check_destination(pictures, out, extractor.name)
    folder = out.resolve().parent / f".{out.resolve().name}.{extractor.name}.{options.dtype}.work"
    files, skipped = find_pictures(pictures, exclude=[out, *exclude])
    given = None if captions is None else captions(files)
    with exclusive_job(folder, out), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # irregularities of files that can be decoded all the same
        work = WorkFolder(folder, extractor.joint_dim, recorded_path(pictures))
        existing = read_existing(out, extractor.name, options.dtype, extractor.joint_dim)
        given = existing_captions(out) if given is None else given
        missing = {file.file for file in files if not work.has(file) and not existing.has(file)}
        shards = _shards(files, SHARD if engine is None else engine.shard, missing)
        prepare = ShardExtraction(pictures, open_extractor or (lambda: extractor), extractor.name, options)
        if engine is None:
            skipped += _extract(shards, extractor, work, options, pictures, begin("extracting", "pictures"))
        else:
            skipped += _extract_on(engine, prepare, shards, work, begin("extracting", "pictures"))
        finished = [file for file in files if work.has(file) or existing.has(file)]
        check_finished(finished, pictures, files, skipped, work)
        check_kept_captions(out, given if captions is None else (), finished, skipped)
        store_captions = _captions(finished, given)
        settings = {**extractor.settings, "pictures": recorded_path(pictures)}
        remove_partial(out)
        if captions is not None or work.pictures or not existing.is_current(finished, settings):
            copy_existing(existing, work, finished)
            _write(out, extractor.name, settings, finished, store_captions, work, begin("writing", "pictures"))
        skipped.sort(key=lambda one: one.file)
        write_skipped(out, skipped)
        work.remove()
    return ExtractionResult(len(finished), len(files) - len(missing), tuple(skipped), len(store_captions))


def check_finished(
    finished: Sequence[PictureFile],
    pictures: Path,
    files: Sequence[PictureFile],
    skipped: Sequence[SkippedFile],
    work: WorkFolder,
) -> None:
    """Refuse a folder without a readable picture, and remove its work folder.

    Raises:
        DataError: With the reason of the first file.
    """
    if not finished:
        work.remove()
        raise DataError(f"{pictures}: none of its {len(files)} files is a picture; the first: {skipped[0].reason}")


def check_kept_captions(
    out: Path, captions: Sequence[PictureCaption], finished: Sequence[PictureFile], skipped: Sequence[SkippedFile]
) -> None:
    """Refuse to drop captions of a store because their pictures cannot be read: those of removed pictures go.

    Raises:
        DataError: Where a picture, or a folder above it, was skipped.
    """
    reasons = {one.file: one.reason for one in skipped if one.reason != IS_FOLDER}
    if not reasons:
        return
    kept = {file.file for file in finished}
    for file in dict.fromkeys(caption.file for caption in captions if caption.file not in kept):
        for place in (file, *map(str, PurePosixPath(file).parents)):
            if place in reasons:
                raise DataError(
                    f"{out} has captions of the picture {file!r}, but {place!r} cannot be used now: "
                    f"{reasons[place].rstrip('.')}. Restore it and run this again, or remove the picture to drop its "
                    "captions."
                )


def _extract(
    shards: Sequence[Sequence[PictureFile]],
    extractor: Extractor,
    work: WorkFolder,
    options: ExtractionOptions,
    folder: Path,
    progress: Progress,
) -> list[SkippedFile]:
    """Extract shards in this process into the work folder; returns the unreadable files."""
    skipped: list[SkippedFile] = []
    done, total = 0, sum(map(len, shards))
    paths = (folder / file.file for shard in shards for file in shard)  # decoded ahead, also into the next shard
    with closing(
        decode_all(paths, extractor.prepare, workers=options.workers, processes=extractor.in_processes)
    ) as decoding:
        for shard in shards:
            before = done

            def tell(number: int, _: int, before: int = before) -> None:
                progress(before + number, total)

            skipped += extract_shard(shard, decoding, extractor, options, partial(_add, work), tell)
            done += len(shard)
    return skipped


def _extract_on(
    engine: Engine,
    prepare: ShardExtraction,
    shards: Sequence[Sequence[PictureFile]],
    work: WorkFolder,
    progress: Progress,
) -> list[SkippedFile]:
    """Extract shards by workers into the work folder, each written as it finishes; returns the unreadable files."""
    skipped: list[SkippedFile] = []
    done, total = 0, sum(map(len, shards))
    for number, found in engine.run(prepare, shards):
        skipped += found.skipped
        if found.finished:
            _add(work, found.finished)
        done += len(shards[number])
        progress(done, total)
    return skipped


def _shards(files: Sequence[PictureFile], size: int, missing: Collection[str]) -> list[list[PictureFile]]:
    """The missing files, in shards of the whole folder: after an interruption, they are those of an undisturbed job."""
    shards = [files[start : start + size] for start in range(0, len(files), size)]
    left = [[file for file in shard if file.file in missing] for shard in shards]
    return [shard for shard in left if shard]


def _add(work: WorkFolder, finished: Sequence[Finished]) -> None:
    work.add([picture for picture, _ in finished], [regions for _, regions in finished])


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
    """Write the store and its list of files from the work folder."""
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
    write_file_list(out, work, files)


def _blocks(features: Iterator[np.ndarray], images: int, regions: int, progress: Progress) -> Iterator[np.ndarray]:
    """Features of a block of pictures, padded to this number of regions."""
    for start in range(0, images, BLOCK):
        block = [next(features) for _ in range(min(BLOCK, images - start))]
        yield np.stack([np.pad(one, ((0, regions - len(one)), (0, 0))) for one in block])
        progress(start + len(block), images)
