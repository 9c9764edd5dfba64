"""What the server sends to browsers besides answers: the page, strict headers, the interface's description."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.fake_index import make_index
from tshsr.server.guard import Limits
from tshsr.server.server import PAGE, create_app
from tshsr.server.service import Service


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_app(make_index(tmp_path)), base_url="http://127.0.0.1")


def test_the_page_brings_everything_along_and_nothing_runs_inline(client: TestClient) -> None:
    for name, kind in PAGE.items():
        answer = client.get("/" if name == "index.html" else f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == kind
        addresses = set(re.findall(r"https?://[^\s\"'`)]+", answer.text)) - {"http://www.w3.org/2000/svg"}
        assert not addresses, name
    page = client.get("/").text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)
    for reference in re.findall(r'(?:src|href)="(/[^"]*)"', page):
        assert client.get(reference).status_code == 200, reference


def test_every_answer_has_the_strict_headers(client: TestClient) -> None:
    for path in (
        "/",
        "/app.js",
        "/docs",
        "/openapi.json",
        "/api/search?q=dog&k=1",
        "/api/search",
        "/nothing",
        "/healthz",
    ):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_captions_that_are_too_long_to_ask_are_no_examples(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    service = Service(index, Limits(query_characters=80))
    for sentences, examples in ((["dog " * 30, "a red dog"], ["a red dog"]), (["dog " * 30], [])):
        index.sentences = sentences
        service.prepare()
        assert service.examples == examples


def test_the_interface_is_described_for_programs_and_for_people(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/api/search", "/api/score", "/api/explain", "/healthz"} <= set(schema["paths"])
    assert "HTTPValidationError" not in schema["components"]["schemas"], "refusals have one form"
    page = client.get("/docs").text
    for path, methods in schema["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code></h2>" in page
    assert "<script>" not in page
    assert "Words of the query that the network never learned." in page
    assert re.search(r"<code>picture</code></th><td>file, required</td>", page)
