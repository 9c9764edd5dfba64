"""LanceDB tables: one writer at a time, rollback of failed writes, filters, and errors as sentences."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from tshsr.errors import DataError, FilterError, SettingsError
from tshsr.files import exclusive_lock, exclusive_object, is_remote, place_of, reachable, remove_folder

LOG = logging.getLogger(__name__)
LOCK = ".lock"
SCHEMES = ("s3", "gs", "az", "abfss", "oss", "cos", "file")
"""Schemes of URLs that both LanceDB and fsspec know."""
VERSION_LIFETIME = timedelta(minutes=1)
"""How long an old version is kept for its readers."""
MAX_FRAGMENTS = 200
"""A table with more small fragments is compacted."""
FRAGMENT_BITS = 32
"""A row id is the fragment's number, shifted by 32 bits, plus the row's number in the fragment."""
CHECKED_FRAGMENTS = 4
"""Number of newest fragments of which one full row is read back after a write; of the others, only ids."""
PANICS = ("RustPanic", "PanicException")
"""Classes of a panic in Rust code, asynchronous and not."""
LANCE_ERRORS = (OSError, RuntimeError, ValueError, pa.ArrowException)
"""Exceptions of LanceDB, which does not distinguish their causes."""
SYSTEM_ERROR = re.compile(r"(?:os error|Errno) (?!2\b)\d+")
"""In an error's text: an error of the system, such as a missing permission or too many open files; but for 2, a missing
file, the file itself may be whole."""
UNREACHABLE = re.compile("Error performing [A-Z]+ |operation timed out")
"""In an error's text: object storage that can't be reached, or refuses."""


def index_place(name: str | Path) -> Path:
    """The place of an index: `place_of`.

    Raises:
        SettingsError: As `place_of`, and for a URL that LanceDB does not know.
    """
    scheme = str(name).partition("://")[0]
    if is_remote(name) and scheme not in SCHEMES:
        raise SettingsError(
            f"{name} cannot hold an index: its scheme is {scheme}, LanceDB knows {', '.join(SCHEMES)}; write the URL "
            "with one of these, or name a folder."
        )
    return place_of(name)


@contextmanager
def without_panics(cause: str = "a file is damaged") -> Iterator[None]:
    """Turn a panic of LanceDB's Rust code, which a damaged file can cause, into one of `LANCE_ERRORS`.

    Args:
        cause: The message.

    Raises:
        RuntimeError: Where the block ends in one.
    """
    try:
        yield
    except BaseException as error:  # its class has no name that can be imported, and may not be an Exception
        if type(error).__name__ in PANICS:
            raise RuntimeError(cause) from None
        raise


def open_table(folder: Path, name: str, schema: pa.Schema | None = None) -> Any:
    """A table handle that reads the newest version.

    Args:
        schema: Creates the table where it is missing.

    Raises:
        DataError: Where it is missing or damaged, or cannot be made.
    """
    directory = folder / f"{name}.lance"
    with reachable(folder):
        missing = schema is not None and not any((directory / "_versions").glob("*.manifest"))
    if missing:
        with restored_on_failure(folder):
            remove_folder(directory)  # left by an interrupted creation
            return connected(folder).create_table(name, schema=schema)
    try:
        with without_panics():
            return connected(folder).open_table(name)
    except LANCE_ERRORS as error:
        raise DataError(
            f"{folder} has no {name} that can be read ({cause_of(error)}); run tshsr index again to continue."
        ) from None


def connected(folder: Path) -> Any:
    """The database of an index; raises `LANCE_ERRORS` where object storage cannot be reached."""
    return lancedb.connect(str(folder), read_consistency_interval=timedelta(0))


def write_lock(folder: Path) -> AbstractContextManager[None]:
    """Exclusive lock of an index for one writer; the operating system releases it when the process ends.

    On object storage it is an object, which a killed process leaves behind.

    Raises:
        DataError: Where another process is writing, or the folder cannot be written.
    """
    message = f"{folder} is being written by another process; wait for it, or end it."
    if is_remote(folder):
        return exclusive_object(folder / LOCK, message)
    return exclusive_lock(folder / LOCK, message)


@contextmanager
def restored_on_failure(folder: Path, *tables: Any) -> Iterator[None]:
    """Report a failed write as one sentence, and restore the previous version of the tables.

    LanceDB sometimes accepts a file that a full disk has truncated, so the newest version is read back.

    Raises:
        DataError: Where the block fails; the message names the cause.
    """
    cause = ""
    try:
        yield
    except LANCE_ERRORS as error:
        cause = cause_of(error)
    for table in tables:
        try:
            check_readable(table)
        except LANCE_ERRORS as error:
            cause = cause or ("a file was truncated, as on a full disk" if is_damage(error) else cause_of(error))
    if not cause:
        return
    for table in tables:
        with contextlib.suppress(DataError):  # what can't be read now, the next writer restores
            restore_readable(folder, table)
    raise DataError(
        f"Cannot write {folder}: {cause}. The rows committed before are still there; free some space, then run this "
        "again to continue."
    )


def check_readable(table: Any) -> None:
    """Read a part of every file of the newest version of a table; raises `LANCE_ERRORS`."""
    with without_panics():
        if not table.count_rows():
            return
        numbers = table.search().select(["id"]).with_row_id(True).to_arrow()["_rowid"].to_numpy()
        firsts = np.unique(numbers >> FRAGMENT_BITS, return_index=True)[1]
        table.take_row_ids(numbers[firsts[-CHECKED_FRAGMENTS:]].tolist()).to_arrow()


def restore_readable(folder: Path, table: Any) -> None:
    """Return to the newest readable version, where a full disk has truncated a later one.

    Raises:
        DataError: Where a version cannot be read for a reason other than damage, such as a missing permission.
    """
    damaged = 0
    try:
        for number in sorted((entry["version"] for entry in table.list_versions()), reverse=True):
            table.checkout(number)
            if not is_whole(folder, table):
                damaged += 1
                continue
            if damaged:
                table.restore()
                LOG.warning(
                    "%s: the newest %d versions of %s are damaged; rolled back to %d rows: add what is missing again",
                    *(folder, damaged, table.name, table.count_rows()),
                )
            break
    except LANCE_ERRORS as error:  # if the disk is still full, the next writer tries again
        LOG.warning("%s: %s cannot be checked for damage (%s)", folder, table.name, cause_of(error))
    finally:
        table.checkout_latest()


def is_whole(folder: Path, table: Any) -> bool:
    """Whether the version that a table is at can be read; False where it is damaged.

    Raises:
        DataError: Where the cause is another: it would be wrong to delete what the next reader can read.
    """
    for _ in range(2):  # a short disturbance is no damage
        try:
            check_readable(table)
        except LANCE_ERRORS as error:
            if not is_damage(error):
                raise DataError(
                    f"{folder} cannot be read ({cause_of(error)}); nothing was changed. Remove this cause, then run "
                    "this again."
                ) from None
        else:
            return True
    return False


def is_damage(error: Exception) -> bool:
    """Whether an error of LanceDB names no cause outside the files."""
    text = str(error)
    missing = "not found" in text.lower()
    system = SYSTEM_ERROR.search(text) is not None or isinstance(
        error, PermissionError | TimeoutError | ConnectionError
    )
    return not system and (missing or UNREACHABLE.search(text) is None)


def compact(folder: Path, table: Any, *, changed: int = 0) -> None:
    """Compact a table with many small fragments or many replaced rows; delete versions without readers."""
    fragments = table.stats()["fragment_stats"]["num_small_fragments"]
    if fragments > MAX_FRAGMENTS or (changed and 5 * changed > table.count_rows()):
        with restored_on_failure(folder, table):
            table.optimize()
        with restored_on_failure(folder, table):  # only after the new files have been read back
            table.optimize(cleanup_older_than=VERSION_LIFETIME)


def id_condition(column: str, values: Sequence[str]) -> str:
    """SQL condition: the column equals one of these strings."""
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({listed})"


def ids_of(table: Any, column: str = "id") -> list[str]:
    """A column of strings, in table order."""
    if not table.count_rows():
        return []
    found: list[str] = table.search().select([column]).to_arrow()[column].to_pylist()
    return found


def empty_table(schema: pa.Schema) -> Any:
    """An empty table in memory, for checking filters."""
    return lancedb.connect("memory://").create_table("empty", schema=schema)


def check_filter(visible: Any, where: str) -> None:
    """Refuse a filter that a table can't use.

    Args:
        visible: An empty table with its public columns: LanceDB itself then rejects other columns, in any spelling,
            quoting or comment.
        where: The filter; in brackets, so that LanceDB parses it to the end.

    Raises:
        FilterError: Where it is invalid; the message names the cause and the columns.
    """
    try:
        with without_panics("LanceDB cannot evaluate it"):
            visible.search().where(f"({where})").select(["id"]).limit(1).to_arrow()
    except LANCE_ERRORS as error:
        raise unusable_filter(visible, where, error) from None


@contextmanager
def failing_filter(table: Any, visible: Any, where: str | None) -> Iterator[None]:
    """Tell a filter that fails on the values of a row, as by a division by zero, from a table that can't be read.

    Raises:
        FilterError: Where the filter alone fails as well, and the public columns can be read without it.
    """
    try:
        yield
    except LANCE_ERRORS:
        if where is None:
            raise
        alone = table.search().where(f"({where})").select(["id"])
        try:
            for _ in alone.to_batches():
                pass
        except LANCE_ERRORS as failure:
            table.search().select(visible.schema.names).limit(1).to_arrow()
            raise unusable_filter(visible, where, failure) from None
        raise


def unusable_filter(visible: Any, where: str, error: Exception) -> FilterError:
    """The error of a filter, with its cause and the columns."""
    columns = ", ".join(visible.schema.names)
    cause = (
        cause_of(error).partition(". Valid fields")[0].removeprefix("Invalid input, ").removeprefix("Schema error: ")
    )
    if "sql parser error" in cause:
        cause = cause.rpartition("sql parser error: ")[2].rstrip(")")
    cause = cause.rpartition("Arrow error: ")[2]
    return FilterError(
        f"the filter {where!r} cannot be used: {cause}; expected a condition on {columns}, such as width > 500."
    )


def cause_of(error: Exception) -> str:
    """The cause named by an error of LanceDB, without positions in its source."""
    text = " ".join(str(error).split())
    system = re.search(r"([A-Z][\w ]+) \(os error \d+\)", text)
    return system[1] if system else text.partition(", src/")[0].partition(", /")[0].rstrip(".")[:300]
