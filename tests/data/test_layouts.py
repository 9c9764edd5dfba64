"""Recognition of layouts, names of splits, and subsets of a split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_boxes, random_regions, small_store, write_karpathy, write_precomp
from tshsr.data.check import inspect
from tshsr.data.layouts import layout_of, open_split, select_images, splits_of
from tshsr.errors import DataError, InputError


def test_each_layout_is_recognised(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2))
    write_karpathy(tmp_path / "json", ["test"], [5])
    np.save(tmp_path / "json" / "features.npy", random_regions(1))
    small_store(tmp_path / "store")
    for name, layout in (("scan", "precomp"), ("json", "karpathy"), ("store", "store")):
        assert layout_of(tmp_path / name) == layout
        assert open_split(tmp_path / name, "test").name == "test"
        assert open_split(str(tmp_path / name), "test").data in (name, "small")
    assert splits_of(tmp_path / "store") == ("test", "train")
    assert splits_of(small_store(tmp_path / "bare", captions=[])) == ("all",)


@pytest.mark.parametrize(("there", "asked"), [("dev", "val"), ("val", "dev"), ("dev", "dev")])
def test_dev_and_val_mean_the_same(tmp_path: Path, there: str, asked: str) -> None:
    write_precomp(tmp_path, there, random_regions(2))
    assert open_split(tmp_path, asked).name == there


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    write_precomp(tmp_path, "test", random_regions(2))
    write_precomp(tmp_path, "train", random_regions(2))
    with pytest.raises(DataError, match="has no split 'testall'; it has test, train"):
        open_split(tmp_path, "testall")


def test_the_error_of_a_missing_folder_suggests_a_similar_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f30k_precomp").mkdir()
    for near in ("f30k", "f30k-precomp"):
        with pytest.raises(DataError, match=rf"{near} does not exist; did you mean {tmp_path}/f30k_precomp\? Name a"):
            open_split(tmp_path / near, "test")
    with pytest.raises(DataError, match=r"coco does not exist. Name a folder of data, or the word 'scenes'"):
        open_split(tmp_path / "coco", "test")
    with pytest.raises(DataError, match=r"xxx does not exist. Name a folder of data"):
        open_split("x" * 300, "test")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"scene does not exist; did you mean scenes\? Name"):
        open_split("scene", "test")
    with pytest.raises(DataError, match=r"a/b does not exist. Name a folder of data, or the word 'scenes'"):
        splits_of("no-such/a/b")


def test_the_error_of_an_unknown_layout_lists_the_folders_entries(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no known layout: it holds nothing. Expected a feature store"):
        splits_of(tmp_path)
    for number in range(10):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(DataError, match=r"it holds 0\.txt, .*, 7\.txt and 2 more\. Expected"):
        open_split(tmp_path, "test")
    with pytest.raises(DataError, match="has no known layout: it is a file"):
        open_split(tmp_path / "0.txt", "test")


def test_a_store_named_scenes_wins_over_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_store(tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    assert open_split("scenes", "train").extractor == "small"


def test_a_folder_of_data_named_scenes_is_written_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_precomp(tmp_path / "scenes", "test", random_regions(2))
    monkeypatch.chdir(tmp_path)
    for data in ("./scenes", Path("scenes")):
        assert inspect(data).layout == "precomp"
    with pytest.raises(DataError, match=r"the word for the built-in data, .*; write \./scenes for the folder"):
        open_split("scenes", "test")


def test_selected_images_keep_their_captions_and_are_renumbered(tmp_path: Path) -> None:
    write_precomp(tmp_path, "test", random_regions(4), each=2, ids=list("abcd"), boxes=random_boxes(4))
    split = open_split(tmp_path, "test")
    chosen = select_images(split, [3, 1])
    assert chosen.image_ids == ("d", "b")
    assert chosen.captions == tuple(f"image {image} caption {n}" for image in (1, 3) for n in (0, 1))
    assert chosen.image_of_caption.tolist() == [1, 1, 0, 0]
    assert np.array_equal(chosen.regions.read([0]).regions, split.regions.read([3]).regions)
    assert np.array_equal(chosen.regions.boxes[0], split.regions.boxes[3])  # type: ignore[index]


def test_selected_images_keep_their_picture_files(tmp_path: Path) -> None:
    chosen = select_images(open_split(small_store(tmp_path), "all"), [3, 1])
    assert chosen.files == ("i3.jpg", "i1.jpg")


def test_the_first_images_are_taken_by_count(tmp_path: Path) -> None:
    split = open_split(small_store(tmp_path), "all")
    first = select_images(split, 3)
    assert (first.image_ids, len(first.captions), first.files) == (
        ("i0", "i1", "i2"),
        6,
        ("i0.jpg", "i1.jpg", "i2.jpg"),
    )
    assert len(select_images(split, 99).image_ids) == 4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([1, 1], "an image twice"),
        ([9], "got image 9; expected"),
        ([], "expected a list of image numbers"),
        (0, "expected a list"),
    ],
)
def test_a_selection_that_cannot_be_made_is_refused(tmp_path: Path, images: list[int] | int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_images(open_split(small_store(tmp_path), "all"), images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_of_caption": np.zeros(3, np.int64)},
            r"int64 of shape \(3,\); expected one int64 for each of the 8 captions",
        ),
        ({"image_of_caption": np.zeros(8, np.int32)}, "image_of_caption is int32"),
        ({"image_of_caption": np.arange(8)}, "caption 4 belongs to image 4; there are images 0 to 3"),
        ({"image_of_caption": np.full(8, -1)}, "caption 0 belongs to image -1"),
        ({"image_ids": ("a",)}, "1 image ids for 4 images; expected one each"),
        ({"files": ("a",)}, "1 picture files for 4 images"),
    ],
)
def test_a_split_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    split = open_split(small_store(tmp_path), "all")
    with pytest.raises(DataError, match=message):
        replace(split, **changes)
