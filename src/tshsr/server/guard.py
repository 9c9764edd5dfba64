"""What stands before every request: who may ask, how much may be sent, and what a browser may do with the answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tshsr.server.limits import Limits

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
                    headers[name] = value
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
