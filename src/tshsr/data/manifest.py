"""What a feature store's `manifest.json` and its two lists of records hold, and reading them with checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from tshsr.errors import DataError, first_invalid
from tshsr.system import Progress

VERSION = 1
MANIFEST = "manifest.json"
HASHED_AT_ONCE = 2**22
"""Bytes."""
Record = TypeVar("Record")


@dataclass(frozen=True)
class StoreFile:
    """One file of a store: its name, its size and its hash (sha256, hexadecimal)."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The store in short.

    Attributes:
        version: Of this layout.
        extractor: Who made the features.
        settings: How, and whatever else is worth keeping (JSON values).
        images: How many.
        captions: How many.
        regions: Of the image that has most.
        feature_dim: Width of a region's features.
        dtype: Of the features.
        splits: How many captions each split has.
        files: By role: regions, images, captions; boxes and mask where there are any.
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
    """Read a store's manifest and check that its files are there with the right sizes (`check` compares hashes).

    Raises:
        DataError: Where the manifest is missing, damaged or of a newer version, or a file is missing or has changed.
    """
    path = folder / MANIFEST
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{folder} is no feature store: cannot read {MANIFEST} ({error.strerror}).") from None
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
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Copy the store again, with all its files.") from None
    if size != file.bytes:
        raise DataError(f"{path} has {size} bytes; {MANIFEST} expects {file.bytes}. Copy or write the store again.")


def read_records(path: Path, kind: type[Record], count: int) -> Iterator[Record]:
    """Read a list of records, one JSON object a line.

    Raises:
        DataError: Where a line can't be read, or there are more or fewer than the manifest says.
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
        path: The file.
        progress: Called after each block, in bytes.
        before: Bytes of the files hashed earlier.
        total: Bytes of all files.
    """
    digest, done = hashlib.sha256(), before
    with path.open("rb") as file:
        while piece := file.read(HASHED_AT_ONCE):
            digest.update(piece)
            done += len(piece)
            progress(done, total)
    return digest.hexdigest()
