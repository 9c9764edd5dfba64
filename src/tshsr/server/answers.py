"""Response models of the server; they are validated, and described at /docs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from tshsr.explain.attribution import Explanation

Box = tuple[float, float, float, float, float]


class Problem(BaseModel):
    """An error response."""

    error: str = Field(description="One sentence: what was expected, what came, what to do.")


class Health(BaseModel):
    """State of the server and size of the index."""

    status: str = Field(description="ok, or busy while the queue is full.")
    pictures: int | None = Field(description="Indexed pictures; null where the index can't be read.")
    captions: int | None = Field(description="Indexed captions, for queries by picture; null likewise.")
    version: str


class Probe(BaseModel):
    """An answer to a probe."""

    status: str = Field(description="alive or ready.")


class About(BaseModel):
    """The model, the size of the index, example queries and limits."""

    model: str = Field(description="Name of the run.")
    pictures: int
    captions: int
    examples: list[str] = Field(description="Example queries, from the captions of the index.")
    uploads: str | None = Field(description="Why pictures can't be uploaded; null where they can.")
    upload_bytes: int = Field(description="Maximum size of a picture file.")
    query_characters: int = Field(description="Maximum length of a query.")
    results: int = Field(description="Maximum number of results.")


class WordAnswer(BaseModel):
    """A word of the query and its regions."""

    word: str
    boxes: list[Box] = Field(description="x1, y1, x2, y2 as fractions of the picture, and a weight; heaviest first.")


class PictureAnswer(BaseModel):
    """A picture result."""

    id: str
    file: str | None = Field(description="File name; null where only its features are indexed.")
    score: float
    probability: float | None = Field(description="Of a match; null for a network without a calibration.")
    width: int | None = Field(description="Pixels, EXIF orientation applied; null where the file can't be read.")
    height: int | None
    words: list[WordAnswer]
    metadata: dict[str, Any]


class PictureAnswers(BaseModel):
    """Pictures for a sentence, best first."""

    query: str
    unknown: list[str] = Field(description="Words of the query outside the vocabulary.")
    pictures: int = Field(description="Indexed pictures.")
    results: list[PictureAnswer]
    seconds: float


class CaptionAnswer(BaseModel):
    """A caption result."""

    id: str
    caption: str
    image: str | None = Field(description="Id of the picture that it describes, where known.")
    score: float
    probability: float | None = Field(description="Of a match; null for a network without a calibration.")


class CaptionAnswers(BaseModel):
    """Captions for a picture, best first."""

    captions: int = Field(description="Indexed captions.")
    results: list[CaptionAnswer]
    seconds: float


class Scores(BaseModel):
    """Scores of one pair."""

    query: str
    unknown: list[str] = Field(description="Words of the query outside the vocabulary.")
    scores: dict[str, float] = Field(description="By name: fused, streams and levels.")


class ExplanationAnswer(BaseModel):
    """Weights of each word over the regions, by stream and level."""

    id: str | None = Field(description="Id of the indexed picture; null for an uploaded one.")
    file: str | None
    width: int | None
    height: int | None
    unknown: list[str] = Field(description="Words of the query outside the vocabulary.")
    probability: float | None = Field(description="Of a match; null for a network without a calibration.")
    explanation: Explanation
