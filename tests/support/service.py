"""The server over an index in memory, as a test client; pictures to send and refusals to read."""

from __future__ import annotations

import io
from typing import Any

from fastapi.testclient import TestClient
from PIL import Image

from tshsr.server.guard import Limits
from tshsr.server.server import create_app

HERE = "http://127.0.0.1"
RED = "pictures/red.jpg"
LIMITS = Limits(upload_bytes=200_000, pixels=1_000_000, query_characters=80, results=5)


def serving(index: Any, limits: Limits = LIMITS) -> TestClient:
    app = create_app(index, limits)
    app.state.backend.service.prepare()
    return TestClient(app, base_url=HERE)


def refusal(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    sentence = answer.json()["error"]
    assert sentence.endswith("."), sentence
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


def jpeg(width: int = 60, height: int = 40, colour: str = "red", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG", **options)
    return file.getvalue()
