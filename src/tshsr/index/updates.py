"""Writes to an index: create, add, update metadata, delete, maintain; one process at a time."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tshsr.data.dataset import Split
from tshsr.errors import DataError, UnknownPictureError
from tshsr.files import make_folder, reachable
from tshsr.index.about import (
    POOLING,
    WHOLE,
    IndexInfo,
    Smaller,
    check_model,
    has_info,
    new_info,
    read_info,
    update_info,
    write_info,
)
from tshsr.index.ann import maintain, sample_rows, sample_sentences
from tshsr.index.building import Added, Addition, add_captions, add_pictures, file_columns
from tshsr.index.database import (
    compact,
    id_condition,
    ids_of,
    open_table,
    restore_readable,
    restored_on_failure,
    write_lock,
)
from tshsr.index.metadata import Metadata, picture_name
from tshsr.index.rows import CAPTIONS, PICTURES, schema_of
from tshsr.retriever import Retriever
from tshsr.training.checkpoints import save_tensors

LOG = logging.getLogger(__name__)
SEPARATOR = "; "
"""Between the names of unfinished additions."""


def metadata_of_splits(splits: Sequence[Split], metadata: Metadata) -> dict[str, Mapping[str, Any]]:
    """Metadata of the pictures of splits, by id.

    Raises:
        DataError: Where the metadata name none of them.
    """
    found = {}
    for split in splits:
        for number, name in enumerate(split.image_ids):
            row = metadata.lookup(name, picture_name(split, number))
            if row:
                found[name] = row
    if not found:
        count, first = sum(len(split.image_ids) for split in splits), splits[0]
        raise DataError(
            f"{metadata.source} names none of the {count} pictures of {first.data}, such as {first.image_ids[0]!r}; "
            f"its column {metadata.key} names {next(iter(metadata.rows), 'nothing')!r}."
        )
    if len(found) < len(metadata.rows):
        LOG.warning("%d entries of %s name no picture here", len(metadata.rows) - len(found), metadata.source)
    return found


def update_metadata(addition: Addition, table: Any) -> int:
    """Write the user metadata and files of indexed pictures; their encodings stay.

    Args:
        addition: Its metadata are written, and the files of its pictures where the user named their folder.
        table: The pictures; columns of the metadata are added.

    Returns:
        Number of rows written.

    Raises:
        DataError: Where the metadata do not fit the table or name no picture, or the index cannot be written.
    """
    count = 0
    if addition.metadata is not None:
        rows = metadata_of_splits([addition.split], addition.metadata)
        add_columns(addition.folder, table, addition.metadata)
        count += write_metadata(addition.folder, table, rows, addition.metadata)
    if addition.moved and not addition.replace:  # replaced rows include their files
        count += update_files(addition, table)
    return count


def add_columns(folder: Path, table: Any, metadata: Metadata) -> None:
    """Add the columns of the metadata to a table; existing ones must have the same type.

    Raises:
        DataError: Where a name is taken, or a type does not fit.
    """
    internal, known = schema_of(PICTURES).names, table.schema
    for name in metadata.types:
        # LanceDB has columns of its own (_rowid, _distance, ...), more with each version. Filters ignore case.
        if name.lower() in internal or (name.startswith("_") and name not in known.names):
            raise DataError(f"{metadata.source}: the index reserves the column {name.lower()!r}; give it another name.")
        if name in known.names:
            check_type(metadata, name, known.field(name).type)
    new = [pa.field(name, kind) for name, kind in metadata.types.items() if name not in known.names]
    if new:
        with restored_on_failure(folder, table):
            table.add_columns(pa.schema(new))


def check_type(metadata: Metadata, name: str, kind: pa.DataType) -> None:
    """Refuse values that do not fit the type of an existing column.

    Raises:
        DataError: Where they do not; the message names both types.
    """
    values = pa.array([row.get(name) for row in metadata.rows.values()], metadata.types[name])
    try:
        values.cast(kind)
    except pa.ArrowException:
        raise DataError(
            f"{metadata.source}: column {name!r} holds {metadata.types[name]}, the index holds {kind} there; "
            "give it another name, or values of that type."
        ) from None


def write_metadata(folder: Path, table: Any, rows: Mapping[str, Mapping[str, Any]], metadata: Metadata) -> int:
    """Write metadata of indexed pictures, by id; returns the number of changed rows.

    Raises:
        DataError: Where the index cannot be written.
    """
    types = {name: table.schema.field(name).type for name in metadata.types}
    return update_rows(folder, table, pa.table({"id": list(rows), **metadata.columns(rows.values(), types)}))


def update_files(addition: Addition, table: Any) -> int:
    """Write the paths of the existing files of indexed pictures; returns the number of changed rows.

    Raises:
        DataError: Where the index cannot be written.
    """
    indexed = set(ids_of(table))
    columns = file_columns(
        addition, [number for number, name in enumerate(addition.split.image_ids) if name in indexed]
    )
    rows = pa.table(columns, pa.schema([table.schema.field(name) for name in columns]))
    return update_rows(addition.folder, table, rows.filter(pc.is_valid(rows["folder"])))


def update_rows(folder: Path, table: Any, rows: pa.Table) -> int:
    """Write columns of existing rows whose values differ; returns the number of changed rows.

    A version copies the rows that it changes, encodings included, so unchanged rows are not written.

    Raises:
        DataError: Where the index cannot be written.
    """
    if not table.count_rows():
        return 0
    before = {row["id"]: row for row in table.search().select(rows.column_names).to_arrow().to_pylist()}
    changed = [position for position, row in enumerate(rows.to_pylist()) if before.get(row["id"], row) != row]
    if changed:
        with restored_on_failure(folder, table):
            table.merge_insert("id").when_matched_update_all().execute(rows.take(pa.array(changed)))
    return len(changed)


MAX_SUGGESTED_FROM = 2_000
"""Maximum number of ids among which a similar one is suggested; comparing with more takes seconds."""


@dataclass(frozen=True)
class Tables:
    """The tables of an index, for writing."""

    pictures: Any
    captions: Any


def create_index(
    folder: Path,
    retriever: Retriever,
    extractor: str,
    settings: Mapping[str, Any],
    run: str | Path | None,
    smaller: Smaller = WHOLE,
) -> None:
    """Create an empty index, or check that the existing one is of this network.

    Args:
        smaller: Numbers and learned regions.

    Raises:
        DataError: Where the features are not for the network, the folder holds something else or an index with other
            numbers or regions, or another process is writing to it.
        CheckpointError: Where it holds an index of another network.
    """
    retriever.check_extractor(extractor)
    check_place(folder)
    make_folder(folder)
    with write_lock(folder):  # creating a table deletes the remains of an interrupted creation
        if not has_info(folder):
            source = None if run is None else str(run)
            if smaller.pooling is not None:
                save_tensors(folder / POOLING, smaller.pooling.state_dict())
            write_info(folder, new_info(retriever, extractor, dict(settings), source, folder, smaller))
        info = read_info(folder)
        check_model(folder, info, retriever)
        check_smaller(folder, info, smaller)
        for name in (PICTURES, CAPTIONS):
            width, pooled = info.pooled_width or info.dim, info.regions > 0
            open_table(folder, name, schema_of(name, width, shares=info.shares, weights=pooled, tokens=info.tokens))


def check_smaller(folder: Path, info: IndexInfo, smaller: Smaller) -> None:
    """Refuse other numbers or learned regions than those of an index.

    Raises:
        DataError: Where they differ; the message names both.
    """
    if smaller.tokens not in (None, info.tokens):
        raise DataError(
            f"{folder} holds regions in {info.tokens}, {smaller.tokens} was asked for; make another index in a new "
            "folder."
        )
    if smaller.pooling is not None and len(smaller.pooling.vectors) != info.regions:
        raise DataError(
            f"{folder} holds {info.regions or 'all'} regions of a picture, {len(smaller.pooling.vectors)} were asked "
            "for; make another index in a new folder."
        )


def check_place(folder: Path) -> None:
    """Refuse a folder with other contents before anything is written into it.

    Raises:
        DataError: Where there are any; the message names one. Where object storage cannot be read.
    """
    with reachable(folder):
        if has_info(folder) or not folder.is_dir():
            return
        # Learned regions are written before `index.json`, so that an interrupted creation may leave them alone.
        contents = sorted(path.name for path in folder.iterdir() if path.name[0] != "." and path.name != POOLING)
    if contents:
        raise DataError(f"{folder} holds something that is no index ({contents[0]}); name another folder.")


def add_split(addition: Addition, tables: Tables, *, captions: bool) -> Added:
    """Add the pictures of a split, and optionally its captions.

    Raises:
        DataError: Where something cannot be read or written; earlier commits stay.
    """
    with write_lock(addition.folder):
        restore_all(addition.folder, tables)
        updated = update_metadata(addition, tables.pictures)
        former = read_info(addition.folder).unfinished
        others = unfinished_besides(former, addition.split)
        update_info(addition.folder, unfinished=SEPARATOR.join([*others, name_of(addition.split)]))
        added = add_pictures(addition, tables.pictures)
        if captions:
            added = replace(added, captions=add_captions(addition, tables.captions))
        maintain_tables(addition.folder, tables, addition.retriever, changed=max(added.replaced, updated))
        update_info(addition.folder, unfinished=SEPARATOR.join(others) or None)
    return added


def name_of(split: Split) -> str:
    """The name of a split among unfinished additions."""
    return f"{split.data}, split {split.name}".replace(SEPARATOR, ", ")


def unfinished_besides(names: str | None, split: Split) -> list[str]:
    """Unfinished additions that the addition of a split does not complete."""
    return [name for name in (names or "").split(SEPARATOR) if name not in ("", name_of(split))]


def delete_pictures(folder: Path, tables: Tables, retriever: Retriever, ids: Sequence[str]) -> None:
    """Delete pictures and their captions.

    Raises:
        DataError: Where an id is unknown (nothing is deleted then), or the index cannot be written.
    """
    if not ids:
        return
    with write_lock(folder):
        restore_all(folder, tables)
        indexed = set(ids_of(tables.pictures))
        for name in ids:
            if name not in indexed:
                raise unknown_picture(folder, name, indexed)
        for table, column in ((tables.captions, "image"), (tables.pictures, "id")):
            with restored_on_failure(
                folder, table
            ):  # captions first: interrupted here, the same command deletes the rest
                table.delete(id_condition(column, ids))
        maintain_tables(folder, tables, retriever, changed=len(ids))


def restore_all(folder: Path, tables: Tables) -> None:
    """Roll back versions that an earlier writer left unreadable."""
    for table in (tables.pictures, tables.captions):
        restore_readable(folder, table)


def maintain_tables(folder: Path, tables: Tables, retriever: Retriever, *, changed: int) -> None:
    """Compact the tables after a change, and rebuild their ANN indices where needed."""
    pictures, captions = tables.pictures, tables.captions
    for table in (pictures, captions):
        compact(folder, table, changed=changed)
    maintain(
        folder,
        PICTURES,
        pictures,
        lambda: sample_rows(captions) if captions.count_rows() else sample_sentences(retriever),
    )
    maintain(folder, CAPTIONS, captions, lambda: sample_rows(pictures))


def unknown_picture(folder: Path, name: str, names: Collection[str]) -> UnknownPictureError:
    """The error for an unknown id; suggests a similar one where the ids are few enough to compare."""
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5) if len(names) <= MAX_SUGGESTED_FROM else []
    return UnknownPictureError(f"{folder} has no picture {name!r}{f'; did you mean {near[0]!r}?' if near else '.'}")
