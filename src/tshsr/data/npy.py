"""Rows of .npy files by explicit reads: pages of a memory map would count as resident memory."""

from __future__ import annotations

import io
import math
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tshsr.errors import DataError, reason_in
from tshsr.files import is_remote, reachable, reason_of

KINDS = {"f": "float16, float32 or float64", "b": "bool", "iu": "whole numbers"}
"""Description of the dtypes of each kind, for error messages."""


READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Header readers by format version; other versions are for structured types."""


class NpyHeader(NamedTuple):
    """Shape, order and type of the array of a .npy file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype


class UnknownVersionError(ValueError):
    """A .npy header of another format version than 1.0 and 2.0."""


def read_npy_header(file: BinaryIO) -> NpyHeader:
    """Read a header, up to the first value of the array.

    Raises:
        ValueError: Where it is damaged.
        UnknownVersionError: Where its format version is neither 1.0 nor 2.0.
    """
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise UnknownVersionError(version)
    try:
        # numpy warns of headers of Python 2 and of former names of types.
        with warnings.catch_warnings(action="ignore"):
            header = NpyHeader(*READERS[version](file))
    except Exception as error:  # noqa: BLE001 - numpy evaluates a literal of Python, which fails in many ways
        raise ValueError(reason_in(error)) from None
    if any(isinstance(size, bool) or size < 0 for size in header.shape):
        raise ValueError(f"the shape {header.shape} is none of an array")
    return header


def map_npy(path: Path) -> np.ndarray:
    """Memory-map the array of a .npy file.

    Raises:
        ValueError: Where it is damaged, cut short, or holds pickled objects.
        OSError: Where it cannot be read.
    """
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        raise
    except Exception as error:  # noqa: BLE001 - as in `read_npy_header`
        raise ValueError(reason_in(error)) from None
    return array


def npy_header(shape: tuple[int, ...], dtype: np.dtype, *, fortran: bool = False) -> bytes:
    """A header of format version 1.0."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


@dataclass(frozen=True)
class NpyFile:
    """An array on the disk, read by rows (first axis).

    Attributes:
        offset: Bytes of the header.
        version: Of the opened file; None on object storage, and for a reader that was sent to another process: a copy
            of the file on another machine has its own time.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    version: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path, *, axes: int, kinds: str = "f") -> NpyFile:
        """Read the header and check it, and the size of the file.

        Args:
            kinds: Allowed dtype kinds: "f" floating point, "b" booleans, "iu" integers.

        Raises:
            DataError: Where the file is missing, truncated, pickled, in Fortran order, or of another shape or dtype.
        """
        try:
            with reachable(path):
                with path.open("rb") as file:
                    shape, fortran, dtype = _read_header(path, file)
                    offset = file.tell()
                    version = None if is_remote(path) else _version(file)
                size = path.stat().st_size if version is None else version[0]
        except OSError as error:
            raise DataError(f"Cannot read {path}: {reason_of(error)}.") from None
        _check_header(path, shape, dtype, fortran=fortran, axes=axes, kinds=kinds)
        opened = cls(path, shape, dtype, offset, version)
        expected = offset + shape[0] * opened.row_bytes
        if size < expected:
            raise DataError(
                f"{path} is truncated: its header promises {expected} bytes for shape {shape}, found {size}. "
                "Copy or download it again."
            )
        return opened

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "version": None}

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows by number, in the file's dtype.

        Raises:
            DataError: Where the file has been changed, replaced or removed since it was opened.
        """
        if is_remote(self.path):
            return self._read_ranges(rows)
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        target = values.reshape(-1).view(np.uint8).data
        size = self.row_bytes
        try:
            with self.path.open("rb", buffering=0) as file:
                if self.version not in (None, _version(file)):  # rows of another store
                    raise DataError(f"{self.path} has changed since it was opened; open the data again.")
                # In the order of the file, for sequential reads.
                for place in np.argsort(rows, kind="stable").tolist():
                    file.seek(self.offset + int(rows[place]) * size)
                    self._fill(file, target[place * size : (place + 1) * size])
        except OSError as error:
            raise DataError(f"Cannot read {self.path}: {error.strerror}.") from None
        return values

    def _read_ranges(self, rows: np.ndarray) -> np.ndarray:
        """Read rows from object storage: neighbours by one request, all requests at the same time.

        Raises:
            DataError: Where a request fails, or the object has become shorter.
        """
        wanted, places = np.unique(rows, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1) if len(wanted) else []
        starts = [self.offset + int(run[0]) * self.row_bytes for run in runs]
        ends = [start + len(run) * self.row_bytes for start, run in zip(starts, runs, strict=True)]
        remote: Any = self.path
        with reachable(self.path):  # by default, errors are among the parts
            parts = remote.fs.cat_ranges([remote.path] * len(runs), starts, ends, on_error="raise") if runs else []
        content = b"".join(parts)
        if len(content) != len(wanted) * self.row_bytes:
            raise DataError(f"{self.path} has become shorter since it was opened; copy or download it again.")
        values = np.frombuffer(content, self.dtype).reshape(len(wanted), *self.shape[1:])
        return np.asarray(values[places])

    def read_all(self) -> np.ndarray:
        """Every row."""
        return self.read(np.arange(self.shape[0]))

    def _fill(self, file: BinaryIO, target: memoryview) -> None:
        """Fill the target; a single read may return less."""
        while len(target):
            got = file.readinto(target)  # type: ignore[attr-defined]
            if not got:
                raise DataError(f"{self.path} has become shorter since it was opened; copy or download it again.")
            target = target[got:]

    def place(self, row: int) -> str:
        """The row's name in messages."""
        return f"{self.path}, image row {row}"


@dataclass(frozen=True)
class NpyFolder:
    """A folder with one .npy file (regions x features) per image, read padded to the largest number of regions."""

    path: Path
    files: tuple[NpyFile, ...]

    @classmethod
    def open(cls, path: Path, names: list[str]) -> NpyFolder:
        """Open files of one width.

        Raises:
            DataError: Where a file can't be used, or has another width than the first one.
        """
        files = tuple(NpyFile.open(path / name, axes=2) for name in names)
        for file in files:
            if file.shape[1] != files[0].shape[1]:
                raise DataError(
                    f"{file.path} has features of width {file.shape[1]}; "
                    f"expected {files[0].shape[1]} as in {files[0].path.name}. All must come from one extractor."
                )
        return cls(path, files)

    @cached_property
    def counts(self) -> np.ndarray:
        """Number of regions of each image: int64."""
        return np.array([file.shape[0] for file in self.files], np.int64)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Images x largest number of regions x features."""
        return len(self.files), int(self.counts.max()), self.files[0].shape[1]

    @cached_property
    def dtype(self) -> np.dtype:
        """The common dtype of all files."""
        return np.result_type(*{file.dtype for file in self.files})

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read images by number; padding is zero."""
        values = np.zeros((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows.tolist()):
            file = self.files[row]
            values[place, : file.shape[0]] = file.read(np.arange(file.shape[0]))
        return values

    def place(self, row: int) -> str:
        """The row's name in messages."""
        return str(self.files[row].path)


def _version(file: BinaryIO) -> tuple[int, int]:
    """Size and modification time (ns) of an open file; inode numbers are reused, and differ between machines."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _read_header(path: Path, file: BinaryIO) -> NpyHeader:
    try:
        return read_npy_header(file)
    except UnknownVersionError as error:
        raise DataError(
            f"{path} is a .npy file of version {error}; expected 1.0 or 2.0: save it again with numpy."
        ) from None
    except ValueError:
        raise DataError(f"{path} is no .npy file, or its header is damaged; copy or download it again.") from None


def _check_header(path: Path, shape: tuple[int, ...], dtype: np.dtype, *, fortran: bool, axes: int, kinds: str) -> None:
    if dtype.hasobject:
        raise DataError(f"{path} holds pickled Python objects, which are never loaded; save plain numbers with numpy.")
    if dtype.kind not in kinds or dtype.itemsize > 8:
        raise DataError(f"{path} holds {dtype}; expected {KINDS[kinds]}.")
    if len(shape) != axes or 0 in shape:
        raise DataError(f"{path} has shape {shape}; expected {axes} axes, none of them empty.")
    if fortran:
        raise DataError(f"{path} is in Fortran order; save it again with np.save(path, np.ascontiguousarray(array)).")
