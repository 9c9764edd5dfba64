"""LanceDB as an index uses it: one writer at a time, readers that see one version, and its errors as sentences."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from tshsr.errors import DataError
from tshsr.files import exclusive_lock

LOG = logging.getLogger(__name__)
LOCK = ".lock"
KEEP = timedelta(minutes=1)
"""How long a former version stays for those who are reading it."""
FRAGMENTS = 200
"""A table in more pieces is put together anew."""
FRAGMENT_BITS = 32
"""A row's number is that of its fragment, and its own in 32 bits."""
NEWEST = 4
"""Of so many fragments a whole row is read after writing; of the others the ids."""
FAILURES = (OSError, RuntimeError, ValueError, pa.ArrowException)
"""What LanceDB raises, whatever the cause."""


def open_table(folder: Path, name: str, schema: pa.Schema | None = None) -> Any:
    """A table whose reads always see its newest version.

    Args:
        folder: The index.
        name: The table.
        schema: Makes the table where it is missing.

    Raises:
        DataError: Where it is missing or damaged, or cannot be made.
    """
    database = lancedb.connect(folder, read_consistency_interval=timedelta(0))
    place = folder / f"{name}.lance"
    if schema is not None and not any((place / "_versions").glob("*.manifest")):
        with written(folder):
            shutil.rmtree(place, ignore_errors=True)  # what a killed creation left is no table
            return database.create_table(name, schema=schema)
    try:
        return database.open_table(name)
    except FAILURES as error:
        raise DataError(
            f"{folder} has no {name} that can be read ({reason(error)}); run tshsr index again, and it goes on."
        ) from None


def one_writer(folder: Path) -> AbstractContextManager[None]:
    """Keep others from writing to an index; a process that ends, however it ends, lets go.

    Raises:
        DataError: Where another process is writing, or the folder is read-only.
    """
    message = f"{folder} is being written by another process; wait for it, or end it."
    return exclusive_lock(folder / LOCK, message)


@contextmanager
def written(folder: Path, *tables: Any) -> Iterator[None]:
    """Turn a failure to write into one sentence, and put the version before it back where it left one.

    LanceDB takes a file that a full disk cut short for whole now and then; so what was written is read.

    Raises:
        DataError: Names the cause.
    """
    why = ""
    try:
        yield
    except FAILURES as error:
        why = reason(error)
    for table in tables:
        try:
            check_readable(table)
        except FAILURES:
            why = why or "a file was cut short, as on a full disk"
    if not why:
        return
    for table in tables:
        mend(folder, table)
    raise DataError(
        f"Cannot write {folder}: {why}. What was in the index is still there; make room, then run this again, and it "
        "goes on."
    )


def check_readable(table: Any) -> None:
    """Read a little of every file of a table's newest version; raises what LanceDB raises."""
    if not table.count_rows():
        return
    numbers = table.search().select(["id"]).with_row_id(True).to_arrow()["_rowid"].to_numpy()
    firsts = np.unique(numbers >> FRAGMENT_BITS, return_index=True)[1]
    table.take_row_ids(numbers[firsts[-NEWEST:]].tolist()).to_arrow()


def mend(folder: Path, table: Any) -> None:
    """Go back to the newest version that can be read, where the newest one can't: a writer's disk was full."""
    with contextlib.suppress(*FAILURES):  # on a disk that is full still, the next writer tries again
        for number in sorted((entry["version"] for entry in table.list_versions()), reverse=True):
            table.checkout(number)
            try:
                check_readable(table)
            except FAILURES:
                LOG.warning("%s: version %d of %s was cut short and is taken back", folder, number, table.name)
                continue
            table.checkout_latest()
            if table.version != number:
                table.checkout(number)
                table.restore()
            break
    table.checkout_latest()


def tidy(folder: Path, table: Any, *, changed: int = 0) -> None:
    """Put a table together anew where it is in many pieces or much of it was replaced; free what nobody reads."""
    pieces = table.stats()["fragment_stats"]["num_small_fragments"]
    if pieces > FRAGMENTS or (changed and 5 * changed > table.count_rows()):
        with written(folder, table):
            table.optimize()
        with written(folder, table):  # only now that the new files were read
            table.optimize(cleanup_older_than=KEEP)


def same(column: str, values: Sequence[str]) -> str:
    """A condition: the column is one of these texts."""
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({listed})"


def ids_of(table: Any, column: str = "id") -> list[str]:
    """A column of texts, in the order of the table."""
    if not table.count_rows():
        return []
    found: list[str] = table.search().select([column]).to_arrow()[column].to_pylist()
    return found


def empty_table(schema: pa.Schema) -> Any:
    """A table in memory, without rows, to try filters on."""
    return lancedb.connect("memory://").create_table("empty", schema=schema)


def check_filter(table: Any, visible: Any, where: str) -> None:
    """Refuse a filter that the table can't use; only in brackets is all of it read.

    Args:
        table: What is to be filtered.
        visible: An empty table with those of its columns that may be asked for. LanceDB itself then says which
            columns a filter names, however they are spelled and wherever quotes and comments end.
        where: The filter.

    Raises:
        DataError: Says why, and which columns there are.
    """
    try:
        for asked in (visible, table):  # some filters fail on a row only
            asked.search().where(f"({where})").select(["id"]).limit(1).to_arrow()
    except FAILURES as error:
        columns = ", ".join(visible.schema.names)
        why = (
            reason(error).partition(". Valid fields")[0].removeprefix("Invalid input, ").removeprefix("Schema error: ")
        )
        why = why.rpartition("sql parser error: ")[2].rstrip(")") if "sql parser error" in why else why
        raise DataError(
            f"the filter {where!r} cannot be used: {why}; expected a condition on {columns}, such as width > 500."
        ) from None


def reason(error: Exception) -> str:
    """The cause that an error of LanceDB names, without the places in its source."""
    text = " ".join(str(error).split())
    system = re.search(r"([A-Z][\w ]+) \(os error \d+\)", text)
    return system[1] if system else text.partition(", src/")[0].partition(", /")[0].rstrip(".")[:300]
