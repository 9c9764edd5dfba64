"""What operators use: probes, metrics, request ids and structured logs."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fake_index import FakeIndex, make_index
from tshsr.errors import DataError
from tshsr.index.collection import Index
from tshsr.server import server
from tshsr.server.guard import Limits
from tshsr.server.logs import FIELDS, REQUEST_ID, JsonLines, log_json
from tshsr.server.running import bounded_by_handles
from tshsr.server.server import create_app


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return make_index(tmp_path)


@pytest.fixture
def client(index: FakeIndex) -> Iterator[TestClient]:
    with TestClient(create_app(index, Limits(waiting=0)), base_url="http://127.0.0.1") as opened:
        yield opened


def occupied(client: TestClient, seconds: float) -> threading.Event:
    """Let the network be at one request for some seconds already."""
    go, worker = threading.Event(), client.app.state.backend.network  # type: ignore[attr-defined]
    worker.pool.submit(worker._timed, go.wait)
    while not worker.begun:
        time.sleep(0.01)
    worker.begun = {key: time.monotonic() - seconds for key in worker.begun}
    return go


def test_probes_tell_busy_stuck_and_unreadable_from_ready(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for seconds, alive in ((1, 200), (21, 200), (301, 503)):
        go = occupied(client, seconds)
        assert client.get("/livez").status_code == alive
        answer = client.get("/readyz")
        assert answer.status_code == (200 if seconds == 1 else 503)
        if seconds > 1:
            assert answer.headers["retry-after"] == "1"
        go.set()
        while client.app.state.backend.network.begun:  # type: ignore[attr-defined]
            time.sleep(0.01)

    def fail(index: FakeIndex) -> int:
        raise DataError(f"{index.folder} is gone.")

    monkeypatch.setattr(FakeIndex, "__len__", fail)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"error": "the index is gone."})
    assert client.get("/livez").status_code == 200


def test_an_index_that_is_gone_for_a_while_is_no_fault_of_the_server_or_the_client(
    index_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(index_folder, tmp_path / "index")
    with TestClient(create_app(Index.open(folder)), base_url="http://127.0.0.1") as client:
        expected = {"/livez": 200, "/readyz": 200, "/healthz": 200, "/metrics": 200, "/api/about": 200}
        assert {path: client.get(path).status_code for path in expected} == expected
        folder.rename(tmp_path / "elsewhere")
        expected |= {"/readyz": 503, "/api/about": 500}
        expected |= dict.fromkeys(("/api/search?q=dog", "/api/search?q=dog&where=width>3"), 500)
        expected |= dict.fromkeys(("/api/explain?q=dog&id=p0", "/api/picture?id=p0"), 500)
        assert {path: client.get(path).status_code for path in expected} == expected
        assert client.get("/healthz").json()["pictures"] is None
        assert "tshsr_pictures NaN" in client.get("/metrics").text
        (tmp_path / "elsewhere").rename(folder)
        assert client.get("/readyz").status_code == 200


def test_metrics_count_requests_by_known_paths(client: TestClient) -> None:
    client.get("/api/search?q=red")
    client.get("/api/search?q=")
    client.get("/nothing/of/that/name")
    client.request("INVENTED", "/api/search")
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["tshsr_requests_total", "/api/search", "200", "GET"] == 1
    assert samples["tshsr_requests_total", "/api/search", "422", "GET"] == 1
    assert samples["tshsr_requests_total", "404", "GET", "other"] == 1
    assert samples["tshsr_requests_total", "/api/search", "405", "other"] == 1
    assert samples["tshsr_request_seconds_count", "/api/search"] == 3
    assert samples["tshsr_requests_active",] == 1
    assert samples["tshsr_tasks_pending", "network"] == 0
    assert samples["tshsr_pictures",] == 6
    assert "of/that/name" not in answer.text


def test_each_answer_has_the_request_id_of_the_client_or_a_new_one(client: TestClient) -> None:
    given = client.get("/livez", headers={"X-Request-ID": "trace-1.a_B"})
    assert given.headers["x-request-id"] == "trace-1.a_B"
    for forged in ('a"b', "x" * 65, "", "{}"):
        new = client.get("/nothing", headers={"X-Request-ID": forged}).headers["x-request-id"]
        assert len(new) == 32
        assert int(new, 16)


def test_a_log_line_names_the_request_and_not_the_query(
    client: TestClient, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, root, server = io.StringIO(), logging.getLogger(), logging.getLogger("tshsr.server")
    before = root.handlers[:], root.level, server.level
    root.handlers = []
    try:
        log_json(stream)
        client.get("/api/search?q=a+secret", headers={"X-Request-ID": "first"})
        monkeypatch.setattr(index, "search", lambda *question, **how: 1 / 0)
        client.get("/api/search?q=a+secret", headers={"X-Request-ID": "second"})
    finally:
        root.handlers, level, server_level = before
        root.setLevel(level)
        server.setLevel(server_level)
    ours = [line for line in map(json.loads, stream.getvalue().splitlines()) if line["logger"].startswith("tshsr")]
    assert [(line["request"], line["level"], line["message"]) for line in ours] == [
        ("first", "info", "request"),
        ("second", "error", "GET /api/search failed"),
        ("second", "info", "request"),
    ]
    assert (ours[0]["method"], ours[0]["path"], ours[0]["status"]) == ("GET", "/api/search", 200)
    assert ours[0]["bytes"] > 100
    assert ours[0]["client"] == "testclient"
    assert "ZeroDivisionError" in ours[1]["traceback"]
    assert ours[2]["status"] == 500
    assert "secret" not in stream.getvalue()


def test_a_log_line_is_one_line() -> None:
    record = logging.LogRecord("tshsr", logging.WARNING, "", 0, "two\nlines of %s", ("x",), None)
    setattr(record, FIELDS, {"path": Path("a\nb")})
    token = REQUEST_ID.set(None)
    line = JsonLines().format(record)
    REQUEST_ID.reset(token)
    assert "\n" not in line
    read = json.loads(line)
    assert (read["message"], read["path"], read["level"]) == ("two\nlines of x", "a\nb", "warning")
    assert read["time"].endswith("+00:00")
    assert "request" not in read


@pytest.mark.skipif(os.name != "posix", reason="handles are limited on POSIX")
def test_connections_leave_handles_to_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limit = [(1024, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda which: limit[0])
    monkeypatch.setattr(resource, "setrlimit", lambda which, wanted: limit.__setitem__(0, wanted))
    assert bounded_by_handles(Limits(upload_bytes=7)) == Limits(upload_bytes=7)
    assert limit[0] == (2256, resource.RLIM_INFINITY)
    limit[0] = (512, 1024)
    assert bounded_by_handles(Limits(upload_bytes=7)).connections == (1024 - 256) // 2

    def refuse(which: int, wanted: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    limit[0] = (256, 1024)
    assert bounded_by_handles(Limits(upload_bytes=7)).connections == 16


def test_freed_memory_is_returned_while_the_server_runs(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the largest picture ever sent would stay in its memory."""
    trimmed = threading.Event()
    monkeypatch.setattr(server, "TRIM_SECONDS", 0.01)
    monkeypatch.setattr(server, "trim", trimmed.set)
    with TestClient(create_app(index), base_url="http://127.0.0.1"):
        assert trimmed.wait(600)


def test_a_json_body_of_millions_of_values_is_refused_before_it_is_parsed(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        answer = client.post(path, content=b'{"documents":[' + b"[]," * 600_000 + b"]}", headers=json_type)
        assert answer.status_code == 413
        assert answer.json()["error"] == "a JSON body may have 510,000 commas and brackets, this one has more."
    answer = client.post("/rerank", content=b'{"query":"a","documents":[' + b"[]," * 99 + b"[]]}", headers=json_type)
    assert (answer.status_code, answer.json()["error"][:16]) == (422, "documents.0.str:")
    for broken in (b"[" * 100_000, b"{", b"\xff", b'{"query": NaN'):
        answer = client.post("/rerank", content=broken, headers=json_type)
        assert answer.json()["error"].endswith("; expected JSON as /docs describes for /rerank.")
        assert answer.status_code in (400, 422)


def test_a_form_without_files_is_small(client: TestClient) -> None:
    answer = client.post("/api/search", data={"picture": "x" * 20_000})
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "a request may have 16 KiB, this one has more; send less.",
    )
