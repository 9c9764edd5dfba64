"""Score matrices and their captions as files: evaluation without a model (`evaluate --scores --captions`)."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tshsr.errors import DataError, SettingsError
from tshsr.files import replacing
from tshsr.metrics import BLOCK


def save_scores(path: Path, scores: np.ndarray) -> None:
    """Keep a score matrix as float32 .npy, images x captions, whole or not at all.

    Raises:
        SettingsError: Where the name does not end in .npy.
        DataError: Where the file cannot be written.
    """
    check_scores_name(path)
    with replacing(path) as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": scores.shape}
        np.lib.format.write_array_header_1_0(handle, header)
        rows = max(1, BLOCK // scores.shape[1])
        for start in range(0, len(scores), rows):  # what is mapped from a file is never in memory as a whole
            handle.write(np.ascontiguousarray(scores[start : start + rows], np.dtype("<f4")).data)


def check_scores_name(path: Path) -> None:
    """Refuse a name that `save_scores` would refuse, before hours of scoring.

    Raises:
        SettingsError: Where the name does not end in .npy.
    """
    if path.suffix != ".npy":
        raise SettingsError(
            f"scores are saved as .npy; {path} ends otherwise. Name it {path.with_suffix('.npy').name}."
        )


def read_scores(path: Path) -> np.ndarray:
    """Read a score matrix, images x captions.

    - `.npy`: memory-mapped, read only.
    - `.npz`: the array named `scores`.
    - `.pt`, `.pth`: a tensor, or a dictionary that holds one as `scores`; never anything pickled beside tensors.

    Raises:
        SettingsError: Where the name ends otherwise.
        DataError: Where the file is missing or damaged, or holds no matrix of floats.
    """
    try:
        scores = load_matrix(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; expected a score matrix, as `evaluate --save-scores` writes it.") from None
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} holds no readable scores ({reason}); save or copy the file again.") from None
    if scores.ndim != 2 or scores.dtype.kind != "f":
        raise DataError(
            f"{path} holds {scores.dtype} of shape {scores.shape}; expected floats of shape images x captions."
        )
    return scores


def load_matrix(path: Path) -> np.ndarray:
    """Read an array by its file's ending."""
    match path.suffix:
        case ".npy":
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
        case ".npz":
            # Our own handle: where the file is no archive, numpy leaves the one that it opens to the collector.
            with path.open("rb") as file, np.lib.npyio.NpzFile(file) as arrays:
                array = named_scores(path, arrays)
        case ".pt" | ".pth":
            array = tensor_to_array(path, torch.load(path, map_location="cpu", weights_only=True))
        case _:
            raise SettingsError(f"{path}: scores are read from .npy, .npz, .pt and .pth; rename or convert the file.")
    return array


def tensor_to_array(path: Path, values: object) -> np.ndarray:
    """The array of a tensor, or of a dictionary's tensor.

    Raises:
        DataError: Where there is no tensor.
    """
    tensor = named_scores(path, values) if isinstance(values, dict) else values
    if not isinstance(tensor, torch.Tensor):
        raise DataError(f"{path} holds a {type(tensor).__name__}; expected a tensor, images x captions.")
    tensor = tensor.detach()
    array: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # numpy has no bfloat16
    return array


def named_scores(path: Path, values: Mapping[str, Any]) -> Any:
    """The entry called scores.

    Raises:
        DataError: Says which names there are.
    """
    if "scores" not in values:
        names = ", ".join(map(str, values)) or "nothing"
        raise DataError(f"{path} holds {names}; expected the matrix under the name scores.")
    return values["scores"]


def read_image_of_caption(path: Path, images: int, captions: int) -> np.ndarray:
    """Read which caption belongs to which image.

    - `.json`, `.jsonl`: one object a caption with the key `image`, in the order of the columns. Whole numbers are row
      numbers, from 0. Names number the images in the order in which they first appear.
    - Anything else is plain text with one caption a line, the same number of consecutive lines for each image.

    Args:
        path: The file.
        images: Rows of the scores.
        captions: Columns of the scores.

    Returns:
        int64, for each caption the row of its image.

    Raises:
        DataError: Where the file is missing or damaged, or does not fit the scores.
    """
    entries = read_entries(path)
    if len(entries) != captions:
        raise DataError(
            f"{path} has {len(entries)} captions, the scores have {captions} columns for {images} rows; expected one "
            "caption a column. Are the scores captions x images (transpose them), or the captions of another split?"
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
    """One entry a caption: what the JSON says, or the line itself.

    Raises:
        DataError: Where the file is missing, is not UTF-8, or is not the JSON that its name promises.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected the captions of the scores.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); convert it first.") from None
    lines = text.removesuffix("\n").split("\n")
    if path.suffix == ".jsonl":
        return [parse_json(path, line, f"line {number}") for number, line in enumerate(lines, 1)]
    if path.suffix != ".json":
        return lines
    entries = parse_json(path, text, "the whole file")
    if not isinstance(entries, list):
        raise DataError(f'{path} holds a JSON {type(entries).__name__}; expected a list of {{"image": ...}}.')
    return entries


def parse_json(path: Path, text: str, place: str) -> Any:
    """Read JSON.

    Raises:
        DataError: Names the place that is no JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}, {place}, is not valid JSON ({error}); mend it or write it again.") from None


def rows_of_entries(path: Path, entries: list[Any], images: int) -> np.ndarray:
    """The rows that the `image` keys name, by number or by name.

    Raises:
        DataError: Where a key is missing or of another kind, or where the images are not those of the scores.
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
