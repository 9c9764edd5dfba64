"""A small HTTP client for the load campaign: bytes out, answers in; it needs little of a core for 500 connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
BOUNDARY = "edge-of-a-part"


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        headers: By name in lower case.
        seconds: From the first byte sent to the last one received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def problem(self, allowed: Collection[int]) -> str | None:
        """What is wrong with it: the status, an error that is no sentence, a 503 without Retry-After; None: nothing."""
        if self.status not in allowed:
            return f"status {self.status}: {self.body[:200]!r}"
        if self.status < 400:
            return None
        try:
            sentence = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return f"status {self.status} without a sentence: {self.body[:200]!r}"
        if not isinstance(sentence, str) or not sentence.endswith((".", "?")):
            return f"status {self.status} with {sentence!r:.200}"
        if self.status == 503 and not self.headers.get("retry-after", "").isdecimal():
            return "status 503 without Retry-After"
        return None

    @property
    def retry_after(self) -> float:
        """Seconds to wait before another request; 0 where the answer names none."""
        return float(self.headers.get("retry-after", "0"))


class Connection:
    """A connection for requests one after the other, as an asynchronous context manager."""

    def __init__(self, port: int, patience: float) -> None:
        self.port, self.patience = port, patience
        self.started = 0.0

    async def __aenter__(self) -> Self:
        """Connect."""
        self.reader, self.writer = await asyncio.wait_for(asyncio.open_connection(HOST, self.port), self.patience)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close at once."""
        self.writer.transport.abort()

    async def send(self, content: bytes) -> None:
        """Send bytes; a server that has refused already may read no more of them.

        Raises:
            OSError: Where the connection is broken.
        """
        self.started = self.started or time.perf_counter()
        self.writer.write(content)
        await asyncio.wait_for(self.writer.drain(), self.patience)

    async def answer(self) -> Answer:
        """The next response.

        Raises:
            OSError: Where the connection ends before the response does.
            TimeoutError: Where it does not come.
        """
        try:
            return await asyncio.wait_for(self._answer(), self.patience)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError(f"the connection ended after {len(error.partial)} bytes") from None
        finally:
            self.started = 0.0

    async def ask(self, content: bytes) -> Answer:
        """Send a whole request, and receive the response."""
        await self.send(content)
        return await self.answer()

    async def _answer(self) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(first.split()[1]), headers, body, time.perf_counter() - self.started)


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole request; an underscore in the name of a header stands for a hyphen."""
    lines = {"host": f"{HOST}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body or method == "POST":
        lines.setdefault("content-length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def form(picture: bytes, **fields: str) -> tuple[bytes, str]:
    """The body of a form with a picture, and its content type."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="x"\r\n\r\n'.encode()
    body = b"".join((*parts, head, picture, f"\r\n--{BOUNDARY}--\r\n".encode()))
    return body, f"multipart/form-data; boundary={BOUNDARY}"


def upload(target: str, picture: bytes, **fields: str) -> bytes:
    """A request that sends a picture."""
    body, kind = form(picture, **fields)
    return request("POST", target, body, content_type=kind)
