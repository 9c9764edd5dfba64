"""A reranker over the small index; tests change neither."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.indexed import Small
    from tshsr.reranking.reranker import Reranker


@pytest.fixture(scope="session")
def reranker(small: Small, index_folder: Path) -> Reranker:
    from tshsr.reranking.reranker import Reranker

    return Reranker.from_pretrained(small.run, source=index_folder)
