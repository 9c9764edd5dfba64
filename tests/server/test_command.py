"""`tshsr serve` as a process: it answers, refuses in sentences, and stops at Ctrl-C."""

from __future__ import annotations

import builtins
import importlib.util
import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from tests.support.command_line import refused, tshsr
from tests.support.served import PICTURES, Served, make_index, serving

TOKEN = "A-token_of-32-letters.and-digits"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def served(index: Path) -> Iterator[Served]:
    with serving(index) as running:
        yield running


def get(served: Served, path: str, **query: Any) -> Any:
    with urllib.request.urlopen(f"{served.address}{path}?{urlencode(query)}", timeout=300) as answer:
        return json.load(answer)


def post(served: Served, path: str, content: bytes, **fields: str) -> Any:
    edge = "edge-of-a-part"
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in fields.items()
    ]
    head = f'--{edge}\r\nContent-Disposition: form-data; name="picture"; filename="x.png"\r\n\r\n'
    body = ("".join(parts) + head).encode() + content + f"\r\n--{edge}--\r\n".encode()
    request = urllib.request.Request(
        served.address + path, body, {"Content-Type": f"multipart/form-data; boundary={edge}"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_a_sentence_finds_the_same_pictures_as_the_command(served: Served, index: Path) -> None:
    query = "a red circle left of a blue square"
    found = get(served, "api/search", q=query, k=5)["results"]
    said = tshsr("search", index, query, "-k", "5", "--json", "-", "--device", "cpu").json()["results"]
    assert [result["id"] for result in found] == [result["id"] for result in said]
    assert [result["score"] for result in found] == pytest.approx([result["score"] for result in said], abs=1e-5)
    assert found[0]["words"] == said[0]["words"]
    assert found[0]["width"] > 0


def test_a_picture_of_the_index_can_be_seen_and_explained(served: Served) -> None:
    found = get(served, "api/search", q="a circle", k=1)["results"][0]
    with urllib.request.urlopen(f"{served.address}api/picture?{urlencode({'id': found['id']})}") as answer:
        assert Image.open(answer).size == (found["width"], found["height"])
    pair = {"q": "a circle", "id": found["id"]}
    explanation = get(served, "api/explain", **pair)["explanation"]
    assert explanation["scores"]["fused"] == pytest.approx(found["score"], abs=1e-3)
    assert get(served, "api/score", **pair)["scores"] == pytest.approx(explanation["scores"])


def test_a_picture_that_is_sent_finds_sentences_and_is_explained(served: Served) -> None:
    content = next(iter(sorted(served.pictures.rglob("*.png")))).read_bytes()
    found = post(served, "api/search", content, k="3")["results"]
    assert len(found) == 3
    answer = post(served, "api/explain", content, q=found[0]["caption"])
    assert answer["explanation"]["scores"]["fused"] == pytest.approx(found[0]["score"], abs=1e-3)


def test_a_broken_picture_is_refused(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(served, "api/search", b"no picture")
    with refusal.value as answer:
        assert answer.code == 422
        assert "no readable picture" in json.load(answer)["error"]


def test_health_and_about_report_the_size(served: Served) -> None:
    assert get(served, "healthz") | {"version": ""} == {
        "status": "ok",
        "pictures": PICTURES,
        "captions": 5 * PICTURES,
        "version": "",
    }
    about = get(served, "api/about")
    assert about["uploads"] is None
    assert about["examples"]


@pytest.mark.slow
def test_ctrl_c_stops_it_with_one_line(index: Path) -> None:
    with serving(index) as running:
        assert running.address.startswith("http://127.0.0.1:")
        assert get(running, "healthz")["status"] == "ok"
        running.process.send_signal(signal.SIGINT)
        _, said = running.process.communicate(timeout=300)
        assert running.process.returncode == 0
        assert said.splitlines() == ["Stopped."]


@pytest.mark.slow
def test_a_server_open_to_every_network_warns_and_a_service_manager_stops_it(index: Path) -> None:
    with serving(index, "--host", "0.0.0.0") as running:
        assert running.address.startswith("http://127.0.0.1:"), "an address for a browser"
        running.process.send_signal(signal.SIGTERM)
        _, said = running.process.communicate(timeout=300)
        assert running.process.returncode == 0
        assert "Any client that can reach this machine at 0.0.0.0 can search and view these pictures" in said
        assert said.splitlines()[-1] == "Stopped."


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.slow
def test_a_token_and_json_logs_are_options(index: Path, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    secret.chmod(0o644)
    options = ("--token-file", str(secret), "--host", "0.0.0.0", "--log", "json", "--allow-host", "pictures.example")
    with serving(index, *options) as running:
        with pytest.raises(urllib.error.HTTPError) as refusal:
            get(running, "api/about")
        with refusal.value as answer:
            assert answer.code == 401
        for host, status in (("pictures.example", 200), ("evil.example", 421)):
            headers = {"Authorization": f"Bearer {TOKEN}", "Host": host, "X-Request-ID": f"from-{host}"}
            request = urllib.request.Request(f"{running.address}api/about", headers=headers)
            assert status_of(request) == status
        running.process.send_signal(signal.SIGTERM)
        _, said = running.process.communicate(timeout=300)
    assert f"Other users of this machine can read {secret}" in said.replace("\n", "")
    assert "Any client that can reach this machine at 0.0.0.0 and has the token can search" in said
    assert TOKEN not in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"]) for line in lines] == [("/api/about", status) for status in (401, 200, 421)]
    assert lines[1]["request"] == "from-pictures.example"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("short", "the token has 5 characters; expected 16 to 512, for example those of python -c"),
        ("two words of a token", "the token has a space or a character outside ASCII; expected letters and digits."),
    ],
)
def test_an_unusable_token_is_refused_before_the_index_is_opened(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    assert said in refused("serve", "no-index", "--port", "0", "--token-file", tmp_path / "token")
    missing = refused("serve", "no-index", "--port", "0", "--token-file", tmp_path / "none")
    assert "none can't be read (No such file or directory); expected a text file." in missing


def test_a_port_that_is_taken_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("serve", "nowhere", "--port", port_text := str(port))
    assert said == (
        f"tshsr: port {port_text} at 127.0.0.1 is taken; stop what listens there, or name another one with --port "
        "(0 takes a free one)."
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("serve", "INDEX is missing; for example: tshsr serve demo/index. See tshsr serve --help."),
        ("serve x --port abc", "--port expects a whole number, got 'abc'."),
        ("serve x --port 70000", "--port is 70000; expected a number from 1 to 65535, or 0 for a free one."),
        ("serve x --upload-mib 0", "--upload-mib is 0; expected 1 or more."),
        ("serve x --seconds 0", "--seconds is 0; expected a number above 0."),
        ("serve x --seconds nan", "--seconds is nan; expected a number above 0."),
        ("serve x --port 0 --host nowhere.invalid", "--host is 'nowhere.invalid', where this machine can't listen ("),
        ("serve x --port 0 --open yes", "'yes' is one argument too many: --open takes no value."),
        ("serve no-index --port 0", "no-index does not exist; make one with tshsr index"),
        ("serve x --port 0 --device tpu", "device 'tpu' is not available"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(given: str, said: str) -> None:
    assert said in refused(*given.split())


@pytest.mark.parametrize("name", ["", "http://pictures.example", "pictures.example:443", "a b", "::1"])
def test_a_name_that_no_request_has_as_its_host_is_refused(name: str) -> None:
    said = refused("serve", "no-index", "--port", "0", "--allow-host", "localhost", name)
    expected = "expected a name or an address without http:// and port, such as pictures.example or [::1]."
    assert said == f"tshsr: --allow-host is {name!r}; {expected}"


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in ("fastapi", "uvicorn") else find(name, *more)
    )
    said = refused("serve", "x", "--port", "0")
    assert said == "tshsr: tshsr serve needs fastapi, uvicorn; install them: pip install 'tshsr[serve,search]'."


def test_the_help_needs_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *more: Any, **how: Any) -> Any:
        if name.split(".")[0] in ("fastapi", "uvicorn", "lancedb", "python_multipart"):
            raise ModuleNotFoundError(name)
        return load(name, *more, **how)

    monkeypatch.setattr(builtins, "__import__", refuse)
    said = tshsr("serve", "--help")
    assert said.code == 0, said.err
    assert "--port" in said.out
