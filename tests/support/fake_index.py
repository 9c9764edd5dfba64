"""An index in memory with the interface of the real one, and small pictures to put into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.scripted import FEATURES, real
from tshsr.errors import DataError, UnknownPictureError
from tshsr.explain.attribution import Explanation, explain_pair
from tshsr.explain.word_boxes import WordBoxes
from tshsr.features.extractor import PictureRegions
from tshsr.index.search import CaptionResult, Result
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever, as_batch

COLOURS = ("red", "green", "blue", "orange", "purple", "teal")
CAPTIONS = tuple(f"a {colour} square on a white table" for colour in COLOURS)


@dataclass(frozen=True)
class Colours:
    """Describes a picture by the mean and the spread of the colours of its four quarters."""

    name: str = "random"
    settings: dict[str, Any] = field(default_factory=dict)
    feature_dim: int = FEATURES
    joint_dim: int = 0
    regions: int = 4
    in_processes: bool = False

    def prepare(self, picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.resize((16, 16)), np.float32) / 255

    def compute(self, prepared: Sequence[np.ndarray]) -> list[PictureRegions]:
        corners = [(x, y) for y in (0, 8) for x in (0, 8)]
        boxes = np.array([(x / 16, y / 16, x / 16 + 0.5, y / 16 + 0.5) for x, y in corners], np.float32)
        cuts = [[pixels[y : y + 8, x : x + 8].reshape(-1, 3) for x, y in corners] for pixels in prepared]
        return [
            PictureRegions(np.stack([np.concatenate([cut.mean(0), cut.std(0)]) for cut in four]), boxes)
            for four in cuts
        ]

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        return self.compute([self.prepare(picture) for picture in pictures])


@dataclass(frozen=True, eq=False)
class Picture:
    """The regions of a picture; equal where they have the same bytes."""

    regions: PictureRegions

    def bytes(self) -> tuple[bytes, bytes]:
        return self.regions.features.tobytes(), self.regions.boxes.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and self.bytes() == other.bytes()

    def __hash__(self) -> int:
        return hash(self.bytes())


@cache
def explained(retriever: Retriever, picture: Picture, text: str) -> Explanation:
    """The explanation of a pair; every server runs the same first query."""
    return explain_pair(retriever, as_batch(picture.regions.features, picture.regions.boxes), text)


@dataclass
class FakeIndex:
    """Scores every picture with a real network; `queries` records the searches."""

    retriever: Retriever
    files: dict[str, Path | None]
    regions: dict[str, PictureRegions]
    sentences: Sequence[str]
    folder: Path
    tool: Any = None
    queries: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def captions(self) -> int:
        return len(self.sentences)

    def search(self, text: str, k: int = 10, *, where: str | None = None) -> list[Result]:
        self.queries.append(text)
        known = self.regions.values()
        batch = as_batch(np.stack([it.features for it in known]), np.stack([it.boxes for it in known]))
        scores = dict(zip(self.regions, self.retriever.score(batch, text)[:, 0].tolist(), strict=True))
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:k]
        return [self.result(name, scores[name], text) for name in best]

    def encoded_pictures(self, ids: Sequence[str]) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        unknown = [name for name in ids if name not in self.regions]
        if unknown:
            raise UnknownPictureError(f"{self.folder} has no picture {unknown[0]!r}.")
        found = [self.regions[name] for name in ids]
        batch = as_batch(np.stack([it.features for it in found]), np.stack([it.boxes for it in found]))
        return self.retriever.encode_images(batch), [it.boxes for it in found]

    def result(self, name: str, score: float, text: str) -> Result:
        explanation = self.explain(text, name)
        words = []
        for word, row in zip(explanation.words, explanation.streams["word_stream"].word_regions, strict=True):
            heaviest = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:5]
            boxes = tuple((*map(float, explanation.boxes[region]), row[region]) for region in heaviest)
            words.append(WordBoxes(word, boxes))
        file = self.files[name]
        return Result(name, None if file is None else str(file), score, tuple(words), {"place": "Oslo"})

    def search_picture(self, picture: PictureRegions, k: int = 10) -> list[CaptionResult]:
        scores = self.retriever.score(as_batch(picture.features, picture.boxes), list(self.sentences))[0].tolist()
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:k]
        return [CaptionResult(f"caption-{n}", self.sentences[n], next(iter(self.files)), scores[n]) for n in best]

    def explain(self, text: str, id: str) -> Explanation:  # noqa: A002
        if id not in self.regions:
            raise UnknownPictureError(f"{self.folder} has no picture {id!r}.")
        return explained(self.retriever, Picture(self.regions[id]), text)

    def unknown_words(self, text: str) -> tuple[str, ...]:
        known = self.retriever.tokenizer.rules.get_vocab()
        return tuple(word for word in self.retriever.tokenizer.words(text) if word.lower() not in known)

    def picture_file(self, id: str) -> Path | None:  # noqa: A002
        return self.files.get(id)

    def sample_captions(self, count: int) -> Sequence[str]:
        return self.sentences[:count]

    def extractor(self) -> Any:
        if self.tool is None:
            raise DataError("the features of this index were made by another tool; pictures can't be described here.")
        return self.tool


@cache
def network() -> Retriever:
    """An untrained network over the words of the captions."""
    return real(list(CAPTIONS))


def make_pictures(folder: Path) -> list[Path]:
    """A square of each colour on white, as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (120 + 20 * number, 100), "white")
        picture.paste(Image.new("RGB", (50, 50), colour), (10 + 10 * number, 40))
        picture.save(folder / f"{colour}.jpg", quality=90)
        files.append(folder / f"{colour}.jpg")
    return files


def make_index(folder: Path, *, uploads: bool = True) -> FakeIndex:
    """An index of `make_pictures` under an untrained network."""
    files, tool = make_pictures(folder), Colours()
    regions = tool.extract([Image.open(file).convert("RGB") for file in files])
    ids = [f"pictures/{file.name}" for file in files]
    return FakeIndex(
        retriever=network(),
        files=dict(zip(ids, files, strict=True)),
        regions=dict(zip(ids, regions, strict=True)),
        sentences=CAPTIONS,
        folder=folder,
        tool=tool if uploads else None,
    )
