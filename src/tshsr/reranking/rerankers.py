"""The interface of the package `rerankers`: `PictureRanker(reranker).rank(query, docs)` gives its `RankedResults`.

Requires the extra `adapters`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tshsr.errors import InputError, SettingsError
from tshsr.reranking.candidates import Picture
from tshsr.reranking.reranker import Reranker

try:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs
except ImportError:
    raise SettingsError("the ranker needs rerankers, which is not installed: pip install 'tshsr[adapters]'.") from None

Docs: TypeAlias = str | Document | Sequence[str] | Sequence[Document]
"""Ids of the source (without one: files); or documents whose text is that, or with `image_path` or `base64`."""


class PictureRanker(BaseRanker):  # type: ignore[misc] # rerankers has no types
    """A ranker whose documents are pictures."""

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker

    def rank(
        self,
        query: str,
        docs: Docs,
        doc_ids: Sequence[str] | Sequence[int] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
    ) -> RankedResults:
        """All documents with their scores, best first.

        Raises:
            InputError: Where there is no document, or one is no picture.
            DataError: Where an id is unknown, or a picture can't be read.
        """
        if isinstance(docs, Sequence) and not docs:
            raise InputError("there are no documents; give at least one picture.")
        prepared: list[Document] = prep_docs(
            docs if isinstance(docs, str | Document) else list(docs),
            None if doc_ids is None else list(doc_ids),
            None if metadata is None else list(metadata),
        )
        ranked = self.reranker.rank(query, [picture_of(one) for one in prepared], k=len(prepared), words=False)
        results = [Result(prepared[one.index], one.score, rank) for rank, one in enumerate(ranked, start=1)]
        return RankedResults(results, query, has_scores=True)

    def score(self, query: str, doc: str) -> float:
        """The score of one picture."""
        return float(self.reranker.scores(query, [doc])[0])


def picture_of(document: Document) -> Picture:
    """The picture of a document.

    Raises:
        InputError: Where an image document has neither a file nor base64 that can be read.
    """
    if document.document_type != "image":
        return str(document.text)
    if document.base64 is not None:
        try:
            return base64.b64decode(document.base64, validate=True)
        except (binascii.Error, ValueError):
            raise InputError(
                f"document {document.doc_id} has base64 that can't be read; encode its file again."
            ) from None
    if document.image_path is None:
        raise InputError(f"document {document.doc_id} has neither image_path nor base64; expected one of them.")
    return Path(document.image_path)
