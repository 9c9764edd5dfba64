"""The place of a store: whether a job may write there, what it takes over from it, and the lists that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tshsr.data.dataset import Split
from tshsr.data.manifest import MANIFEST, read_manifest, read_records
from tshsr.data.store import EVERYTHING, PICTURES, StoreCaption, StoreImage, open_store, refuse_foreign
from tshsr.errors import DataError
from tshsr.features.captions import PictureCaption
from tshsr.features.extractor import PictureRegions
from tshsr.features.folder import PictureFile, Skipped
from tshsr.features.work import Done, Work
from tshsr.files import write_text

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
