"""What the server answers, as models: they are checked on the way out and described at /docs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from tshsr.explain.attribution import Explanation

Box = tuple[float, float, float, float, float]


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="One sentence: what was expected, what came, what to do.")


class Health(BaseModel):
    """That the server is alive, and what it holds."""

    status: str = Field(description="ok, or busy while as much waits as may wait.")
    pictures: int = Field(description="Indexed pictures.")
    captions: int = Field(description="Indexed captions, for questions by picture.")
    version: str


class About(BaseModel):
    """What the page needs to know before the first question."""

    model: str = Field(description="The run that answers.")
    pictures: int
    captions: int
    examples: list[str] = Field(description="Queries to try, from the index's captions.")
    uploads: str | None = Field(description="Why pictures can't be sent; null where they can.")
    upload_bytes: int = Field(description="The largest picture file.")
    query_characters: int = Field(description="The longest query.")
    results: int = Field(description="The most results of one question.")


class WordAnswer(BaseModel):
    """A word of the query and the regions that it met."""

    word: str
    boxes: list[Box] = Field(description="x1, y1, x2, y2 as fractions of the picture, and a weight; heaviest first.")


class PictureAnswer(BaseModel):
    """A picture that was found."""

    id: str
    file: str | None = Field(description="Its file's name; null where only its features are known.")
    score: float
    width: int | None = Field(description="Pixels, upright; null where the file can't be read now.")
    height: int | None
    words: list[WordAnswer]
    metadata: dict[str, Any]


class PictureAnswers(BaseModel):
    """Pictures for a sentence, best first."""

    query: str
    unknown: list[str] = Field(description="Words of the query that the network never learned.")
    results: list[PictureAnswer]
    seconds: float


class CaptionAnswer(BaseModel):
    """A caption that was found."""

    id: str
    caption: str
    image: str | None = Field(description="The id of the picture that it was written for, where that is known.")
    score: float


class CaptionAnswers(BaseModel):
    """Captions for a picture, best first."""

    results: list[CaptionAnswer]
    seconds: float


class Scores(BaseModel):
    """All scores of one pair."""

    query: str
    unknown: list[str] = Field(description="Words of the query that the network never learned.")
    scores: dict[str, float] = Field(description="By name: fused, and those of streams and levels.")


class ExplanationAnswer(BaseModel):
    """Which word met which region, per stream and per level."""

    id: str | None = Field(description="The indexed picture; null for one that was sent.")
    file: str | None
    width: int | None
    height: int | None
    unknown: list[str] = Field(description="Words of the query that the network never learned.")
    explanation: Explanation
