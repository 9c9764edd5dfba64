"""The place of a store: whether a job may write there, what it takes over from it, and the lists that it leaves."""

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
from tshsr.data.store import EVERYTHING, PICTURES, StoreCaption, StoreImage, open_store, refuse_foreign
from tshsr.errors import DataError
from tshsr.features.captions import PictureCaption
from tshsr.features.extractor import PictureRegions
from tshsr.features.pictures import PictureFile, Skipped
from tshsr.files import exclusive_lock, explained, remove_partial, write_bytes, write_text

SKIPPED = "skipped.jsonl"
"""Beside a store: what is not in it, and why."""
FILES = "files.jsonl"
"""Beside a store: size and date of each of its picture files, so that what is unchanged is not done again."""
BLOCK = 256


def check_place(pictures: Path, out: Path, extractor: str) -> None:
    """Refuse a store where something else is that would be lost.

    Raises:
        DataError: Where `out` is a file, the pictures' own folder, a folder of other things, a damaged store, or a
            store of other pictures or another extractor.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder for the store.")
    if out.resolve() == pictures.resolve():
        raise DataError(f"{out} is the folder of the pictures itself; name another folder for the store.")
    if not (out / MANIFEST).exists():
        refuse_foreign(out, beside=(SKIPPED, FILES))
        return
    try:
        manifest = read_manifest(out)
    except DataError as error:
        raise DataError(f"{error} To make it anew, remove {out} first.") from None
    made_of = manifest.settings.get(PICTURES)
    if (made_of, manifest.extractor) != (str(pictures.resolve()), extractor):
        raise DataError(
            f"{out} is a store already, of {made_of or 'other data'} by {manifest.extractor!r}; name another "
            "folder, or remove it first."
        )


def captions_before(out: Path) -> list[PictureCaption]:
    """The captions of the store that is there; none where there is no store."""
    if not (out / MANIFEST).exists():
        return []
    manifest = read_manifest(out)
    names = {role: out / file.name for role, file in manifest.files.items()}
    files = {image.id: image.file for image in read_records(names["images"], StoreImage, manifest.images)}
    captions = read_records(names["captions"], StoreCaption, manifest.captions)
    return [PictureCaption(files[one.image] or "", one.text, one.split) for one in captions]


@dataclass(frozen=True, eq=False)
class Stored:
    """What a finished store holds already.

    Attributes:
        split: Everything in it; None where there is no store to take from.
        settings: How it was made.
        rows: By file, the row of the split and what is known of the picture.
    """

    split: Split | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, Done]] = field(default_factory=dict)

    def has(self, picture: PictureFile) -> bool:
        """Whether a picture is in the store, and has not changed since."""
        return picture.file in self.rows and self.rows[picture.file][1].is_of(picture)

    def is_of(self, files: Sequence[PictureFile], settings: Mapping[str, Any]) -> bool:
        """Whether it holds these files under these ids, no others, and was made so: then it can stay as it is."""
        if self.split is None or self.split.image_ids != tuple(file.id for file in files):
            return False
        return self.settings == settings and all(self.has(file) for file in files)


def read_stored(out: Path, extractor: str, dtype: str) -> Stored:
    """What can be taken from the store that is there; a store without its list of files gives nothing."""
    if not (out / MANIFEST).exists() or not (out / FILES).exists():
        return Stored()
    manifest = read_manifest(out)
    if (manifest.extractor, manifest.dtype) != (extractor, dtype):
        return Stored()
    split = open_store(out, EVERYTHING)
    try:
        # As bytes: other line ends of Unicode than these occur in the names of files.
        records = [json.loads(line) for line in (out / FILES).read_bytes().splitlines()]
        mask, most = split.regions.mask, split.regions.regions
        counts = [most] * len(split.regions) if mask is None else mask.sum(axis=1).tolist()
        done = [Done(**record, regions=count) for record, count in zip(records, counts, strict=True)]
    except (ValueError, TypeError):  # damaged, or of another store
        return Stored()
    if split.regions.boxes is None or [one.file for one in done] != list(split.files or ()):
        return Stored()
    return Stored(split, manifest.settings, {one.file: (row, one) for row, one in enumerate(done)})


def take_over(stored: Stored, work: Work, files: Sequence[PictureFile]) -> None:
    """Keep what a finished store has of files that the work lacks."""
    if stored.split is None or stored.split.regions.boxes is None:
        return
    lacking = [stored.rows[file.file] for file in files if stored.has(file) and not work.has(file)]
    for start in range(0, len(lacking), BLOCK):
        block = lacking[start : start + BLOCK]
        rows, done = np.array([row for row, _ in block]), [one for _, one in block]
        features, boxes = stored.split.regions.read_array(rows), stored.split.regions.boxes[rows]
        parts = zip(features, boxes, done, strict=True)
        work.keep(done, [PictureRegions(own[: one.regions], box[: one.regions]) for own, box, one in parts])


def write_files(out: Path, work: Work, files: Sequence[PictureFile]) -> None:
    """Write which files are in the store, for the next job."""
    records = [asdict(work.kept[file.file].done) for file in files]
    for record in records:
        del record["regions"]
    write_text(out / FILES, _lines(records))


def write_skipped(out: Path, skipped: Sequence[Skipped]) -> None:
    """Write what is not in the store; no file where that is nothing."""
    if skipped:
        write_text(out / SKIPPED, _lines([asdict(one) for one in skipped]))
    else:
        (out / SKIPPED).unlink(missing_ok=True)


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


RECORDS = "records"
PART = "part-{:06d}.safetensors"


@dataclass(frozen=True)
class Done:
    """One finished picture.

    Attributes:
        file: Its path in the folder of pictures.
        bytes: Of the file.
        changed: When the file was last changed, nanoseconds.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        regions: How many it has.
    """

    file: str
    bytes: int
    changed: int
    width: int
    height: int
    regions: int

    def is_of(self, picture: PictureFile) -> bool:
        """Whether a file is still the one that this was made of."""
        return (self.file, self.bytes, self.changed) == (picture.file, picture.bytes, picture.changed)


@dataclass(frozen=True)
class Kept:
    """A finished picture and where it lies: which part, from which row."""

    done: Done
    part: Path
    start: int


class Work:
    """The folder of a job.

    Args:
        folder: Made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
        self.kept: dict[str, Kept] = {}
        for part in sorted(folder.glob("part-*.safetensors")):
            self._read(part)

    def _read(self, part: Path) -> None:
        """What a part holds; one that is damaged is taken away, and its pictures are done again."""
        try:
            with safe_open(part, "numpy") as opened:
                records = [Done(**record) for record in json.loads((opened.metadata() or {})[RECORDS])]
                rows = opened.get_slice("features").get_shape()[0]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            part.unlink(missing_ok=True)
            return
        if rows == sum(record.regions for record in records):
            self._remember(part, records)

    def _remember(self, part: Path, records: Sequence[Done]) -> None:
        start = 0
        for record in records:
            self.kept[record.file] = Kept(record, part, start)
            start += record.regions

    def has(self, picture: PictureFile) -> bool:
        """Whether a picture is done, and has not changed since."""
        kept = self.kept.get(picture.file)
        return kept is not None and kept.done.is_of(picture)

    def keep(self, records: Sequence[Done], regions: Sequence[PictureRegions]) -> None:
        """Write finished pictures to the disk.

        Raises:
            DataError: Where the disk is full or the folder cannot be written; what was kept before stays.
        """
        number = max((int(path.stem.partition("-")[2]) for path in self.folder.glob("part-*.safetensors")), default=-1)
        part = self.folder / PART.format(number + 1)
        arrays = {name: np.concatenate([getattr(one, name) for one in regions]) for name in ("features", "boxes")}
        write_bytes(part, save(arrays, {RECORDS: json.dumps([asdict(record) for record in records])}))
        self._remember(part, records)

    def read(self, files: Sequence[str], what: Literal["features", "boxes"]) -> Iterator[np.ndarray]:
        """Features or boxes of finished pictures, in this order; neighbours that lie together are read together."""
        for part, together in groupby((self.kept[file] for file in files), key=lambda kept: kept.part):
            with safe_open(part, "numpy") as opened:
                rows = opened.get_slice(what)  # a part may be hundreds of megabytes, and the next picture in another
                for kept in together:
                    yield rows[kept.start : kept.start + kept.done.regions]

    def remove(self) -> None:
        """Take the folder away, when everything in it lies in a store."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def only_one(folder: Path, what: str) -> Iterator[None]:
    """Keep a second job out of a folder while the block runs; a killed job lets go by itself.

    Raises:
        DataError: Where another job is in it.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    message = f"another tshsr features is making {what}; wait for it, or name another store."
    with exclusive_lock(folder / "lock", message):
        yield
