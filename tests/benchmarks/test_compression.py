"""benchmarks.compression: bytes a picture against recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compression
from benchmarks.compression import Compression, measure, row_of
from benchmarks.tables import compression_table
from tests.support.indexed import Small
from tests.support.small_runs import small_split

MADE = {"hardware": "a machine", "versions": {"torch": "2"}, "commit": "0" * 40, "command": "x", "candidates": 50}


def test_a_row_has_recalls_and_the_change_of_their_sum(tmp_path: Path) -> None:
    split = small_split(tmp_path, "test", 4)
    plain, ranks = np.array([1, 1, 6, 2, 1, 11, 1, 1]), np.array([1, 2, 6, 2, 1, 11, 1, 1])
    row = row_of("learned", "int8", 8, 100, ranks, plain, split)
    assert row["recalls"] == [50.0, 75.0, 87.5]
    assert row["change"] == pytest.approx(-12.5)
    assert row["low"] <= row["change"] <= row["high"] == 0
    text = compression_table({"compression": [row_of("all", "float16", 16, 200, plain, plain, split), row], **MADE})
    assert "| 16 | float16 | 200 | 62.5 | 75.0 | 87.5 |  |" in text
    assert "| 8 learned | int8 | 100 | 50.0 | 75.0 | 87.5 | -12.5 [" in text


def test_every_kind_of_index_is_measured(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "open_split", lambda _, name: replace(small.split(), name=name))
    rows = measure(Compression(data=small.store, run=small.run, regions=(2, 50), steps=2))
    assert [(row["title"], row["tokens"], row["regions"]) for row in rows] == [
        ("all", "float16", 3),
        ("all", "int8", 3),
        ("clusters", "float16", 2),
        ("learned", "float16", 2),
        ("learned", "int8", 2),
    ]
    assert [row["bytes"] for row in rows] == [3 * 16 + 32, 3 * 8 + 32, 2 * 20 + 32, 2 * 20 + 32, 2 * 12 + 32]
    assert rows[0]["change"] == rows[0]["low"] == rows[0]["high"] == 0
