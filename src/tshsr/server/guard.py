"""What stands before every request: who may ask, how much may be sent, and what a browser may do with the answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Bounds on what is asked of a server.

    Attributes:
        upload_bytes: The largest body of a request.
        pixels: The largest picture, told by its header before it is decoded.
        query_characters: The longest sentence or filter.
        results: The most results of one question.
        waiting: Questions that may wait for the network; more are refused at once.
        seconds: How long a question may take, and a body to arrive.
    """

    upload_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    query_characters: int = 500
    results: int = 100
    waiting: int = 16
    seconds: float = 20.0


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


LOG = logging.getLogger(__name__)
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
"""On every answer: nothing is loaded from elsewhere, nothing is guessed, framed, embedded or told to others."""


HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")
"""A host header: a name, an IPv4 address or an IPv6 address in brackets, and a port."""


def name_of(host: str) -> str:
    """The name or address in a host header; empty where it has another form."""
    match = HOST.fullmatch(host)
    return match[1] if match else ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application around another one.

    Args:
        app: What is guarded.
        limits: How much may be sent, and how slowly.
        local: Whether the server is for this machine alone: then it answers to names of this machine only, so that a
            web site whose name is made to point here (DNS rebinding) reads nothing.
    """

    def __init__(self, app: ASGIApp, limits: Limits, *, local: bool) -> None:
        self.app, self.limits, self.local = app, limits, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def respond(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self.admit(Headers(scope=scope))
            await self.app(scope, self.bounded(receive), respond)
        except HTTPException as error:
            await problem(error.status_code, error.detail)(scope, receive, respond)
        except Exception:
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await problem(500, "this should not have happened; the server's log tells where.")(scope, receive, respond)

    def admit(self, headers: Headers) -> None:
        """Let a request in.

        Raises:
            HTTPException: 421, 403 or 413.
        """
        host = headers.get("host", "")
        if self.local and not is_loopback(name_of(host)):
            raise HTTPException(421, f"this server answers to names of this machine only, not to {host!r:.80}.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise HTTPException(403, f"this server answers its own page only, not one of {origin!r:.80}.")
        # What a page loads with GET, such as an image, has no origin; a link that a person follows is a document.
        elsewhere = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if elsewhere and headers.get("sec-fetch-dest") != "document":
            raise HTTPException(403, "this server answers its own page only, not one of another site.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.limits.upload_bytes:
            raise self.too_much()

    def too_much(self) -> HTTPException:
        """The refusal of a large body."""
        return HTTPException(413, f"a request may have {size(self.limits.upload_bytes)}, this one has more; send less.")

    def bounded(self, receive: Receive) -> Receive:
        """The body of a request, as far as it is neither too long nor too slow."""
        read, whole = 0, False
        deadline = asyncio.get_running_loop().time() + self.limits.seconds

        async def part() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the request took longer than {self.limits.seconds:g} s to arrive.") from None
            read += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if read > self.limits.upload_bytes:
                raise self.too_much()
            return message

        return part


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A refusal in the form of all refusals."""
    return JSONResponse({"error": sentence}, status, headers)


def size(count: int) -> str:
    """A number of bytes as people say it."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:.4g} {unit}"
    return f"{count} bytes"
