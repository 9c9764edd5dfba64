"""The place of a store: whether a job may write there, what it takes over from it, and the lists that it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tshsr.data.manifest import MANIFEST, read_manifest, read_records
from tshsr.data.store import EVERYTHING, StoreCaption, StoreImage, open_store
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
PICTURES = "pictures"
BLOCK = 256


def check_place(pictures: Path, out: Path, extractor: str) -> None:
    """Refuse a store where something else is that would be lost.

    Raises:
        DataError: Where `out` is a file, the pictures' own folder, a folder of other things, or a store of other
            pictures or another extractor.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder for the store.")
    if out.resolve() == pictures.resolve():
        raise DataError(f"{out} is the folder of the pictures itself; name another folder for the store.")
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        made_of = manifest.settings.get(PICTURES)
        if (made_of, manifest.extractor) != (str(pictures.resolve()), extractor):
            raise DataError(
                f"{out} is a store already, of {made_of or 'other data'} by {manifest.extractor!r}; name another "
                "folder, or remove it first."
            )
    elif out.is_dir() and (other := sorted(entry.name for entry in out.iterdir() if _foreign(entry.name))):
        raise DataError(f"{out} is no feature store and holds {other[0]}; name a new folder for the store.")


def _foreign(name: str) -> bool:
    """Whether something in a store's folder is not of a store that was begun."""
    return not name.startswith(".") and name not in (
        PICTURES,
        SKIPPED,
        FILES,
        "regions.npy",
        "images.jsonl",
        "captions.jsonl",
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


def take_over(out: Path, work: Work, extractor: str, dtype: str) -> None:
    """Keep what a finished store has of files that the work lacks; a store without its list gives nothing."""
    if not (out / MANIFEST).exists() or not (out / FILES).exists():
        return
    manifest = read_manifest(out)
    if (manifest.extractor, manifest.dtype) != (extractor, dtype):
        return
    split = open_store(out, EVERYTHING)
    records = [json.loads(line) for line in (out / FILES).read_text(encoding="utf-8").splitlines()]
    mask = split.regions.mask
    if split.regions.boxes is None or len(records) != len(split.regions):
        return
    new = [row for row, record in enumerate(records) if record["file"] not in work.kept]
    for start in range(0, len(new), BLOCK):
        rows = np.array(new[start : start + BLOCK])
        counts = [split.regions.regions if mask is None else int(mask[row].sum()) for row in rows]
        features = split.regions.read_array(rows)
        done = [Done(**records[row], regions=count) for row, count in zip(rows.tolist(), counts, strict=True)]
        boxes = split.regions.boxes[rows]
        parts = zip(features, boxes, counts, strict=True)
        work.keep(done, [PictureRegions(own[:count], box[:count]) for own, box, count in parts])


def write_lists(out: Path, work: Work, files: Sequence[PictureFile], skipped: Sequence[Skipped]) -> None:
    """Write what is in the store, and what is not."""
    records = [asdict(work.kept[file.file].done) for file in files]
    for record in records:
        del record["regions"]
    write_text(out / FILES, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in skipped]
    if lines:
        write_text(out / SKIPPED, "".join(lines))
    else:
        (out / SKIPPED).unlink(missing_ok=True)
