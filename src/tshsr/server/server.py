"""Routes and error handlers of the server."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from tshsr.errors import CheckpointError, DataError, PictureError, TshsrError
from tshsr.server.access import Gate, Token, add_login
from tshsr.server.answers import (
    About,
    CaptionAnswers,
    ExplanationAnswer,
    Health,
    PictureAnswers,
    Probe,
    Problem,
    Scores,
)
from tshsr.server.guard import GONE, HUNG_UP, Limits, RequestGuard, Worker, problem
from tshsr.server.monitoring import Monitor, Observer
from tshsr.server.reranking import RerankAnswer, RerankRequest, TeiResult, rerank
from tshsr.server.service import CAPTIONS, PICTURES, Searchable, Service
from tshsr.server.site import add_docs, add_page
from tshsr.system import package_version, trim

LOG = logging.getLogger(__name__)
DESCRIPTION = """Search pictures by a sentence and captions by a picture, and explain scores by words and regions.

Every error response is JSON: `{"error": "one sentence"}`. Pictures are uploaded as the field `picture` of a form
(`multipart/form-data`); URLs of pictures are not fetched."""
"""Introduction of the API reference."""
ERRORS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "Unknown path, picture or file."},
    413: {"model": Problem, "description": "The request body is too large."},
    422: {"model": Problem, "description": "A parameter or an uploaded file can't be used."},
    503: {"model": Problem, "description": "The queue is full, or the time limit was exceeded; try again."},
}
PICTURE_CACHE = "private, max-age=600"
"""Browsers cache pictures for ten minutes."""
FILE_THREADS, FILE_QUEUE = 2, 256
"""A page of results requests a hundred pictures at once; two are prepared at a time."""
STUCK = 15
"""Time limits after which a running request counts as one that never ends, and the server as dead."""
TRIM_SECONDS = 30.0
"""Seconds after which freed memory is returned to the system: a large picture would hold 250 MiB for good."""
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Backend:
    """Handlers of requests.

    Attributes:
        network: One thread, as the network runs one query at a time.
        files: Threads that prepare pictures for the browser.
    """

    service: Service
    network: Worker
    files: Worker


@dataclass(frozen=True)
class Call:
    """A request with the handlers that answer it."""

    backend: Backend
    request: Request

    @property
    def service(self) -> Service:
        """Queries of the index."""
        return self.backend.service

    async def network(self, task: Callable[[], Result]) -> Result:
        """Run a task with the network; a client that hangs up gives up its place in the queue.

        Raises:
            HTTPException: As `Worker.run`; 499 where the client hung up.
        """
        job = asyncio.ensure_future(self.backend.network.run(task))
        gone = asyncio.ensure_future(self._hung_up())
        try:
            await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
            gone.result()
            raise HTTPException(HUNG_UP, GONE)
        finally:
            job.cancel()
            gone.cancel()

    async def files(self, task: Callable[[], Result]) -> Result:
        """Run a task that needs no network."""
        return await self.backend.files.run(task)

    async def _hung_up(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


def backend_of(request: Request) -> Backend:
    """The backend of the application of a request."""
    return cast(Backend, request.app.state.backend)


def call_of(request: Request) -> Call:
    """A request with its handlers."""
    return Call(backend_of(request), request)


Injected = Annotated[Call, Depends(call_of)]
Q = Annotated[str, Query(description="A sentence: two dogs in the snow.")]
QForm = Annotated[str, Form(description="A sentence: two dogs in the snow.")]
Id = Annotated[str, Query(description="Id of an indexed picture, as in the results of a search.")]
Picture = Annotated[UploadFile, File(description="A picture file.")]
K = "Number of results, best first; {} by default."
api = APIRouter(responses=ERRORS, tags=["API"])


class BoundedJson(APIRoute):
    """A route whose JSON body has a bounded number of values, counted before it is parsed.

    20 MiB of `[],[],` would become 7 million objects, and an error for each of them.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler after the check."""
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            limits = backend_of(request).service.limits
            body, most = await request.body(), limits.documents * (limits.query_characters + 10)
            if sum(map(body.count, (b",", b"[", b"{"))) > most:
                raise HTTPException(413, f"a JSON body may have {most:,} commas and brackets, this one has more.")
            return await handle(request)

        return checked


reranking = APIRouter(responses=ERRORS, tags=["API"], route_class=BoundedJson)


@api.get("/api/search", summary="Pictures for a sentence")
async def search(
    call: Injected,
    q: Q,
    k: Annotated[int | None, Query(description=K.format(PICTURES))] = None,
    where: Annotated[
        str | None, Query(description="SQL condition on the metadata: year > 2010 AND place = 'Oslo'.")
    ] = None,
) -> PictureAnswers:
    """Pictures with the highest scores for a sentence, each with the regions of its words."""
    return await call.network(lambda: call.service.search(q, k, where))


@api.post("/api/search", summary="Captions for a picture")
async def search_picture(
    call: Injected, picture: Picture, k: Annotated[int | None, Form(description=K.format(CAPTIONS))] = None
) -> CaptionAnswers:
    """Indexed captions with the highest scores for an uploaded picture."""
    content = await picture.read()
    return await call.network(lambda: call.service.search_picture(content, k))


@api.get("/api/score", summary="Scores of a pair")
async def score(call: Injected, id: Id, q: Q) -> Scores:  # noqa: A002
    """All scores of an indexed picture with a sentence."""
    return await call.network(lambda: call.service.score(q, id))


@api.post("/api/score", summary="Scores of an uploaded picture and a sentence")
async def score_picture(call: Injected, picture: Picture, q: QForm) -> Scores:
    """All scores of an uploaded picture with a sentence."""
    content = await picture.read()
    return await call.network(lambda: call.service.score_picture(q, content))


@api.get("/api/explain", summary="Explanation of a pair")
async def explain(call: Injected, id: Id, q: Q) -> ExplanationAnswer:  # noqa: A002
    """Weights of words over regions in both streams and every level, for an indexed picture."""
    return await call.network(lambda: call.service.explain(q, id))


@api.post("/api/explain", summary="Explanation of an uploaded picture and a sentence")
async def explain_picture(call: Injected, picture: Picture, q: QForm) -> ExplanationAnswer:
    """Weights of words over regions in both streams and every level, for an uploaded picture."""
    content = await picture.read()
    return await call.network(lambda: call.service.explain_picture(q, content))


@reranking.post("/rerank", summary="Rerank the results of another search", response_model_exclude_none=True)
@reranking.post("/v1/rerank", include_in_schema=False, response_model_exclude_none=True)
@reranking.post("/v2/rerank", include_in_schema=False, response_model_exclude_none=True)
async def rerank_documents(call: Injected, request: RerankRequest) -> RerankAnswer | list[TeiResult]:
    """Pictures by their score with a sentence, or sentences by their score with a picture.

    Documents are ids of the index or pictures in the request. Request and answer have the form of Cohere's and Jina's;
    with `texts` in place of `documents`, that of TEI's.
    """
    return await call.network(lambda: rerank(call.service, request))


@api.get("/api/picture", summary="An indexed picture", response_class=Response)
async def picture(
    call: Injected,
    id: Id,  # noqa: A002
    side: Annotated[int, Query(description="Longest side in pixels: 480 or 1600.")] = 480,
) -> Response:
    """A picture of the index, scaled down to the given side; no other file has a URL."""
    content, kind = await call.files(lambda: call.service.picture(id, side))
    return Response(content, media_type=kind, headers={"cache-control": PICTURE_CACHE})


@api.get("/api/about", summary="Model, sizes and limits")
async def about(call: Injected) -> About:
    """The model, the size of the index, example queries and limits."""
    return await call.files(call.service.about)


@api.get("/healthz", summary="State of the server")
async def health(call: Injected) -> Health:
    """Responds at once, also while the network is busy."""
    pictures, captions = await call.files(lambda: sizes_of(call.service.index))
    status = "busy" if call.backend.network.busy else "ok"
    return Health(status=status, pictures=pictures, captions=captions, version=package_version())


def sizes_of(index: Searchable) -> tuple[int | None, int | None]:
    """Numbers of pictures and captions; None where the index can't be read, which is no state of the server."""
    try:
        return len(index), index.captions
    except TshsrError:
        return None, None


def number_of(index: Searchable) -> float:
    """Number of pictures as a metric: NaN where the index can't be read, so that the other metrics still can."""
    pictures, _ = sizes_of(index)
    return math.nan if pictures is None else pictures


@api.get("/livez", summary="Liveness")
async def alive(call: Injected) -> Probe:
    """503 where a request has occupied the network for so long that only a restart helps."""
    seconds = call.backend.network.longest
    if seconds > STUCK * call.service.limits.seconds:
        raise HTTPException(503, f"a request has occupied the network for {seconds:.0f} s; restart the server.")
    return Probe(status="alive")


@api.get("/readyz", summary="Readiness")
async def ready(call: Injected) -> Probe:
    """503 while the queue is full, a request is over its time limit, or the index can't be read."""
    network = call.backend.network
    if network.busy or network.longest > call.service.limits.seconds:
        raise HTTPException(503, "the server is busy; send requests elsewhere.", {"Retry-After": "1"})
    try:
        await call.files(lambda: len(call.service.index))
    except TshsrError as error:
        raise HTTPException(503, call.service.error_message(error), {"Retry-After": "5"}) from error
    return Probe(status="ready")


@api.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
async def metrics(call: Injected) -> Response:
    """Requests by path and status, durations, queues, memory and handles, in Prometheus' text format."""
    monitor = cast(Monitor, call.request.app.state.monitor)
    return Response(await call.files(monitor.exposition), media_type=EXPOSITION)


async def trim_at_intervals() -> None:
    """Return freed memory to the system, for as long as the server runs."""
    while True:
        await asyncio.sleep(TRIM_SECONDS)
        await asyncio.to_thread(trim)


def create_app(
    index: Searchable,
    limits: Limits | None = None,
    *,
    local: bool = True,
    hosts: Collection[str] = (),
    token: str | None = None,
) -> FastAPI:
    """The server of an index, as an ASGI application.

    Args:
        limits: By default `Limits()`.
        local: Accept only host names of the loopback interface, and `hosts`.
        hosts: Further host names; where there are some, no others are accepted.
        token: What clients must send; None admits all.
    """
    bounds = limits or Limits()
    backend = Backend(
        service=Service(index, bounds),
        network=Worker("network", threads=1, waiting=bounds.waiting, seconds=bounds.seconds),
        files=Worker("files", threads=FILE_THREADS, waiting=FILE_QUEUE, seconds=bounds.seconds),
    )

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        del app
        trimming = asyncio.ensure_future(trim_at_intervals())
        yield
        trimming.cancel()
        backend.network.close()
        backend.files.close()

    app = FastAPI(
        title="tshsr",
        description=DESCRIPTION,
        version=package_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=closing,
    )
    app.state.backend = backend
    app.include_router(api)
    app.include_router(reranking)
    add_page(app)
    add_docs(app)
    if token is not None:
        known = Token(token)
        add_login(app, known)
        app.add_middleware(Gate, token=known)
    app.add_middleware(RequestGuard, limits=bounds, local=local, hosts=hosts)
    app.state.monitor = monitor_of(app, backend)
    app.add_middleware(Observer, monitor=app.state.monitor)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(TshsrError, package_error)
    return app


def monitor_of(app: FastAPI, backend: Backend) -> Monitor:
    """The metrics of an application."""
    routes = (*app.routes, *api.routes, *reranking.routes)  # those of an app do not list included ones
    monitor = Monitor([path for route in routes if (path := getattr(route, "path", None))])
    for name, worker in (("network", backend.network), ("files", backend.files)):
        monitor.pending.labels(name).set_function(partial(getattr, worker, "pending"))
    monitor.gauge("tshsr_network_longest_seconds", "Duration of the running request.", lambda: backend.network.longest)
    index = backend.service.index
    monitor.gauge("tshsr_pictures", "Indexed pictures; NaN where the index can't be read.", lambda: number_of(index))
    return monitor


async def http_error(request: Request, error: Exception) -> Response:
    """Response to an `HTTPException`."""
    refused = cast(HTTPException, error)
    sentence = refused.detail
    if refused.status_code in (404, 405) and sentence in ("Not Found", "Method Not Allowed"):
        what = f"nothing at {request.url.path!r:.80} for {request.method:.20}"
        sentence = f"there is {what}; the page is at / and the description of all paths at /docs."
    if refused.status_code == 400 and request.url.path.endswith("/rerank"):
        sentence = "the body can't be read; expected JSON as /docs describes for /rerank."
    elif refused.status_code == 400:  # raised only for forms
        sentence = f"the form can't be read ({sentence.rstrip('.')}); send it as multipart/form-data."
    return problem(refused.status_code, sentence, dict(refused.headers or {}))


async def invalid_request(request: Request, error: Exception) -> Response:
    """Response to a missing or malformed parameter."""
    first = cast(RequestValidationError, error).errors()[0]
    name = str(first["loc"][-1])
    if request.url.path.endswith("/rerank"):
        place = ".".join(map(str, first["loc"][1:])) or "the body"
        return problem(422, f"{place}: {first['msg']}; expected JSON as /docs describes for /rerank.")
    if name == "picture":
        return problem(422, "picture is missing; send a file as the field 'picture' of a form (multipart/form-data).")
    if first["type"] == "missing":
        return problem(422, f"{name} is missing; /docs describes the parameters of {request.url.path}.")
    if first["type"] == "string_too_long":  # it may be a token, which is not repeated
        return problem(422, f"{name} has more than {first['ctx']['max_length']} characters.")
    return problem(422, f"{name} is {first.get('input')!r:.80}; expected a whole number.")


async def package_error(request: Request, error: Exception) -> Response:
    """Response to an error of the package: 422 where the request is the cause, 500 where the index is."""
    internal = isinstance(error, (DataError, CheckpointError)) and not isinstance(error, PictureError)
    if internal:
        LOG.error("%s: %s", request.url.path, error)
    return problem(500 if internal else 422, backend_of(request).service.error_message(cast(TshsrError, error)))
