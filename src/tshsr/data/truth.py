"""Ground truth of generated data: the regions of each word, and false captions.

It is stored beside the data in `truth_{split}.jsonl`: a line of counts, a line for each caption, a line for each foil.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from tshsr.errors import DataError, first_invalid
from tshsr.files import replacing
from tshsr.scenes.meaning import FoilKind

VERSION = 1
Number = Annotated[int, Field(ge=0)]
Line = TypeVar("Line")


@dataclass(frozen=True)
class Foil:
    """A false caption with the words of a true one in another order.

    Attributes:
        caption: Number of the true caption.
        kind: attribute (a swapped colour, shape, size or texture) or relation (its two sides swapped).
    """

    image: Number
    caption: Number
    text: str
    kind: FoilKind


@dataclass(frozen=True)
class Truth:
    """Ground truth of a split.

    Attributes:
        regions_of_word: For each caption, by position of a content word (a shape, colour, size, texture or count), the
            numbers of all regions that show an object described by the word.
    """

    regions_of_word: tuple[dict[int, tuple[int, ...]], ...]
    foils: tuple[Foil, ...]


@dataclass(frozen=True)
class _Counts:
    version: int
    captions: Number
    foils: Number


@dataclass(frozen=True)
class _Caption:
    words: dict[Number, Annotated[tuple[Number, ...], Field(min_length=1)]]


def truth_file(folder: Path, split: str) -> Path:
    """The file of a split's truth."""
    return folder / f"truth_{split}.jsonl"


def write_truth(folder: Path, split: str, truth: Truth) -> None:
    """Write the truth of a split beside its data.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    records: list[object] = [_Counts(VERSION, len(truth.regions_of_word), len(truth.foils))]
    records += [_Caption(words) for words in truth.regions_of_word]
    records += truth.foils
    with replacing(truth_file(folder, split)) as file:
        for record in records:
            file.write((json.dumps(asdict(record)) + "\n").encode())  # type: ignore[call-overload]


def read_truth(folder: Path, split: str) -> Truth | None:
    """Read the truth of a split; None where the data has none.

    Raises:
        DataError: Where a line can't be read, or the counts of the first line are wrong.
    """
    path = truth_file(folder, split)
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Generate the data again.") from None
    counts = next(_parse(path, lines[:1], _Counts, 1), None)
    if counts is None or counts.version != VERSION:
        got = "is empty" if counts is None else f"has version {counts.version}"
        raise DataError(f"{path} {got}; this tshsr reads version {VERSION}. Generate the data again.")
    if len(lines) != 1 + counts.captions + counts.foils:
        raise DataError(
            f"{path} has {len(lines)} lines; its first one expects {counts.captions} captions and {counts.foils} "
            f"foils, {1 + counts.captions + counts.foils} lines in all. Generate the data again."
        )
    end = 1 + counts.captions
    captions = tuple(caption.words for caption in _parse(path, lines[1:end], _Caption, 2))
    foils = tuple(_parse(path, lines[end:], Foil, end + 1))
    for number, foil in enumerate(foils, start=end + 1):
        if foil.caption >= counts.captions:
            raise DataError(
                f"{path}:{number}: the foil of caption {foil.caption}; there are captions 0 to {counts.captions - 1}. "
                "Generate the data again."
            )
    return Truth(captions, foils)


def _parse(path: Path, lines: list[bytes], kind: type[Line], first: int) -> Iterator[Line]:
    adapter = TypeAdapter(kind)
    for number, line in enumerate(lines, start=first):
        try:
            yield adapter.validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: {first_invalid(error)}. Generate the data again.") from None
