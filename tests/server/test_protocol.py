"""Connections at a real socket: clients that are slow, many, malformed, too large, or gone."""

from __future__ import annotations

import asyncio.selector_events
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.support.fake_index import FakeIndex, make_index
from tests.support.listening import PATIENCE, connected, head, listening, said
from tshsr.server import guard
from tshsr.server.guard import Limits, RequestGuard
from tshsr.server.server import create_app

LIMITS = Limits(connections=3, header_seconds=0.3, response_seconds=0.3, seconds=PATIENCE, upload_bytes=100_000)


PART = b'--x\r\nContent-Disposition: form-data; name="picture"; filename="x.png"\r\n\r\n'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FakeIndex:
    return make_index(tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def app(index: FakeIndex) -> FastAPI:
    return create_app(index, LIMITS)


@pytest.fixture(scope="module")
def port(app: FastAPI) -> Iterator[int]:
    with listening(app, LIMITS) as number:
        yield number


def test_a_head_that_arrives_too_slowly_is_refused(port: int) -> None:
    with connected(port) as client:
        for byte in b"GET /":
            client.send(bytes([byte]))
            time.sleep(0.01)
        status, headers, answer = said(client)
    assert status == 408
    assert answer["error"] == "the head of the request took longer than 0.3 s to arrive."
    assert "default-src 'none'" in headers["content-security-policy"]


def test_a_client_that_resets_its_connection_within_a_head_is_no_internal_error(
    port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(transport: object) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "write_eof", gone)
    with connected(port) as client:
        client.sendall(b"no HTTP\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 400"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_connection_without_a_request_is_closed_without_a_word(port: int) -> None:
    with connected(port) as client:
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "content", [b"no HTTP at all\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000]
)
def test_what_is_no_http_is_refused(port: int, content: bytes) -> None:
    with connected(port) as client:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        status, _, answer = said(client)
    assert (status, answer["error"]) == (400, "this is no valid HTTP/1.1 request; send one with a head below 64 KiB.")


def test_connections_above_the_limit_are_refused_and_accepted_again_later(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    with connected(port) as client:
        client.sendall(head())
        status, headers, answer = said(client)
    assert (status, headers["retry-after"]) == (503, "5")
    assert answer["error"] == "the server has as many connections as it accepts; try again in a moment."
    for one in idle:
        one.close()
    deadline = time.monotonic() + PATIENCE
    while status != 200 and time.monotonic() < deadline:
        with connected(port) as client:
            client.sendall(head())
            status, _, answer = said(client)
    assert answer == {"status": "alive"}


def test_connections_far_above_the_limit_are_dropped(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(6)]
    with connected(port) as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(100) == b""
    for one in idle:
        one.close()


def test_a_client_that_reads_after_it_has_sent_all_reads_the_refusal_of_a_large_body(port: int) -> None:
    size = 30 * 2**20
    with connected(port) as client:
        client.sendall(head("/api/search", f"Content-Length: {size}", method="POST"))
        client.sendall(bytes(size))
        status, headers, answer = said(client)
    assert status == 413
    assert answer["error"] == "a request may have 97.66 KiB, this one has more; send less."
    assert headers["connection"] == "close"


def test_a_body_that_never_ends_is_refused_and_its_connection_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "LINGER_SECONDS", 0.1)
    limits = replace(LIMITS, seconds=0.2)

    async def wait_for_body(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    with listening(RequestGuard(wait_for_body, limits, local=True), limits) as port, connected(port) as client:
        client.sendall(head("/", "Content-Length: 1000", method="POST") + b"x")
        status, _, answer = said(client)
    assert (status, answer["error"]) == (408, "the request took longer than 0.2 s to arrive.")


def test_the_client_is_the_address_of_the_connection_whatever_a_header_says() -> None:
    async def client_of(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse([scope["client"][0], scope["scheme"]])(scope, receive, send)

    with listening(client_of, LIMITS) as port, connected(port) as client:
        client.sendall(head("/", "X-Forwarded-For: a forged line", "X-Forwarded-Proto: https"))
        assert said(client)[2] == ["127.0.0.1", "http"]


def test_a_client_that_does_not_read_its_response_is_dropped() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(bytes(32 * 2**20))(scope, receive, send)

    with listening(large, LIMITS) as port, connected(port) as client:
        client.sendall(head())
        time.sleep(1.0)
        read = 0
        with contextlib.suppress(ConnectionResetError):
            while part := client.recv(2**20):
                read += len(part)
    assert read < 32 * 2**20


def test_a_client_that_hangs_up_leaves_the_queue(app: FastAPI, index: FakeIndex, port: int) -> None:
    go, worker = threading.Event(), app.state.backend.network
    blocking = worker.pool.submit(go.wait, PATIENCE)
    before = list(index.queries)
    with connected(port) as client:
        client.sendall(head("/api/search?q=gone"))
        wait_until(lambda: worker.pending == 1)
    wait_until(lambda: worker.pending == 0)
    go.set()
    blocking.result()
    with connected(port) as client:
        client.sendall(head("/api/search?q=here"))
        assert said(client)[0] == 200
    assert index.queries == [*before, "here"]
    count = app.state.monitor.registry.get_sample_value
    assert count("tshsr_requests_total", {"method": "GET", "path": "/api/search", "status": "499"}) == 1


def test_a_client_that_hangs_up_within_a_body_is_no_internal_error(
    app: FastAPI, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    count = app.state.monitor.registry.get_sample_value
    with connected(port) as client:
        client.sendall(head("/rerank", "Content-Length: 100", method="POST") + b"{")
        wait_until(lambda: count("tshsr_requests_active"))
    labels = {"method": "POST", "path": "/rerank", "status": "499"}
    wait_until(lambda: count("tshsr_requests_total", labels) == 1)
    assert not caplog.records


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bodies_of_all_requests_share_a_budget(tmp_path: Path) -> None:
    limits = Limits(upload_bytes=100_000, bodies=2, seconds=PATIENCE)
    with listening(create_app(make_index(tmp_path), limits), limits) as port:
        form = ("Content-Length: 99000", "Content-Type: multipart/form-data; boundary=x")
        unfinished = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        try:
            for client in unfinished:
                client.sendall(head("/api/search", *form, method="POST") + PART + b"y" * 90_000)
            answers = [client for client in unfinished if readable(client)]
            assert len(answers) == 1, "the third is refused"
            refused = answers[0].recv(65536)
            assert refused.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5" in refused.lower()
            assert b"the server holds as many requests as its memory allows" in refused
        finally:
            for client in unfinished:
                client.close()


def readable(client: socket.socket) -> bool:
    client.settimeout(0.5)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
