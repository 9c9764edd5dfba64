"""Whose caption is which, and how images and captions are name_rows_and_columns: what a matrix of scores alone does not say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.data.arrays import Numbers, as_rows
from tshsr.data.dataset import Split
from tshsr.data.layouts import SCENES, open_split
from tshsr.data.text import captions_digest, numbered_caption_ids
from tshsr.errors import DataError
from tshsr.evaluation.score_files import read_entries, read_image_of_caption


@dataclass(frozen=True)
class GroundTruth:
    """Whose caption is which, and how images and captions are name_rows_and_columns.

    Attributes:
        data: Name of the data set.
        split: Name of the split.
        image_of_caption: For each caption the row of its image.
        images: The row of each image's name.
        captions: The column of each caption's name.
        digest: Of the captions: see `captions.captions_digest`; None where their texts are unknown.
    """

    data: str
    split: str
    image_of_caption: np.ndarray
    images: Mapping[str, int]
    captions: Mapping[str, int]
    digest: str | None = None


def read_ground_truth(captions: Numbers | str | Path, split: str, images: int, columns: int) -> GroundTruth:
    """Whose caption is which: from an array, a file, a folder of data or the word scenes.

    Args:
        captions: Where it stands.
        split: Name of the split.
        images: Rows of the scores.
        columns: Columns of the scores.

    Raises:
        DataError: Where the captions are not those of the scores.
        InputError: Where an array's are no whole numbers.
    """
    if not isinstance(captions, str | Path):
        rows = as_rows(captions)
        return GroundTruth("scores", split, rows, *name_rows_and_columns(rows, images))
    path = Path(captions)
    if str(captions) == SCENES or path.is_dir():
        whose = split_ground_truth(open_split(str(captions), split))
        if (len(whose.images), len(whose.image_of_caption)) != (images, columns):
            raise DataError(
                f"the scores are of {images} images and {columns} captions; {whose.data}, split {whose.split} has "
                f"{len(whose.images)} and {len(whose.image_of_caption)}. Name the split with --split."
            )
        return whose
    owner = read_image_of_caption(path, images, columns)
    names: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    entries = texts = read_entries(path)
    if path.suffix in (".json", ".jsonl"):
        texts = [entry.get("caption") for entry in entries]
        if isinstance(entries[0]["image"], str):
            names = list(dict.fromkeys(entry["image"] for entry in entries))
        if all("id" in entry for entry in entries):
            ids = [str(entry["id"]) for entry in entries]
            check_ids(path, ids)
    known = all(isinstance(text, str) for text in texts)
    digest = captions_digest(texts, owner) if known else None
    return GroundTruth(path.name, split, owner, *name_rows_and_columns(owner, images, names, ids), digest)


def check_ids(path: Path, ids: Sequence[str]) -> None:
    """Refuse ids that name two captions: a rating could then be of the one or the other.

    Raises:
        DataError: Names the first such id.
    """
    twice = next((name for name, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise DataError(
            f"{path}: caption id {twice!r} stands twice; give each caption its own id, or leave ids out (IMAGE#K then "
            "names it)."
        )


def split_ground_truth(split: Split) -> GroundTruth:
    """The captions of a split of data."""
    owner = split.image_of_caption
    named = name_rows_and_columns(owner, len(split.regions), split.image_ids)
    return GroundTruth(split.data, split.name, owner, *named, split.captions_digest)


def name_rows_and_columns(
    image_of_caption: np.ndarray, images: int, names: Sequence[str] | None = None, ids: Sequence[str] | None = None
) -> tuple[dict[str, int], dict[str, int]]:
    """The row of each image's name, and the column of each caption's.

    An image without a name is name_rows_and_columns by its row; a caption by its id or else its column, and by IMAGE#K too.
    """
    rows = {name: row for row, name in enumerate(names or map(str, range(images)))}
    columns = {name: column for column, name in enumerate(ids or map(str, range(len(image_of_caption))))}
    of_row = dict(enumerate(rows))
    known = [column for column, row in enumerate(image_of_caption.tolist()) if row in of_row]
    for column, name in zip(
        known, numbered_caption_ids(of_row[row] for row in image_of_caption[known].tolist()), strict=True
    ):
        columns.setdefault(name, column)
    return rows, columns
