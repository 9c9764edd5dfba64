"""Run an application at a socket until a signal; requests that have arrived are answered first."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from tshsr.server.guard import Limits
from tshsr.server.monitoring import Monitor
from tshsr.server.protocol import limited_protocol

HANDLES_OF_THE_INDEX = 256
"""Handles that connections leave to the index and to pictures."""
LEAST_CONNECTIONS = 16


def bounded_by_handles(limits: Limits) -> Limits:
    """Limits with as many connections as this process may open; its soft limit of handles is raised where it can be."""
    most = limits.connections
    if sys.platform != "win32":
        import resource

        wanted = 2 * most + HANDLES_OF_THE_INDEX  # above twice the limit, connections are dropped
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if resource.RLIM_INFINITY != soft < wanted:
            raised = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
            with suppress(ValueError, OSError):  # macOS has a lower limit than its hard one
                resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
                soft = raised
            most = max(LEAST_CONNECTIONS, min(most, (soft - HANDLES_OF_THE_INDEX) // 2))
    return replace(limits, connections=most)


def server_of(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """The server of an application under limits."""
    config = uvicorn.Config(
        app,
        http=limited_protocol(limits),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # a header would become the client of a log line
        timeout_graceful_shutdown=int(limits.seconds) + 5,
    )
    return uvicorn.Server(config)


def run(app: FastAPI, listener: socket.socket, limits: Limits) -> None:
    """Serve until SIGINT or SIGTERM, then answer what has arrived, within the time limit of a request.

    A second SIGINT stops at once. The signal is raised again at the end, for `ended_by_signals`.
    """
    server = server_of(app, limits)
    monitor: Monitor = app.state.monitor
    monitor.gauge("tshsr_connections", "Open connections.", lambda: len(server.server_state.connections))
    server.run(sockets=[listener])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end the block without an error: a service manager's stop is no failure."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
