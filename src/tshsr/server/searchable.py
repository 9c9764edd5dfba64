"""What the server asks of an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tshsr.explain.attribution import Explanation
from tshsr.index.results import CaptionResult, Result
from tshsr.retriever import Retriever

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
