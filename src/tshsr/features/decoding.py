"""Decode and prepare pictures in threads or processes: in order, with bounded prefetching."""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from PIL import Image

from tshsr.data.pictures import MAX_PIXELS, read_picture
from tshsr.errors import PictureError
from tshsr.files import is_remote, reachable, reason_of
from tshsr.system import end_with_parent, interrupts_held, main_hidden

Prepare = Callable[[Image.Image], Any]
PREFETCH = 4
"""Files read in advance, per worker."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded file.

    Attributes:
        width: Of the upright picture, in pixels; 0 where there is none.
        height: Of the upright picture, in pixels; 0 where there is none.
        prepared: The result of `prepare`.
        problem: The reason for a failure; empty after success.
    """

    width: int = 0
    height: int = 0
    prepared: Any = None
    problem: str = ""


def decode(path: Path, prepare: Prepare, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Read and prepare one file.

    Raises:
        DataError: Where object storage cannot be reached, which is no problem of the file.
    """
    try:
        picture = read_picture(_bytes_of(path) if is_remote(path) else path, max_pixels=max_pixels)
        return Decoded(*picture.size, prepare(picture))
    except PictureError as error:
        return Decoded(problem=str(error).removeprefix("the picture ").removeprefix(f"{path} "))
    except MemoryError:
        return Decoded(problem="does not fit into the memory that is left; shrink it.")


def _bytes_of(path: Path) -> bytes:
    """An object of object storage.

    Raises:
        PictureError: Where it is missing, or may not be read.
        DataError: Where the storage cannot be reached.
    """
    with reachable(path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            raise PictureError(f"{path} cannot be read ({reason_of(error)}).") from None


def decode_all(
    paths: Iterable[Path], prepare: Prepare, *, workers: int, processes: bool
) -> Generator[Decoded, None, None]:
    """Decode and prepare files; results keep the order of the files.

    In processes, a file that kills its process (a crashing decoder, a picture too large for the memory) is reported
    like other unreadable files, and no other file is lost. In threads, such a file ends the job.

    Args:
        prepare: Called with each picture; picklable where `processes`.
        workers: Number of threads or processes.
        processes: Processes instead of threads.
    """
    waiting: deque[tuple[Path, Future[Decoded]]] = deque()
    with _Pool(prepare, workers, processes=processes) as pool:
        left = iter(paths)
        while True:
            while len(waiting) < PREFETCH * workers and (path := next(left, None)) is not None:
                waiting.append((path, pool.submit(path)))
            if not waiting:
                return
            path, result = waiting.popleft()
            try:
                yield result.result()
            except BrokenProcessPool:
                yield _decode_isolated(path, prepare)
                pool.renew()
                again = [one for one, _ in waiting]
                waiting = deque((one, pool.submit(one)) for one in again)


def _decode_isolated(path: Path, prepare: Prepare) -> Decoded:
    """Decode one file in a separate process, and report a crash of that process."""
    with _Pool(prepare, 1, processes=True) as pool:
        try:
            return pool.submit(path).result()
        except BrokenProcessPool:
            return Decoded(problem="ended the process that read it: damaged, or too large for the memory.")


class _Pool:
    """A replaceable executor that cancels pending work when it ends."""

    def __init__(self, prepare: Prepare, workers: int, *, processes: bool) -> None:
        self.prepare, self.workers, self.processes = prepare, workers, processes
        self.hides_main = processes and not needs_main(prepare)
        self.executor = self._start()

    def _start(self) -> Executor:
        if not self.processes:
            return ThreadPoolExecutor(self.workers)
        # Spawned, not forked: a fork would copy the locks of torch's threads.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, mp_context=context, initializer=initialise_worker)

    def submit(self, path: Path) -> Future[Decoded]:
        """Queue one file."""
        try:
            # The executor starts its processes on demand.
            with interrupts_held(), main_hidden() if self.hides_main else nullcontext():
                return self.executor.submit(decode, path, self.prepare)
        except BrokenProcessPool:  # it broke earlier; the file at fault is found when its result is read
            broken: Future[Decoded] = Future()
            broken.set_exception(BrokenProcessPool())
            return broken

    def renew(self) -> None:
        """Replace a broken executor."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.executor = self._start()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(wait=True, cancel_futures=True)


def needs_main(prepare: Prepare) -> bool:
    """Whether a worker process has to import the program's main module for something that is defined there."""
    try:
        return b"__main__" in bytes(ForkingPickler.dumps(prepare))
    except Exception:  # noqa: BLE001 - what cannot be pickled fails when it is sent, with a message of its own
        return True


def initialise_worker() -> None:
    """Set up a decoding process: no warnings of Pillow, no Ctrl-C, and exit with the parent process."""
    warnings.filterwarnings("ignore", module="PIL")
    end_with_parent()
