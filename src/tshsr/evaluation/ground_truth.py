"""Ground truth of a score matrix: the image of each caption, and the names of images and captions."""

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
    """The image of each caption, and the names of images and captions.

    Attributes:
        image_of_caption: For each caption the row of its image.
        images: Row by image name.
        captions: Column by caption name.
        digest: See `text.captions_digest`; None where the texts are unknown.
        repeated: The first name of several images, to which ratings cannot refer; None: all names differ.
    """

    data: str
    split: str
    image_of_caption: np.ndarray
    images: Mapping[str, int]
    captions: Mapping[str, int]
    digest: str | None = None
    repeated: str | None = None


def read_ground_truth(captions: Numbers | str | Path, split: str, images: int, columns: int) -> GroundTruth:
    """Read the image of each caption from an array, a file, a folder of data or the word `scenes`.

    Args:
        captions: For each caption the row of its image; or a file (`read_image_of_caption`), a folder, `scenes`.

    Raises:
        DataError: Where the captions do not fit the scores.
        InputError: Where an array holds other values than whole numbers.
    """
    if not isinstance(captions, str | Path):
        rows = as_rows(captions)
        return GroundTruth("scores", split, rows, *name_rows_and_columns(rows, images))
    path = Path(captions)
    if str(captions) == SCENES or path.is_dir():
        data = open_split(str(captions), split)
        if (len(data.regions), len(data.captions)) != (images, columns):
            raise DataError(
                f"the scores are of {images} images and {columns} captions; {data.data}, split {data.name} has "
                f"{len(data.regions)} and {len(data.captions)}. Name the split with --split."
            )
        return split_ground_truth(data)
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
    """Reject an id of two captions, as ratings refer to captions by id.

    Raises:
        DataError: Names the first such id.
    """
    twice = first_repeated(ids)
    if twice is not None:
        raise DataError(
            f"{path}: caption id {twice!r} occurs twice; give each caption its own id, or leave ids out (IMAGE#K then "
            "names it)."
        )


def first_repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name, times in Counter(names).items() if times > 1), None)


def split_ground_truth(split: Split) -> GroundTruth:
    """The ground truth of a split of data."""
    owner = split.image_of_caption
    named = name_rows_and_columns(owner, len(split.regions), split.image_ids)
    repeated = first_repeated(split.image_ids)
    return GroundTruth(split.data, split.name, owner, *named, split.captions_digest, repeated)


def name_rows_and_columns(
    image_of_caption: np.ndarray, images: int, names: Sequence[str] | None = None, ids: Sequence[str] | None = None
) -> tuple[dict[str, int], dict[str, int]]:
    """Row by image name, and column by caption name.

    Images without names are named by row. Captions are named by id, else by column, and in addition by IMAGE#K.
    """
    of_row = dict(enumerate(names or map(str, range(images))))
    rows = {name: row for row, name in of_row.items()}
    columns = {name: column for column, name in enumerate(ids or map(str, range(len(image_of_caption))))}
    known = [column for column, row in enumerate(image_of_caption.tolist()) if row in of_row]
    for column, name in zip(
        known, numbered_caption_ids(of_row[row] for row in image_of_caption[known].tolist()), strict=True
    ):
        columns.setdefault(name, column)
    return rows, columns
