"""An S3-compatible server in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tshsr.files import place_of


@contextmanager
def bucket() -> Iterator[str]:
    """A server with one bucket; its endpoint and credentials are in the environment until the block ends."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            patch.setenv("AWS_ALLOW_HTTP", "true")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "testing")
            root: Any = place_of("s3://tshsr-tests")
            root.fs.mkdir("tshsr-tests")
            yield "s3://tshsr-tests"
    finally:
        server.stop()


def upload(folder: Path, url: str) -> str:
    """Copy a folder to object storage; returns the URL."""
    target = place_of(url)
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder).as_posix()).write_bytes(file.read_bytes())
    return url
