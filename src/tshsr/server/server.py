"""The server: which path asks what."""

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
from tshsr.server.guard import Guard, Limits, Worker, problem
from tshsr.server.service import CAPTIONS, PICTURES, Searchable, Service
from tshsr.server.site import add_docs, add_page
from tshsr.system import package_version

LOG = logging.getLogger(__name__)
DESCRIPTION = """Search pictures by a sentence, sentences by a picture, and see which word met which region.

Every refusal is JSON: `{"error": "one sentence"}`. Pictures are sent as the field `picture` of a form
(`multipart/form-data`); addresses of pictures elsewhere are never fetched."""
"""What the reference says first."""
REFUSALS: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "There is no such thing."},
    413: {"model": Problem, "description": "Too many bytes were sent."},
    422: {"model": Problem, "description": "Something given can't be used; the sentence says what."},
    503: {"model": Problem, "description": "Too many questions wait, or this one took too long; ask again."},
}
KEEP = "private, max-age=600"
"""Pictures are kept by the browser for ten minutes."""
FILES = {"threads": 2, "waiting": 256}
"""A page of results asks for a hundred pictures at once; two are made at a time."""


@dataclass(frozen=True)
class Desk:
    """Where the requests' work is done.

    Attributes:
        service: Answers.
        network: One thread: the network is asked one question at a time.
        files: Pictures for the browser.
    """

    service: Service
    network: Worker
    files: Worker


def desk_of(request: Request) -> Desk:
    """The desk of the server that a request came to."""
    return cast(Desk, request.app.state.desk)


At = Annotated[Desk, Depends(desk_of)]
Q = Annotated[str, Query(description="A sentence: two dogs in the snow.")]
QForm = Annotated[str, Form(description="A sentence: two dogs in the snow.")]
Id = Annotated[str, Query(description="The id of an indexed picture, as a search tells it.")]
Picture = Annotated[UploadFile, File(description="A picture file.")]
K = "How many results, best first: {} without it, or as many as there may be."
api = APIRouter(responses=REFUSALS, tags=["API"])


@api.get("/api/search", summary="Pictures for a sentence")
async def search(
    desk: At,
    q: Q,
    k: Annotated[int | None, Query(description=K.format(PICTURES))] = None,
    where: Annotated[
        str | None, Query(description="A filter over your metadata: year > 2010 AND place = 'Oslo'.")
    ] = None,
) -> PictureAnswers:
    """The pictures that fit a sentence best, each with the regions that its words met."""
    return await desk.network.run(lambda: desk.service.search(q, k, where))


@api.post("/api/search", summary="Sentences for a picture")
async def search_picture(
    desk: At, picture: Picture, k: Annotated[int | None, Form(description=K.format(CAPTIONS))] = None
) -> CaptionAnswers:
    """The indexed captions that fit a picture best."""
    content = await picture.read()
    return await desk.network.run(lambda: desk.service.search_picture(content, k))


@api.get("/api/score", summary="Scores of a pair")
async def score(desk: At, id: Id, q: Q) -> Scores:  # noqa: A002
    """All scores of an indexed picture with a sentence."""
    return await desk.network.run(lambda: desk.service.score(q, id))


@api.post("/api/score", summary="Scores of a sent picture and a sentence")
async def score_picture(desk: At, picture: Picture, q: QForm) -> Scores:
    """All scores of a picture with a sentence."""
    content = await picture.read()
    return await desk.network.run(lambda: desk.service.score_picture(q, content))


@api.get("/api/explain", summary="Which word met which region")
async def explain(desk: At, id: Id, q: Q) -> ExplanationAnswer:  # noqa: A002
    """Both streams and every level of an indexed picture with a sentence."""
    return await desk.network.run(lambda: desk.service.explain(q, id))


@api.post("/api/explain", summary="Which word met which region of a sent picture")
async def explain_picture(desk: At, picture: Picture, q: QForm) -> ExplanationAnswer:
    """Both streams and every level of a picture with a sentence."""
    content = await picture.read()
    return await desk.network.run(lambda: desk.service.explain_picture(q, content))


@api.get("/api/picture", summary="An indexed picture", response_class=Response)
async def picture(
    desk: At,
    id: Id,  # noqa: A002
    side: Annotated[int, Query(description="Longest side in pixels: 480 or 1600.")] = 480,
) -> Response:
    """A picture of the index, made smaller where it is larger; no other file has an address."""
    content, kind = await desk.files.run(lambda: desk.service.picture(id, side))
    return Response(content, media_type=kind, headers={"cache-control": KEEP})


@api.get("/api/about", summary="What is indexed")
async def about(desk: At) -> About:
    """The model, the sizes, examples of queries and the limits."""
    return await desk.files.run(desk.service.about)


@api.get("/healthz", summary="Whether the server is alive")
async def health(desk: At) -> Health:
    """Answers at once, also while the network is at work."""
    index = desk.service.index
    pictures, captions = await desk.files.run(lambda: (len(index), index.captions))
    status = "busy" if desk.network.busy else "ok"
    return Health(status=status, pictures=pictures, captions=captions, version=package_version())


def create_app(index: Searchable, limits: Limits | None = None, *, local: bool = True) -> FastAPI:
    """The server of an index, as an ASGI application.

    Args:
        index: What is searched.
        limits: Bounds on what is asked.
        local: Whether it answers to names of this machine only.
    """
    bounds = limits or Limits()
    desk = Desk(
        service=Service(index, bounds),
        network=Worker("network", threads=1, waiting=bounds.waiting, seconds=bounds.seconds),
        files=Worker("files", threads=FILES["threads"], waiting=FILES["waiting"], seconds=bounds.seconds),
    )

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        desk.network.close()
        desk.files.close()

    app = FastAPI(
        title="tshsr",
        description=DESCRIPTION,
        version=package_version(),
        docs_url=None,
        redoc_url=None,
        lifespan=closing,
    )
    app.state.desk = desk
    app.include_router(api)
    add_page(app)
    add_docs(app)
    app.add_middleware(Guard, limits=bounds, local=local)
    app.add_exception_handler(HTTPException, told)
    app.add_exception_handler(RequestValidationError, told_what_is_wrong)
    app.add_exception_handler(TshsrError, told_why)
    return app


async def told(request: Request, error: Exception) -> Response:
    """A refusal with a status of its own."""
    refused = cast(HTTPException, error)
    sentence = refused.detail
    if refused.status_code in (404, 405) and sentence in ("Not Found", "Method Not Allowed"):
        what = f"nothing at {request.url.path!r:.80} for {request.method}"
        sentence = f"there is {what}; the page is at / and the description of all paths at /docs."
    if refused.status_code == 400:  # only forms are refused so
        sentence = f"the form can't be read ({sentence.rstrip('.')}); send it as multipart/form-data."
    return problem(refused.status_code, sentence, dict(refused.headers or {}))


async def told_what_is_wrong(request: Request, error: Exception) -> Response:
    """Something that is missing or of a wrong kind."""
    first = cast(RequestValidationError, error).errors()[0]
    name = str(first["loc"][-1])
    if name == "picture":
        return problem(422, "picture is missing; send a file as the field 'picture' of a form (multipart/form-data).")
    if first["type"] == "missing":
        return problem(422, f"{name} is missing; the description of {request.url.path} at /docs tells what it is.")
    return problem(422, f"{name} is {first.get('input')!r:.80}; expected a whole number.")


async def told_why(request: Request, error: Exception) -> Response:
    """What the package refuses: mostly the request's fault, else the index's."""
    ours = isinstance(error, (DataError, CheckpointError)) and not isinstance(error, PictureError)
    if ours:
        LOG.error("%s: %s", request.url.path, error)
    return problem(500 if ours else 422, desk_of(request).service.sentence(cast(TshsrError, error)))
