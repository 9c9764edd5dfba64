"""A source of pictures without ids, for the reranker."""

from __future__ import annotations

import numpy as np

from tests.support.fake_index import Colours
from tshsr.errors import DataError
from tshsr.models.base import ItemEncoding


class Camera:
    """A source without ids, whose pictures are described by their colours."""

    def __len__(self) -> int:
        return 0

    def encoded_pictures(self, ids: object) -> tuple[ItemEncoding, list[np.ndarray | None]]:
        raise DataError(f"there is no picture {ids}.")

    def extractor(self) -> Colours:
        return Colours()
