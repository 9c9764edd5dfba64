"""Tiny text encoders, each made once a worker."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a kind of text encoder."""
    from tests.support.tiny_text import save_text

    return functools.cache(lambda kind: str(save_text(kind, tmp_path_factory.mktemp("text") / kind)))
