"""Asks the index: from what came over the wire to an answer, one question at a time."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

from PIL import Image
from starlette.exceptions import HTTPException

from tshsr.errors import DataError, PictureError, TshsrError
from tshsr.explain.attribution import Explanation, explain_pair
from tshsr.features.pictures import read_picture
from tshsr.index.metadata import size_of
from tshsr.index.search import CaptionResult, Result
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
from tshsr.server.guard import Limits

if TYPE_CHECKING:
    from tshsr.features.extractor import Extractor, PictureRegions


class Searchable(Protocol):
    """An index as the server sees it; `tshsr.index.Index` is one."""

    folder: Path
    retriever: Retriever

    def __len__(self) -> int: ...

    @property
    def captions(self) -> int:
        """Number of captions."""

    def search(self, text: str, k: int = 10, *, where: str | None = None) -> list[Result]:
        """Pictures for a sentence, best first."""

    def search_picture(self, picture: PictureRegions, k: int = 10) -> list[CaptionResult]:
        """Sentences for a picture, best first."""

    def explain(self, text: str, id: str) -> Explanation:  # noqa: A002 - the name that results carry
        """All about one result."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of a query that the network never saw in training."""

    def picture_file(self, id: str) -> Path | None:  # noqa: A002
        """The file of an indexed picture."""

    def sample_captions(self, count: int) -> Sequence[str]:
        """Some captions."""

    def extractor(self) -> Extractor:
        """What the pictures' features were made with."""


SIDES = (480, 1600)
"""Longest sides that are asked for: in the grid, and alone."""
KINDS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
"""What every browser shows; other formats are sent as JPEG."""
AS_IT_IS = 300_000
"""Bytes up to which a file that needs no shrinking is sent untouched."""


def upright_size(path: Path) -> tuple[int, int] | None:
    """Width and height as a picture is shown, from its header; None where it can't be read."""
    try:
        return _size(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=20_000)
def _size(path: Path, changed: int) -> tuple[int, int] | None:
    del changed  # part of the key: a replaced file is looked at again
    return size_of(path)


def shown(path: Path, side: int, max_pixels: int) -> tuple[bytes, str]:
    """A picture as it is sent, and its media type.

    Args:
        path: A picture of the index.
        side: Longest side in pixels.
        max_pixels: The largest picture that is decoded.

    Raises:
        PictureError: Where the file is gone or is no readable picture.
    """
    try:
        return _shown(path, path.stat().st_mtime_ns, side, max_pixels)
    except OSError as error:
        raise PictureError(
            f"{path.name} can't be read ({error.strerror}); it must stay where it was indexed."
        ) from None
    except PictureError as error:
        # Where the file lies is nobody's business.
        raise PictureError(str(error).replace(str(path), path.name)) from None


@lru_cache(maxsize=256)
def _shown(path: Path, changed: int, side: int, max_pixels: int) -> tuple[bytes, str]:
    del changed
    picture = read_picture(path, max_pixels=max_pixels)
    if max(picture.size) <= side and path.stat().st_size <= AS_IT_IS:
        with Image.open(path) as opened:
            kind = KINDS.get(opened.format or "")
        if kind is not None:
            return path.read_bytes(), kind
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=85)
    return small.getvalue(), "image/jpeg"


if TYPE_CHECKING:
    from tshsr.features.extractor import Extractor, PictureRegions

LOG = logging.getLogger(__name__)
REMEMBERED = 8
"""Sent pictures whose regions are kept: a person asks several things of one picture."""
PICTURES, CAPTIONS = 24, 10
"""How many are found where nobody says."""
EXAMPLES = 6
EXAMPLE_CHARACTERS = 70


class Service:
    """An index and what is needed to answer from it. Its methods are called one at a time.

    Args:
        index: The index.
        limits: Bounds on what is asked.
    """

    def __init__(self, index: Searchable, limits: Limits) -> None:
        self.index, self.limits = index, limits
        self.extractor: Extractor | None = None
        self.no_uploads: str | None = "the server is still starting."
        self.remembered: OrderedDict[bytes, PictureRegions] = OrderedDict()
        self.examples: list[str] = []

    def prepare(self) -> None:
        """Load what the first question would else wait for."""
        try:
            self.extractor, self.no_uploads = self.index.extractor(), None
        except TshsrError as error:
            self.no_uploads = self.sentence(error)
        texts = self.index.sample_captions(8 * EXAMPLES)
        self.examples = short_ones([text for text in texts if len(text) <= self.limits.query_characters])
        for text in self.examples[:1]:
            self.search(text, None, None)

    def about(self) -> About:
        """What is here."""
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
            TshsrError: Where the index refuses.
            HTTPException: Where the sentence, the filter or the number can't be used.
        """
        started = time.perf_counter()
        condition = self._filter(where)
        try:
            found = self.index.search(self._query(q), self._number(k, PICTURES), where=condition)
        except DataError as error:
            if condition is None:
                raise  # only the index can be at fault
            raise HTTPException(422, self.sentence(error)) from error
        return PictureAnswers(
            query=q,
            unknown=list(self.index.unknown_words(q)),
            results=[self._picture(result) for result in found],
            seconds=time.perf_counter() - started,
        )

    def search_picture(self, content: bytes, k: int | None) -> CaptionAnswers:
        """Captions for a picture that was sent.

        Raises:
            TshsrError: Where the picture is broken, or the index refuses.
            HTTPException: Where the index has no captions, or the number can't be used.
        """
        started = time.perf_counter()
        number = self._number(k, CAPTIONS)
        if not self.index.captions:
            raise HTTPException(422, "this index holds no captions; build it from data that has some.")
        found = self.index.search_picture(self._regions(content), number)
        answers = [CaptionAnswer(id=it.id, caption=it.caption, image=it.image, score=it.score) for it in found]
        return CaptionAnswers(results=answers, seconds=time.perf_counter() - started)

    def explain(self, q: str, id: str) -> ExplanationAnswer:  # noqa: A002
        """Why a picture of the index got its score.

        Raises:
            TshsrError: Where the index refuses.
            HTTPException: Where the sentence can't be used, or there is no such picture.
        """
        query, name = self._query(q), self._id(id)
        try:
            explanation = self.index.explain(query, name)
        except DataError as error:
            raise HTTPException(404, self.sentence(error)) from error
        file = self.index.picture_file(id)
        return self._explained(q, explanation, id, file)

    def explain_picture(self, q: str, content: bytes) -> ExplanationAnswer:
        """Why a picture that was sent gets its score.

        Raises:
            TshsrError: Where the picture is broken.
            HTTPException: Where the sentence can't be used.
        """
        query, regions = self._query(q), self._regions(content)
        explanation = explain_pair(self.index.retriever, as_batch(regions.features, regions.boxes), query)
        return self._explained(q, explanation, None, None)

    def score(self, q: str, id: str) -> Scores:  # noqa: A002
        """All scores of a picture of the index with a sentence."""
        return self._scores(q, self.explain(q, id))

    def score_picture(self, q: str, content: bytes) -> Scores:
        """All scores of a picture that was sent with a sentence."""
        return self._scores(q, self.explain_picture(q, content))

    def picture(self, id: str, side: int) -> tuple[bytes, str]:  # noqa: A002
        """A picture of the index as bytes, and its media type; called by several threads at once.

        Raises:
            HTTPException: Where the index has no file of that name, or it can't be read now.
        """
        if side not in SIDES:
            raise HTTPException(422, f"side is {side}; expected {SIDES[0]} or {SIDES[1]}.")
        file = self.index.picture_file(self._id(id))
        if file is None:
            raise HTTPException(404, f"no picture file is known of {id!r:.80}.")
        try:
            return shown(file, side, self.limits.pixels)
        except PictureError as error:
            raise HTTPException(404, str(error)) from error

    def sentence(self, error: TshsrError) -> str:
        """What a visitor is told of an error: where the index lies is nobody's business."""
        whole = str(self.index.folder.resolve())
        named = (whole, whole.lstrip("/"), str(self.index.folder))  # LanceDB leaves the first slash out
        places = "|".join(re.escape(place) for place in named if place)
        return re.sub(rf"(?<![^\s(])({places})(?=[\s/:;,)]|$)", "the index", " ".join(str(error).split()))

    def _explained(self, q: str, explanation: Explanation, id: str | None, file: Path | None) -> ExplanationAnswer:  # noqa: A002
        width, height = (None, None) if file is None else upright_size(file) or (None, None)
        return ExplanationAnswer(
            id=id,
            file=None if file is None else file.name,
            width=width,
            height=height,
            unknown=list(self.index.unknown_words(q)),
            explanation=explanation,
        )

    def _scores(self, q: str, answer: ExplanationAnswer) -> Scores:
        return Scores(query=q, unknown=answer.unknown, scores=answer.explanation.scores)

    def _picture(self, result: Result) -> PictureAnswer:
        name = None if result.file is None else PurePath(result.file)
        # A whole path is that of a file; asking the index for each result anew would take longer than the search.
        size = upright_size(Path(name)) if name is not None and name.is_absolute() else None
        width, height = size or (None, None)
        return PictureAnswer(
            id=result.id,
            file=None if name is None else name.name,  # where it lies is nobody's business
            score=result.score,
            width=width,
            height=height,
            words=[WordAnswer(word=word.word, boxes=list(word.boxes)) for word in result.words],
            metadata=result.metadata,
        )

    def _regions(self, content: bytes) -> PictureRegions:
        """What the extractor sees in a picture; a picture sent again is not looked at again."""
        if self.extractor is None:
            raise HTTPException(422, f"pictures can't be sent: {self.no_uploads}")
        key = hashlib.sha256(content).digest()
        if key not in self.remembered:
            picture = read_picture(content, max_pixels=self.limits.pixels)
            self.remembered[key] = self.extractor.extract([picture])[0]
        self.remembered.move_to_end(key)
        while len(self.remembered) > REMEMBERED:
            self.remembered.popitem(last=False)
        return self.remembered[key]

    def _query(self, q: str) -> str:
        if not any(letter.isalnum() for letter in q):
            raise HTTPException(422, "the query has no word; expected a sentence such as 'two dogs in the snow'.")
        return self._short("the query", q)

    def _filter(self, where: str | None) -> str | None:
        return self._short("the filter", where) if where and where.strip() else None

    def _short(self, name: str, text: str) -> str:
        most = self.limits.query_characters
        if len(text) > most:
            raise HTTPException(422, f"{name} has {len(text):,} characters; expected at most {most:,}.")
        return text

    def _number(self, k: int | None, usual: int) -> int:
        if k is None:
            return min(usual, self.limits.results)
        if not 1 <= k <= self.limits.results:
            raise HTTPException(422, f"k is {k}; expected a number from 1 to {self.limits.results}.")
        return k

    def _id(self, id: str) -> str:  # noqa: A002
        return self._short("the id", id)


def short_ones(captions: Sequence[str]) -> list[str]:
    """A few captions that are quickly read, from all over those given; the shortest where all are long."""
    texts = sorted(dict.fromkeys(text.rstrip(" .") for text in captions), key=len)
    short = [text for text in texts if len(text) <= EXAMPLE_CHARACTERS] or texts[:EXAMPLES]
    return short[:: -(-len(short) // EXAMPLES)] if short else []
