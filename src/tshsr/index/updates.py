"""Everything that writes to an index: one process at a time, versions that readers see whole."""

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
from tshsr.errors import DataError
from tshsr.files import explained
from tshsr.index.about import ABOUT, about_model, change_about, check_model, read_about, write_about
from tshsr.index.ann import maintain, sample_rows, sample_sentences
from tshsr.index.building import Added, Job, add_captions, add_pictures, file_columns
from tshsr.index.database import ids_of, mend, one_writer, open_table, same, tidy, written
from tshsr.index.metadata import Metadata, picture_name
from tshsr.index.rows import CAPTIONS, PICTURES, schema_of
from tshsr.retriever import Retriever

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


GUESSED = 2_000
"""Among so many ids the one that was meant is looked for; comparing with more takes seconds."""


@dataclass(frozen=True)
class Tables:
    """The tables of an index, for writing."""

    pictures: Any
    captions: Any


def create_index(
    folder: Path, retriever: Retriever, extractor: str, settings: Mapping[str, Any], run: str | Path | None
) -> None:
    """Make an empty index, or check that the one there is of this network.

    Raises:
        DataError: Where the features are not for the network, the folder holds something else, or another process is
            writing to it.
        CheckpointError: Where it holds an index that another network made.
    """
    retriever.check_extractor(extractor)
    check_place(folder)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with one_writer(folder):  # who makes a table clears away what a killed creation left of it
        if not (folder / ABOUT).exists():
            place = None if run is None else str(run)
            write_about(folder, about_model(retriever, extractor, dict(settings), place, folder))
        about = read_about(folder)
        check_model(folder, about, retriever)
        for name in (PICTURES, CAPTIONS):
            open_table(folder, name, schema_of(name, about.dim))


def check_place(folder: Path) -> None:
    """Refuse a folder of something else, before anything is written into it.

    Raises:
        DataError: Names what is there.
    """
    if (folder / ABOUT).exists() or not folder.is_dir():
        return
    there = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    if there:
        raise DataError(f"{folder} holds something that is no index ({there[0]}); name another folder.")


def add_split(job: Job, tables: Tables, *, captions: bool) -> Added:
    """Add the pictures of a split, and its captions where they are wanted.

    Raises:
        DataError: Where something cannot be read or written; what was written before stays.
    """
    with one_writer(job.folder):
        mend_all(job.folder, tables)
        told = retell(job, tables.pictures)
        change_about(job.folder, unfinished=f"{job.split.data}, split {job.split.name}")
        added = add_pictures(job, tables.pictures)
        if captions:
            added = replace(added, captions=add_captions(job, tables.captions))
        keep_up(job.folder, tables, job.retriever, changed=max(added.replaced, told))
        change_about(job.folder, unfinished=None)
    return added


def delete_pictures(folder: Path, tables: Tables, retriever: Retriever, ids: Sequence[str]) -> None:
    """Take pictures and their captions out.

    Raises:
        DataError: Where one is not there (nothing is deleted then), or the index cannot be written.
    """
    if not ids:
        return
    with one_writer(folder):
        mend_all(folder, tables)
        there = set(ids_of(tables.pictures))
        for name in ids:
            if name not in there:
                raise unknown_picture(folder, name, there)
        for table, column in ((tables.captions, "image"), (tables.pictures, "id")):
            with written(folder, table):  # captions first: killed in between, the same command deletes the rest
                table.delete(same(column, ids))
        keep_up(folder, tables, retriever, changed=len(ids))


def mend_all(folder: Path, tables: Tables) -> None:
    """Take back what a writer before could not: see `database.mend`."""
    for table in (tables.pictures, tables.captions):
        mend(folder, table)


def keep_up(folder: Path, tables: Tables, retriever: Retriever, *, changed: int) -> None:
    """Put the tables in order after a change."""
    pictures, captions = tables.pictures, tables.captions
    for table in (pictures, captions):
        tidy(folder, table, changed=changed)
    maintain(
        folder,
        PICTURES,
        pictures,
        lambda: sample_rows(captions) if captions.count_rows() else sample_sentences(retriever),
    )
    maintain(folder, CAPTIONS, captions, lambda: sample_rows(pictures))


def unknown_picture(folder: Path, name: str, names: Collection[str]) -> DataError:
    """What to say of an id that is not there: the one that was meant, where the ids are few enough to compare."""
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.5) if len(names) <= GUESSED else []
    return DataError(f"{folder} has no picture {name!r}{f'; did you mean {near[0]!r}?' if near else '.'}")
