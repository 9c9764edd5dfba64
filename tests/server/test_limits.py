"""Limits of the server: a bounded queue, time limits, sizes of bodies, host names and origins."""

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
from tshsr.server.filters import check_filter_text
from tshsr.server.guard import Limits, RequestGuard, Worker, format_bytes, is_loopback
from tshsr.server.server import create_app

PATIENCE = 600.0
"""Seconds within which an immediate event arrives, also on a busy machine."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("test", threads=1, waiting=1, seconds=PATIENCE)
    yield made
    made.close()


def test_tasks_beyond_the_queue_are_refused_and_the_others_run(worker: Worker) -> None:
    go = threading.Event()

    async def submit() -> list[Any]:
        first = asyncio.create_task(worker.run(lambda: go.wait(PATIENCE) and "first"))
        second = asyncio.create_task(worker.run(lambda: "second"))
        while not worker.busy:
            await asyncio.sleep(0.01)
        with pytest.raises(HTTPException, match="the server is busy, 1 requests are waiting already") as refused:
            await worker.run(lambda: "third")
        assert refused.value.status_code == 503
        assert refused.value.headers == {"Retry-After": "1"}
        go.set()
        return [await first, await second]

    assert asyncio.run(submit()) == ["first", "second"]
    assert not worker.busy
    assert worker.pending == 0


def test_a_late_task_times_out_and_a_queued_one_is_never_started() -> None:
    worker = Worker("test", threads=1, waiting=3, seconds=0.1)
    go, begun = threading.Event(), []

    async def submit() -> None:
        late = [worker.run(lambda: go.wait(PATIENCE)), worker.run(lambda: begun.append("waited"))]
        for answer in await asyncio.gather(*late, return_exceptions=True):
            assert isinstance(answer, HTTPException)
            assert answer.status_code == 503
            assert answer.detail.startswith("this took longer than 0.1 s and was cancelled")
        assert worker.pending == 1, "the running task occupies its thread"
        go.set()

    asyncio.run(submit())
    worker.pool.shutdown(wait=True)
    assert begun == []
    assert worker.pending == 0


def test_a_result_at_the_last_moment_is_no_error(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(future: Any, seconds: float) -> None:
        await future
        raise TimeoutError

    monkeypatch.setattr(asyncio, "wait_for", late)
    assert asyncio.run(worker.run(lambda: "a result")) == "a result"


def test_an_error_of_a_task_reaches_the_caller(worker: Worker) -> None:
    def fail() -> None:
        raise TimeoutError("raised by the task")

    with pytest.raises(TimeoutError, match="raised by the task"):
        asyncio.run(worker.run(fail))


def test_the_network_runs_one_query_at_a_time(tmp_path: Path) -> None:
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
    assert len(index.queries) == 5


def test_health_is_reported_while_the_network_is_busy(tmp_path: Path) -> None:
    index, go = make_index(tmp_path), threading.Event()
    index.search = lambda *question, **how: go.wait(PATIENCE) and []  # type: ignore[method-assign]
    with TestClient(create_app(index, Limits(waiting=0)), base_url="http://127.0.0.1") as client:
        thread = threading.Thread(target=client.get, args=("/api/search?q=red",))
        thread.start()
        while not client.app.state.backend.network.busy:  # type: ignore[attr-defined]
            time.sleep(0.01)
        assert client.get("/healthz").json()["status"] == "busy"
        assert client.get("/api/search?q=red").status_code == 503
        go.set()
        thread.join()
        assert client.get("/healthz").json()["status"] == "ok"


Send_ = Callable[[dict[str, Any]], Awaitable[None]]


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and respond with its length."""
    read, more = 0, True
    while more:
        message = await receive()
        read, more = read + len(message.get("body", b"")), message.get("more_body", False)
    await PlainTextResponse(str(read))(scope, receive, send)


def respond(
    headers: dict[str, str], body: AsyncIterator[bytes] | None = None, *, local: bool = True, seconds: float = PATIENCE
) -> tuple[int, str, int]:
    """Status and text of a response, and the number of body messages read before it."""
    parts, read, sent = [0], [], []

    async def receive() -> dict[str, Any]:
        parts[0] += 1
        content = None if body is None else await anext(body, None)
        return {"type": "http.request", "body": content or b"", "more_body": content is not None}

    async def send(message: Any) -> None:
        read.append(parts[0])
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    guard = RequestGuard(count_body, Limits(upload_bytes=1000, seconds=seconds), local=local)
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode(), read[0]


async def chunks(count: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    for _ in range(count):
        await asyncio.sleep(pause)
        yield b"x" * 100


def test_a_body_with_a_too_large_content_length_is_not_read() -> None:
    status, text, read = respond({"host": "localhost", "content-length": "1001"}, chunks(20))
    assert (status, read) == (413, 0)
    assert text == '{"error":"a request may have 1000 bytes, this one has more; send less."}'
    assert respond({"host": "localhost", "content-length": "-5"})[0] == 413


def test_a_body_without_a_content_length_is_read_only_up_to_the_limit() -> None:
    assert respond({"host": "localhost"}, chunks(10)) == (200, "1000", 11)
    status, text, read = respond({"host": "localhost"}, chunks(1000))
    assert (status, read) == (413, 11)
    assert "a request may have 1000 bytes" in text


def test_a_slow_body_times_out() -> None:
    status, text, _ = respond({"host": "localhost"}, chunks(10, pause=0.05), seconds=0.2)
    assert status == 408
    assert text == '{"error":"the request took longer than 0.2 s to arrive."}'


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "127.5.0.1"])
def test_host_names_of_this_machine_are_accepted(host: str) -> None:
    assert respond({"host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "10.0.0.1", "", "[::", "a@b"])
def test_other_host_names_are_refused_by_a_local_server(host: str) -> None:
    status, text, _ = respond({"host": host})
    assert status == 421
    assert "this server answers to names of this machine only" in text
    assert respond({"host": host}, local=False)[0] == 200


def test_pages_of_other_sites_are_refused() -> None:
    assert respond({"host": "localhost:8000", "origin": "http://localhost:8000"})[0] == 200
    for origin in ("http://evil.example", "null", "http://localhost:9000", "http://[::"):
        status, text, _ = respond({"host": "localhost:8000", "origin": origin})
        assert status == 403
        assert "this server accepts requests of its own page only" in text


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-origin", "cors", "empty", 200),
        ("same-origin", "no-cors", "image", 200),
        ("none", "navigate", "document", 200),
        ("cross-site", "navigate", "document", 200),  # a followed link
        ("cross-site", "no-cors", "image", 403),
        ("same-site", "no-cors", "image", 403),  # another port of this machine
        ("cross-site", "no-cors", "script", 403),
        ("cross-site", "navigate", "iframe", 403),
    ],
)
def test_cross_site_subresources_are_refused_without_an_origin_header(
    site: str, mode: str, dest: str, status: int
) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    for host, local in (("127.0.0.1:8000", True), ("pictures.example", False)):
        found, text, _ = respond({"host": host, **headers}, local=local)
        assert found == status
        assert ("this server accepts requests of its own page only" in text) == (status == 403)


def test_loopback_addresses_are_recognised() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "[::1]", "LOCALHOST")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", "")] == [False] * 5


def test_sizes_are_formatted_with_binary_units() -> None:
    assert [format_bytes(count) for count in (5, 2048, 20 * 2**20, 3 * 2**29)] == [
        "5 bytes",
        "2 KiB",
        "20 MiB",
        "1.5 GiB",
    ]


@pytest.mark.parametrize(
    "where",
    [
        "year > 2010 AND place = 'Oslo'",
        "id = 'it''s a dog (repeat(1))' OR (`year` <= -3.5)",
        "NOT (id IN ('a', 'b')) and lower(\"place\") like 'o%' and x IS NOT NULL",
        "CAST(n AS DECIMAL(10, 2)) BETWEEN (1) AND (2) AND starts_with( place, 'a\\' )",
        "CASE WHEN (n > 1) THEN (1) ELSE (2) END = 1 OR n IS (NULL)",
        "day > date '2020-01-01' AND date_part('year', day) % 4 = 0",
    ],
)
def test_filters_compare_columns_with_values(where: str) -> None:
    check_filter_text(where)


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        ("length(lpad(id, 2147483647)) > 5", "it calls lpad"),
        ("length(concat(repeat('ab', 999999999), id)) > 5", "it calls concat"),
        ("REPEAT (id, 9) > ''", "it calls REPEAT"),
        ("repeat\u00a0(id, 9) > ''", "it calls repeat"),
        ("\"repeat\"(id, 9) > ''", 'it calls "repeat"'),
        ("`repeat` (id, 9) > ''", "it calls `repeat`"),
        ("x.repeat(id, 9) > ''", "it calls repeat"),
        ("repeat/**/(id, 9) > ''", "it has '/*' outside of quotation marks"),
        ("repeat--\n(id, 9) > ''", "it has '--' outside of quotation marks"),
        ("id = E'a\\'' = repeat(id, 9) and 'x' = 'x'", "it has E' without a space between"),
        ("{fn repeat(id, 9)} > ''", "it has '{f' outside of quotation marks"),
        ("id = $$'$$ and repeat(id, 9) > ''", "it has '$$' outside of quotation marks"),
        ("id || id || id > ''", "it has '||' outside of quotation marks"),
        ("[1, 2][1] = 1", "it has '[1' outside of quotation marks"),
        ("id = 'open", 'it has "\'o" outside of quotation marks'),
    ],
)
def test_functions_that_fill_the_memory_are_refused_in_filters(where: str, cause: str) -> None:
    with pytest.raises(HTTPException) as refused:
        check_filter_text(where)
    assert refused.value.status_code == 422
    assert refused.value.detail.startswith(f"the filter cannot be used by this server: {cause}; expected comparisons")


def test_a_refused_filter_never_reaches_the_index(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    with TestClient(create_app(index), base_url="http://127.0.0.1") as client:
        assert client.get("/api/search", params={"q": "red", "where": "repeat(id, 9) > ''"}).status_code == 422
    assert index.queries == []
