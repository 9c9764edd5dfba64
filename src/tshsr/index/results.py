"""What a search finds, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class WordBoxes:
    """Where a picture answers to a word.

    Attributes:
        word: As the query spells it.
        boxes: x1, y1, x2, y2 (fractions of the picture) and the weight of each region, heaviest first, a few of them;
            empty where the pictures were indexed without boxes.
    """

    word: str
    boxes: tuple[tuple[float, float, float, float, float], ...]


@dataclass(frozen=True)
class Result:
    """A picture that was found.

    Attributes:
        id: Its name in the index.
        file: Its file: the whole path where the file was there when it was indexed, else the name that the data gave.
        score: The network's score of the picture with the query.
        words: The content words of the query, with their places; empty for a method that cannot be traced.
        metadata: What the user has told about the picture, by column.
    """

    id: str
    file: str | None
    score: float
    words: tuple[WordBoxes, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptionResult:
    """A sentence that was found for a picture.

    Attributes:
        id: Its name in the index.
        caption: The sentence.
        image: The name of the picture that it was written for.
        score: The network's score of the sentence with the picture.
    """

    id: str
    caption: str
    image: str
    score: float
