"""From a split to rows: streamed in blocks, each of which is there as a whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tshsr.data.check import has_row_numbers
from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.index.database import ids_of, same, written
from tshsr.index.metadata import Metadata, picture_file, picture_name
from tshsr.index.rows import POOLED, boxes_column, encoding_columns, pooled_of
from tshsr.models.base import join_encodings
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks
from tshsr.system import Begin

COMMIT = 2**26
"""About how many bytes of encodings a version adds: what a kill can lose."""
COMPARED = 16
"""Pictures, at most, that are encoded again to see whether they are those of the index."""


@dataclass(frozen=True)
class Added:
    """What came of adding a split.

    Attributes:
        new: Pictures that were not there before.
        replaced: Pictures that were there and were encoded anew.
        kept: Pictures that were there and were left alone.
        captions: Captions that were written.
    """

    new: int
    replaced: int
    kept: int
    captions: int


@dataclass(frozen=True)
class Job:
    """Something to add.

    Attributes:
        folder: The index.
        retriever: The network.
        split: The pictures and captions.
        pictures: Folder of the picture files, as a whole path.
        metadata: What else is known of the pictures.
        replace: Whether what is there is written anew.
        begin: Told of each part of the work.
        moved: Whether the user named the folder of the files: then pictures that are there already get theirs from it.
    """

    folder: Path
    retriever: Retriever
    split: Split
    pictures: Path | None
    metadata: Metadata | None
    replace: bool
    begin: Begin
    moved: bool = False

    @property
    def at_once(self) -> int:
        """Pictures, or captions, of a version."""
        row = 2 * self.split.regions.regions * self.retriever.config.model.encoder.dim
        return ENCODE_BLOCK * max(1, COMMIT // (row * ENCODE_BLOCK))


def add_pictures(job: Job, table: Any) -> Added:
    """Encode the pictures of a split that are not in the table yet, or all of them.

    Raises:
        DataError: Where the features cannot be read, two pictures share an id, or the index cannot be written.
    """
    check_ids(job.split)
    there = set(ids_of(table))
    if not job.replace:
        check_same_pictures(job, table, there)
    wanted = [i for i, name in enumerate(job.split.image_ids) if job.replace or name not in there]
    tell, done, replaced = job.begin("encoding", "pictures"), 0, 0
    for numbers in blocks(np.array(wanted, np.int64), job.at_once):
        old = [number for number in numbers.tolist() if job.split.image_ids[number] in there]
        new = [number for number in numbers.tolist() if job.split.image_ids[number] not in there]
        for some, is_new in ((new, True), (old, False)):
            if some:
                write(job.folder, table, picture_rows(job, some, table.schema, new=is_new), is_new=is_new)
        replaced, done = replaced + len(old), done + len(numbers)
        tell(done, len(wanted))
    return Added(done - replaced, replaced, len(job.split.image_ids) - len(wanted), 0)


def add_captions(job: Job, table: Any) -> int:
    """Encode the captions of a split that are not in the table yet, or all of them; returns how many.

    Raises:
        DataError: Where a caption has no word, or the index cannot be written.
    """
    names = job.split.caption_ids
    there = set() if job.replace else set(ids_of(table))
    wanted = [i for i, name in enumerate(names) if name not in there]
    tell, done = job.begin("encoding", "captions"), 0
    for numbers in whole_images(job.split, wanted, job.at_once):
        rows = caption_rows(job, names, numbers, table.schema)
        images = sorted({job.split.image_ids[job.split.image_of_caption[number]] for number in numbers})
        with written(job.folder, table):
            if job.replace:  # a picture may have fewer captions now
                merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.when_not_matched_by_source_delete(same("image", images)).execute(rows)
            else:
                table.add(rows)
        done += len(numbers)
        tell(done, len(wanted))
    return done


def write(folder: Path, table: Any, rows: pa.Table, *, is_new: bool) -> None:
    """One version more.

    Raises:
        DataError: Where the index cannot be written.
    """
    with written(folder, table):
        if is_new:
            table.add(rows)
        else:
            table.merge_insert("id").when_matched_update_all().execute(rows)


@torch.inference_mode()
def picture_rows(job: Job, numbers: Sequence[int], schema: pa.Schema, *, new: bool) -> pa.Table:
    """Rows of some pictures; of old ones without metadata, so that what `facts.retell` left there stays."""
    matcher, device, encoded, boxes = job.retriever.matcher, job.retriever.device, [], []
    for some in blocks(np.asarray(numbers, np.int64), ENCODE_BLOCK):
        batch = job.split.regions.read(some)
        encoded.append(encoding_columns(matcher.encode_images(batch.to(device))))
        boxes.append(boxes_column(batch.boxes, batch.mask))
    columns: dict[str, Any] = {
        **file_columns(job, numbers),
        **{name: pa.chunked_array([part[name] for part in encoded]) for name in encoded[0]},
        "boxes": pa.chunked_array(boxes),
        **(metadata_columns(job, numbers, schema) if new else {}),
    }
    names = [name for name in schema.names if new or name in columns]
    nothing = [None] * len(numbers)
    return pa.table({name: columns.get(name, nothing) for name in names}, pa.schema([schema.field(n) for n in names]))


def file_columns(job: Job, numbers: Sequence[int]) -> dict[str, list[Any]]:
    """Ids and files of some pictures, by column.

    Raises:
        DataError: Where the name of a file leads out of the folder.
    """
    files = [picture_file(job.split, number, job.pictures) for number in numbers]
    return {
        "id": [job.split.image_ids[number] for number in numbers],
        "file": [file.file for file in files],
        "folder": [file.folder for file in files],
        "width": [file.width for file in files],
        "height": [file.height for file in files],
    }


def metadata_columns(job: Job, numbers: Sequence[int], schema: pa.Schema) -> dict[str, pa.Array]:
    """What the user knows of some pictures, by column."""
    if job.metadata is None:
        return {}
    names = [(job.split.image_ids[number], picture_name(job.split, number)) for number in numbers]
    known = [job.metadata.of(name, file) for name, file in names]
    return job.metadata.columns(known, {name: schema.field(name).type for name in job.metadata.types})


def caption_rows(job: Job, names: Sequence[str], numbers: Sequence[int], schema: pa.Schema) -> pa.Table:
    """Rows of some captions."""
    texts = [job.split.captions[number] for number in numbers]
    for number, text in zip(numbers, texts, strict=True):
        if not any(letter.isalnum() for letter in text):
            raise DataError(f"{job.split.data}: caption {names[number]!r} has no word: {text!r}; leave it out.")
    starts = range(0, len(texts), ENCODE_BLOCK)
    encode = job.retriever.encode_captions
    encoding = join_encodings([encode(texts[start : start + ENCODE_BLOCK]) for start in starts])
    columns = {
        "id": [names[number] for number in numbers],
        "image": [job.split.image_ids[job.split.image_of_caption[number]] for number in numbers],
        "caption": texts,
        **encoding_columns(encoding),
    }
    return pa.table(columns, schema)


def whole_images(split: Split, captions: Sequence[int], at_once: int) -> Iterator[list[int]]:
    """Captions in blocks of about a size that never part those of one image."""
    by_image: dict[int, list[int]] = {}
    for caption in captions:
        by_image.setdefault(int(split.image_of_caption[caption]), []).append(caption)
    block: list[int] = []
    for own in by_image.values():
        block += own
        if len(block) >= at_once:
            yield block
            block = []
    if block:
        yield block


@torch.inference_mode()
def check_same_pictures(job: Job, table: Any, there: Collection[str]) -> None:
    """Refuse a split whose ids are only row numbers, where other pictures have these numbers in the index.

    Such ids (of SCAN folders without a file of ids) say nothing outside their split: some of what is there is encoded
    again and compared.

    Raises:
        DataError: Names such a picture.
    """
    shared = [row for row, name in enumerate(job.split.image_ids) if name in there]
    if not shared or not has_row_numbers(job.split):
        return
    some = shared[:: max(1, len(shared) // COMPARED)][:COMPARED]
    names = [job.split.image_ids[row] for row in some]
    rows = table.search().where(same("id", names)).select(["id", POOLED]).to_arrow()
    kept = dict(zip(rows["id"].to_pylist(), pooled_of(rows), strict=True))
    here = job.retriever.encode_images(job.split.regions.read(some)).pooled.float().cpu()
    for name, pooled in zip(names, here, strict=True):
        if not torch.allclose(kept[name], pooled, atol=0.01):
            raise DataError(
                f"{job.split.data}, split {job.split.name}: its pictures have no ids but their row numbers, and the "
                f"index has another picture {name!r}. Index it into a folder of its own, or name its pictures by tshsr "
                "data convert."
            )


def check_ids(split: Split) -> None:
    """Refuse pictures that cannot be told apart.

    Raises:
        DataError: Names an id that two of them share.
    """
    name, times = Counter(split.image_ids).most_common(1)[0]
    if times > 1:
        raise DataError(f"{split.data}, split {split.name}: {times} pictures have the id {name!r}; each needs its own.")
