"""Routes and error handlers of the server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tshsr.errors import CheckpointError, DataError, PictureError, TshsrError
from tshsr.server.answers import About, CaptionAnswers, ExplanationAnswer, Health, PictureAnswers, Problem, Scores
from tshsr.server.guard import Limits, RequestGuard, Worker, problem
from tshsr.server.reranking import RerankAnswer, RerankRequest, TeiResult, rerank
from tshsr.server.service import CAPTIONS, PICTURES, Searchable, Service
from tshsr.server.site import add_docs, add_page
from tshsr.system import package_version

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


def backend_of(request: Request) -> Backend:
    """The backend of the application of a request."""
    return cast(Backend, request.app.state.backend)


Injected = Annotated[Backend, Depends(backend_of)]
Q = Annotated[str, Query(description="A sentence: two dogs in the snow.")]
QForm = Annotated[str, Form(description="A sentence: two dogs in the snow.")]
Id = Annotated[str, Query(description="Id of an indexed picture, as in the results of a search.")]
Picture = Annotated[UploadFile, File(description="A picture file.")]
K = "Number of results, best first; {} by default."
api = APIRouter(responses=ERRORS, tags=["API"])


@api.get("/api/search", summary="Pictures for a sentence")
async def search(
    backend: Injected,
    q: Q,
    k: Annotated[int | None, Query(description=K.format(PICTURES))] = None,
    where: Annotated[
        str | None, Query(description="SQL condition on the metadata: year > 2010 AND place = 'Oslo'.")
    ] = None,
) -> PictureAnswers:
    """Pictures with the highest scores for a sentence, each with the regions of its words."""
    return await backend.network.run(lambda: backend.service.search(q, k, where))


@api.post("/api/search", summary="Captions for a picture")
async def search_picture(
    backend: Injected, picture: Picture, k: Annotated[int | None, Form(description=K.format(CAPTIONS))] = None
) -> CaptionAnswers:
    """Indexed captions with the highest scores for an uploaded picture."""
    content = await picture.read()
    return await backend.network.run(lambda: backend.service.search_picture(content, k))


@api.get("/api/score", summary="Scores of a pair")
async def score(backend: Injected, id: Id, q: Q) -> Scores:  # noqa: A002
    """All scores of an indexed picture with a sentence."""
    return await backend.network.run(lambda: backend.service.score(q, id))


@api.post("/api/score", summary="Scores of an uploaded picture and a sentence")
async def score_picture(backend: Injected, picture: Picture, q: QForm) -> Scores:
    """All scores of an uploaded picture with a sentence."""
    content = await picture.read()
    return await backend.network.run(lambda: backend.service.score_picture(q, content))


@api.get("/api/explain", summary="Explanation of a pair")
async def explain(backend: Injected, id: Id, q: Q) -> ExplanationAnswer:  # noqa: A002
    """Weights of words over regions in both streams and every level, for an indexed picture."""
    return await backend.network.run(lambda: backend.service.explain(q, id))


@api.post("/api/explain", summary="Explanation of an uploaded picture and a sentence")
async def explain_picture(backend: Injected, picture: Picture, q: QForm) -> ExplanationAnswer:
    """Weights of words over regions in both streams and every level, for an uploaded picture."""
    content = await picture.read()
    return await backend.network.run(lambda: backend.service.explain_picture(q, content))


@api.post("/rerank", summary="Rerank the results of another search", response_model_exclude_none=True)
@api.post("/v1/rerank", include_in_schema=False, response_model_exclude_none=True)
@api.post("/v2/rerank", include_in_schema=False, response_model_exclude_none=True)
async def rerank_documents(backend: Injected, request: RerankRequest) -> RerankAnswer | list[TeiResult]:
    """Pictures by their score with a sentence, or sentences by their score with a picture.

    Documents are ids of the index or pictures in the request. Request and answer have the form of Cohere's and Jina's;
    with `texts` in place of `documents`, that of TEI's.
    """
    return await backend.network.run(lambda: rerank(backend.service, request))


@api.get("/api/picture", summary="An indexed picture", response_class=Response)
async def picture(
    backend: Injected,
    id: Id,  # noqa: A002
    side: Annotated[int, Query(description="Longest side in pixels: 480 or 1600.")] = 480,
) -> Response:
    """A picture of the index, scaled down to the given side; no other file has a URL."""
    content, kind = await backend.files.run(lambda: backend.service.picture(id, side))
    return Response(content, media_type=kind, headers={"cache-control": PICTURE_CACHE})


@api.get("/api/about", summary="Model, sizes and limits")
async def about(backend: Injected) -> About:
    """The model, the size of the index, example queries and limits."""
    return await backend.files.run(backend.service.about)


@api.get("/healthz", summary="State of the server")
async def health(backend: Injected) -> Health:
    """Responds at once, also while the network is busy."""
    index = backend.service.index
    pictures, captions = await backend.files.run(lambda: (len(index), index.captions))
    status = "busy" if backend.network.busy else "ok"
    return Health(status=status, pictures=pictures, captions=captions, version=package_version())


def create_app(index: Searchable, limits: Limits | None = None, *, local: bool = True) -> FastAPI:
    """The server of an index, as an ASGI application.

    Args:
        limits: By default `Limits()`.
        local: Accept only host names of the loopback interface.
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
        yield
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
    add_page(app)
    add_docs(app)
    app.add_middleware(RequestGuard, limits=bounds, local=local)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(TshsrError, package_error)
    return app


async def http_error(request: Request, error: Exception) -> Response:
    """Response to an `HTTPException`."""
    refused = cast(HTTPException, error)
    sentence = refused.detail
    if refused.status_code in (404, 405) and sentence in ("Not Found", "Method Not Allowed"):
        what = f"nothing at {request.url.path!r:.80} for {request.method:.20}"
        sentence = f"there is {what}; the page is at / and the description of all paths at /docs."
    if refused.status_code == 400:  # raised only for forms
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
    return problem(422, f"{name} is {first.get('input')!r:.80}; expected a whole number.")


async def package_error(request: Request, error: Exception) -> Response:
    """Response to an error of the package: 422 where the request is the cause, 500 where the index is."""
    internal = isinstance(error, (DataError, CheckpointError)) and not isinstance(error, PictureError)
    if internal:
        LOG.error("%s: %s", request.url.path, error)
    return problem(500 if internal else 422, backend_of(request).service.error_message(cast(TshsrError, error)))
