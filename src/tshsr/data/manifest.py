"""A feature store's `manifest.json` and its lists of records: content and checked reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tshsr.errors import DataError, first_invalid
from tshsr.files import reason_of
from tshsr.system import Progress

VERSION = 1
MANIFEST = "manifest.json"
HASH_BLOCK = 2**22
"""Bytes read at a time."""
Record = TypeVar("Record")


@dataclass(frozen=True)
class StoreFile:
    """A file of a store; the hash is hexadecimal."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Content of `manifest.json`.

    Attributes:
        extractor: Id of the features' extractor.
        settings: Of the extractor, and other notes (JSON values).
        regions: Largest number of an image.
        feature_dim: Width of a region's features.
        files: By role: regions, images, captions; optionally boxes, mask and pooled (image vectors).
    """

    version: int
    extractor: str
    settings: dict[str, Any]
    images: int
    captions: int
    regions: int
    feature_dim: int
    dtype: str
    splits: dict[str, int]
    files: dict[str, StoreFile]


def read_manifest(folder: Path) -> Manifest:
    """Read a store's manifest and check its files' sizes (`check_data` compares hashes).

    Raises:
        DataError: Where the manifest is missing, damaged or of a newer version, or a file is missing or has changed.
    """
    path = folder / MANIFEST
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{folder} is no feature store: cannot read {MANIFEST} ({reason_of(error)}).") from None
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {first_invalid(error)}. Write the store again.") from None
    if manifest.version != VERSION:
        raise DataError(f"{path} has version {manifest.version}; this tshsr reads {VERSION}. Update tshsr.")
    for role in ("regions", "images", "captions"):
        if role not in manifest.files:
            raise DataError(f"{path} is damaged: it names no {role} file. Write the store again.")
    for file in manifest.files.values():
        _check_size(folder / file.name, file)
    return manifest


def _check_size(path: Path, file: StoreFile) -> None:
    if Path(file.name).name != file.name:
        raise DataError(f"{path} lies outside its store; {MANIFEST} may name only files beside it.")
    if "\0" in file.name:
        raise DataError(
            f"{path.parent / MANIFEST} names a file {file.name!r:.80}, which no system allows; copy it again."
        )
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"Cannot read {path}: {reason_of(error)}. Copy the store again, with all its files.") from None
    if size != file.bytes:
        raise DataError(f"{path} has {size} bytes; {MANIFEST} expects {file.bytes}. Copy or write the store again.")


def read_records(path: Path, kind: type[Record], count: int) -> Iterator[Record]:
    """Read a list of records, one JSON object per line.

    Raises:
        DataError: Where a line can't be read, or their number differs from `count`.
    """
    adapter = TypeAdapter(kind)
    number = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = adapter.validate_json(line)
            except ValidationError as error:
                raise DataError(f"{path}:{number}: {first_invalid(error)}. Write the store again.") from None
            yield record
    if number != count:
        raise DataError(f"{path} has {number} lines; {MANIFEST} expects {count}. Write the store again.")


def sha256_of(path: Path, progress: Progress, *, before: int, total: int) -> str:
    """The hash of a file, read in blocks.

    Args:
        progress: Called after each block, in bytes.
        before: Bytes of the files hashed earlier.
    """
    digest, done = hashlib.sha256(), before
    with path.open("rb") as file:
        while piece := file.read(HASH_BLOCK):
            digest.update(piece)
            done += len(piece)
            progress(done, total)
    return digest.hexdigest()
