"""User metadata of pictures, joined to the index by the pictures' ids or files; picture files and their sizes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv
from PIL import Image

from tshsr.data.dataset import Split, check_picture_name
from tshsr.data.pictures import upright_size
from tshsr.errors import DataError, parse_json

KEY_COLUMNS = ("id", "file")
COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
JSON_SUFFIXES, CSV_SUFFIXES = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")


@dataclass(frozen=True)
class Metadata:
    """Metadata of pictures.

    Attributes:
        source: The file, for messages.
        key: The key of `rows`: "id" or "file".
        types: By column.
        rows: By id or file, the values by column.
    """

    source: str
    key: str
    types: Mapping[str, pa.DataType]
    rows: Mapping[str, Mapping[str, Any]]

    def lookup(self, id: str, file: str | None) -> Mapping[str, Any]:  # noqa: A002 (the name of the column)
        """The metadata of a picture; a file may be named with its folders or without."""
        if self.key == "id":
            return self.rows.get(id, {})
        names = (file, PurePosixPath(file).name) if file is not None else (id,)
        return next((self.rows[name] for name in names if name in self.rows), {})

    def columns(self, known: Iterable[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
        """Columns of pictures, cast to the column types of the index."""
        rows = list(known)
        return {name: pa.array([row.get(name) for row in rows], self.types[name]).cast(types[name]) for name in types}


def read_metadata(path: Path) -> Metadata:
    """Read a CSV file with a heading, or a file of JSON lines.

    Raises:
        DataError: Where it cannot be read, names no pictures, or a column is of several types.
    """
    if path.suffix.lower() not in JSON_SUFFIXES + CSV_SUFFIXES:
        raise DataError(
            f"{path} is no metadata: expected {', '.join(JSON_SUFFIXES + CSV_SUFFIXES)}, with a column id or file."
        )
    try:
        rows = _lines(path) if path.suffix.lower() in JSON_SUFFIXES else _table(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8.") from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}); expected a CSV file.") from None
    return metadata_of(rows, str(path))


def metadata_of(rows: Sequence[Mapping[str, Any]], source: str) -> Metadata:
    """Check metadata rows, one mapping a picture.

    Raises:
        DataError: As `read_metadata`.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    key = next((key for key in KEY_COLUMNS if key in names), None)
    if key is None or len(names) < 2:
        raise DataError(f"{source} has the columns {', '.join(names) or '(none)'}; expected id or file, and others.")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(key), str | int):
            raise DataError(f"{source}: entry {number} has no {key}; each needs the {key} of its picture.")
    columns = [name for name in names if name not in KEY_COLUMNS]
    for name in columns:
        if not COLUMN_NAME.fullmatch(name):
            raise DataError(f"{source}: column {name!r} cannot be used in a filter; name it with letters, digits, _.")
    types = {name: _type(source, name, [row.get(name) for row in rows]) for name in columns}
    by_key = {str(row[key]): {name: row.get(name) for name in columns} for row in rows}
    if len(by_key) != len(rows):
        raise DataError(f"{source}: {len(rows)} entries name {len(by_key)} different pictures; expected one for each.")
    return Metadata(source, key, types, by_key)


def _type(source: str, name: str, values: Sequence[Any]) -> pa.DataType:
    """The type of a column."""
    try:
        found = pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        kinds = sorted({type(value).__name__ for value in values if value is not None})
        raise DataError(f"{source}: column {name!r} holds {', '.join(kinds)}; expected values of one type.") from None
    if pa.types.is_nested(found):
        raise DataError(f"{source}: column {name!r} holds lists or objects; expected texts, numbers or true and false.")
    return pa.string() if pa.types.is_null(found) else found


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: no JSON ({error}); expected one object per line.") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: a JSON {type(row).__name__}; expected one object per line.")
        rows.append(row)
    return rows


def _table(path: Path) -> list[dict[str, Any]]:
    comma = "\t" if path.suffix.lower() == ".tsv" else ","
    options = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(KEY_COLUMNS, pa.string()))
    content = path.read_bytes()
    content.decode("utf-8-sig")
    parsed = pyarrow.csv.read_csv(
        pa.BufferReader(content),
        parse_options=pyarrow.csv.ParseOptions(delimiter=comma, newlines_in_values=True),
        convert_options=options,
    )
    # Of texts only the empty one is missing: NA and null may be names. Arrow would take them for missing, too.
    return [{name: None if value == "" else value for name, value in row.items()} for row in parsed.to_pylist()]


CHECKED_FILES = 20
"""Number of expected files that are tested before a folder is refused."""


@dataclass(frozen=True)
class PictureFile:
    """The file of a picture.

    Attributes:
        file: Its name in the data; None where it has none.
        folder: Its folder; None where the file does not exist.
        width: Pixels, EXIF orientation applied; None where unknown.
        height: Pixels, EXIF orientation applied; None where unknown.
    """

    file: str | None
    folder: str | None = None
    width: int | None = None
    height: int | None = None


def picture_name(split: Split, image: int) -> str | None:
    """The file name of an image in the data, or its id where that has a suffix."""
    if split.files is not None:
        return split.files[image]
    name = split.image_ids[image]
    return name if PurePath(name).suffix else None


def picture_file(split: Split, image: int, folder: Path | None) -> PictureFile:
    """The file of an image, with its size where the file exists.

    Raises:
        DataError: Where its name leads out of the folder.
    """
    name = picture_name(split, image)
    if name is not None:
        check_picture_name(split.data, name)
    if folder is None or name is None or not (folder / name).is_file():
        return PictureFile(name)
    return PictureFile(name, str(folder), *(size_of(folder / name) or (None, None)))


def check_folder(split: Split, folder: Path) -> None:
    """Refuse a folder that holds none of the first pictures.

    Raises:
        DataError: Where it does; the message names an expected file.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder of pictures; name the one that holds the files of {split.data}.")
    names = [picture_name(split, image) for image in range(min(CHECKED_FILES, len(split.regions)))]
    files = [name for name in names if name is not None]
    if not any((folder / name).is_file() for name in files):
        wanted = f"such as {files[0]}" if files else f"and {split.data} names none"
        raise DataError(f"{folder} holds none of the expected picture files, {wanted}.")


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height from a picture's header, EXIF orientation applied; None where unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only the header is read
            with Image.open(path) as opened:
                return upright_size(opened)
    except Exception:  # noqa: BLE001 - decoders raise any exception, and the size is optional
        return None
