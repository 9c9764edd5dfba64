"""Reusable results of earlier extractions: the finished store, and the hidden work folder of an interrupted job."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from tshsr.data.dataset import Split
from tshsr.data.manifest import MANIFEST, read_manifest, read_records
from tshsr.data.picture_captions import PictureCaption
from tshsr.data.pictures import PictureFile, SkippedFile
from tshsr.data.store import EVERYTHING, PICTURES, StoreCaption, StoreImage, open_store, refuse_foreign
from tshsr.errors import DataError, parse_json
from tshsr.features.extractor import PictureRegions
from tshsr.files import exclusive_lock, explained, recorded_path, remove, remove_partial, write_bytes, write_text

SKIPPED = "skipped.jsonl"
"""File in a store: the skipped files and the reasons."""
FILES = "files.jsonl"
"""File in a store: size and modification time of each picture, so that unchanged ones are not extracted again."""
BLOCK = 256
RECORDS = "records"
FOLDER = "pictures"
"""Entry of a part's metadata: the path of the folder of pictures; parts of earlier versions lack it."""
PART = "part-{:06d}.safetensors"


def check_destination(pictures: Path, out: Path, extractor: str) -> None:
    """Refuse to overwrite anything but a store of the same pictures and extractor.

    Raises:
        DataError: Where `out` is a file, the pictures' own folder, a folder of other things, a damaged store, or a
            store of other pictures or another extractor; where the pictures' path is not UTF-8.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder for the store.")
    if out.resolve() == pictures.resolve():
        raise DataError(f"{out} is the folder of the pictures itself; name another folder for the store.")
    recorded = recorded_path(pictures)
    if not (out / MANIFEST).exists():
        refuse_foreign(out, allowed=(SKIPPED, FILES))
        return
    try:
        manifest = read_manifest(out)
    except DataError as error:
        raise DataError(f"{error} To extract again, remove {out} first.") from None
    made_of = manifest.settings.get(PICTURES)
    if (made_of, manifest.extractor) != (recorded, extractor):
        raise DataError(
            f"{out} is a store already, of {made_of or 'other data'} by {manifest.extractor!r}; name another "
            "folder, or remove it first."
        )


@dataclass(frozen=True)
class FinishedPicture:
    """A picture with features; the fields are those of a line of `files.jsonl`, but for `regions`.

    Attributes:
        file: Its path in the folder of pictures.
        changed: Modification time of the file, in nanoseconds.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
    """

    file: str
    bytes: int
    changed: int
    width: int
    height: int
    regions: int

    def matches(self, picture: PictureFile) -> bool:
        """Whether the file is unchanged since."""
        return (self.file, self.bytes, self.changed) == (picture.file, picture.bytes, picture.changed)


@dataclass(frozen=True, eq=False)
class ExistingStore:
    """The reusable content of a finished store.

    Attributes:
        split: All its images; None where there is no store to reuse.
        rows: By file, the row in the split and the picture.
    """

    split: Split | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, FinishedPicture]] = field(default_factory=dict)

    def has(self, picture: PictureFile) -> bool:
        """Whether the store has the picture, unchanged."""
        return picture.file in self.rows and self.rows[picture.file][1].matches(picture)

    def is_current(self, files: Sequence[PictureFile], settings: Mapping[str, Any]) -> bool:
        """Whether it holds exactly these files under these ids with these settings, and needs no rewriting."""
        if self.split is None or self.split.image_ids != tuple(file.id for file in files):
            return False
        return self.settings == settings and all(self.has(file) for file in files)


def read_existing(out: Path, extractor: str, dtype: str, joint_dim: int) -> ExistingStore:
    """Read a finished store; empty where there is none, its list of files is missing or damaged, or it differs.

    Stores of earlier versions have no image vectors; their pictures are extracted again.
    """
    if not (out / MANIFEST).exists() or not (out / FILES).exists():
        return ExistingStore()
    manifest = read_manifest(out)
    if (manifest.extractor, manifest.dtype) != (extractor, dtype):
        return ExistingStore()
    split = open_store(out, EVERYTHING)
    if split.regions.joint_dim != joint_dim:
        return ExistingStore()
    try:
        records = read_files(out)
        mask, most = split.regions.mask, split.regions.regions
        counts = [most] * len(split.regions) if mask is None else mask.sum(axis=1).tolist()
        pictures = [FinishedPicture(**record, regions=count) for record, count in zip(records, counts, strict=True)]
    except (OSError, ValueError, TypeError):  # damaged, or the list of another store
        return ExistingStore()
    if split.regions.boxes is None or [one.file for one in pictures] != list(split.files or ()):
        return ExistingStore()
    return ExistingStore(split, manifest.settings, {one.file: (row, one) for row, one in enumerate(pictures)})


def existing_captions(out: Path) -> list[PictureCaption]:
    """Captions of a finished store; none where there is no store."""
    if not (out / MANIFEST).exists():
        return []
    manifest = read_manifest(out)
    paths = {role: out / file.name for role, file in manifest.files.items()}
    files = {image.id: image.file for image in read_records(paths["images"], StoreImage, manifest.images)}
    captions = read_records(paths["captions"], StoreCaption, manifest.captions)
    return [PictureCaption(files[one.image] or "", one.text, one.split) for one in captions]


@dataclass(frozen=True)
class PartRows:
    """Place of a finished picture in a part of the work folder.

    Attributes:
        start: Row of its first region.
        number: Of the picture.
    """

    picture: FinishedPicture
    part: Path
    start: int
    number: int


class WorkFolder:
    """Regions of finished pictures in parts, each written at once.

    Args:
        folder: Made where it is missing.
        joint_dim: Width of the image vectors; 0: there are none.
        made_of: Path of the folder of pictures; parts of another one are deleted.

    Attributes:
        pictures: By file, every finished picture.
    """

    def __init__(self, folder: Path, joint_dim: int = 0, made_of: str = "") -> None:
        self.folder, self.joint_dim, self.made_of = folder, joint_dim, made_of
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        self.pictures: dict[str, PartRows] = {}
        for part in sorted(folder.glob("part-*.safetensors")):
            self._load(part)

    def _load(self, part: Path) -> None:
        """Index a part; one that is damaged or without image vectors is deleted, its pictures extracted again."""
        try:
            with safe_open(part, "numpy") as opened:
                notes = opened.metadata() or {}
                records = [FinishedPicture(**record) for record in parse_json(notes[RECORDS])]
                regions = sum(record.regions for record in records)
                shapes = [opened.get_slice(name).get_shape() for name in ("features", "boxes")]
                pooled = opened.get_slice("pooled").get_shape() if self.joint_dim else [len(records), 0]
                whole = len(shapes[0]) == 2 and shapes == [[regions, shapes[0][1]], [regions, 4]]
                whole &= all(
                    isinstance(one.file, str) and type(one.regions) is int and one.regions > 0 for one in records
                )
                of_other_pictures = notes.get(FOLDER, self.made_of) != self.made_of
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            remove(part)
            return
        if of_other_pictures:
            remove(part)
        elif whole and list(pooled) == [len(records), self.joint_dim]:
            self._index(part, records)

    def _index(self, part: Path, pictures: Sequence[FinishedPicture]) -> None:
        start = 0
        for number, picture in enumerate(pictures):
            self.pictures[picture.file] = PartRows(picture, part, start, number)
            start += picture.regions

    def has(self, picture: PictureFile) -> bool:
        """Whether the picture is finished and unchanged."""
        rows = self.pictures.get(picture.file)
        return rows is not None and rows.picture.matches(picture)

    def add(self, pictures: Sequence[FinishedPicture], regions: Sequence[PictureRegions]) -> None:
        """Write finished pictures as a new part.

        Raises:
            DataError: Where the disk is full or the folder cannot be written; earlier parts stay.
        """
        number = max((int(path.stem.partition("-")[2]) for path in self.folder.glob("part-*.safetensors")), default=-1)
        part = self.folder / PART.format(number + 1)
        arrays = {name: np.concatenate([getattr(one, name) for one in regions]) for name in ("features", "boxes")}
        if self.joint_dim:
            arrays["pooled"] = np.stack([one.pooled for one in regions if one.pooled is not None])
        records = json.dumps([asdict(picture) for picture in pictures])
        write_bytes(part, save(arrays, {RECORDS: records, FOLDER: self.made_of}))
        self._index(part, pictures)

    def read(self, files: Sequence[str], array: Literal["features", "boxes", "pooled"]) -> Iterator[np.ndarray]:
        """Rows of finished pictures, in this order: regions, or one; neighbours in one part are read together."""
        for part, together in groupby((self.pictures[file] for file in files), key=lambda rows: rows.part):
            with safe_open(part, "numpy") as opened:
                values = opened.get_slice(array)  # a part may have hundreds of megabytes
                for rows in together:
                    whole = array == "pooled"
                    start, count = (rows.number, 1) if whole else (rows.start, rows.picture.regions)
                    yield values[start : start + count]

    def remove(self) -> None:
        """Delete the folder, after its content is in a store."""
        shutil.rmtree(self.folder, ignore_errors=True)


def copy_existing(existing: ExistingStore, work: WorkFolder, files: Sequence[PictureFile]) -> None:
    """Copy regions of a finished store into the work folder, for files that the work folder lacks."""
    if existing.split is None or existing.split.regions.boxes is None:
        return
    missing = [existing.rows[file.file] for file in files if existing.has(file) and not work.has(file)]
    for start in range(0, len(missing), BLOCK):
        block = missing[start : start + BLOCK]
        rows, pictures = np.array([row for row, _ in block]), [picture for _, picture in block]
        regions = existing.split.regions
        features, boxes = regions.read_array(rows), existing.split.regions.boxes[rows]
        vectors = next(regions.select(rows).pooled_blocks(len(rows)), None)
        pooled = [None] * len(rows) if vectors is None else list(vectors)
        parts = zip(features, boxes, pooled, pictures, strict=True)
        copies = [PictureRegions(rows[: one.regions], box[: one.regions], vector) for rows, box, vector, one in parts]
        work.add(pictures, copies)


def write_file_list(out: Path, work: WorkFolder, files: Sequence[PictureFile]) -> None:
    """Write the store's list of files, for later jobs."""
    records = [asdict(work.pictures[file.file].picture) for file in files]
    for record in records:
        del record["regions"]
    write_text(out / FILES, _lines(records))


def read_files(out: Path) -> list[dict[str, Any]]:
    """The store's list of files, in the order of its pictures; a line says which version of a file it is."""
    # As bytes: file names may contain Unicode's other line separators.
    return [parse_json(line) for line in (out / FILES).read_bytes().splitlines()]


def write_skipped(out: Path, skipped: Sequence[SkippedFile]) -> None:
    """Write the list of skipped files; no list where there are none."""
    if skipped:
        write_text(out / SKIPPED, _lines([asdict(one) for one in skipped]))
    else:
        (out / SKIPPED).unlink(missing_ok=True)


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@contextmanager
def exclusive_job(folder: Path, store: Path) -> Iterator[None]:
    """Lock a work folder while the block runs.

    Raises:
        DataError: Where another job holds the lock.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    message = f"another tshsr features is making {store}; wait for it, or name another store."
    with exclusive_lock(folder / "lock", message):
        yield
