"""The optional token, and the names by which clients reach the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.fake_index import make_index
from tshsr.server.access import Token
from tshsr.server.server import create_app

TOKEN = "a-token-of-some-length"
BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-dest": "document", "sec-fetch-site": "none"}


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return TestClient(
        create_app(make_index(tmp_path), token=TOKEN), base_url="http://127.0.0.1", follow_redirects=False
    )


def test_without_the_token_only_probes_and_the_form_are_answered(client: TestClient) -> None:
    for path in ("/", "/app.js", "/api/search?q=red", "/api/about", "/healthz", "/metrics", "/docs", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"].startswith("this server needs its token; send the header 'Authorization: Bearer")
    for path in ("/livez", "/readyz", "/common.css", "/app.css", "/icon.svg"):
        assert client.get(path).status_code == 200, path
    assert client.post("/api/search", files={"picture": b"x"}).status_code == 401


@pytest.mark.parametrize(
    "wrong", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}\xe9"]
)
def test_a_wrong_token_is_refused(client: TestClient, wrong: str) -> None:
    assert client.get("/api/about", headers={"authorization": wrong.encode("latin-1")}).status_code == 401


def test_programs_send_the_token_in_a_header(client: TestClient) -> None:
    for scheme in ("Bearer", "bearer"):
        assert client.get("/api/about", headers={"authorization": f"{scheme} {TOKEN}"}).status_code == 200


def test_a_browser_enters_it_once(client: TestClient) -> None:
    page = client.get("/?q=red", headers=BROWSER)
    assert page.status_code == 401
    assert '<form method="post" action="/login">' in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "same-origin", "with no-referrer a browser sends Origin: null"
    wrong = client.post("/login", data={"token": "<script>"}, headers=BROWSER)
    assert wrong.status_code == 401
    assert "That is not the token of this server." in wrong.text
    assert not client.cookies
    long = client.post("/login", data={"token": "x" * 600})
    assert (long.status_code, long.json()) == (422, {"error": "token has more than 512 characters."})
    right = client.post("/login", data={"token": TOKEN}, headers=BROWSER | {"origin": "http://127.0.0.1"})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert client.get("/api/search?q=red").status_code == 200
    assert TestClient(client.app, base_url="http://127.0.0.1").get("/").status_code == 401


def test_the_form_of_another_site_is_refused(client: TestClient) -> None:
    answer = client.post("/login", data={"token": TOKEN}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
    assert not client.cookies


def test_the_cookie_of_another_token_is_refused(client: TestClient) -> None:
    for value in (Token("another-token-of-length").cookie, "", "\xe9"):
        answer = client.get("/api/about", headers={"cookie": f"tshsr-session={value}".encode("latin-1")})
        assert answer.status_code == 401


def test_allowed_names_are_answered_beside_those_of_this_machine(tmp_path: Path) -> None:
    index = make_index(tmp_path)
    for local in (True, False):
        client = TestClient(create_app(index, local=local, hosts=("Pictures.example",)), base_url="http://127.0.0.1")
        for host, status in (
            ("pictures.example", 200),
            ("PICTURES.example:443", 200),
            ("localhost", 200),
            ("evil.example", 421),
            ("pictures.example.evil.example", 421),
            ("", 421),
        ):
            answer = client.get("/livez", headers={"host": host})
            assert answer.status_code == status, host
            expected = f"this server answers to names of this machine and of --allow-host only, not to {host!r}."
            assert status == 200 or answer.json()["error"] == expected
