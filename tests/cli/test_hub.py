"""Names on the hub without a network: one sentence, without retries."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.command_line import refused
from tests.support.picture_files import write_pictures
from tshsr.system import is_reachable


class Refusing(BaseHTTPRequestHandler):
    """A server that knows no page."""

    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def closed() -> str:
    """The URL of a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def hub(closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A hub that can't be reached; the pauses before retries are listed, and none is allowed."""
    paused: list[float] = []
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", closed)
    monkeypatch.setattr("tshsr.retriever.ENDPOINT", closed)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", paused.append)
    return paused


def test_a_run_on_a_hub_that_cannot_be_reached_is_refused_at_once(hub: list[float], scenes: Path) -> None:
    assert refused("evaluate", "owner/no-such-run", "--data", scenes, "--device", "cpu") == (
        "tshsr: owner/no-such-run is no folder here, and the Hugging Face hub returned no model of this name "
        "(LocalEntryNotFoundError); check the name, or the connection."
    )
    assert hub == []


def test_a_network_on_a_hub_that_cannot_be_reached_is_refused_at_once(hub: list[float], tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_pictures(tmp_path / "pictures", 1)
    said = refused(
        *("features", tmp_path / "pictures", "--extractor", "grid", "--weights", "owner/no-such-network"),
        *("--out", tmp_path / "store", "--device", "cpu"),
    )
    assert said.startswith("tshsr: cannot load owner/no-such-network: ")
    assert said.endswith("or the name of one on the Hugging Face hub.")
    assert hub == []


def test_a_server_that_refuses_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert is_reachable(f"http://127.0.0.1:{server.server_port}", seconds=60)


def test_an_answer_that_is_no_http_is_one_and_what_is_no_url_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")

    def answer(server: socket.socket) -> None:
        with server.accept()[0] as client:
            client.recv(4096)
            client.sendall(b"SSH-2.0-OpenSSH\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        assert is_reachable(f"http://127.0.0.1:{server.getsockname()[1]}", seconds=60)
    for name in ("localhost", "http://local host/", "http://localhost:port"):
        assert not is_reachable(name, seconds=60)


def test_a_closed_port_and_a_silent_server_are_not(closed: str, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    assert not is_reachable(closed, seconds=60)
    assert not is_reachable(silent, seconds=0.05)
