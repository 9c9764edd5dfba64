"""Files of score matrices and of their captions, for evaluation without a model."""

from __future__ import annotations

import math
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tshsr.data.arrays import tensor_to_array
from tshsr.data.npy import UnknownVersionError, map_npy, npy_header, read_npy_header
from tshsr.errors import DataError, SettingsError, TshsrError, first_line_in, parse_json
from tshsr.files import replacing
from tshsr.metrics.recall import BLOCK

KEY = "scores"
"""Name of the matrix in a file of several arrays."""
LENGTHS = 26
"""Offset of the lengths of name and extra field in a local file header of a zip archive (APPNOTE 4.3.7)."""


def save_scores(path: Path, scores: np.ndarray) -> None:
    """Write a score matrix atomically as .npy, images x captions, in its precision, at least float32.

    Raises:
        SettingsError: Where the name does not end in .npy.
        DataError: Where the file cannot be written.
    """
    check_scores_name(path)
    with replacing(path) as handle:
        dtype = np.result_type(np.float32, scores.dtype).newbyteorder("<")
        handle.write(npy_header(scores.shape, dtype))
        rows = max(1, BLOCK // scores.shape[1])
        for start in range(0, len(scores), rows):  # a mapped matrix is never fully in memory
            handle.write(np.ascontiguousarray(scores[start : start + rows], dtype).data)


def check_scores_name(path: Path) -> None:
    """Reject a file name that `save_scores` rejects, before hours of scoring.

    Raises:
        SettingsError: Where the name does not end in .npy.
    """
    if path.suffix != ".npy":
        raise SettingsError(
            f"scores are saved as .npy; {path} ends otherwise. Name it {path.with_suffix('.npy').name}."
        )


def read_scores(path: Path, *, key: str = KEY) -> np.ndarray:
    """Read a score matrix, images x captions; memory-mapped unless it is compressed.

    - `.npy`: the array.
    - `.npz`: the array of that name.
    - `.pt`, `.pth`: a tensor, or a dictionary with a tensor of that name; other pickled objects are rejected.

    Args:
        key: Name of the matrix in a file that holds several.

    Raises:
        SettingsError: Where the name ends otherwise.
        DataError: Where the file is missing or damaged, or holds no matrix of floats.
    """
    try:
        scores = load_matrix(path, key)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected a score matrix, as `evaluate --save-scores` writes it.") from None
    except TshsrError:
        raise
    except Exception as error:  # noqa: BLE001 - zip, decompression, numpy and torch have errors of their own
        reason = first_line_in(error)
        raise DataError(f"{path} holds no readable scores ({reason}); save or copy the file again.") from None
    if scores.ndim != 2 or 0 in scores.shape or scores.dtype.kind != "f":
        raise DataError(
            f"{path} holds {scores.dtype} of shape {scores.shape}; expected floats of shape images x captions, not "
            "empty."
        )
    return scores


def load_matrix(path: Path, key: str) -> np.ndarray:
    """Read an array by the suffix of its file."""
    match path.suffix:
        case ".npy":
            array: np.ndarray = map_npy(path)
        case ".npz":
            # An explicit handle: numpy leaves its own handle open if the file is no archive.
            with path.open("rb") as file, np.lib.npyio.NpzFile(file) as arrays:
                mapped = map_member(path, f"{key}.npy") if key in arrays else None
                array = named_scores(path, arrays, key) if mapped is None else mapped
            if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is no array
                raise DataError(f"{path} has a damaged array {key}; save or copy the file again.")
        case ".pt" | ".pth":
            array = tensor_to_array(find_tensor(path, load_tensors(path), key))
        case _:
            raise SettingsError(f"{path}: scores are read from .npy, .npz, .pt and .pth; rename or convert the file.")
    return array


def map_member(path: Path, member: str) -> np.ndarray | None:
    """Memory-map an uncompressed array of an archive; None for a compressed one."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        found = archive.getinfo(member)
        if found.compress_type != zipfile.ZIP_STORED:
            return None
        file.seek(found.header_offset + LENGTHS)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)  # the member's name and extra field
        start = file.tell()
        try:
            shape, fortran, dtype = read_npy_header(file)
        except UnknownVersionError:
            return None
        if dtype.hasobject or file.tell() - start + dtype.itemsize * math.prod(shape) != found.file_size:
            return None
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape, order=order)


def load_tensors(path: Path) -> object:
    """The contents of a file of `torch.save`, memory-mapped; files in the legacy format are read completely.

    Raises:
        DataError: Where it holds pickled objects other than tensors.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about the version of a pickle that is rejected anyway
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch's message recommends unsafe loading
        raise DataError(
            f"{path} holds no readable scores: it has pickled objects other than tensors, or is no file of torch.save; "
            "save them by torch.save(torch.as_tensor(scores), FILE), or as .npy by np.save."
        ) from None


def find_tensor(path: Path, values: object, key: str) -> torch.Tensor:
    """The tensor itself, or the entry of a dictionary.

    Raises:
        DataError: Where there is no tensor.
    """
    tensor = named_scores(path, values, key) if isinstance(values, dict) else values
    if not isinstance(tensor, torch.Tensor):
        raise DataError(f"{path} holds a {type(tensor).__name__}; expected a tensor, images x captions.")
    return tensor


def named_scores(path: Path, values: Mapping[str, Any], key: str) -> Any:
    """The entry of that name.

    Raises:
        DataError: Lists the available names.
    """
    if key not in values:
        names = ", ".join(map(str, values)) or "nothing"
        raise DataError(f"{path} holds {names}; expected the matrix under the name {key}. Name another with --key.")
    return values[key]


def read_image_of_caption(path: Path, images: int, captions: int) -> np.ndarray:
    """Read the image of each caption.

    - `.json`, `.jsonl`: one object per caption with the key `image`, in the order of the columns. Whole numbers are
      0-based rows. Names are numbered in order of first appearance.
    - Other suffixes: plain text, one caption per line, the same number of consecutive lines for each image.

    Returns:
        int64, for each caption the row of its image.

    Raises:
        DataError: Where the file is missing or damaged, or does not fit the scores.
    """
    entries = read_entries(path)
    if not entries:
        raise DataError(f"{path} holds no caption; expected {captions}, one per column of the scores.")
    if len(entries) != captions:
        raise DataError(
            f"{path} has {len(entries)} captions, the scores have {captions} columns for {images} rows; expected one "
            "caption per column. Are the scores captions x images (transpose them), or the captions of another split?"
        )
    if path.suffix in (".json", ".jsonl"):
        return rows_of_entries(path, entries, images)
    if captions % images:
        raise DataError(
            f"{path} has {captions} captions for {images} images; plain text needs the same number of consecutive "
            'lines for each image. Use JSON lines, {"image": row}, where the numbers differ.'
        )
    return np.repeat(np.arange(images, dtype=np.int64), captions // images)


def read_entries(path: Path) -> list[Any]:
    """One entry per caption: the JSON value, or the line of text.

    Raises:
        DataError: Where the file is missing, not UTF-8, or not valid JSON despite its suffix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected the captions of the scores.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); convert it first.") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    if path.suffix == ".jsonl":
        return [parsed_json(path, line, f"line {number}") for number, line in enumerate(lines, 1)]
    if path.suffix != ".json":
        return lines
    entries = parsed_json(path, text, "the whole file")
    if not isinstance(entries, list):
        raise DataError(f'{path} holds a JSON {type(entries).__name__}; expected a list of {{"image": ...}}.')
    return entries


def parsed_json(path: Path, text: str, place: str) -> Any:
    """Read JSON.

    Raises:
        DataError: Names the invalid part.
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}, {place}, is not valid JSON ({error}); fix it or write it again.") from None


def rows_of_entries(path: Path, entries: list[Any], images: int) -> np.ndarray:
    """The rows of the `image` keys, which are numbers or names.

    Raises:
        DataError: Where a key is missing or of another type, or where the images do not fit the scores.
    """
    keys = [entry.get("image") if isinstance(entry, dict) else None for entry in entries]
    kind = str if keys and isinstance(keys[0], str) else int
    for number, key in enumerate(keys):
        if not isinstance(key, kind) or isinstance(key, bool):
            raise DataError(
                f'{path}: caption {number} (from 0) has no usable "image": {key!r}; expected row numbers for all '
                "captions, or names for all."
            )
        if isinstance(key, int) and not 0 <= key < images:
            raise DataError(
                f"{path}: caption {number} (from 0) names image {key}, but the scores have rows 0 to {images - 1}; "
                "give row numbers, or ids as strings."
            )
    if kind is str:
        rows = {name: row for row, name in enumerate(dict.fromkeys(keys))}
        if len(rows) != images:
            raise DataError(f"{path} names {len(rows)} different images, but the scores have {images} rows.")
        keys = [rows[name] for name in keys]
    return np.array(keys, dtype=np.int64)
