"""`tshsr index` with data of several splits, and with metadata that it must refuse before anything changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.data_files import random_regions, write_precomp
from tests.support.indexed import Small
from tshsr.index.collection import Index


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Splits dev and test of three pictures each."""
    folder = tmp_path / "scan"
    for seed, split in enumerate(("dev", "test")):
        names = [f"{split}{number}.jpg" for number in range(3)]
        write_precomp(folder, split, random_regions(3, features=6, seed=seed), ids=names, each=1)
    (folder / "extractor.txt").write_text("small\n")
    return folder


def test_metadata_of_one_split_goes_with_all_of_them(
    small: Small, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "facts.csv").write_text("file,year\ntest0.jpg,2000\ntest2.jpg,2002\nmissing.jpg,1\n")
    start = ("index", small.run, "--data", data, "--out", tmp_path / "index", "--device", "cpu", "--quiet")
    said = tshsr(*start, "--metadata", tmp_path / "facts.csv")
    assert said.code == 0, said.err
    assert "holds 6 pictures and 6 captions" in said.out
    found = Index.open(tmp_path / "index").search("a red dog")
    known = {result.id: result.metadata["year"] for result in found}
    assert known == {name: {"test0.jpg": 2000, "test2.jpg": 2002}.get(name) for name in known}
    assert len(known) == 6
    assert caplog.text.count("entries of") == caplog.text.count("1 entries of") == 1, "of all splits together"


def test_metadata_that_cannot_be_used_is_refused_before_anything_changes(
    small: Small, data: Path, tmp_path: Path
) -> None:
    out, facts = tmp_path / "index", tmp_path / "facts.csv"
    start = ("index", small.run, "--data", data, "--out", out, "--device", "cpu", "--quiet")
    for text, said in (
        ("id\nmissing\n", "has the columns id; expected id or file, and others"),
        ("id,year\nmissing,1\n", "facts.csv names none of the 6 pictures of scan, such as 'dev0.jpg'"),
    ):
        facts.write_text(text)
        assert said in refused(*start, "--metadata", facts)
        assert not out.exists()
    for more, said in (
        (("--pictures", tmp_path / "nowhere"), "nowhere is no folder of pictures"),
        (("--engine-workers", "2"), "--engine-workers is for --engine ray; give both, or neither."),
        (("--delete", "dev0.jpg"), "does not exist; make one with tshsr index"),
    ):
        assert said in refused(*start, *more)
        assert not out.exists()
    assert tshsr(*start).code == 0
    assert "names none of" in refused(*start, "--metadata", facts, "--delete", "dev0.jpg")
    assert len(Index.open(out)) == 6, "nothing was deleted"
    said = tshsr("index", small.run, "--out", out, "--delete", "dev0.jpg", "dev0.jpg", "--device", "cpu")
    assert said.out.splitlines()[0] == "1 pictures removed."
