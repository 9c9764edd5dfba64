"""Limits, worker threads, and the checks and security headers of every request."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        upload_bytes: Maximum size of a request body.
        pixels: Maximum size of a picture in a request, checked on its header before it is decoded.
        query_characters: Maximum length of a sentence or filter.
        documents: Maximum number of documents of a reranking.
        pictures: Maximum number of pictures among them that are sent in the request.
        waiting: Maximum number of queued requests; more are refused at once.
        seconds: Time limit of a request, and of the arrival of its body.
        bodies: Bodies of maximum size that all requests together may hold in memory.
        connections: Maximum number of open connections; further ones get a refusal and are closed.
        header_seconds: Time limit of the arrival of a request's head.
        response_seconds: Time in which a client has to read a response.
    """

    upload_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    query_characters: int = 500
    results: int = 100
    documents: int = 1000
    pictures: int = 16
    waiting: int = 16
    seconds: float = 20.0
    bodies: int = 8
    connections: int = 1000
    header_seconds: float = 10.0
    response_seconds: float = 60.0


Result = TypeVar("Result")
BUSY = "the server is busy, {count} requests are waiting already; try again in a moment."
LATE = "this took longer than {seconds:g} s and was cancelled; try again, or request less."


class Worker:
    """A thread pool with a bounded queue and a time limit.

    Args:
        name: Prefix of the threads' names.
        threads: 1 where the tasks share a resource, such as the network.
        waiting: Maximum number of queued tasks.
        seconds: Time limit of a task, including its time in the queue.
    """

    def __init__(self, name: str, *, threads: int, waiting: int, seconds: float) -> None:
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.capacity = threads + waiting
        self.waiting, self.seconds = waiting, seconds
        self.pending = 0
        self.begun: dict[object, float] = {}
        self.lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether another task would be refused."""
        return self.pending >= self.capacity

    @property
    def longest(self) -> float:
        """Seconds for which the longest of the running tasks has been running; 0 where none is."""
        with self.lock:
            return time.monotonic() - min(self.begun.values()) if self.begun else 0.0

    async def run(self, task: Callable[[], Result]) -> Result:
        """Run a task in the pool.

        Raises:
            HTTPException: 503 where the queue is full or the time limit is exceeded. A late task in the queue is
                dropped; a running one occupies its thread until it ends, as a thread can't be stopped.
        """
        future = self._submit(task)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.seconds)
        except TimeoutError:
            if future.done() and not future.cancelled():  # finished at the last moment, or raised by the task
                return future.result()
            raise HTTPException(503, LATE.format(seconds=self.seconds), {"Retry-After": "5"}) from None

    def warm_up(self, task: Callable[[], Result]) -> Result:
        """Run a task before the server starts, in the pool: libraries initialise once for each thread."""
        return self.pool.submit(task).result()

    def close(self) -> None:
        """Drop the queue; running tasks end by themselves."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, task: Callable[[], Result]) -> Future[Result]:
        with self.lock:
            if self.busy:
                raise HTTPException(503, BUSY.format(count=self.waiting), {"Retry-After": "1"})
            self.pending += 1
        future = self.pool.submit(self._timed, task)
        future.add_done_callback(self._finish)
        return future

    def _timed(self, task: Callable[[], Result]) -> Result:
        key = object()
        with self.lock:
            self.begun[key] = time.monotonic()
        try:
            return task()
        finally:
            with self.lock:
                del self.begun[key]

    def _finish(self, future: Future[Result]) -> None:
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
"""Security headers of every response, unless a route sets its own: no foreign resources, no sniffing, no framing."""


HOST_HEADER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?")
"""A name, an IPv4 address or an IPv6 address in brackets, and optionally a port."""


def host_name(host: str) -> str:
    """The name or address in a host header; empty where it is malformed."""
    match = HOST_HEADER.fullmatch(host)
    return match[1] if match else ""


def is_loopback(host: str) -> bool:
    """Whether a name or address is that of the loopback interface."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


FORM_BYTES = 16 * 2**10
"""Maximum size of a form without files (`application/x-www-form-urlencoded`): old parsers keep every field of one."""
LINGER_SECONDS, LINGER_BYTES = 15.0, 256 * 2**20
"""How long, and how much, of the body of a refused request is discarded before its connection is closed."""
HUNG_UP, GONE = 499, "the client closed the connection."
"""Status in logs and metrics where a client hangs up, and its sentence; neither is received."""
CROWDED = "the server holds as many requests as its memory allows; try again in a moment."


def check_address(scope: Scope) -> None:
    """Refuse an address with raw bytes, which no parameter can be read from.

    Raises:
        HTTPException: 400.
    """
    if not scope.get("query_string", b"").isascii():
        raise HTTPException(400, "the address has bytes that are no ASCII; expected UTF-8 with percent signs.")


class RequestGuard:
    """ASGI middleware that checks requests, limits their bodies and adds security headers.

    Args:
        limits: Limits of the size and duration of a body.
        local: Accept only host names of the loopback interface, so that a web site whose name resolves to this
            machine (DNS rebinding) can read nothing.
        hosts: Further host names that are accepted; where there are some, other names are refused everywhere.
    """

    def __init__(self, app: ASGIApp, limits: Limits, *, local: bool, hosts: Collection[str] = ()) -> None:
        self.app, self.limits, self.local = app, limits, local
        self.hosts = frozenset(host.lower() for host in hosts)
        self.held = 0  # bytes of all bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        body = Body(self, Headers(scope=scope), receive)

        async def respond(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if body.unread:
                    headers["connection"] = "close"
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            check_address(scope)
            self.check(Headers(scope=scope))
            await self.app(scope, body.part, respond)
        except HTTPException as error:
            headers = dict(error.headers or {})
            await problem(error.status_code, error.detail, headers)(scope, receive, respond)
        except ClientDisconnect:  # the status is for logs and metrics
            await problem(HUNG_UP, GONE)(scope, receive, respond)
        except Exception:
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            await problem(500, "internal error; the log of the server holds the details.")(scope, receive, respond)
        finally:
            self.held -= body.read

    def check(self, headers: Headers) -> None:
        """Refuse requests of other sites, to other host names, and with large bodies.

        Raises:
            HTTPException: 421, 403 or 413.
        """
        host = headers.get("host", "")
        if not self.accepts(host_name(host)):
            names = "names of this machine" + (" and of --allow-host" if self.hosts else "")
            raise HTTPException(421, f"this server answers to {names} only, not to {host!r:.80}.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise HTTPException(403, f"this server accepts requests of its own page only, not of {origin!r:.80}.")
        # Subresources loaded with GET, such as images, send no origin; a followed link is a document.
        cross_site = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        if cross_site and headers.get("sec-fetch-dest") != "document":
            raise HTTPException(403, "this server accepts requests of its own page only, not of another site.")
        length = headers.get("content-length", "0")
        form = headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded")
        most = min(FORM_BYTES, self.limits.upload_bytes) if form else self.limits.upload_bytes
        if not length.isdecimal() or int(length) > most or (form and "transfer-encoding" in headers):
            raise self.too_large(most)

    def accepts(self, name: str) -> bool:
        """Whether the server answers to a host name."""
        return (not self.local and not self.hosts) or is_loopback(name) or name.lower() in self.hosts

    def too_large(self, most: int) -> HTTPException:
        """The error for a large body."""
        return HTTPException(413, f"a request may have {format_bytes(most)}, this one has more; send less.")

    def hold(self, count: int) -> None:
        """Count bytes of a body that is being received.

        Raises:
            HTTPException: 503 where all bodies together exceed the limit.
        """
        self.held += count
        if self.held > self.limits.bodies * self.limits.upload_bytes:
            raise HTTPException(503, CROWDED, {"Retry-After": "5"})


class Body:
    """The body of a request, received within the limits of a guard.

    Attributes:
        read: Bytes received so far.
        unread: Whether the client may still be sending.
    """

    def __init__(self, guard: RequestGuard, headers: Headers, receive: Receive) -> None:
        self.guard, self.receive = guard, receive
        self.read, self.complete = 0, False
        self.announced = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
        self.deadline = asyncio.get_running_loop().time() + guard.limits.seconds

    @property
    def unread(self) -> bool:
        """Whether the client may still be sending."""
        return self.announced and not self.complete

    async def part(self) -> Message:
        """The next message.

        Raises:
            HTTPException: 408 where it takes too long; 413 or 503 where the body, or all bodies, are too large.
        """
        if self.complete:
            return await self.receive()
        seconds = self.guard.limits.seconds
        try:
            async with asyncio.timeout_at(self.deadline):
                message = await self.receive()
        except TimeoutError:
            raise HTTPException(408, f"the request took longer than {seconds:g} s to arrive.") from None
        self._finish(message)
        count = len(message.get("body", b""))
        self.read += count
        self.guard.hold(count)
        if self.read > self.guard.limits.upload_bytes:
            raise self.guard.too_large(self.guard.limits.upload_bytes)
        return message

    async def discard(self) -> None:
        """Receive and drop the rest, so that a client which is still sending reads the response (RFC 9112, 9.6)."""
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.complete and dropped < LINGER_BYTES:
                    message = await self.receive()
                    dropped += len(message.get("body", b""))
                    self._finish(message)

    def _finish(self, message: Message) -> None:
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)


def problem(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error response as JSON."""
    return JSONResponse({"error": sentence}, status, headers)


def format_bytes(count: int) -> str:
    """A number of bytes with a binary unit."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 2**power:
            return f"{count / 2**power:.4g} {unit}"
    return f"{count} bytes"
