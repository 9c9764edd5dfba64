"""Archives are read in place: no name, of a member or of a picture, leads out of its folder."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.data_files import random_regions, write_precomp
from tests.support.payloads import escaping_archive
from tshsr.data.convert import convert
from tshsr.data.layouts import open_split
from tshsr.data.precomp import read_boxes
from tshsr.errors import DataError, TshsrError
from tshsr.evaluation.score_files import read_scores

NAMES = ("../mark.npy", "/tmp/mark.npy", "..\\mark.npy", "a/../../mark.npy", "fused.npy", "boxes.npy")


@pytest.mark.parametrize("name", ["../../outside.png", "a/../../../outside.png", "{outside}"])
def test_the_name_of_a_picture_leads_nowhere(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (4, 4)).save(outside)
    (tmp_path / "data" / "images").mkdir(parents=True)
    write_precomp(tmp_path / "data", "test", random_regions(1), ids=[name.format(outside=outside)])
    split = open_split(tmp_path / "data", "test")
    assert split.pictures is not None
    with pytest.raises(DataError, match=r"outside\.png' lies outside its folder; expected a name inside it"):
        split.picture(0)
    with pytest.raises(DataError, match="lies outside its folder"):
        convert(tmp_path / "data", tmp_path / "store")


def test_a_name_that_is_too_long_for_the_system_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_precomp(tmp_path, "test", random_regions(1), ids=["x" * 300])
    assert open_split(tmp_path, "test").picture(0) is None


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
