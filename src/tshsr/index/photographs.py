"""A folder of photographs as a collection: regions of the pictures and an index over them, in one output folder.

The output folder holds `photos.json` (whose pictures they are), `store`, `index`, and `indexed.json`: for each
picture the file that its row in the index was, or will be, made from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tshsr.data.manifest import MANIFEST, read_manifest
from tshsr.data.pictures import find_pictures
from tshsr.data.store import EVERYTHING, open_store
from tshsr.errors import DataError, parse_json
from tshsr.features.extraction import ExtractionResult, extract_folder
from tshsr.features.resume import read_files
from tshsr.features.shards import ExtractionOptions
from tshsr.files import exclusive_lock, explained, write_text
from tshsr.index.about import INFO_FILE, read_info, weights_digest
from tshsr.index.collection import Index
from tshsr.retriever import Retriever, extractor_of
from tshsr.system import Begin, begin_no_progress

MARK, STORE, INDEX, INDEXED = "photos.json", "store", "index", "indexed.json"
LOCK = ".lock"
OPTIONS = ExtractionOptions(dtype="float16")
"""Half precision halves the disk space; encodings of the index have it, too."""


@dataclass(frozen=True)
class Photographs:
    """An up-to-date collection.

    Attributes:
        extraction: Counts of the extraction, with the skipped files.
        added: Pictures that this update wrote into the index, new or changed.
        removed: Pictures that it removed, because they are gone or have changed.
        changed: Pictures that are in both of these counts.
        discarded: Whether an index of another checkpoint was removed first.
    """

    index: Index
    extraction: ExtractionResult
    added: int
    removed: int
    changed: int
    discarded: bool


def update_photographs(
    pictures: Path,
    out: Path,
    retriever: Retriever,
    *,
    run: str | Path,
    options: ExtractionOptions = OPTIONS,
    begin: Begin = begin_no_progress,
) -> Photographs:
    """Make or update the collection of a folder of pictures; after an interruption, the same call continues.

    New and changed pictures are extracted and indexed, those that are gone are removed. With another checkpoint than
    before, the pictures are indexed again, and extracted again where it reads other regions.

    Args:
        pictures: The folder, with its subfolders.
        out: The output folder, made where it is missing; it may lie in `pictures`.
        run: Where the retriever came from: a folder, or a name on the hub.
        options: Of the extraction.
        begin: Starts the progress of each stage.

    Raises:
        DataError: Where no file is a picture, `out` holds something else, is in use or cannot be written, or the
            weights of the extractor are elsewhere.
        SettingsError: Where a package of the extractor is missing.
    """
    check_out(pictures, out)
    find_pictures(pictures, exclude=[out])  # a wrong folder leaves no output folder
    extractor = extractor_of(retriever)
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out / LOCK, f"another tshsr photos works in {out}; wait for it, or name another --out."):
        write_text(out / MARK, json.dumps({"version": 1, "pictures": str(pictures.resolve())}) + "\n")
        discarded = discard_others(out, retriever, extractor.name)
        extraction = extract_folder(pictures, out / STORE, extractor, options=options, exclude=[out], begin=begin)
        split, settings = open_store(out / STORE, EVERYTHING), read_manifest(out / STORE).settings
        index = Index.create(out / INDEX, retriever, extractor=extractor.name, settings=settings, run=run)
        files = dict(zip(split.image_ids, read_files(out / STORE), strict=True))
        removed = remove_outdated(out, index, files)
        added = index.add(split, captions=False, begin=begin)
    changed = sum(name in files for name in removed)
    return Photographs(index, extraction, added.new, len(removed), changed, discarded)


def check_out(pictures: Path, out: Path) -> None:
    """Refuse an output folder that holds anything but the collection of these pictures.

    Raises:
        DataError: Where it does, or is the folder of the pictures.
    """
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; name a folder with --out.")
    if out.resolve() == pictures.resolve():
        raise DataError(f"{out} is the folder of the pictures itself; name another folder with --out.")
    contents = sorted(path.name for path in out.iterdir() if path.name[0] != ".") if out.is_dir() else []
    if not contents:
        return
    try:
        made_of = parse_json((out / MARK).read_text(encoding="utf-8"))["pictures"]
    except (OSError, ValueError, TypeError, KeyError):
        raise DataError(
            f"{out} holds something that tshsr photos did not write ({contents[0]}); name another folder with --out."
        ) from None
    if made_of != str(pictures.resolve()):
        raise DataError(
            f"{out} is the collection of {made_of}; name another folder with --out for {pictures}, or remove {out}."
        )


def discard_others(out: Path, retriever: Retriever, extractor: str) -> bool:
    """Remove the index of another checkpoint and regions of another extractor; returns whether there were any."""
    for remains in (*out.glob(".*.removed"), *out.glob(f".{STORE}.*.work")):
        if not remains.name.startswith(f".{STORE}.{extractor}."):
            shutil.rmtree(remains, ignore_errors=True)
    store, index = out / STORE, out / INDEX
    outdated = [store] if (store / MANIFEST).exists() and read_manifest(store).extractor != extractor else []
    if (index / INFO_FILE).exists():
        info = read_info(index)
        outdated += [index] if (info.weights, info.extractor) != (weights_digest(retriever), extractor) else []
    for folder in outdated:
        removed = folder.with_name(f".{folder.name}.removed")  # killed now, no half of it is taken for the whole
        with explained(folder):
            folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
    return bool(outdated)


def remove_outdated(out: Path, index: Index, files: Mapping[str, object]) -> list[str]:
    """Remove pictures from the index whose files are gone or have changed; returns their ids.

    `indexed.json` is written between this and the addition of pictures, so that it holds for every row of the index,
    wherever the job is interrupted.

    Args:
        files: By id, the files of the store, which are added next.
    """
    try:
        indexed = parse_json((out / INDEXED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        indexed = {}
    outdated = [name for name in index.picture_ids() if name not in files or indexed.get(name) != files[name]]
    index.delete(outdated)
    if indexed != files:
        write_text(out / INDEXED, json.dumps(files, ensure_ascii=False) + "\n")
    return outdated
