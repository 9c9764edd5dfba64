"""What the server sends to browsers besides answers: the page, strict headers, the API reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.fake_index import make_index
from tshsr.server.guard import Limits
from tshsr.server.server import create_app
from tshsr.server.service import Service
from tshsr.server.site import PAGE, SHARED, media_type


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(create_app(make_index(tmp_path)), base_url="http://127.0.0.1")


def test_the_page_loads_only_files_of_the_server_and_runs_nothing_inline(client: TestClient) -> None:
    for name in (*PAGE, *SHARED, "labels.js"):
        answer = client.get("/" if name == "index.html" else f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == media_type(name)
        for imported in re.findall(r'^import .* from "(/[^"]*)"', answer.text, re.MULTILINE):
            assert client.get(imported).status_code == 200, imported
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


def test_captions_longer_than_a_query_may_be_are_no_examples(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    service = Service(index, Limits(query_characters=80))
    for sentences, examples in ((["dog " * 30, "a red dog"], ["a red dog"]), (["dog " * 30], [])):
        index.sentences = sentences
        service.prepare()
        assert service.examples == examples


def test_the_openapi_schema_describes_every_route(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/api/search", "/api/score", "/api/explain", "/healthz"} <= set(schema["paths"])
    assert "HTTPValidationError" not in schema["components"]["schemas"], "errors have one form"
    described = [route[method] for route in schema["paths"].values() for method in route]
    assert all(route["summary"] and route["description"] for route in described)
    answers = schema["components"]["schemas"]["PictureAnswers"]["properties"]
    assert answers["unknown"]["description"] == "Words of the query outside the vocabulary."
    forms = [form["properties"]["picture"] for name, form in schema["components"]["schemas"].items() if "Body" in name]
    assert len(forms) == 3
    assert all(picture["contentMediaType"] == "application/octet-stream" for picture in forms)


def test_the_api_reference_loads_nothing_from_elsewhere_and_runs_nothing_inline(client: TestClient) -> None:
    answer = client.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
    assert loaded == ["/docs/swagger-ui.css", "/icon.svg", "/docs/swagger-ui-bundle.js", "/docs/start.js"]
    for reference in loaded:
        assert client.get(reference).status_code == 200, reference
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", answer.text)
    assert "url: '/openapi.json'" in client.get("/docs/start.js").text
    policy = answer.headers["content-security-policy"].split("; ")
    assert "script-src 'self'" in policy
    assert "img-src 'self' data: blob:" in policy
    others = client.get("/").headers["content-security-policy"].split("; ")
    assert {rule.split()[0] for rule in set(policy) ^ set(others)} == {"img-src"}
