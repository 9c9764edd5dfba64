"""What keeps a server standing: a bounded queue, time limits, caps on what is sent, and who may ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from tests.support.fake_index import make_index
from tshsr.server.guard import Guard, Limits, Worker, is_loopback, size
from tshsr.server.server import create_app

PATIENCE = 600.0
"""Seconds for what comes at once on a quiet machine."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test", threads=1, waiting=1, seconds=PATIENCE)
    yield made
    made.close()


def test_more_questions_than_may_wait_are_refused_and_the_others_answered(worker: Worker) -> None:
    go = threading.Event()

    async def ask() -> list[Any]:
        first = asyncio.create_task(worker.run(lambda: go.wait(PATIENCE) and "first"))
        second = asyncio.create_task(worker.run(lambda: "second"))
        while not worker.busy:
            await asyncio.sleep(0.01)
        with pytest.raises(HTTPException, match="the server is busy, 1 questions are waiting already") as refused:
            await worker.run(lambda: "third")
        assert refused.value.status_code == 503
        assert refused.value.headers == {"Retry-After": "1"}
        go.set()
        return [await first, await second]

    assert asyncio.run(ask()) == ["first", "second"]
    assert not worker.busy
    assert worker.pending == 0


def test_a_late_question_is_given_up_and_one_that_waited_is_never_begun() -> None:
    worker = Worker("test", threads=1, waiting=3, seconds=0.1)
    go, begun = threading.Event(), []

    async def ask() -> None:
        late = [worker.run(lambda: go.wait(PATIENCE)), worker.run(lambda: begun.append("waited"))]
        for answer in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(answer, HTTPException)
            assert answer.status_code == 503
            assert answer.detail.startswith("this took longer than 0.1 s and was given up")
        assert worker.pending == 1, "the one at work keeps its place"
        go.set()

    asyncio.run(ask())
    worker.pool.shutdown(wait=True)
    assert begun == []
    assert worker.pending == 0


def test_an_error_of_a_job_reaches_who_asked(worker: Worker) -> None:
    def fail() -> None:
        raise TimeoutError("the job's own")

    with pytest.raises(TimeoutError, match="the job's own"):
        asyncio.run(worker.run(fail))


def test_the_network_answers_one_question_at_a_time(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    at_work, most = [0], [0]
    search = index.search

    def watched(*question: Any, **how: Any) -> Any:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        time.sleep(0.02)
        at_work[0] -= 1
        return search(*question, **how)

    index.search = watched  # type: ignore[method-assign]
    with TestClient(create_app(index), base_url="http://127.0.0.1") as client:
        threads = [threading.Thread(target=client.get, args=("/api/search?q=red",)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1]
    assert len(index.asked) == 5


def test_health_is_told_while_the_network_is_at_work(tmp_path: Path) -> None:
    index, go = make_index(tmp_path), threading.Event()
    index.search = lambda *question, **how: go.wait(PATIENCE) and []  # type: ignore[method-assign]
    with TestClient(create_app(index, Limits(waiting=0)), base_url="http://127.0.0.1") as client:
        thread = threading.Thread(target=client.get, args=("/api/search?q=red",))
        thread.start()
        while not client.app.state.desk.network.busy:  # type: ignore[attr-defined]
            time.sleep(0.01)
        assert client.get("/healthz").json()["status"] == "busy"
        assert client.get("/api/search?q=red").status_code == 503
        go.set()
        thread.join()
        assert client.get("/healthz").json()["status"] == "ok"


Send_ = Callable[[dict[str, Any]], Awaitable[None]]


async def swallow(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and tells its length."""
    read, more = 0, True
    while more:
        message = await receive()
        read, more = read + len(message.get("body", b"")), message.get("more_body", False)
    await PlainTextResponse(str(read))(scope, receive, send)


def asked(
    headers: dict[str, str],
    body: AsyncIterator[bytes] | None = None,
    *,
    local: bool = True,
    seconds: float = PATIENCE,
) -> tuple[int, str, int]:
    """Status and text of an answer, and how many parts of the body were read."""
    parts, sent = [0], []

    async def receive() -> dict[str, Any]:
        parts[0] += 1
        content = None if body is None else await anext(body, None)
        return {"type": "http.request", "body": content or b"", "more_body": content is not None}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    guard = Guard(swallow, Limits(upload_bytes=1000, seconds=seconds), local=local)
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode(), parts[0]


async def chunks(count: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause)
        yield b"x" * 100


def test_a_body_that_is_announced_as_too_large_is_not_read() -> None:
    status, text, read = asked({"host": "localhost", "content-length": "1001"}, chunks(20))
    assert (status, read) == (413, 0)
    assert text == '{"error":"a request may have 1000 bytes, this one has more; send less."}'
    assert asked({"host": "localhost", "content-length": "-5"})[0] == 413


def test_a_body_of_untold_length_is_read_only_up_to_the_limit() -> None:
    assert asked({"host": "localhost"}, chunks(10)) == (200, "1000", 11)
    status, text, read = asked({"host": "localhost"}, chunks(1000))
    assert (status, read) == (413, 11)
    assert "a request may have 1000 bytes" in text


def test_a_body_that_trickles_in_is_given_up() -> None:
    status, text, _ = asked({"host": "localhost"}, chunks(10, pause=0.05), seconds=0.2)
    assert status == 408
    assert text == '{"error":"the request took longer than 0.2 s to arrive."}'


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "127.5.0.1"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert asked({"host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "10.0.0.1", "", "[::", "a@b"])
def test_other_names_are_refused_while_the_server_is_for_this_machine(host: str) -> None:
    status, text, _ = asked({"host": host})
    assert status == 421
    assert "this server answers to names of this machine only" in text
    assert asked({"host": host}, local=False)[0] == 200


def test_pages_of_other_sites_are_refused() -> None:
    assert asked({"host": "localhost:8000", "origin": "http://localhost:8000"})[0] == 200
    for origin in ("http://evil.example", "null", "http://localhost:9000", "http://[::"):
        status, text, _ = asked({"host": "localhost:8000", "origin": origin})
        assert status == 403
        assert "this server answers its own page only" in text


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("same-origin", "no-cors", "image", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a link that a person follows
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "image", 403),  # another port of this machine
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
    ],
)
def test_what_pages_of_other_sites_load_is_refused_though_it_names_no_origin(
    site: str, mode: str, dest: str, status: int
) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    for host, local in (("127.0.0.1:8000", True), ("pictures.example", False)):
        found, text, _ = asked({"host": host, **headers}, local=local)
        assert found == status
        assert ("this server answers its own page only" in text) == (status == 403)


def test_loopback_is_told_from_the_rest() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "[::1]", "LOCALHOST")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "")] == [False] * 5


def test_sizes_are_told_as_people_say_them() -> None:
    assert [size(count) for count in (5, 2048, 20 * 2**20, 3 * 2**29)] == ["5 bytes", "2 KiB", "20 MiB", "1.5 GiB"]
