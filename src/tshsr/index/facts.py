"""Metadata in the table of pictures: columns for it, and values for pictures that are there already."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from tshsr.data.dataset import Split
from tshsr.errors import DataError
from tshsr.index.database import ids_of, written
from tshsr.index.metadata import Metadata
from tshsr.index.pictures import picture_name
from tshsr.index.rows import PICTURES, schema_of

LOG = logging.getLogger(__name__)


def facts_of(split: Split, metadata: Metadata) -> dict[str, Mapping[str, Any]]:
    """What is known of the pictures of a split, by id.

    Raises:
        DataError: Where nothing is known of any of them.
    """
    found = {}
    for number, name in enumerate(split.image_ids):
        row = metadata.of(name, picture_name(split, number))
        if row:
            found[name] = row
    if not found:
        raise DataError(
            f"{metadata.source} names none of the {len(split.image_ids)} pictures of {split.data}, such as "
            f"{split.image_ids[0]!r}; its column {metadata.key} names {next(iter(metadata.rows), 'nothing')!r}."
        )
    if len(found) < len(metadata.rows):
        LOG.warning("%d entries of %s name no picture here", len(metadata.rows) - len(found), metadata.source)
    return found


def add_columns(folder: Path, table: Any, split: Split, metadata: Metadata) -> None:
    """Give a table the columns of the metadata; those that it has must hold values of the same type.

    Raises:
        DataError: Where a name is taken, a type does not fit, or the metadata is not of these pictures.
    """
    facts_of(split, metadata)
    own, known = schema_of(PICTURES, 1).names, table.schema
    for name in metadata.types:
        if name in own:
            raise DataError(f"{metadata.source}: the index has a column {name!r} of its own; give it another name.")
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


def update_facts(folder: Path, table: Any, split: Split, metadata: Metadata) -> None:
    """Write the metadata of pictures that are in the table; nothing else of them changes.

    Raises:
        DataError: Where the index cannot be written.
    """
    there = set(ids_of(table))
    known = {name: row for name, row in facts_of(split, metadata).items() if name in there}
    if not known:
        return
    types = {name: table.schema.field(name).type for name in metadata.types}
    rows = pa.table({"id": list(known), **metadata.columns(known.values(), types)})
    with written(folder, table):
        table.merge_insert("id").when_matched_update_all().execute(rows)
