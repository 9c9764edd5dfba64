"""Captions of a folder of pictures."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.support.data_files import write_karpathy
from tshsr.data.picture_captions import PictureCaption, read_picture_captions, split_of
from tshsr.data.pictures import PictureFile
from tshsr.errors import DataError

FILES = [PictureFile(name, name, 1, 1) for name in ("a/one.jpg", "b/one.jpg", "two.jpg", "picture0.jpg")]


def read(tmp_path: Path, text: str) -> list[PictureCaption]:
    path = tmp_path / "captions.txt"
    path.write_text(text, encoding="utf-8")
    return read_picture_captions(path, FILES)


def test_lines_name_a_picture_a_caption_and_a_split(tmp_path: Path) -> None:
    told = read(tmp_path, "two.jpg\ta dog\ttest\na/one.jpg\ta cat\tdev\nnowhere.jpg\tnothing\ttrain\n")
    assert told == [PictureCaption("two.jpg", "a dog", "test"), PictureCaption("a/one.jpg", "a cat", "dev")]


def test_numbered_captions_of_flickr_are_read_and_get_a_split_by_the_name(tmp_path: Path) -> None:
    told = read(tmp_path, "two.jpg#0\ta dog\ntwo.jpg#1\ta brown dog\n")
    assert [one.text for one in told] == ["a dog", "a brown dog"]
    assert {one.split for one in told} == {split_of("two.jpg")}


def test_a_path_in_the_folder_comes_before_the_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("one.jpg\ta dog\n")
    found = read_picture_captions(path, [PictureFile(name, name, 1, 1) for name in ("one.jpg", "a/one.jpg")])
    assert [one.file for one in found] == ["one.jpg"]


def test_names_that_look_equal_are_one_and_exact_ones_come_first(tmp_path: Path) -> None:
    names = (unicodedata.normalize("NFD", "café.jpg"), " first.jpg", "last.jpg ", "x#1", "x")
    path = tmp_path / "captions.txt"
    written = ("café.jpg", " first.jpg", "last.jpg ", "x#1", "x#2")
    path.write_text("".join(f"{name}\ta dog\ttrain\n" for name in written), encoding="utf-8")
    found = read_picture_captions(path, [PictureFile(name, name, 1, 1) for name in names])
    assert [one.file for one in found] == list(names)


@pytest.mark.parametrize(
    ("name", "problem"), [("one.jpg", "the name of several files"), ("three.jpg", "which is not in the folder")]
)
def test_captions_that_are_left_out_are_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, problem: str
) -> None:
    for _ in range(2):
        assert len(read(tmp_path, f"two.jpg\ta dog\n{name}\ta cat\n{name}\ta dog\n")) == 1
    sentence = (
        f"{tmp_path / 'captions.txt'}: 2 of 3 captions are left out, the first of the picture {name!r}, {problem}."
    )
    assert caplog.messages == [sentence]


def test_a_picture_in_two_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"captions\.txt: 'two\.jpg' is in the splits train and test; a picture belongs to one\."
    ):
        read(tmp_path, "two.jpg\ta dog\ttrain\na/one.jpg\ta cat\ttest\ntwo.jpg\ta brown dog\ttest\n")


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_split_of_one_line_applies_to_all_captions_of_the_picture(tmp_path: Path, split: str) -> None:
    told = read(tmp_path, f"two.jpg\ta dog\ntwo.jpg\ta brown dog\t{split}\na/one.jpg\ta cat\n")
    assert [one.split for one in told] == [split, split, split_of("a/one.jpg")]


def test_a_file_name_in_two_folders_matches_neither(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of its 1 captions names a picture of the folder; the first names 'one.jpg'"
    ):
        read(tmp_path, "one.jpg\ta cat\n")


def test_splits_by_name_are_eight_to_one_to_one() -> None:
    counts = dict.fromkeys(("train", "dev", "test"), 0)
    for number in range(2000):
        counts[split_of(f"{number}.jpg")] += 1
    assert 1500 < counts["train"] < 1700
    assert min(counts.values()) > 150


@pytest.mark.parametrize("line", ["two.jpg a dog", "two.jpg\t", "\ta dog", "two.jpg\ta\tb\tc", "two.jpg\ta dog\tvalid"])
def test_another_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"captions.txt:2: .*; expected picture, tab, caption"):
        read(tmp_path, f"two.jpg\ta dog\n{line}\n")


def test_karpathys_json_is_read_with_its_splits(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, ["test", "train"], [2, 1])
    assert read_picture_captions(path, FILES) == [
        PictureCaption("picture0.jpg", "Image 0 caption 0.", "test"),
        PictureCaption("picture0.jpg", "Image 0 caption 1.", "test"),
    ]
