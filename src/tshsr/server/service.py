"""Queries of the index: from request parameters to response models, one at a time."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

import torch
from PIL import Image
from starlette.exceptions import HTTPException

from tshsr.data.pictures import read_picture, turn_of
from tshsr.errors import FilterError, PictureError, TshsrError, UnknownPictureError
from tshsr.explain.attribution import Explanation, explain_pair
from tshsr.index.metadata import size_of
from tshsr.index.search import CaptionResult, Result
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever, as_batch
from tshsr.server.answers import (
    About,
    CaptionAnswer,
    CaptionAnswers,
    ExplanationAnswer,
    PictureAnswer,
    PictureAnswers,
    Scores,
    WordAnswer,
)
from tshsr.server.filters import check_filter_text
from tshsr.server.guard import Limits

if TYPE_CHECKING:
    import numpy as np

    from tshsr.features.extractor import Extractor, PictureRegions


class Searchable(Protocol):
    """The interface that the server requires of an index; `tshsr.Index` implements it."""

    folder: Path
    retriever: Retriever

    def __len__(self) -> int: ...

    @property
    def captions(self) -> int:
        """Number of captions."""

    def search(self, text: str, k: int = 10, *, where: str | None = None) -> list[Result]:
        """Pictures for a sentence, best first."""

    def search_picture(self, picture: PictureRegions, k: int = 10) -> list[CaptionResult]:
        """Captions for a picture, best first."""

    def encoded_pictures(self, ids: Sequence[str]) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        """Encodings and boxes of indexed pictures."""

    def explain(self, text: str, id: str) -> Explanation:  # noqa: A002 - the name in results
        """Explanation of one result."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of a query outside the vocabulary."""

    def picture_file(self, id: str) -> Path | None:  # noqa: A002
        """The file of an indexed picture."""

    def sample_captions(self, count: int) -> Sequence[str]:
        """Captions at evenly spaced rows."""

    def extractor(self) -> Extractor:
        """The extractor of the indexed features."""


SIDES = (480, 1600)
"""Longest sides in pixels: in the grid of results, and in the dialog."""
BROWSER_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""Media types that every browser displays; other formats are sent as JPEG."""
MAX_UNCHANGED_BYTES = 300_000
"""Maximum size of a file that is sent unchanged where it needs no scaling."""


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height from a picture's header, EXIF orientation applied; None where unreadable."""
    try:
        return _size(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=20_000)
def _size(path: Path, modified: int) -> tuple[int, int] | None:
    del modified  # part of the cache key
    return size_of(path)


def encoded_picture(path: Path, side: int) -> tuple[bytes, str]:
    """Bytes and media type of a picture, scaled to a side.

    Args:
        path: A picture of the index.
        side: Longest side in pixels.

    Raises:
        PictureError: Where the file is gone or is no readable picture.
    """
    try:
        return _encoded_picture(path, path.stat().st_mtime_ns, side)
    except OSError as error:
        raise PictureError(
            f"{path.name} can't be read ({error.strerror}); it must stay where it was indexed."
        ) from None
    except PictureError as error:
        # Redact the folder from client-facing errors.
        raise PictureError(str(error).replace(str(path), path.name)) from None


@lru_cache(maxsize=256)
def _encoded_picture(path: Path, modified: int, side: int) -> tuple[bytes, str]:
    del modified
    # The limit is that of extraction, so that every indexed picture can be shown.
    picture = read_picture(path, draft=2 * side)
    if max(picture.size) <= side and path.stat().st_size <= MAX_UNCHANGED_BYTES:
        with Image.open(path) as opened:
            kind = BROWSER_FORMATS.get(opened.format or "")
            upright = opened.format == "JPEG" or turn_of(opened) is None  # browsers rotate JPEGs only
        if kind is not None and upright:
            return path.read_bytes(), kind
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=85)
    return small.getvalue(), "image/jpeg"


CACHED_UPLOADS = 8
"""Uploaded pictures whose regions are cached, for several requests with one picture."""
PICTURES, CAPTIONS = 24, 10
"""Default numbers of results."""
EXAMPLES, EXAMPLE_CHARACTERS = 6, 70
"""Number of example queries, and their maximum length."""
ID_CHARACTERS = 4096
"""Maximum length of an id, which may be a path: PATH_MAX of Linux."""
FIRST_QUERY = "a picture"
"""The query that is run before the first request where there are no examples."""


class Service:
    """Queries of an index within limits. All methods but `picture` are called one at a time."""

    def __init__(self, index: Searchable, limits: Limits) -> None:
        self.index, self.limits = index, limits
        self.extractor: Extractor | None = None
        self.no_uploads: str | None = "the server is still starting."
        self.uploads: OrderedDict[bytes, PictureRegions] = OrderedDict()
        self.examples: list[str] = []

    def prepare(self) -> None:
        """Load the extractor and run one query, so that the first request does not wait."""
        try:
            self.extractor, self.no_uploads = self.index.extractor(), None
        except TshsrError as error:
            self.no_uploads = self.error_message(error)
        texts = self.index.sample_captions(8 * EXAMPLES)
        self.examples = short_captions([text for text in texts if len(text) <= self.limits.query_characters])
        for text in self.examples[:1] or [FIRST_QUERY]:
            self.search(text, None, None)

    def about(self) -> About:
        """The model, the size of the index, example queries and limits."""
        return About(
            model=self.index.retriever.name,
            pictures=len(self.index),
            captions=self.index.captions,
            examples=self.examples,
            uploads=self.no_uploads,
            upload_bytes=self.limits.upload_bytes,
            query_characters=self.limits.query_characters,
            results=self.limits.results,
        )

    def search(self, q: str, k: int | None, where: str | None) -> PictureAnswers:
        """Pictures for a sentence.

        Raises:
            TshsrError: Where the index raises it.
            HTTPException: Where the sentence, the filter or k can't be used.
        """
        started = time.perf_counter()
        condition = self._filter(where)
        try:
            found = self.index.search(self.checked_query(q), self._count(k, PICTURES), where=condition)
        except FilterError as error:
            raise HTTPException(422, self.error_message(error)) from error
        return PictureAnswers(
            query=q,
            unknown=list(self.index.unknown_words(q)),
            pictures=len(self.index),
            results=[self._picture(result) for result in found],
            seconds=time.perf_counter() - started,
        )

    def search_picture(self, content: bytes, k: int | None) -> CaptionAnswers:
        """Captions for an uploaded picture.

        Raises:
            TshsrError: Where the picture is broken, or the index raises it.
            HTTPException: Where the index has no captions, or k can't be used.
        """
        started = time.perf_counter()
        count = self._count(k, CAPTIONS)
        if not self.index.captions:
            raise HTTPException(422, "this index holds no captions; build it from data that has some.")
        found = self.index.search_picture(self.regions(content), count)
        answers = [
            CaptionAnswer(id=it.id, caption=it.caption, image=it.image, score=it.score, probability=it.probability)
            for it in found
        ]
        return CaptionAnswers(captions=self.index.captions, results=answers, seconds=time.perf_counter() - started)

    def explain(self, q: str, id: str) -> ExplanationAnswer:  # noqa: A002
        """Explain the score of an indexed picture.

        Raises:
            TshsrError: Where the index raises it.
            HTTPException: Where the sentence can't be used, or there is no such picture.
        """
        query, name = self.checked_query(q), self.checked_id(id)
        try:
            explanation = self.index.explain(query, name)
        except UnknownPictureError as error:
            raise HTTPException(404, self.error_message(error)) from error
        file = self.index.picture_file(id)
        return self._explained(q, explanation, id, file)

    def explain_picture(self, q: str, content: bytes) -> ExplanationAnswer:
        """Explain the score of an uploaded picture.

        Raises:
            TshsrError: Where the picture is broken.
            HTTPException: Where the sentence can't be used.
        """
        query, regions = self.checked_query(q), self.regions(content)
        explanation = explain_pair(
            self.index.retriever, as_batch(regions.features, regions.boxes, regions.pooled), query
        )
        return self._explained(q, explanation, None, None)

    def score(self, q: str, id: str) -> Scores:  # noqa: A002
        """All scores of an indexed picture with a sentence."""
        return self._scores(q, self.explain(q, id))

    def score_picture(self, q: str, content: bytes) -> Scores:
        """All scores of an uploaded picture with a sentence."""
        return self._scores(q, self.explain_picture(q, content))

    def picture(self, id: str, side: int) -> tuple[bytes, str]:  # noqa: A002
        """Bytes and media type of an indexed picture; thread-safe.

        Raises:
            HTTPException: Where the index has no file of that id, or it can't be read.
        """
        if side not in SIDES:
            raise HTTPException(422, f"side is {side}; expected {SIDES[0]} or {SIDES[1]}.")
        file = self.index.picture_file(self.checked_id(id))
        if file is None:
            raise HTTPException(404, f"there is no picture file of {id!r:.80}.")
        try:
            return encoded_picture(file, side)
        except PictureError as error:
            raise HTTPException(404, str(error)) from error

    def error_message(self, error: TshsrError) -> str:
        """Redact the path of the index from client-facing errors."""
        absolute = str(self.index.folder.resolve())
        spellings = (absolute, absolute.lstrip("/"), str(self.index.folder))  # LanceDB omits the first slash
        paths = "|".join(re.escape(path) for path in spellings if path)
        return re.sub(rf"(?<![^\s(])({paths})(?=[\s/:;,)]|$)", "the index", " ".join(str(error).split()))

    def _explained(self, q: str, explanation: Explanation, id: str | None, file: Path | None) -> ExplanationAnswer:  # noqa: A002
        width, height = (None, None) if file is None else upright_size(file) or (None, None)
        return ExplanationAnswer(
            id=id,
            file=None if file is None else file.name,
            width=width,
            height=height,
            unknown=list(self.index.unknown_words(q)),
            probability=self._probability(explanation.scores["fused"]),
            explanation=explanation,
        )

    def _probability(self, score: float) -> float | None:
        calibration = self.index.retriever.calibration
        if calibration is None:
            return None
        return calibration.probability(torch.tensor(score), pictures=len(self.index)).item()

    def _scores(self, q: str, answer: ExplanationAnswer) -> Scores:
        return Scores(query=q, unknown=answer.unknown, scores=answer.explanation.scores)

    def _picture(self, result: Result) -> PictureAnswer:
        name = None if result.file is None else PurePath(result.file)
        # Absolute paths are those of files; querying the index for each result would take longer than the search.
        size = upright_size(Path(name)) if name is not None and name.is_absolute() else None
        width, height = size or (None, None)
        return PictureAnswer(
            id=result.id,
            file=None if name is None else name.name,  # without its folder
            score=result.score,
            probability=result.probability,
            width=width,
            height=height,
            words=[WordAnswer(word=word.word, boxes=list(word.boxes)) for word in result.words],
            metadata=result.metadata,
        )

    def regions(self, content: bytes) -> PictureRegions:
        """Regions of an uploaded picture, cached by its content.

        Raises:
            HTTPException: 422 where no extractor runs here.
            PictureError: Where the picture is broken, or too large.
        """
        if self.extractor is None:
            raise HTTPException(422, f"pictures can't be uploaded: {self.no_uploads}")
        key = hashlib.sha256(content).digest()
        if key not in self.uploads:
            picture = read_picture(content, max_pixels=self.limits.pixels)
            self.uploads[key] = self.extractor.extract([picture])[0]
        self.uploads.move_to_end(key)
        while len(self.uploads) > CACHED_UPLOADS:
            self.uploads.popitem(last=False)
        return self.uploads[key]

    def checked_query(self, q: str) -> str:
        """A sentence within the limits.

        Raises:
            HTTPException: 422 where it has no word, or is too long.
        """
        if not any(letter.isalnum() for letter in q):
            raise HTTPException(422, "the query has no word; expected a sentence such as 'two dogs in the snow'.")
        return self._bounded("the query", q)

    def _filter(self, where: str | None) -> str | None:
        if not where or not where.strip():
            return None
        check_filter_text(self._bounded("the filter", where))
        return where

    def _bounded(self, name: str, text: str) -> str:
        most = self.limits.query_characters
        if len(text) > most:
            raise HTTPException(422, f"{name} has {len(text):,} characters; expected at most {most:,}.")
        return text

    def _count(self, k: int | None, default: int) -> int:
        if k is None:
            return min(default, self.limits.results)
        if not 1 <= k <= self.limits.results:
            raise HTTPException(422, f"k is {k}; expected a number from 1 to {self.limits.results}.")
        return k

    def checked_id(self, id: str) -> str:  # noqa: A002
        """An id within the limits.

        Raises:
            HTTPException: 422 where it is too long.
        """
        if len(id) > ID_CHARACTERS:
            raise HTTPException(422, f"the id has {len(id):,} characters; expected at most {ID_CHARACTERS:,}.")
        return id


def short_captions(captions: Sequence[str]) -> list[str]:
    """Up to `EXAMPLES` short captions, evenly spaced by length; the shortest where all are long."""
    texts = sorted(dict.fromkeys(text.rstrip(" .") for text in captions), key=len)
    short = [text for text in texts if len(text) <= EXAMPLE_CHARACTERS] or texts[:EXAMPLES]
    return short[:: -(-len(short) // EXAMPLES)] if short else []
