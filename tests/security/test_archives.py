"""Archives are read in place: a member's name leads nowhere."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_regions, write_precomp
from tests.support.payloads import escaping_archive
from tshsr.data.precomp import read_boxes
from tshsr.errors import TshsrError
from tshsr.evaluation.score_files import read_scores

NAMES = ("../mark.npy", "/tmp/mark.npy", "..\\mark.npy", "a/../../mark.npy", "fused.npy", "boxes.npy")


def test_an_archive_is_read_in_place_and_writes_nothing(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((2, 3, 4), np.float32))
    inner = tmp_path / "inner"
    write_precomp(inner, "test", random_regions(2))
    content = escaping_archive(NAMES, array.getvalue())
    (inner / "test_boxes.npz").write_bytes(content)
    (inner / "scores.npz").write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert read_boxes(inner / "test_boxes") is not None
    for key in ("fused", "../mark", "/tmp/mark"):
        with pytest.raises(TshsrError):
            read_scores(inner / "scores.npz", key=key)
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/tmp/mark.npy").exists()
