"""A server at a real socket, in a thread of the test, and clients that write bytes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp

from tshsr.server.guard import Limits
from tshsr.server.running import server_of

PATIENCE = 120.0


@contextmanager
def listening(app: ASGIApp, limits: Limits) -> Iterator[int]:
    """Serve an application; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = server_of(app, limits)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        yield connection


def said(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The one response on a connection that the server closes: status, headers, JSON."""
    content = b""
    while part := connection.recv(65536):
        content += part
    head, _, body = content.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, json.loads(body)


def head(path: str = "/livez", *more: str, method: str = "GET") -> bytes:
    """The head of a request, whose connection is closed afterwards."""
    lines = (f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *more, "", "")
    return "\r\n".join(lines).encode()
