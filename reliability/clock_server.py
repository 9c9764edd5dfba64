"""A server and the process that changes its index, both under a clock; what becomes of requests."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from reliability.soak import change_for_ever
from tests.support.forked import command, forked
from tests.support.indexed import Small, built, make_small

SEARCHES = 30
TIME_LIMIT = 1
"""`tshsr serve --seconds`."""
LATE = 0.5, 20.0
"""Seconds within which a body that never comes is refused: not at once and not after a jump, but after the limit."""


def tried_requests(set_clock: Callable[[], None], folder: Path) -> tuple[int, list[str]]:
    """Ask a server for everything that has a limit of time; number of requests and what was wrong."""
    small = make_small(folder / "small")
    index = built(small, folder / "index")
    with forked(changing, set_clock, small, index.folder) as writer, served(set_clock, index.folder) as address:
        while not (folder / "rounds").exists():
            if writer.poll() is not None:
                return 1, [f"the changes end: {writer.stderr.read()[-1000:]}"]
            time.sleep(0.05)
        found = [searched(f"{address}api/search?q=a%20red%20dog&k=20") for _ in range(SEARCHES)]
        found += [answered(f"{address}{name}") for name in ("livez", "readyz", "metrics", "", "app.js")]
        found.append(refused_when_due(address))
        writer.send_signal(signal.SIGTERM)
        code = writer.wait()
        found.append("" if code == 0 else f"the changes end with {code}: {writer.stderr.read()[-1000:]}")
    return len(found), [wrong for wrong in found if wrong]


def changing(set_clock: Callable[[], None], small: Small, folder: Path) -> None:
    """Change the index under the clock."""
    set_clock()
    change_for_ever(small, folder)


def serve(set_clock: Callable[[], None], *words: str) -> None:
    """`tshsr serve` under the clock."""
    set_clock()
    command("serve", *words)


@contextmanager
def served(set_clock: Callable[[], None], index: Path) -> Iterator[str]:
    """The address of a server under the clock; it is stopped afterwards.

    Raises:
        RuntimeError: Where it does not start.
    """
    words = (str(index), "--port", "0", "--device", "cpu", "--seconds", str(TIME_LIMIT))
    with forked(serve, set_clock, *words) as process:
        line = process.stdout.readline()
        found = re.search(r"http://\S+/", line)
        if found is None:
            process.kill()
            raise RuntimeError(f"no address in {line!r}: {process.communicate()[1]}")
        yield found[0]


def searched(url: str) -> str:
    """What is wrong with the answer to a search; an answer has 12 pictures, or 10 while two are being added again."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - http
            count = len(json.load(answer)["results"])
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if count in (10, 12) else f"{count} results"


def answered(url: str) -> str:
    """What is wrong with the answer to a request."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - http
            answer.read()
    except OSError as error:
        return f"{url}: {type(error).__name__}: {error}"
    return ""


def refused_when_due(address: str) -> str:
    """What is wrong with the refusal of a body that never comes."""
    place = urlsplit(address)
    begun = time.monotonic()
    with socket.create_connection((place.hostname, place.port), 60) as client:
        client.sendall(b"POST /rerank HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        line = client.recv(1000).partition(b"\r\n")[0]
    seconds = time.monotonic() - begun
    if not line.startswith(b"HTTP/1.1 408"):
        return f"a body that never comes is answered by {line!r}"
    return "" if LATE[0] < seconds < LATE[1] else f"a body that never comes is refused after {seconds:.1f} s"
