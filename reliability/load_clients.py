"""Kinds of clients of the load campaign: what each sends, and which answers it must get."""

from __future__ import annotations

import asyncio
import json
import random
import struct
import zlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from reliability.load_checks import (
    PAGES,
    Check,
    captions,
    explanation_of,
    holding,
    picture_file,
    pictures_for,
    ranking_of,
    refused,
    wrong,
)
from reliability.load_http import HOST, Answer, Connection, form, request, upload

BUSY = 503


@dataclass(frozen=True)
class Request:
    """A request, and what answers it.

    Attributes:
        statuses: Beside 503.
        check: Of the body of an answer by 200.
    """

    content: bytes
    statuses: frozenset[int]
    check: Check = refused


@dataclass(frozen=True)
class World:
    """What clients know.

    Attributes:
        port: Of the server.
        seconds: The server's time limit of a request.
        queries: Sentences.
        ids: Ids of pictures.
        kept: Number of ids, the first ones, that the index update leaves; it removes and adds the others.
        picture: A picture file.
        large: Bytes above the limit of an upload.
    """

    port: int
    seconds: float
    queries: Sequence[str]
    ids: Sequence[str]
    kept: int
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

    def statuses(self, ids: Collection[str]) -> frozenset[int]:
        """Of a request for pictures: 404 where the index update may have removed one of them."""
        return frozenset({200} if set(ids) <= set(self.ids[: self.kept]) else {200, 404})


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


def problem_of(answer: Answer, wanted: Request) -> str | None:
    """What is wrong with an answer, by its status and its body; None: nothing."""
    problem = answer.problem(wanted.statuses | {BUSY})
    return wrong(wanted.check, answer) if problem is None and answer.status == 200 else problem


def judged(answer: Answer, wanted: Request) -> Outcome:
    """The outcome of an answer."""
    return Outcome(problem_of(answer, wanted), answer)


def refusal(answer: Answer, statuses: Collection[int]) -> Outcome:
    """The outcome of an answer that must be a refusal."""
    return Outcome(answer.problem({*statuses, BUSY}), answer)


def asking(choose: Callable[[World], Request]) -> Kind:
    """A client that sends a whole request on a new connection and reads the answer."""

    async def attempt(world: World) -> Outcome:
        chosen = choose(world)
        return judged(await asked(world, chosen), chosen)

    return attempt


def search(world: World) -> Request:
    """Pictures for a sentence."""
    query, most = world.random.choice(world.queries), world.random.choice((5, 24))
    check = pictures_for(query, world.ids, min(most, world.kept), most)
    return Request(request("GET", f"/api/search?q={quote(query)}&k={most}"), frozenset({200}), check)


async def browse(world: World) -> Outcome:
    """A page of results on one connection: a search, then three pictures."""
    async with world.connect() as connection:
        first = search(world)
        outcome = judged(await connection.ask(first.content), first)
        if outcome.problem or outcome.answer is None or outcome.answer.status != 200:
            return outcome
        wanted = [picture_of(world, found["id"], 480) for found in found_in(outcome.answer)[:3]]
        try:
            shown = [await connection.ask(one.content) for one in wanted]
        except ConnectionError:  # closed as idle at that moment: as browsers do, ask again on new connections
            shown = [await asked(world, one) for one in wanted]
    problems = [problem for answer, one in zip(shown, wanted, strict=True) if (problem := problem_of(answer, one))]
    return Outcome(problems[0]) if problems else outcome


def found_in(answer: Answer) -> list[dict[str, str]]:
    """The results of a search."""
    results: list[dict[str, str]] = json.loads(answer.body)["results"]
    return results


async def asked(world: World, wanted: Request) -> Answer:
    """The answer to a request on a new connection."""
    async with world.connect() as connection:
        return await connection.ask(wanted.content)


def picture(world: World) -> Request:
    """A picture, small or large."""
    return picture_of(world, world.random.choice(world.ids), world.random.choice((480, 1600)))


def picture_of(world: World, chosen: str, side: int) -> Request:
    """The picture of an id."""
    return Request(
        request("GET", f"/api/picture?id={quote(chosen)}&side={side}"), world.statuses([chosen]), picture_file
    )


def sentences(world: World) -> Request:
    """Sentences for an uploaded picture."""
    return Request(upload("/api/search", varied(world)), frozenset({200}), captions)


def explanation(world: World) -> Request:
    """The explanation of a pair."""
    chosen, query = world.random.choice(world.ids), world.random.choice(world.queries)
    target = f"/api/explain?id={quote(chosen)}&q={quote(query)}"
    return Request(request("GET", target), world.statuses([chosen]), explanation_of(chosen, query))


def rerank(world: World) -> Request:
    """Candidates of another search."""
    documents = world.random.sample(list(world.ids), min(10, len(world.ids)))
    body = json.dumps({"query": world.random.choice(world.queries), "documents": documents}).encode()
    content = request("POST", "/rerank", body, content_type="application/json")
    return Request(content, world.statuses(documents), ranking_of(len(documents)))


def page(world: World) -> Request:
    """A file of the page, a probe, or the metrics."""
    path = world.random.choice(list(PAGES))
    return Request(request("GET", path), frozenset({200}), holding(PAGES[path]))


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
            return refusal(await answer, {408})
        finally:
            answer.cancel()


async def slow_reader(world: World) -> Outcome:
    """An answer read one byte a second; the client gives up after the status."""
    wanted, line = picture(world), b""
    async with world.connect() as connection:
        await connection.send(wanted.content)
        while len(line) < len(b"HTTP/1.1 200"):
            byte = await asyncio.wait_for(connection.reader.read(1), world.patience)
            if not byte:
                return Outcome("the connection ended without an answer")
            line += byte
            await asyncio.sleep(min(1.0, world.seconds / 10))
    answered = line in {b"HTTP/1.1 %d" % status for status in wanted.statuses | {BUSY}}
    return Outcome(None if answered else f"answered {line!r}")


async def oversize(world: World) -> Outcome:
    """A body above the limit: announced, or in chunks of unknown number."""
    if world.random.random() < 0.9:
        announced = request("POST", "/api/search", content_type="image/png", content_length=str(2**40))
        async with world.connect() as connection:
            return refusal(await connection.ask(announced), {413})
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
            return refusal(await answer, {413, 408})  # 408: a busy machine needs its time limit for them
        finally:
            answer.cancel()


def malformed(world: World) -> Request:
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
    return Request(content, frozenset({status}))


def bomb(world: World) -> Request:
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
        return Request(upload("/api/search", content + world.random.randbytes(4)), frozenset({200, 422}), captions)
    return Request(upload("/api/search", content), frozenset({200, 422} if choice == 3 else {422}), captions)


def png(width: int, height: int, data: bytes, *, extra: bytes = b"") -> bytes:
    """A PNG of one bit a pixel from compressed rows, with a further chunk."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [head, *([extra] if extra else []), b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


LARGEST_ALLOWED = zlib.compress(bytes(7000 * (1 + 7000 // 8)), 9)


async def hang_up(world: World) -> Outcome:
    """A client that goes away: within the head, within the body, or before the answer; no answer is due."""
    whole = world.random.choice((search, sentences, rerank, picture))(world).content
    async with world.connect() as connection:
        await connection.send(whole[: world.random.choice((20, len(whole) // 2, len(whole)))])
        await asyncio.sleep(world.random.choice((0.0, 0.05)))
    return Outcome()


HANG_UP = "clients that hang up"
"""The kind that gets no answer: a figure, and no trial."""
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
    HANG_UP: (0.04, hang_up),
}
"""Kinds of clients, and their share of all clients."""
ANSWERED = tuple(SHARES)[:7]
"""Kinds that a server without load answers by 200."""
