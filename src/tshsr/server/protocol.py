"""HTTP connections: limits of their number, of slow clients, and refusals in one sentence before a request exists."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import h11
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tshsr.server.guard import LINGER_SECONDS, SECURITY, Limits, RequestGuard

FULL = "the server has as many connections as it accepts; try again in a moment."
MALFORMED = "this is no valid HTTP/1.1 request; send one with a head below 64 KiB."
SLOW = "the head of the request took longer than {seconds:g} s to arrive."


async def full(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application of the connections above the limit.

    Raises:
        HTTPException: 503.
    """
    del scope, receive, send
    raise HTTPException(503, FULL, {"Retry-After": "5", "Connection": "close"})


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with limits; `limited_protocol` makes the subclass of given limits.

    uvicorn alone waits without end for the head of a request, and for a client that doesn't read its response.
    """

    limits = Limits()
    full_app: ASGIApp = staticmethod(full)

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.head_timer: asyncio.TimerHandle | None = None
        self.unread_timer: asyncio.TimerHandle | None = None
        self.begun = False
        """Whether a part of the awaited head has arrived."""
        self.refused = False
        """Whether a refusal was sent, and whatever else arrives is dropped."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count a connection, and await a request."""
        super().connection_made(transport)
        if len(self.connections) > 2 * self.limits.connections:
            transport.abort()  # handles are needed for the index
        elif len(self.connections) > self.limits.connections:
            self.app = self.full_app
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._head_arrived()
        self._response_was_read()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; the timer of a head runs until the head is complete."""
        if self.refused:
            return
        self._response_was_read()
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self.begun = True
            self._await_head()
        else:
            self._head_arrived()

    def pause_writing(self) -> None:
        """Wait for the client to read, for a limited time."""
        super().pause_writing()
        self._await_reading()

    def on_response_complete(self) -> None:
        """Await the next request; drop clients that don't read their response."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        del msg
        self._refuse("400 Bad Request", MALFORMED)

    def _await_head(self) -> None:
        if self.head_timer is None and not self.transport.is_closing():
            self.head_timer = self.loop.call_later(self.limits.header_seconds, self._head_is_late)

    def _head_arrived(self) -> None:
        self.begun = False
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None

    def _head_is_late(self) -> None:
        self.head_timer = None
        if self.begun:
            self._refuse("408 Request Timeout", SLOW.format(seconds=self.limits.header_seconds))
        elif self.cycle is None:  # browsers open connections in advance; uvicorn closes those that had a request
            self.transport.close()

    def _await_reading(self) -> None:
        if self.unread_timer is None:
            self.unread_timer = self.loop.call_later(self.limits.response_seconds, self._drop_unread)

    def _response_was_read(self) -> None:
        if self.unread_timer is not None:
            self.unread_timer.cancel()
            self.unread_timer = None

    def _drop_unread(self) -> None:
        self.unread_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: str, sentence: str) -> None:
        if self.transport.is_closing():
            return
        self.refused = True
        body = json.dumps({"error": sentence}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "cache-control": "no-store",
            **SECURITY,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
        with suppress(OSError):  # the client has gone
            self.transport.write_eof()
        # Closed at once, with bytes that were not read, the client could lose the refusal.
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


def limited_protocol(limits: Limits) -> type[LimitedProtocol]:
    """The protocol under given limits."""
    guarded = staticmethod(RequestGuard(full, limits, local=False))
    return type("Protocol", (LimitedProtocol,), {"limits": limits, "full_app": guarded})
