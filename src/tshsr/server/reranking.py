"""`POST /rerank` in the JSON form that Cohere, Jina and TEI share: requests, answers, and the work between them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tshsr.errors import UnknownPictureError
from tshsr.features.extractor import PictureRegions
from tshsr.reranking.reranker import Reranker
from tshsr.reranking.selection import Ranked
from tshsr.server.service import Service


class Document(BaseModel):
    """A document as an object; one of the fields is given."""

    id: str | None = Field(None, description="Id of an indexed picture.")
    image: str | None = Field(None, description="A picture as a data URL or as base64; URLs are not fetched.")
    text: str | None = Field(None, description="Id of an indexed picture; for a picture query a sentence.")


class RerankRequest(BaseModel):
    """Candidates of another search; further fields of Cohere's, Jina's and TEI's requests have no effect."""

    query: str | Document = Field(description="A sentence; or a picture as an object, for sentences as documents.")
    documents: list[str | Document] | None = Field(
        None,
        fail_fast=True,
        description="Ids of indexed pictures, or pictures as data URLs; for a picture query sentences.",
    )
    top_n: int | None = Field(None, description="Number of results; all by default.")
    return_documents: bool = Field(False, description="Repeat the documents in the results, as objects.")
    texts: list[str] | None = Field(
        None, fail_fast=True, description="TEI's name of documents; the answer then has TEI's form."
    )
    return_text: bool = Field(False, description="TEI: repeat the texts in the results.")


class RerankResult(BaseModel):
    """A document by its place in the request."""

    index: int
    relevance_score: float = Field(
        description="Probability of a match where the model is calibrated, otherwise its score; 0 to 1."
    )
    document: Document | None = None


class RerankAnswer(BaseModel):
    """Documents, best first."""

    model: str
    results: list[RerankResult]


class TeiResult(BaseModel):
    """A text by its place in the request, in the form of text-embeddings-inference."""

    index: int
    score: float
    text: str | None = None


def rerank(service: Service, request: RerankRequest) -> RerankAnswer | list[TeiResult]:
    """The documents of a request, best first.

    Raises:
        HTTPException: 404 for an unknown id; 422 where a query, a document or a number can't be used.
        TshsrError: Where a picture is broken, or the index raises it.
    """
    documents = request.documents if request.texts is None else list[str | Document](request.texts)
    check_number(service, documents, request.top_n)
    ranked = ranked_documents(service, request.query, documents or [], request.top_n)
    if request.texts is not None:
        shown = request.texts if request.return_text else [None] * len(request.texts)
        return [TeiResult(index=one.index, score=relevance(one), text=shown[one.index]) for one in ranked]
    results = [
        RerankResult(
            index=one.index,
            relevance_score=relevance(one),
            document=as_object((documents or [])[one.index]) if request.return_documents else None,
        )
        for one in ranked
    ]
    return RerankAnswer(model=service.index.retriever.name, results=results)


def check_number(service: Service, documents: Sequence[object] | None, top_n: int | None) -> None:
    """Refuse requests with no document or too many, and numbers of results below 1.

    Raises:
        HTTPException: 422.
    """
    most = service.limits.documents
    if not documents:
        raise HTTPException(422, "documents is missing or empty; expected ids of indexed pictures.")
    if len(documents) > most:
        raise HTTPException(422, f"documents has {len(documents):,} entries; expected at most {most:,}.")
    if top_n is not None and top_n < 1:
        raise HTTPException(422, f"top_n is {top_n}; expected 1 or more.")


def ranked_documents(
    service: Service, query: str | Document, documents: Sequence[str | Document], top_n: int | None
) -> list[Ranked]:
    """The documents in the order of their scores.

    Raises:
        HTTPException: As `rerank`.
    """
    reranker, k = Reranker(service.index.retriever, source=service.index), top_n or len(documents)
    if isinstance(query, str):
        text = service.checked_query(query)
        uploads = sum(map(has_picture, documents))
        if uploads > service.limits.pictures:
            raise HTTPException(
                422,
                f"documents has {uploads} pictures; expected at most {service.limits.pictures}, and ids for others.",
            )
        pictures = [picture_of(service, one, f"documents[{at}]") for at, one in enumerate(documents)]
        try:
            return reranker.rank(text, pictures, k, words=False)
        except UnknownPictureError as error:
            raise HTTPException(404, service.error_message(error)) from error
    sentences = [service.checked_query(one if isinstance(one, str) else one.text or "") for one in documents]
    picture = picture_of(service, query, "query")
    if isinstance(picture, str):
        raise HTTPException(422, "query is an object without image; expected a sentence, or a picture as image.")
    return reranker.rank(picture, sentences, k, words=False)


def text_of(given: str | Document) -> str:
    """An id, or the text that holds a picture."""
    return given if isinstance(given, str) else given.image or given.id or given.text or ""


def has_picture(given: str | Document) -> bool:
    """Whether a document is to be decoded as a picture."""
    return text_of(given).startswith("data:") or (not isinstance(given, str) and bool(given.image))


def picture_of(service: Service, given: str | Document, place: str) -> str | PictureRegions:
    """An id, or the regions of a picture in the request.

    Args:
        place: The field, for messages.

    Raises:
        HTTPException: 422 where it is a URL or can't be read.
        PictureError: Where the picture is broken.
    """
    text = text_of(given)
    if text.startswith(("http://", "https://")):
        raise HTTPException(
            422, f"{place} is a URL, and URLs are not fetched; send an id, or the picture as a data URL."
        )
    if has_picture(given):
        return service.regions(decoded(text, place))
    if not text:
        raise HTTPException(422, f"{place} is empty; expected an id, or an object with id or image.")
    return service.checked_id(text)


def decoded(text: str, place: str) -> bytes:
    """The bytes of a data URL or of base64.

    Raises:
        HTTPException: 422 where it is neither.
    """
    head, comma, body = text.partition(",")
    if text.startswith("data:") and not (comma and head.endswith(";base64")):
        raise HTTPException(422, f"{place} is no data URL in base64; expected data:image/jpeg;base64,...")
    try:
        return base64.b64decode(body if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(422, f"{place} has base64 that can't be read; encode the picture again.") from None


def relevance(one: Ranked) -> float:
    """The probability of a result where the model is calibrated, otherwise its score."""
    return one.score if one.probability is None else one.probability


def as_object(given: str | Document) -> Document:
    """A document as an object."""
    return Document(id=None, image=None, text=given) if isinstance(given, str) else given
