"""Observation of requests: an id, a log record and Prometheus metrics for each of them."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tshsr.server.logs import FIELDS, REQUEST_ID
from tshsr.system import package_version

LOG = logging.getLogger(__name__)
ID_HEADER = "x-request-id"
GIVEN_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
"""Ids of clients that are taken over; others could forge lines of a log."""
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
OTHER = "other"
"""Label of unknown paths and methods: a client must not create new time series."""
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
"""Upper bounds of the histogram of seconds."""


class Monitor:
    """Metrics of a server in a registry of their own.

    Args:
        paths: Known paths; the label of others is `other`.
    """

    def __init__(self, paths: Collection[str] = ()) -> None:
        self.paths = frozenset(paths)
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "tshsr_requests", "Finished requests.", ("method", "path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "tshsr_request_seconds", "Duration of a request.", ("path",), buckets=BUCKETS, registry=self.registry
        )
        self.active = Gauge("tshsr_requests_active", "Requests in progress.", registry=self.registry)
        self.pending = Gauge(
            "tshsr_tasks_pending", "Running and queued tasks of worker threads.", ("worker",), registry=self.registry
        )
        build = Info("tshsr_build", "Version of the package.", registry=self.registry)
        build.info({"version": package_version()})
        ProcessCollector(registry=self.registry)  # memory, handles, processor time; on Linux

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge that calls a function on every read."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def finished(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        shown = path if path in self.paths else OTHER
        self.requests.labels(method if method in METHODS else OTHER, shown, str(status)).inc()
        self.seconds.labels(shown).observe(seconds)


class Observer:
    """ASGI middleware that gives each request an id, and counts and logs it.

    The id of a client (`X-Request-ID`) is taken over where it is well-formed. A log record has no query and no header:
    they hold what people search for.
    """

    def __init__(self, app: ASGIApp, monitor: Monitor) -> None:
        self.app, self.monitor = app, monitor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID_HEADER, "")
        name = given if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        REQUEST_ID.set(name)
        status, sent, started = 0, 0, time.perf_counter()

        async def respond(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID_HEADER] = name
            sent += len(message.get("body", b""))
            await send(message)

        self.monitor.active.inc()
        try:
            await self.app(scope, receive, respond)
        finally:
            self.monitor.active.dec()
            seconds = time.perf_counter() - started
            self.monitor.finished(scope["method"], scope["path"], status, seconds)
            client = scope.get("client")
            fields = {
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(seconds, 4),
                "bytes": sent,
                "client": client[0] if client else None,
            }
            LOG.info("request", extra={FIELDS: fields})
