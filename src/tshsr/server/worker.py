"""Jobs off the event loop: few threads, a bounded queue, a time limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from starlette.exceptions import HTTPException

Answer = TypeVar("Answer")
BUSY = "the server is busy, {count} questions are waiting already; ask again in a moment."
LATE = "this took longer than {seconds:g} s and was given up; ask again, or ask for less."


class Worker:
    """Threads for one kind of job.

    Args:
        name: What the threads are called.
        threads: How many; 1 where the jobs share something that is not theirs alone, such as a network.
        waiting: How many jobs may wait besides those at work.
        seconds: How long a job may take, its wait included.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, seconds: float) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.room = threads + waiting
        self.waiting, self.seconds = waiting, seconds
        self.pending = 0
        self.lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether another job would be refused."""
        return self.pending >= self.room

    async def run(self, job: Callable[[], Answer]) -> Answer:
        """Do a job when its turn comes.

        Raises:
            HTTPException: 503 where too many jobs wait, or the job is late. A late job that waits is dropped; one that
                is at work keeps its place until it ends, as a thread can't be stopped.
        """
        future = self._submit(job)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():  # the job's own, not ours
                raise
            raise HTTPException(503, LATE.format(seconds=self.seconds), {"Retry-After": "5"}) from None

    def ready(self, job: Callable[[], Answer]) -> Answer:
        """Do a job before the server runs, in the thread of all later ones: libraries warm up for each thread anew."""
        return self.pool.submit(job).result()

    def close(self) -> None:
        """Drop what waits; what is at work ends by itself."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, job: Callable[[], Answer]) -> Future[Answer]:
        with self.lock:
            if self.busy:
                raise HTTPException(503, BUSY.format(count=self.waiting), {"Retry-After": "1"})
            self.pending += 1
        future = self.pool.submit(job)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, future: Future[Answer]) -> None:
        del future
        with self.lock:
            self.pending -= 1
