"""Atomic writes of files and folders (temporary name, fsync, rename), locks, and places on object storage."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from filelock import FileLock, Timeout

from tshsr.errors import DataError, SettingsError, TshsrError
from tshsr.system import is_running

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
"""Errors of a file system that has no locks."""
SPOOLED = 2**26
"""Bytes of an object that are held in memory until it is complete; larger ones wait in a temporary file."""


def is_remote(place: str | Path) -> bool:
    """Whether a place is a URL, as in s3://bucket/folder, and no path."""
    return "://" in str(place)


def place_of(name: str | Path) -> Path:
    """A path, or for a URL of an fsspec file system (s3://, gs://, memory://, ...) what reads and writes like one.

    Credentials and endpoint of object storage come from the environment, as AWS_ENDPOINT_URL does.

    Raises:
        SettingsError: Where the packages for the URL are not installed.
    """
    if not is_remote(name):
        return Path(name)
    if find_spec("upath") is None:
        raise SettingsError(f"{name} needs universal-pathlib, which is not installed: pip install 'tshsr[storage]'.")
    from upath import UPath

    try:
        # Listings are not cached, because other processes write, too.
        return cast(Path, UPath(name, use_listings_cache=False) if isinstance(name, str) else name)
    except (ImportError, ValueError) as error:
        raise SettingsError(f"{name} cannot be opened: {error}; expected a path, or a URL such as s3://...") from None


@contextmanager
def reachable(place: Path, *, to: Literal["read", "write"] = "read") -> Iterator[None]:
    """Translate errors of object storage, of which each kind has its own: of connections, credentials, names.

    Args:
        place: A URL; errors on a path pass.
        to: What the block does.

    Raises:
        DataError: Where the block fails; errors of this package pass.
    """
    try:
        yield
    except TshsrError:
        raise
    except Exception as error:  # they have no common base
        if not is_remote(place):
            raise
        text = reason_of(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        reason = " ".join(text.split()).rstrip(".")
        raise DataError(f"Cannot {to} {place}: {reason}; check the address and the credentials.") from None


def is_there(path: Path) -> bool:
    """Whether a path exists; False where the system refuses its name, as one that is too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def recorded_path(path: Path) -> str:
    """The absolute path, for JSON.

    Raises:
        DataError: Where it is not UTF-8.
    """
    place = str(path.resolve())
    try:
        place.encode()
    except UnicodeEncodeError:
        raise DataError(f"the path {readable_name(place)} is not UTF-8, so no store can name it; rename it.") from None
    return place


def readable_name(name: str) -> str:
    """The name of a file as UTF-8, with marks in the place of other bytes."""
    return os.fsencode(name).decode(errors="replace")


def reason_of(error: OSError) -> str:
    """The cause of an error; those of object storage lack the system's words."""
    missing = isinstance(error, FileNotFoundError)
    return error.strerror or (os.strerror(2) if missing else str(error) or type(error).__name__)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block succeeds.

    After a kill at any moment, the former file (or none) remains; an error in the block removes the temporary file. A
    symbolic link stays, and its target is replaced. A device or pipe (/dev/stdout) is written to directly. An object
    of object storage is stored at once, after the block.

    Raises:
        DataError: Where the disk is full or the folder cannot be written.
    """
    if is_remote(path):
        with explained(path), tempfile.SpooledTemporaryFile(SPOOLED) as spooled:
            yield cast(BinaryIO, spooled)
            spooled.seek(0)
            with reachable(path, to="write"), path.open("wb") as stored:
                shutil.copyfileobj(spooled, stored)
        return
    if path.exists() and not (path.is_file() or path.is_dir()):
        with explained(path), path.open("wb") as file:
            yield file
        return
    if path.is_symlink():  # not before: the target of /dev/stdout may have no name
        path = Path(os.path.realpath(path))
    partial = _partial(path)
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if path.is_file():  # a file that others may not read stays so; some file systems have no permissions
                with suppress(OSError):
                    shutil.copymode(path, partial)
            partial.replace(path)
            flush_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a temporary folder that replaces `path` when the block succeeds.

    Write its files with `replacing` or `write_bytes`. Read such a folder through `complete_folder`: the replacement
    takes two renames, and a kill between them leaves the former folder under another name. A symbolic link stays, and
    its target is replaced.

    Yields:
        A new, empty folder beside `path`.

    Raises:
        DataError: Where the disk is full or the folder cannot be written, where it is a file, or holds the working
            folder.
    """
    path = Path(os.path.realpath(path))
    _check_replaceable(path)
    partial = _partial(path)
    if partial.exists():  # of a process of the same number in another container, which may be killed or at work
        partial = path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")
    with explained(path, partial):
        try:
            partial.mkdir(parents=True)
            yield partial
            flush_folder(partial)
            _put_in_place(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    """Refuse to replace a file, or a folder that this process works in and would lose.

    Raises:
        DataError: In these cases.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; expected a folder. Name another one, or remove the file.")
    with suppress(FileNotFoundError):  # the working folder may be deleted
        working = Path.cwd().resolve()
        if path in (working, *working.parents) and path.exists():
            what = "is" if path == working else "holds"
            raise DataError(f"{path} {what} the working folder, so it cannot be replaced; name another folder.")


def complete_folder(path: Path) -> Path:
    """The place of a folder written by `replacing_folder`: `path`, or its former name after a kill between renames."""
    if path.is_dir() or not path.name:
        return path
    place = Path(os.path.realpath(path))
    former = (_former(place), place.with_name(f"{place.name}.former"))  # the second by earlier versions
    return next((folder for folder in former if folder.is_dir()), path)


def write_text(path: Path, text: str) -> None:
    """Write text (UTF-8) atomically.

    Raises:
        DataError: As `replacing` does.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically.

    Raises:
        DataError: As `replacing` does.
    """
    with replacing(path) as file:
        file.write(content)


def remove_partial(folder: Path) -> None:
    """Delete temporary files of killed writers; only in a folder without concurrent writers."""
    for entry in folder.glob(".*.partial"):
        remove(entry)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder, as far as possible; nothing where there is none."""
    if is_remote(folder):
        remote: Any = folder
        with reachable(folder, to="write"), suppress(OSError):
            remote.fs.rm(remote.path, recursive=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it; object storage needs none.

    Raises:
        DataError: Where it cannot be made.
    """
    if not is_remote(folder):
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)


def flush_folder(folder: Path) -> None:
    """Flush the renames in a folder to the disk (POSIX; elsewhere the system does so)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_lock(path: Path, message: str) -> Iterator[None]:
    """Hold a lock while the block runs; the operating system frees the lock of a killed process.

    On a file system without locks, a file beside `path` names the owner; that of a process of this machine that has
    ended counts for nothing.

    Args:
        path: The lock file, in a folder that exists; the file stays.
        message: The error where another process, or another caller in this one, holds the lock.

    Raises:
        DataError: With `message`, or where the lock file cannot be written.
    """
    try:
        path.parent.stat()  # filelock would make a missing folder
        lock = _locked(path)
    except Timeout:
        raise DataError(message) from None
    except OSError as error:
        raise _cannot_write(path.parent, error) from error
    if lock is None:
        with _owned(path.with_name(f"{path.name}.owner"), message):
            yield
        return
    try:
        yield
    finally:
        lock.release()


def _locked(path: Path) -> FileLock | None:
    """A lock that this process now holds; None on a file system without locks.

    Raises:
        Timeout: Where it is held.
        OSError: Where the file cannot be written.
    """
    try:
        lock = FileLock(path, fallback_to_soft=False)
    except TypeError:  # of a version of filelock without the fallback
        lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except NotImplementedError:
        return None
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        return None
    return lock


@contextmanager
def _owned(mark: Path, message: str) -> Iterator[None]:
    """Hold a file that only one process can create, with the name of its owner."""
    owner = f"process {os.getpid()} of {socket.gethostname()}"
    with explained(mark.parent):
        _remove_abandoned(mark)
        try:
            handle = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            other = mark.read_text(encoding="utf-8")
            raise DataError(
                f"{message} It belongs to {other}; if that ended without removing it, remove {mark}."
            ) from None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(owner)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _remove_abandoned(mark: Path) -> None:
    """Remove the mark of a process of this machine that has ended."""
    try:
        other = mark.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    words = other.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdecimal() or is_running(int(words[1])):
        return
    taken = mark.with_name(f"{mark.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        mark.rename(taken)  # of several processes that see it, one
        if taken.read_text(encoding="utf-8") != other:  # it was a newer one, whose owner runs
            taken.rename(mark)
        taken.unlink(missing_ok=True)


@contextmanager
def exclusive_object(url: Path, message: str) -> Iterator[None]:
    """Hold a lock on object storage while the block runs: an object that only one process can create.

    A killed process leaves it behind: no clock tells a long job from a dead one.

    Args:
        url: The object.
        message: The error where it is there.

    Raises:
        DataError: With `message` and the owner, or where the object cannot be written.
    """
    remote: Any = url
    owner = f"process {os.getpid()} of {socket.gethostname()}"
    with reachable(url, to="write"):
        try:
            remote.fs.pipe_file(remote.path, owner.encode(), mode="create")
        except FileExistsError:
            other = remote.fs.cat_file(remote.path).decode(errors="replace")
            raise DataError(
                f"{message} It belongs to {other}; if that ended without removing it, remove {url}."
            ) from None
    try:
        yield
    finally:
        with reachable(url, to="write"):
            remote.fs.rm_file(remote.path)


@contextmanager
def explained(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Translate errors of writing a file or folder.

    Args:
        partial: The temporary folder that will replace `path`, where its name is not the usual one.

    Raises:
        DataError: Where the block fails on `path`, an entry of it or a folder above it; errors on other files pass.
    """
    try:
        yield
    except OSError as error:
        place = Path(error.filename) if isinstance(error.filename, str) else path  # those of object storage have none
        if place.parent not in {path.parent, path, partial or _partial(path)} and place not in path.parents:
            raise  # the block failed on another file
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"Cannot write {path}: {reason_of(error)}. Make room or name another folder, then run this again.")


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _former(path: Path) -> Path:
    """A hidden name, as only folders that `replacing_folder` has moved there are removed."""
    return path.with_name(f".{path.name}.former")


def _put_in_place(partial: Path, path: Path) -> None:
    former = _former(path)
    if path.exists():
        # A former folder beside a complete one remains of an interrupted clean-up.
        shutil.rmtree(former, ignore_errors=True)
        path.rename(former)
    partial.rename(path)
    flush_folder(path.parent)
    shutil.rmtree(former, ignore_errors=True)
