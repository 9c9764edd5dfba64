"""Score matrices in memory or in files, written column by column (captions); means over several models.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tshsr.data.npy import npy_header
from tshsr.errors import DataError, InputError
from tshsr.files import explained
from tshsr.metrics.recall import BLOCK
from tshsr.scoring.processes import Processes

PARTS, COLUMNS = "parts", "columns"
"""Subfolder of the parts of matrices, and name of the file with the columns of a part."""


class MatricesInMemory:
    """Named matrices in memory, in Fortran order as those in files: a block's captions are scattered over the columns.

    Args:
        shape: Images and captions.
    """

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike = np.float32) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.kept: dict[str, np.ndarray] = {}

    def write(self, name: str, columns: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of some captions, images x columns."""
        if name not in self.kept:
            self.kept[name] = np.empty(self.shape, self.dtype, order="F")
        self.kept[name].T[columns] = scores.T

    def finish(self) -> Mapping[str, np.ndarray]:
        """The matrices by name."""
        return self.kept


class MatricesInFiles:
    """Named matrices in files FOLDER/NAME.npy, in Fortran order: the scores of a caption are contiguous.

    Written without a memory map, whose pages count as memory of the process. A file is open only during a write, so
    that none stays open after an error.

    Args:
        shape: Images and captions.
        folder: An existing folder.
    """

    def __init__(self, shape: tuple[int, int], folder: Path, dtype: DTypeLike = np.float32) -> None:
        self.shape = shape
        self.folder = folder
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.starts: dict[str, int] = {}

    def write(self, name: str, columns: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of some captions, images x columns.

        Raises:
            DataError: Where the file cannot be written.
        """
        try:
            if name not in self.starts:
                self.starts[name] = self._begin(name)
            with self._path(name).open("r+b") as file:
                for column, values in zip(columns, np.ascontiguousarray(scores.T, self.dtype), strict=True):
                    file.seek(self.starts[name] + int(column) * values.nbytes)
                    file.write(values.tobytes())
        except OSError as error:
            size = self.dtype.itemsize * self.shape[0] * self.shape[1] / 2**20
            raise DataError(
                f"{self._path(name)} cannot be written ({error.strerror}); every score takes {size:.0f} MiB there. "
                "Free some space or name another folder."
            ) from None

    def finish(self) -> Mapping[str, np.ndarray]:
        """The matrices by name, each memory-mapped on access."""
        return MappedMatrices({name: self._path(name) for name in self.starts})

    def _begin(self, name: str) -> int:
        """Write the header of a file; returns the offset of the data."""
        with self._path(name).open("wb") as file:
            file.write(npy_header(self.shape, self.dtype, fortran=True))
            return file.tell()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class MatricesInParts:
    """Named matrices of which each process writes the scores of its captions, in files of its own that are joined.

    Parts are FOLDER/parts/PROCESS/NAME.npy, with the column numbers in PROCESS/columns.npy. At the end each process
    joins some of the names.

    Args:
        shape: Images and captions of the whole matrices.
        folder: An existing folder, on a disk that all processes have.
        columns: The captions of this process.
    """

    def __init__(self, shape: tuple[int, int], folder: Path, columns: np.ndarray, processes: Processes) -> None:
        self.shape, self.folder, self.processes = shape, folder, processes
        self.part = folder / PARTS / str(processes.index)
        with explained(self.part):
            if self.part.exists():  # of a killed evaluation
                shutil.rmtree(self.part)
            self.part.mkdir(parents=True, exist_ok=True)
            np.save(self.part / f"{COLUMNS}.npy", columns)
        self.own = MatricesInFiles((shape[0], len(columns)), self.part)
        self.place = np.full(shape[1], -1)
        self.place[columns] = np.arange(len(columns))

    def write(self, name: str, columns: np.ndarray, scores: np.ndarray) -> None:
        """Write the scores of some captions of this process, images x columns.

        Raises:
            DataError: Where the file cannot be written.
        """
        self.own.write(name, self.place[columns], scores)

    def finish(self) -> Mapping[str, np.ndarray]:
        """The whole matrices by name, each memory-mapped on access, when all processes have written theirs.

        Raises:
            DataError: Where a file cannot be written.
            ProcessError: Where another process was lost.
        """
        self.processes.wait()
        parts = [self.folder / PARTS / str(number) for number in range(self.processes.count)]
        names = sorted({file.stem for part in parts for file in part.glob("*.npy")} - {COLUMNS})
        for name in names[self.processes.index :: self.processes.count]:
            self._join(name, parts)
        self.processes.wait()
        if self.processes.is_main:
            shutil.rmtree(self.folder / PARTS)
        self.processes.wait()
        return MappedMatrices({name: self.folder / f"{name}.npy" for name in names})

    def _join(self, name: str, parts: Sequence[Path]) -> None:
        """Write the whole matrix of a name from its parts."""
        whole = MatricesInFiles(self.shape, self.folder)
        for part in parts:
            columns = np.load(part / f"{COLUMNS}.npy")
            if len(columns):
                scores = np.load(part / f"{name}.npy", mmap_mode="r")
                for chosen in np.array_split(np.arange(len(columns)), math.ceil(scores.size / BLOCK)):
                    whole.write(name, columns[chosen], scores[:, chosen])


def exchange_columns(matrix: np.ndarray, name: str, columns: np.ndarray, folder: Path, processes: Processes) -> None:
    """Fill a matrix in memory, of which each process has its captions, with those of all processes; through files.

    Args:
        matrix: Images x captions, float32.
        name: Of the files, which are removed.
        columns: The captions of this process.
        folder: An existing folder, on a disk that all processes have.

    Raises:
        DataError: Where a file cannot be written.
        ProcessError: Where another process was lost.
    """
    written = MatricesInParts(matrix.shape, folder, columns, processes)
    for chosen in np.array_split(columns, math.ceil(len(matrix) * max(1, len(columns)) / BLOCK)):
        if len(chosen):
            written.write(name, chosen, matrix[:, chosen])
    matrix[:] = written.finish()[name]
    processes.wait()
    if processes.is_main:
        (folder / f"{name}.npy").unlink()


class MappedMatrices(Mapping[str, np.ndarray]):
    """Matrices in files, each memory-mapped on access, so that only matrices in use occupy memory."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths

    def __getitem__(self, name: str) -> np.ndarray:
        """The matrix of that name, memory-mapped."""
        mapped: np.ndarray = np.load(self.paths[name], mmap_mode="r")
        return mapped

    def writable(self, name: str) -> np.ndarray:
        """The matrix of that name, memory-mapped; writes change the file."""
        mapped: np.ndarray = np.load(self.paths[name], mmap_mode="r+")
        return mapped

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.paths)

    def __len__(self) -> int:
        """Number of matrices."""
        return len(self.paths)


def writable(matrices: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A writable matrix, in memory or in its file."""
    return matrices.writable(name) if isinstance(matrices, MappedMatrices) else matrices[name]


def ensemble(members: Sequence[Mapping[str, np.ndarray]], folder: Path | None = None) -> Mapping[str, np.ndarray]:
    """The mean of several models' matrices, for the score names common to all.

    The means have the highest precision of the members, at least float32. A single member is returned unchanged.

    Args:
        members: By score name the matrices of each model.
        folder: Folder of the means; None: in memory.

    Raises:
        InputError: Where there is no member, the members share no name, or their shapes differ.
    """
    common_shape(members)
    if len(members) == 1:
        return members[0]
    names = [name for name in members[0] if all(name in member for member in members)]
    if not names:
        given = "; ".join(", ".join(member) for member in members)
        raise InputError(f"the models share no score name ({given}); an ensemble averages scores of the same name.")
    shape = common_shape(members)
    dtype = np.result_type(np.float32, *(member[name].dtype for member in members for name in names))
    means = MatricesInMemory(shape, dtype) if folder is None else MatricesInFiles(shape, folder, dtype)
    for name in names:
        matrices = [member[name] for member in members]
        for columns in np.array_split(np.arange(shape[1]), math.ceil(shape[0] * shape[1] / BLOCK)):
            if len(columns):
                means.write(name, columns, mean([matrix[:, columns] for matrix in matrices]))
    return means.finish()


def mean(members: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of arrays of one shape, in float64 or finer.

        m = sum_n x_n / N;    mean = m + sum_n (x_n - m) / N

    The second term corrects the rounding of the first, so that the mean of equal members equals them exactly.
    """
    first: np.ndarray = np.mean(members, axis=0, dtype=np.result_type(np.float64, *members))
    with np.errstate(invalid="ignore"):  # ranking rejects infinite scores
        rest = sum(member - first for member in members) / len(members)
    return np.where(np.isfinite(first), first + rest, first)


def common_shape(members: Sequence[Mapping[str, np.ndarray]]) -> tuple[int, int]:
    """The shape of all matrices, images x captions.

    Raises:
        InputError: Where there is no matrix, or a shape differs or is not images x captions.
    """
    named = [(name, matrix.shape) for member in members for name, matrix in member.items()]
    if not named or not all(members):
        raise InputError("expected at least one score matrix of every model; got none.")
    first, shape = named[0]
    for name, other in named:
        if other != shape or len(other) != 2:
            raise InputError(
                f"scores {name!r} have shape {other}, {first!r} have {shape}; expected images x captions, all alike."
            )
    return shape[0], shape[1]
