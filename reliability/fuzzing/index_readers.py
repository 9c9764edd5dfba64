"""Readers of indexes and of what clients send to a server: tables, requests, uploads, and requests by schemathesis."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from mmap import mmap
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageDraw

from reliability.fuzzing.campaign import CHANGED, Campaign, Reader, Refusal, Seed, Tally, tried
from reliability.fuzzing.formats import mutated
from reliability.fuzzing.model_readers import save_run, settings
from reliability.fuzzing.mutations import mutated_json, mutated_text
from reliability.fuzzing.sandbox import Sandbox, decoys, peak_memory
from tshsr.data.layouts import open_split
from tshsr.data.store import StoreCaption, StoreImage, write_store
from tshsr.features.scenes import ScenesExtractor
from tshsr.index.metadata import metadata_of
from tshsr.retriever import Retriever

PICTURES = 6
BOUNDARY = b"fuzzboundary"
HEAD = "host: 127.0.0.1\naccept: application/json\n"
NUMBERED = count()


class ServerFaultError(Exception):
    """An answer of 5xx without a reason to try again later, or an error that is no sentence."""


def drawn(folder: Path) -> list[Path]:
    """Pictures of a shape each."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        picture = Image.new("RGB", (64, 48), "white")
        ImageDraw.Draw(picture).rectangle((4 + 5 * number, 8, 24 + 5 * number, 30), fill=(40 * number, 90, 160))
        picture.save(folder / f"p{number}.png")
    return sorted(folder.iterdir())


def make_index(folder: Path) -> tuple[Path, Retriever]:
    """The index that all readers of a campaign share, and its network.

    Args:
        folder: Of the seeds of a reader, in the folder of the reader, in that of the campaign.
    """
    shared = folder.parents[1] / "shared-index"
    if not (shared / "complete").exists():
        shutil.rmtree(shared, ignore_errors=True)
        build_index(shared)
        (shared / "complete").touch()
    return shared / "index", Retriever.from_pretrained(shared / "run")


def build_index(folder: Path) -> None:
    """An index of drawn pictures under an untrained network, with captions and metadata."""
    from tshsr.index.collection import Index

    files, extractor = drawn(folder / "store" / "pictures"), ScenesExtractor()
    found = extractor.extract([Image.open(file).convert("RGB") for file in files])
    least = min(len(one.features) for one in found)
    write_store(
        folder / "store",
        extractor=extractor.name,
        settings=extractor.settings,
        images=[StoreImage(file.stem, file.name, 64, 48) for file in files],
        captions=[StoreCaption(f"c{number}", f"p{number}", "a brown dog", "test") for number in range(PICTURES)],
        regions=np.stack([one.features[:least] for one in found]),
        boxes=np.stack([one.boxes[:least] for one in found]),
    )
    save_run(folder / "run", settings(feature_dim=extractor.feature_dim, extractor=extractor.name))
    retriever = Retriever.from_pretrained(folder / "run")
    rows = [{"id": f"p{number}", "year": 2000 + number, "place": "Oslo"} for number in range(PICTURES)]
    Index.build(
        folder / "index",
        retriever,
        open_split(folder / "store", "test"),
        run=folder / "run",
        settings=extractor.settings,
        metadata=metadata_of(rows, "rows"),
    )


def index_seeds(folder: Path) -> list[Seed]:
    """An index: its settings, and its tables, whose files are those of LanceDB."""
    place, retriever = make_index(folder)
    files = {name: content for name, content in Seed.of(place, opened).files.items() if not name.endswith(".lock")}
    tables = tuple(name for name in files if name != "index.json")
    return [
        Seed(files, opened, ("index.json",), writes=True),
        Seed(files, partial(searched, retriever=retriever), tables, writes=True),
    ]


def opened(data: Path) -> object:
    """An index with the network that it names."""
    from tshsr.index.collection import Index

    index = Index.open(data)
    return index.search("a brown dog", 2), index.captions


def searched(data: Path, retriever: Retriever) -> object:
    """All of an index: searches, a filter, ids and captions."""
    from tshsr.index.collection import Index

    place = data.with_name(f"index-{next(NUMBERED)}")  # LanceDB may remember files by their names
    data.rename(place)
    try:
        index = Index(place, retriever)
        found = index.search("a brown dog", 2), index.search("dog", 2, where="year > 2001"), index.picture_ids()
        return found, index.sample_captions(2), index.explain("a dog", "p1"), index.picture_file("p1"), len(index)
    finally:
        place.rename(data)


def request(line: str, body: bytes = b"", kind: str = "") -> dict[str, bytes]:
    """A request as two files."""
    more = f"content-type: {kind}\n" if kind else ""
    return {"head": f"{line}\n{HEAD}{more}".encode(), "body": body}


REQUESTS = (
    "GET /api/search?q=two+dogs&k=3&where=year+%3E+2001",
    "GET /api/search?q=caf%C3%A9&k=1",
    "GET /api/score?id=p1&q=a+dog",
    "GET /api/explain?id=p2&q=a+brown+dog",
    "GET /api/picture?id=p1&side=480",
    "GET /api/about",
    "GET /healthz",
    "GET /",
    "GET /docs",
)
RERANK: dict[str, Any] = {"query": "a brown dog", "documents": ["p0", "p1", {"id": "p2"}], "top_n": 2}


def request_seeds(folder: Path) -> list[Seed]:
    """Requests without a body, and bodies of JSON."""
    place, retriever = make_index(folder)
    send = Client(place, retriever).send
    image = base64.b64encode((place.parent / "store" / "pictures" / "p1.png").read_bytes()).decode()
    url = f"data:image/png;base64,{image}"
    bodies = (
        {**RERANK, "return_documents": True},
        {"query": "a dog", "texts": ["p0", "p3"], "return_text": True},
        {"query": {"image": url}, "documents": ["a dog", "snow"]},
        {"query": "dog", "documents": [url, "p4"]},
    )
    plain = [Seed(request(line), send, ("head",), {"head": mutated_text}, shapes=False) for line in REQUESTS]
    json_kind = "application/json"
    for body in bodies:
        files = request("POST /rerank", json.dumps(body).encode(), json_kind)
        mutations = {"head": mutated_text, "body": mutated_json}
        plain += [Seed(files, send, ("head", "body", "body", "body"), mutations, shapes=False)] * 2
    return plain


def upload_seeds(folder: Path) -> list[Seed]:
    """Forms with a picture."""
    place, retriever = make_index(folder)
    send = Client(place, retriever).send
    content = (place.parent / "store" / "pictures" / "p1.png").read_bytes()
    found = []
    for path, fields in (("/api/search", {"k": "2"}), ("/api/score", {"q": "a dog"}), ("/api/explain", {"q": "dog"})):
        kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
        files = request(f"POST {path}", form(content, fields), kind)
        mutations: dict[str, Callable[[bytes, Random], bytes]] = {
            "head": mutated_text,
            "body": partial(mutated_form, picture=content),
        }
        found.append(Seed(files, send, ("head", *("body",) * 6), mutations, shapes=False))
    return found


def form(content: bytes, fields: dict[str, str]) -> bytes:
    """A form with a picture and fields."""
    parts = [f'form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'form-data; name="picture"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + content)
    joined = b"".join(b"--" + BOUNDARY + b"\r\nContent-Disposition: " + part + b"\r\n" for part in parts)
    return joined + b"--" + BOUNDARY + b"--\r\n"


def mutated_form(body: bytes, dice: Random, picture: bytes) -> bytes:
    """Another picture in the form, or damage to its frame."""
    if dice.random() < 0.6:
        return body.replace(picture, mutated("a.png", picture, dice))
    return mutated_text(body, dice)


class Client:
    """Sends requests to the application of an index, without a socket.

    Args:
        place: The index.
    """

    def __init__(self, place: Path, retriever: Retriever) -> None:
        self.app = application(place, retriever)
        self.loop = asyncio.new_event_loop()
        self.faults = Faults()

    def send(self, data: Path) -> object:
        """Send a request of two files.

        Raises:
            Refusal: Where the server refuses it by a sentence.
            ServerFaultError: Where it answers otherwise.
        """
        line, *lines = (data / "head").read_bytes().split(b"\n")
        words = line.split(b" ")
        if len(words) != 2:
            raise Refusal("a web server refuses this line before the application sees it")
        path, _, query = words[1].partition(b"?")
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (one.partition(b":") for one in lines)]
        body = (data / "body").read_bytes()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": words[0].decode("latin-1").upper(),
            "scheme": "http",
            "path": unquote(path.decode("ascii", "replace")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name, value) for name, value in headers if name],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        self.faults.last = None
        status, answer = self.loop.run_until_complete(self.answer(scope, body))
        return check_answer(status, answer, self.faults)

    async def answer(self, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
        """Status and body of an answer; the body is sent in parts, and then the client waits."""
        parts = [body[at : at + 2**16] for at in range(0, len(body), 2**16)] or [b""]
        sent: list[Any] = []
        ended = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                part = parts.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(parts)}
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        ended.set()
        status = next((message["status"] for message in sent if "status" in message), 0)
        return status, b"".join(message.get("body", b"") for message in sent)


def application(place: Path, retriever: Retriever, *, local: bool = True) -> Any:
    """The application of an index, ready to answer."""
    from tshsr.index.collection import Index
    from tshsr.server.guard import Limits
    from tshsr.server.server import create_app

    limits = Limits(upload_bytes=2**20, pixels=10**6, query_characters=200, results=5, documents=50, pictures=3)
    app = create_app(Index(place, retriever), limits, local=local)
    app.state.backend.service.prepare()
    return app


class Faults(logging.Handler):
    """Keeps the last exception that the server wrote to its log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: BaseException | None = None
        logging.disable(logging.NOTSET)
        logging.getLogger("tshsr").addHandler(self)
        logging.getLogger("tshsr").propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception of a record."""
        if record.exc_info:
            self.last = record.exc_info[1]


def check_answer(status: int, answer: bytes, faults: Faults) -> int:
    """The status of an answer that is no refusal.

    Raises:
        Refusal: Where the server refuses the request by a sentence.
        ServerFaultError: Where it answers otherwise.
    """
    if 200 <= status < 400:
        return status
    try:
        error = json.loads(answer)["error"]
    except (ValueError, KeyError, TypeError):
        raise ServerFaultError(f"status {status} without a sentence: {answer[:200]!r}") from None
    if status >= 500 and status != 503:
        if faults.last is not None:
            raise faults.last
        raise ServerFaultError(f"status {status}: {error}")
    raise Refusal(f"{error}")


def explore(campaign: Campaign, reader: Reader, numbers: range, top: Path, shared: mmap) -> None:
    """Requests that schemathesis derives from the description of the interface: valid ones and others."""
    del reader
    import schemathesis
    from hypothesis import HealthCheck, given, seed
    from hypothesis import settings as hypothesis_settings
    from hypothesis.strategies import one_of
    from schemathesis import GenerationMode

    warnings.simplefilter("ignore")
    (top / "seeds").mkdir()
    place, retriever = make_index(top / "seeds")
    app = application(place, retriever, local=False)
    faults = Faults()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    strategy = one_of(*(schema.as_strategy(generation_mode=mode) for mode in GenerationMode))
    sandbox, outside, before = Sandbox(top / "work"), decoys(top / "outside"), peak_memory()
    sandbox.limit_memory()
    (top / "ready").touch()
    with (top / "failures.jsonl").open("a", encoding="utf-8") as log:
        tally, number = Tally(shared, log, before), iter(numbers)

        @seed(campaign.seed + numbers.start)
        @hypothesis_settings(
            max_examples=len(numbers), database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(strategy)
        def one(case: Any) -> None:
            at = next(number, None)
            if at is None:
                return
            tally.begin(at)
            faults.last = None
            started = time.perf_counter()
            what, detail = tried(partial(called, case=case, faults=faults), top / "work", sandbox)
            tally.add(at, what, detail, time.perf_counter() - started)

        one()
        if decoys(top / "outside") != outside:
            tally.add(numbers.stop - 1, CHANGED, "", 0.0)
        tally.begin(numbers.stop)


def called(data: Path, case: Any, faults: Faults) -> int:
    """The status of a request of schemathesis."""
    del data
    answer = case.call()
    return check_answer(answer.status_code, answer.content, faults)


def no_seeds(folder: Path) -> list[Seed]:
    """Schemathesis makes its inputs itself."""
    del folder
    return []


READERS: Sequence[Reader] = (
    Reader("indexes", 1_500, index_seeds),
    Reader("requests", 4_500, request_seeds),
    Reader("uploads", 2_500, upload_seeds),
    Reader("requests by schemathesis", 1_000, no_seeds, explore),
)
