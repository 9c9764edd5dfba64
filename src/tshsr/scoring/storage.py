"""Score matrices that fill caption by caption, in memory or in files that hold more than memory does; their means.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from tshsr.data.npy import npy_header
from tshsr.errors import DataError, InputError
from tshsr.metrics.recall import BLOCK


class MatricesInMemory:
    """Named matrices of one precision, written in columns.

    Args:
        shape: Images and captions.
        dtype: Their precision.
    """

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike = np.float32) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.kept: dict[str, np.ndarray] = {}

    def write(self, name: str, columns: np.ndarray, scores: np.ndarray) -> None:
        """Put the scores of some captions (images x columns) in their places."""
        self.kept.setdefault(name, np.empty(self.shape, self.dtype))[:, columns] = scores

    def finish(self) -> Mapping[str, np.ndarray]:
        """The matrices by name."""
        return self.kept


class MatricesInFiles:
    """The same in files FOLDER/NAME.npy, a caption's scores in one piece (Fortran order).

    Written by plain writes and not through a memory map, whose pages would count as this process's memory. A file is
    open only while it is written to, so that nothing stays open after an error elsewhere.

    Args:
        shape: Images and captions.
        folder: An existing folder.
        dtype: Their precision.
    """

    def __init__(self, shape: tuple[int, int], folder: Path, dtype: DTypeLike = np.float32) -> None:
        self.shape = shape
        self.folder = folder
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.starts: dict[str, int] = {}

    def write(self, name: str, columns: np.ndarray, scores: np.ndarray) -> None:
        """Put the scores of some captions (images x columns) in their places.

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
        """The matrices by name, each mapped from its file when it is asked for."""
        return MappedMatrices({name: self._path(name) for name in self.starts})

    def _begin(self, name: str) -> int:
        """Write a file's header; where its numbers begin."""
        with self._path(name).open("wb") as file:
            file.write(npy_header(self.shape, self.dtype, fortran=True))
            return file.tell()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


class MappedMatrices(Mapping[str, np.ndarray]):
    """Matrices in files; each is mapped anew when it is asked for, so that only what is in use is in memory.

    Args:
        paths: The file of each.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths

    def __getitem__(self, name: str) -> np.ndarray:
        """The matrix of that name, mapped."""
        mapped: np.ndarray = np.load(self.paths[name], mmap_mode="r")
        return mapped

    def writable(self, name: str) -> np.ndarray:
        """The same, so that what is written to it goes into the file."""
        mapped: np.ndarray = np.load(self.paths[name], mmap_mode="r+")
        return mapped

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.paths)

    def __len__(self) -> int:
        """How many."""
        return len(self.paths)


def writable(matrices: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One of the matrices to write to, in memory or in its file."""
    return matrices.writable(name) if isinstance(matrices, MappedMatrices) else matrices[name]


def ensemble(members: Sequence[Mapping[str, np.ndarray]], folder: Path | None = None) -> Mapping[str, np.ndarray]:
    """The mean of several models' matrices, for the score names that all of them have.

    They have the precision of the finest member, float32 at least. One member is given back as it is.

    Args:
        members: By score name the matrices of each model.
        folder: Where to keep the means; None: in memory.

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

    The second term is what rounding took from the first, so equal members average to themselves exactly.
    """
    first: np.ndarray = np.mean(members, axis=0, dtype=np.result_type(np.float64, *members))
    with np.errstate(invalid="ignore"):  # infinities are refused where they are ranked
        rest = sum(member - first for member in members) / len(members)
    return np.where(np.isfinite(first), first + rest, first)


def common_shape(members: Sequence[Mapping[str, np.ndarray]]) -> tuple[int, int]:
    """Images and captions, which every matrix must share.

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
