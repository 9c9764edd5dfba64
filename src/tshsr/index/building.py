"""Encode a split into table rows: in blocks, each committed atomically."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from tshsr.data.check import has_row_numbers
from tshsr.data.dataset import Split
from tshsr.engines.work import Engine
from tshsr.errors import DataError, TshsrError
from tshsr.index.about import read_pooling
from tshsr.index.database import LANCE_ERRORS, id_condition, ids_of, restored_on_failure
from tshsr.index.metadata import Metadata, picture_file, picture_name
from tshsr.index.rows import POOLED, boxes_column, encoding_columns, pooled_of, tokens_of
from tshsr.models.base import ItemEncoding, join_encodings
from tshsr.models.whole import SHARE
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import ENCODE_BLOCK, blocks
from tshsr.scoring.compression import RegionPooling
from tshsr.system import Begin, begin_no_progress

COMMIT_BYTES = 2**26
"""Approximate bytes of encodings per commit, the maximum loss after an interruption."""
MAX_COMPARED = 16
"""Maximum number of pictures that are encoded again to check that they are those of the index."""


@dataclass(frozen=True)
class Added:
    """Counts of an addition.

    Attributes:
        replaced: Indexed pictures that were encoded again.
        kept: Indexed pictures that were left unchanged.
    """

    new: int
    replaced: int
    kept: int
    captions: int


@dataclass(frozen=True)
class Addition:
    """A split to add, and how.

    Attributes:
        pictures: Absolute folder of the picture files.
        metadata: User metadata of the pictures.
        replace: Whether indexed pictures are encoded again.
        begin: Starts the progress of each stage.
        moved: Whether the user named the folder of the files; indexed pictures then get their files from it.
        engine: Encodes on its workers; None: in this process.
    """

    folder: Path
    retriever: Retriever
    split: Split
    pictures: Path | None
    metadata: Metadata | None
    replace: bool
    begin: Begin
    moved: bool = False
    engine: Engine | None = None

    @property
    def at_once(self) -> bool:
        """Whether all new rows are one version; without an engine each shard is one, so that a later run continues."""
        return self.engine is not None and not self.replace

    @property
    def rows_per_shard(self) -> int:
        """Pictures, or captions, that are encoded together; without an engine, per commit."""
        if self.engine is not None:
            return self.engine.shard
        row = 2 * self.split.regions.regions * self.retriever.config.model.encoder.dim
        return ENCODE_BLOCK * max(1, COMMIT_BYTES // (row * ENCODE_BLOCK))


def add_pictures(addition: Addition, table: Any) -> Added:
    """Encode the pictures of a split that are not in the table, or with `replace` all of them.

    Raises:
        DataError: Where the features cannot be read, two pictures share an id, or the index cannot be written.
    """
    check_ids(addition.split)
    names, indexed = addition.split.image_ids, set(ids_of(table))
    if not addition.replace:
        check_same_pictures(addition, table, indexed)
    wanted = [i for i, name in enumerate(names) if addition.replace or name not in indexed]
    shards = []
    for numbers in blocks(np.array(wanted, np.int64), addition.rows_per_shard):
        old = [number for number in numbers.tolist() if names[number] in indexed]
        new = [number for number in numbers.tolist() if names[number] not in indexed]
        shards += [PictureShard(part, is_new) for part, is_new in ((new, True), (old, False)) if part]
    encoded = encode_shards(addition, PictureShard.rows, shards, table.schema, "pictures")
    if addition.at_once:
        add_at_once(addition.folder, table, encoded)
    else:
        for shard, rows in zip(shards, encoded, strict=True):
            write_rows(addition.folder, table, rows, is_new=shard.new)
    new_count = sum(len(shard.numbers) for shard in shards if shard.new)
    return Added(new_count, len(wanted) - new_count, len(names) - len(wanted), 0)


def add_captions(addition: Addition, table: Any) -> int:
    """Encode the captions of a split that are not in the table, or with `replace` all; returns their number.

    Raises:
        DataError: Where a caption has no word, or the index cannot be written.
    """
    names = dict(enumerate(addition.split.caption_ids)) if addition.replace else new_captions(addition.split, table)
    groups = blocks_of_images(addition.split, list(names), addition.rows_per_shard)
    shards = [CaptionShard(numbers, [names[number] for number in numbers]) for numbers in groups]
    encoded = encode_shards(addition, CaptionShard.rows, shards, table.schema, "captions")
    if addition.at_once:
        add_at_once(addition.folder, table, encoded)
        return len(names)
    for shard, rows in zip(shards, encoded, strict=True):
        of_caption = addition.split.image_of_caption
        images = sorted({addition.split.image_ids[of_caption[number]] for number in shard.numbers})
        with restored_on_failure(addition.folder, table):
            if addition.replace:  # a picture may have fewer captions now
                merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.when_not_matched_by_source_delete(id_condition("image", images)).execute(rows)
            else:
                table.add(rows)
    if addition.replace:
        delete_captions_of_others(addition, table)
    return len(names)


def new_captions(split: Split, table: Any) -> dict[int, str]:
    """The captions of a split that a table lacks, by their texts, with a free id IMAGE#K each.

    The position in the split is not enough: captions may be inserted, and another split may have others of a picture.
    """
    if not split.captions:  # pictures for search only: no need to read those of the index
        return {}
    indexed = Counter(zip(ids_of(table, "image"), ids_of(table, "caption"), strict=True))
    taken, found = set(ids_of(table)), {}
    for number, (row, text) in enumerate(zip(split.image_of_caption.tolist(), split.captions, strict=True)):
        image = split.image_ids[row]
        if indexed[image, text] > 0:
            indexed[image, text] -= 1  # a picture may have a caption twice
            continue
        found[number] = next(name for name in (f"{image}#{k}" for k in count()) if name not in taken)
        taken.add(found[number])
    return found


def delete_captions_of_others(addition: Addition, table: Any) -> None:
    """Delete the captions of pictures that have none in the split any more.

    A split without any, as of pictures for search only, keeps those of the index.

    Raises:
        DataError: Where the index cannot be written.
    """
    split = addition.split
    if not split.captions:
        return
    captioned = {split.image_ids[row] for row in set(split.image_of_caption.tolist())}
    outdated = sorted((set(split.image_ids) - captioned) & set(ids_of(table, "image")))
    if outdated:
        with restored_on_failure(addition.folder, table):
            table.delete(id_condition("image", outdated))


@dataclass(frozen=True)
class PictureShard:
    """Pictures that are encoded together.

    Attributes:
        new: Whether they are not in the table.
    """

    numbers: Sequence[int]
    new: bool

    def rows(self, addition: Addition, schema: pa.Schema) -> pa.Table:
        """Their rows."""
        return picture_rows(addition, self.numbers, schema, new=self.new)


@dataclass(frozen=True)
class CaptionShard:
    """Captions that are encoded together, and their ids."""

    numbers: Sequence[int]
    names: Sequence[str]

    def rows(self, addition: Addition, schema: pa.Schema) -> pa.Table:
        """Their rows."""
        return caption_rows(addition, self.names, self.numbers, schema)


Part = TypeVar("Part", PictureShard, CaptionShard)
Rows = Callable[[Part, Addition, pa.Schema], pa.Table]


@dataclass(frozen=True)
class ShardEncoding(Generic[Part]):
    """Prepares a worker: the network there is on the worker's best device."""

    addition: Addition
    rows: Rows[Part]
    schema: pa.Schema

    def __call__(self) -> Callable[[Part], pa.Table]:
        """The function of one shard."""
        self.addition.retriever.to("cuda" if torch.cuda.is_available() else "cpu")
        return lambda shard: self.rows(shard, self.addition, self.schema)


def encode_shards(
    addition: Addition, rows: Rows[Part], shards: Sequence[Part], schema: pa.Schema, unit: str
) -> Iterator[pa.Table]:
    """The rows of shards, in their order: by the workers of the engine, or without one in this process."""
    progress, done = addition.begin("encoding", unit), 0
    total = sum(len(shard.numbers) for shard in shards)
    encoded: Iterator[tuple[int, pa.Table]]
    if addition.engine is None:
        encoded = ((number, rows(shard, addition, schema)) for number, shard in enumerate(shards))
    else:
        sent = replace(addition, engine=None, begin=begin_no_progress)
        encoded = addition.engine.run(ShardEncoding(sent, rows, schema), shards, ordered=True)
    for number, table in encoded:
        yield table
        done += len(shards[number].numbers)
        progress(done, total)


def add_at_once(folder: Path, table: Any, parts: Iterator[pa.Table]) -> None:
    """Add all parts as one version: their files are written as they come, the version after the last one.

    Raises:
        TshsrError: That of a part.
        DataError: Where the index cannot be written.
    """
    first = next(parts, None)
    if first is None:
        return
    failures: list[TshsrError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for part in chain([first], parts):
                yield from part.to_batches()
        except TshsrError as error:  # LanceDB would turn it into an error of its own
            failures.append(error)
            raise

    with restored_on_failure(folder, table):
        try:
            table.add(pa.RecordBatchReader.from_batches(table.schema, batches()))
        except LANCE_ERRORS:
            if failures:
                raise failures[0] from None
            raise


def write_rows(folder: Path, table: Any, rows: pa.Table, *, is_new: bool) -> None:
    """Commit rows as one version.

    Raises:
        DataError: Where the index cannot be written.
    """
    with restored_on_failure(folder, table):
        if is_new:
            table.add(rows)
        else:
            table.merge_insert("id").when_matched_update_all().execute(rows)


@torch.inference_mode()
def picture_rows(addition: Addition, numbers: Sequence[int], schema: pa.Schema, *, new: bool) -> pa.Table:
    """Rows of pictures; those of indexed ones lack the metadata columns, which therefore stay as they are."""
    matcher, device, encoded, boxes = addition.retriever.matcher, addition.retriever.device, [], []
    pooling = read_pooling(addition.folder)
    for block in blocks(np.asarray(numbers, np.int64), ENCODE_BLOCK):
        batch = addition.split.regions.read(block)
        encoding, places = matcher.encode_images(batch.to(device)), batch.boxes
        if pooling is not None:
            encoding, places = pooled_encoding(pooling.to(device), encoding, places)
        encoded.append(encoding_columns(encoding, tokens_of(schema)))
        boxes.append(boxes_column(places, encoding.mask.cpu()))
    columns: dict[str, Any] = {
        **file_columns(addition, numbers),
        **{name: pa.chunked_array([part[name] for part in encoded]) for name in encoded[0]},
        "boxes": pa.chunked_array(boxes),
        **(metadata_columns(addition, numbers, schema) if new else {}),
    }
    names = [name for name in schema.names if new or name in columns]
    empty = [None] * len(numbers)
    return pa.table({name: columns.get(name, empty) for name in names}, pa.schema([schema.field(n) for n in names]))


def pooled_encoding(
    pooling: RegionPooling, encoding: ItemEncoding, boxes: Tensor | None
) -> tuple[ItemEncoding, Tensor | None]:
    """Items of learned regions and their mean boxes; what is recomputed from items when they are read is left out."""
    places = None if boxes is None else boxes.to(encoding.items.device, encoding.items.dtype)
    few = pooling(encoding.items, encoding.mask, places)
    count = few.items.shape[1]
    views = {name: view[:, :count] for name, view in encoding.views.items() if name == SHARE}
    small = ItemEncoding(
        few.items, few.mask, encoding.pooled, encoding.gram.new_zeros(len(few.items), count, count), views
    )
    return small.weighted(few.weights), None if few.boxes is None else few.boxes.cpu()


def file_columns(addition: Addition, numbers: Sequence[int]) -> dict[str, list[Any]]:
    """Ids and files of pictures, by column.

    Raises:
        DataError: Where the name of a file leads out of the folder.
    """
    files = [picture_file(addition.split, number, addition.pictures) for number in numbers]
    return {
        "id": [addition.split.image_ids[number] for number in numbers],
        "file": [file.file for file in files],
        "folder": [file.folder for file in files],
        "width": [file.width for file in files],
        "height": [file.height for file in files],
    }


def metadata_columns(addition: Addition, numbers: Sequence[int], schema: pa.Schema) -> dict[str, pa.Array]:
    """User metadata of pictures, by column."""
    if addition.metadata is None:
        return {}
    names = [(addition.split.image_ids[number], picture_name(addition.split, number)) for number in numbers]
    known = [addition.metadata.lookup(name, file) for name, file in names]
    return addition.metadata.columns(known, {name: schema.field(name).type for name in addition.metadata.types})


def caption_rows(addition: Addition, names: Sequence[str], numbers: Sequence[int], schema: pa.Schema) -> pa.Table:
    """Rows of captions, by their ids and numbers in the split."""
    texts = [addition.split.captions[number] for number in numbers]
    for name, text in zip(names, texts, strict=True):
        if not any(letter.isalnum() for letter in text):
            raise DataError(f"{addition.split.data}: caption {name!r} has no word: {text!r}; leave it out.")
    starts = range(0, len(texts), ENCODE_BLOCK)
    encode = addition.retriever.encode_captions
    encoding = join_encodings([encode(texts[start : start + ENCODE_BLOCK]) for start in starts])
    columns = {
        "id": list(names),
        "image": [addition.split.image_ids[addition.split.image_of_caption[number]] for number in numbers],
        "caption": texts,
        **encoding_columns(encoding),
    }
    return pa.table(columns, schema)


def blocks_of_images(split: Split, captions: Sequence[int], size: int) -> Iterator[list[int]]:
    """Blocks of at least `size` captions that keep the captions of an image together."""
    by_image: dict[int, list[int]] = {}
    for caption in captions:
        by_image.setdefault(int(split.image_of_caption[caption]), []).append(caption)
    block: list[int] = []
    for group in by_image.values():
        block += group
        if len(block) >= size:
            yield block
            block = []
    if block:
        yield block


@torch.inference_mode()
def check_same_pictures(addition: Addition, table: Any, indexed: Collection[str]) -> None:
    """Refuse a split whose ids are only row numbers where the index has other pictures of these numbers.

    Such ids (of SCAN folders without a file of ids) identify nothing outside their split, so a sample of the shared
    ones is encoded and compared with the index.

    Raises:
        DataError: Where such a picture exists; the message names it.
    """
    shared = [row for row, name in enumerate(addition.split.image_ids) if name in indexed]
    if not shared or not has_row_numbers(addition.split):
        return
    sample = shared[:: max(1, len(shared) // MAX_COMPARED)][:MAX_COMPARED]
    names = [addition.split.image_ids[row] for row in sample]
    rows = table.search().where(id_condition("id", names)).select(["id", POOLED]).to_arrow()
    kept = dict(zip(rows["id"].to_pylist(), pooled_of(rows), strict=True))
    encoded = addition.retriever.encode_images(addition.split.regions.read(sample)).pooled.float().cpu()
    for name, pooled in zip(names, encoded, strict=True):
        if not torch.allclose(kept[name], pooled, atol=0.01):
            raise DataError(
                f"{addition.split.data}, split {addition.split.name}: its pictures have no ids except row numbers, "
                f"and the index has another picture {name!r}. Index it into a separate folder, or name its pictures "
                "by tshsr data convert."
            )


def check_ids(split: Split) -> None:
    """Refuse duplicate ids.

    Raises:
        DataError: Where two pictures share an id; the message names it.
    """
    name, times = Counter(split.image_ids).most_common(1)[0]
    if times > 1:
        where = f"{split.data}, split {split.name}"
        raise DataError(f"{where}: {times} pictures have the id {name!r}; each needs a unique one.")
