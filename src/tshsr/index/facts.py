"""What a user tells of pictures: columns for metadata, and facts and files of pictures that are there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.index.building import Job, file_columns
from tshsr.index.database import ids_of, written
from tshsr.index.metadata import Metadata
from tshsr.index.pictures import picture_name
from tshsr.index.rows import PICTURES, schema_of

LOG = logging.getLogger(__name__)


def facts_of(splits: Sequence[Split], metadata: Metadata) -> dict[str, Mapping[str, Any]]:
    """What is known of the pictures of some splits, by id.

    Raises:
        DataError: Where nothing is known of any of them.
    """
    found = {}
    for split in splits:
        for number, name in enumerate(split.image_ids):
            row = metadata.of(name, picture_name(split, number))
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


def retell(job: Job, table: Any) -> int:
    """Write what the user tells of pictures that are in the table; nothing else of them changes.

    Args:
        job: Its metadata are written, and the files of its pictures where their folder was named.
        table: The pictures; it gets the columns of the metadata.

    Returns:
        How many rows were written.

    Raises:
        DataError: Where the metadata do not fit the table or name no picture, or the index cannot be written.
    """
    told = 0
    if job.metadata is not None:
        known = facts_of([job.split], job.metadata)
        add_columns(job.folder, table, job.metadata)
        told += update_facts(job.folder, table, known, job.metadata)
    if job.moved and not job.replace:  # what is replaced gets its file with the rest
        told += update_files(job, table)
    return told


def add_columns(folder: Path, table: Any, metadata: Metadata) -> None:
    """Give a table the columns of the metadata; those that it has must hold values of the same type.

    Raises:
        DataError: Where a name is taken, or a type does not fit.
    """
    own, known = schema_of(PICTURES, 1).names, table.schema
    for name in metadata.types:
        if name.lower() in own:  # filters don't tell them apart
            raise DataError(
                f"{metadata.source}: the index has a column {name.lower()!r} of its own; give it another name."
            )
        if name in known.names:
            check_type(metadata, name, known.field(name).type)
    new = [pa.field(name, kind) for name, kind in metadata.types.items() if name not in known.names]
    if new:
        with written(folder, table):
            table.add_columns(pa.schema(new))


def check_type(metadata: Metadata, name: str, kind: pa.DataType) -> None:
    """Refuse values that do not fit a column that is there.

    Raises:
        DataError: Names both types.
    """
    values = pa.array([row.get(name) for row in metadata.rows.values()], metadata.types[name])
    try:
        values.cast(kind)
    except pa.ArrowException:
        raise DataError(
            f"{metadata.source}: column {name!r} holds {metadata.types[name]}, the index holds {kind} there; "
            "give it another name, or values of that type."
        ) from None


def update_facts(folder: Path, table: Any, known: Mapping[str, Mapping[str, Any]], metadata: Metadata) -> int:
    """Write facts, by id, of those pictures that are in the table; returns of how many they were others before.

    Raises:
        DataError: Where the index cannot be written.
    """
    types = {name: table.schema.field(name).type for name in metadata.types}
    return update(folder, table, pa.table({"id": list(known), **metadata.columns(known.values(), types)}))


def update_files(job: Job, table: Any) -> int:
    """Write where the files of pictures that are in the table are, of those that are there; returns how many moved.

    Raises:
        DataError: Where the index cannot be written.
    """
    there = set(ids_of(table))
    columns = file_columns(job, [number for number, name in enumerate(job.split.image_ids) if name in there])
    rows = pa.table(columns, pa.schema([table.schema.field(name) for name in columns]))
    return update(job.folder, table, rows.filter(pc.is_valid(rows["folder"])))


def update(folder: Path, table: Any, rows: pa.Table) -> int:
    """Write some columns of those rows that are in the table and differ there; returns how many.

    A version copies the rows that it changes, encodings and all; so what is known already is not written again.

    Raises:
        DataError: Where the index cannot be written.
    """
    if not table.count_rows():
        return 0
    before = {row["id"]: row for row in table.search().select(rows.column_names).to_arrow().to_pylist()}
    changed = [place for place, row in enumerate(rows.to_pylist()) if before.get(row["id"], row) != row]
    if changed:
        with written(folder, table):
            table.merge_insert("id").when_matched_update_all().execute(rows.take(pa.array(changed)))
    return len(changed)
