"""Everything that writes to an index: one process at a time, versions that readers see whole."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tshsr.errors import DataError
from tshsr.files import explained
from tshsr.index.about import ABOUT, about_model, change_about, check_model, read_about, write_about
from tshsr.index.ann import maintain, sample_rows, sample_sentences
from tshsr.index.building import Added, Job, add_captions, add_pictures
from tshsr.index.database import ids_of, mend, one_writer, open_table, same, tidy, written
from tshsr.index.facts import retell
from tshsr.index.rows import CAPTIONS, PICTURES, schema_of
from tshsr.retriever import Retriever

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
