"""Kinds of clients of the load campaign: what each sends, and which answers it must get."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from reliability.load_http import HOST, Answer, Connection, form, request, upload

BUSY = 503
Bytes = tuple[bytes, frozenset[int]]
"""A request, and the statuses that answer it, beside 503."""


@dataclass(frozen=True)
class World:
    """What clients know.

    Attributes:
        port: Of the server.
        seconds: The server's time limit of a request.
        queries: Sentences.
        ids: Ids of pictures, some of which the index update removes and adds.
        picture: A picture file.
        large: Bytes above the limit of an upload.
    """

    port: int
    seconds: float
    queries: Sequence[str]
    ids: Sequence[str]
    picture: bytes
    large: int
    random: random.Random = field(default_factory=random.Random)

    @property
    def patience(self) -> float:
        """Seconds after which an answer counts as lost."""
        return 3 * self.seconds + 30

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self.port, self.patience)


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt.

    Attributes:
        problem: Why it counts as lost; None where it was answered, or nothing was due.
        answer: The last answer, if any was due.
    """

    problem: str | None = None
    answer: Answer | None = None


Kind = Callable[[World], Awaitable[Outcome]]


def judged(answer: Answer, allowed: frozenset[int]) -> Outcome:
    """The outcome of an answer."""
    return Outcome(answer.problem(allowed | {BUSY}), answer)


def asking(choose: Callable[[World], Bytes]) -> Kind:
    """A client that sends a whole request on a new connection and reads the answer."""

    async def attempt(world: World) -> Outcome:
        content, allowed = choose(world)
        return judged(await asked(world, content), allowed)

    return attempt


def search(world: World) -> Bytes:
    """Pictures for a sentence."""
    target = f"/api/search?q={quote(world.random.choice(world.queries))}&k={world.random.choice((5, 24))}"
    return request("GET", target), frozenset({200})


async def browse(world: World) -> Outcome:
    """A page of results on one connection: a search, then three pictures."""
    async with world.connect() as connection:
        content, allowed = search(world)
        outcome = judged(await connection.ask(content), allowed)
        if outcome.problem or outcome.answer is None or outcome.answer.status != 200:
            return outcome
        wanted = [request("GET", f"/api/picture?id={quote(found['id'])}") for found in found_in(outcome.answer)[:3]]
        try:
            shown = [await connection.ask(content) for content in wanted]
        except ConnectionError:  # closed as idle at that moment: as browsers do, ask again on new connections
            shown = [await asked(world, content) for content in wanted]
    problems = [problem for answer in shown if (problem := answer.problem((200, 404, BUSY)))]
    return Outcome(problems[0]) if problems else outcome


def found_in(answer: Answer) -> list[dict[str, str]]:
    """The results of a search."""
    results: list[dict[str, str]] = json.loads(answer.body)["results"]
    return results


async def asked(world: World, content: bytes) -> Answer:
    """The answer to a request on a new connection."""
    async with world.connect() as connection:
        return await connection.ask(content)


def picture(world: World) -> Bytes:
    """A picture, small or large; the index update may have removed it."""
    side = world.random.choice((480, 1600))
    target = f"/api/picture?id={quote(world.random.choice(world.ids))}&side={side}"
    return request("GET", target), frozenset({200, 404})


def sentences(world: World) -> Bytes:
    """Sentences for an uploaded picture."""
    return upload("/api/search", varied(world)), frozenset({200})


def explanation(world: World) -> Bytes:
    """The explanation of a pair."""
    chosen, query = world.random.choice(world.ids), world.random.choice(world.queries)
    return request("GET", f"/api/explain?id={quote(chosen)}&q={quote(query)}"), frozenset({200, 404})


def rerank(world: World) -> Bytes:
    """Candidates of another search."""
    documents = world.random.sample(list(world.ids), min(10, len(world.ids)))
    body = json.dumps({"query": world.random.choice(world.queries), "documents": documents}).encode()
    return request("POST", "/rerank", body, content_type="application/json"), frozenset({200, 404})


def page(world: World) -> Bytes:
    """A file of the page, a probe, or the metrics."""
    paths = ("/", "/app.js", "/app.css", "/healthz", "/livez", "/readyz", "/metrics", "/api/about", "/docs")
    return request("GET", world.random.choice(paths)), frozenset({200})


def varied(world: World) -> bytes:
    """The picture with other bytes at its end, so that no cache knows it."""
    return world.picture + world.random.randbytes(8)


async def slow_head(world: World) -> Outcome:
    """The head of a request, one byte a second."""
    return await dribble(world, b"", b"GET /api/search?q=" + b"a" * 1000)


async def slow_body(world: World) -> Outcome:
    """The body of a request, one byte a second."""
    body, kind = form(varied(world))
    length = str(len(body))
    return await dribble(world, request("POST", "/api/search", content_type=kind, content_length=length), body)


async def dribble(world: World, first: bytes, rest: bytes) -> Outcome:
    """Send something at once and the rest byte by byte, until an answer comes."""
    async with world.connect() as connection:
        await connection.send(first + rest[:1])
        answer = asyncio.ensure_future(connection.answer())
        try:
            for byte in rest[1:]:
                await asyncio.wait({answer}, timeout=1.0)
                if answer.done():
                    break
                await connection.send(bytes([byte]))
            return judged(await answer, frozenset({408}))
        finally:
            answer.cancel()


async def slow_reader(world: World) -> Outcome:
    """An answer read one byte a second; the client gives up after the status line."""
    async with world.connect() as connection:
        await connection.send(picture(world)[0])
        line = b""
        while len(line) < len(b"HTTP/1.1"):
            byte = await asyncio.wait_for(connection.reader.read(1), world.patience)
            if not byte:
                return Outcome("the connection ended without an answer")
            line += byte
            await asyncio.sleep(min(1.0, world.seconds / 10))
    return Outcome(None if line == b"HTTP/1.1" else f"answered {line!r}")


async def oversize(world: World) -> Outcome:
    """A body above the limit: announced, or in chunks of unknown number."""
    if world.random.random() < 0.9:
        announced = request("POST", "/api/search", content_type="image/png", content_length=str(2**40))
        async with world.connect() as connection:
            return judged(await connection.ask(announced), frozenset({413}))
    head = request("POST", "/rerank", content_type="application/json", transfer_encoding="chunked", content_length="0")
    head = head.replace(b"content-length: 0\r\n", b"")
    async with world.connect() as connection:
        await connection.send(head)
        answer = asyncio.ensure_future(connection.answer())
        chunk = b"%x\r\n%s\r\n" % (2**18, bytes(2**18))
        try:
            for _ in range(world.large // 2**18 + 2):
                if answer.done():
                    break
                await connection.send(chunk)
            return judged(await answer, frozenset({413, 408}))  # 408: a busy machine needs its time limit for them
        finally:
            answer.cancel()


def malformed(world: World) -> Bytes:
    """What is no HTTP, no form, no JSON, or a request for something else."""
    json_type = "application/json"
    refusals: tuple[tuple[bytes, int], ...] = (
        (world.random.randbytes(40) + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 400),
        (b"POST /rerank HTTP/1.1\r\nHost: %s\r\nContent-Length: -1\r\n\r\n" % HOST.encode(), 400),
        (request("POST", "/api/search", b"garbage", content_type="multipart/form-data; boundary=x"), 400),
        (request("POST", "/api/search", b"garbage", content_type="multipart/form-data"), 400),
        (request("POST", "/rerank", b"[" * 50_000, content_type=json_type), 400),
        (request("POST", "/rerank", b"{", content_type=json_type), 422),
        (request("POST", "/rerank", b'{"query":1,"documents":' + b"[]}", content_type=json_type), 422),
        (request("POST", "/rerank", b'{"query":"a","documents":[{"image":"!"}]}', content_type=json_type), 422),
        (request("POST", "/rerank", b'{"documents":[' + b"[]," * 600_000 + b"]}", content_type=json_type), 413),
        (request("GET", "/api/search?q=%ff%00"), 422),
        (request("GET", "/api/search?q=" + "a" * 5000), 422),
        (request("GET", "/api/search?q=a&k=-1"), 422),
        (request("GET", "/api/search?q=a&where=" + quote("DROP TABLE pictures")), 422),
        (request("GET", "/api/picture?id=" + quote("../../etc/passwd")), 404),
        (request("GET", "/../../etc/passwd"), 404),
        (request("BREW", "/api/search"), 405),
        (request("GET", "/", host="evil.example"), 421),
        (request("GET", "/", origin="http://evil.example"), 403),
    )
    content, status = world.random.choice(refusals)
    return content, frozenset({status})


def bomb(world: World) -> Bytes:
    """A picture that is small as a file and large in memory."""
    choice = world.random.randrange(5)
    if choice == 0:
        content = png(60_000, 60_000, b"")
    elif choice == 1:
        content = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0) + b"\x2c" + bytes(20)
    elif choice == 2:
        content = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
    elif choice == 3:
        text = b"zTXtcomment\x00\x00" + zlib.compress(bytes(2**26), 9)
        content = png(8, 8, zlib.compress(bytes(9 * 8), 9), extra=text)
    else:  # allowed: 49 million pixels, from 6 KB
        content = png(7000, 7000, LARGEST_ALLOWED)
        return upload("/api/search", content + world.random.randbytes(4)), frozenset({200, 422})
    return upload("/api/search", content), frozenset({200, 422} if choice == 3 else {422})


def png(width: int, height: int, data: bytes, *, extra: bytes = b"") -> bytes:
    """A PNG of one bit a pixel from compressed rows, with a further chunk."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [head, *([extra] if extra else []), b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


LARGEST_ALLOWED = zlib.compress(bytes(7000 * (1 + 7000 // 8)), 9)


async def hang_up(world: World) -> Outcome:
    """A client that goes away: within the head, within the body, or before the answer."""
    whole = world.random.choice((search, sentences, rerank, picture))(world)[0]
    async with world.connect() as connection:
        await connection.send(whole[: world.random.choice((20, len(whole) // 2, len(whole)))])
        await asyncio.sleep(world.random.choice((0.0, 0.05)))
    return Outcome()


SHARES: dict[str, tuple[float, Kind]] = {
    "searches": (0.28, asking(search)),
    "pages of results with pictures": (0.10, browse),
    "pictures": (0.10, asking(picture)),
    "uploads of pictures": (0.08, asking(sentences)),
    "explanations": (0.06, asking(explanation)),
    "rerankings": (0.06, asking(rerank)),
    "files of the page, probes and metrics": (0.06, asking(page)),
    "heads at one byte a second": (0.05, slow_head),
    "bodies at one byte a second": (0.05, slow_body),
    "answers read at one byte a second": (0.03, slow_reader),
    "bodies above the limit": (0.03, oversize),
    "malformed requests": (0.04, asking(malformed)),
    "pictures that are large in memory": (0.02, asking(bomb)),
    "clients that hang up": (0.04, hang_up),
}
"""Kinds of clients, and their share of all clients."""
