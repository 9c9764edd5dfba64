"""Karpathy's JSON with features beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_boxes, random_regions, write_karpathy
from tshsr.data.karpathy import open_karpathy, read_images
from tshsr.data.layouts import open_split, splits_of
from tshsr.errors import DataError

SPLITS = ["test", "train", "restval", "val", "test"]
CAPTIONS = [5, 6, 1, 5, 2]


def test_rows_of_the_features_follow_the_json(tmp_path: Path) -> None:
    write_karpathy(tmp_path, SPLITS, CAPTIONS)
    regions, boxes = random_regions(5), random_boxes(5)
    np.save(tmp_path / "features.npy", regions)
    np.save(tmp_path / "boxes.npy", boxes)
    assert splits_of(tmp_path) == ("dev", "test", "train")
    test = open_split(tmp_path, "test")
    assert np.array_equal(test.regions.read([0, 1]).regions.numpy(), regions[[0, 4]])
    assert np.array_equal(test.regions.read([1]).boxes.numpy(), boxes[[4]])  # type: ignore[union-attr]
    assert test.image_of_caption.tolist() == [0] * 5 + [1] * 2
    assert test.captions[5] == "Image 4 caption 0."
    assert test.image_ids == ("1000", "1004")
    assert test.files == ("picture0.jpg", "picture4.jpg")
    assert (test.data, test.extractor) == ("small", "precomp-4")


def test_restval_joins_train_and_val_is_dev(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, SPLITS, CAPTIONS)
    np.save(tmp_path / "features.npy", random_regions(5))
    assert open_split(path, "train").image_ids == ("1001", "1002")
    assert open_split(path, "restval").name == "train"
    assert open_split(path, "val").image_ids == open_split(path, "dev").image_ids == ("1003",)


@pytest.mark.parametrize("way", ["picture{0}", "{1}", "{0}"])
def test_a_folder_of_features_has_one_file_an_image(tmp_path: Path, way: str) -> None:
    write_karpathy(tmp_path, SPLITS, CAPTIONS)
    (tmp_path / "features").mkdir()
    arrays = [random_regions(1, regions=2 + i, seed=i)[0] for i in range(5)]
    for i, array in enumerate(arrays):
        np.save(tmp_path / "features" / f"{way.format(i, 1000 + i)}.npy", array)
    test = open_split(tmp_path, "test")
    assert test.regions.regions == 6
    batch = test.regions.read([0, 1])
    assert batch.mask.sum(dim=1).tolist() == [2, 6]
    assert np.array_equal(batch.regions[0, :2].numpy(), arrays[0])
    assert np.array_equal(batch.regions[1].numpy(), arrays[4])


def test_an_imgid_is_not_taken_for_the_coco_id_of_another_image(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, ["test", "test"], [1, 1])
    values = json.loads(path.read_text())
    values["images"][0]["cocoid"] = 1  # also the imgid of the other image
    path.write_text(json.dumps(values))
    (tmp_path / "features").mkdir()
    for i in range(2):
        np.save(tmp_path / "features" / f"{i}.npy", np.full((1, 4), i, np.float32))
    regions = open_split(tmp_path, "test").regions.read([0, 1]).regions
    assert regions[:, 0, 0].tolist() == [0, 1]


def write_numbered(folder: Path, images: list[tuple[str, str, str]], features: range) -> None:
    """A JSON of images (folder, picture file, split), and features that hold the numbers of their files."""
    path = write_karpathy(folder, [split for *_, split in images], [1] * len(images))
    values = json.loads(path.read_text())
    for entry, (place, file, _) in zip(values["images"], images, strict=True):
        entry |= {"filepath": place, "filename": file, "cocoid": None}
    path.write_text(json.dumps(values))
    (folder / "features").mkdir()
    for number in features:
        np.save(folder / "features" / f"{number}.npy", np.full((1, 4), number, np.float32))


def read_numbers(data: Path, split: str) -> list[float]:
    opened = open_split(data, split)
    return opened.regions.read(list(range(len(opened.regions)))).regions[:, 0, 0].tolist()  # type: ignore[no-any-return]


def test_files_of_features_are_named_in_one_way_in_all_splits(tmp_path: Path) -> None:
    images = [("", f"{row + 1}.jpg", "train" if row < 4 else "test") for row in range(5)]
    write_numbered(tmp_path / "imgids", images, range(5))
    assert [read_numbers(tmp_path / "imgids", split) for split in ("train", "test")] == [[0, 1, 2, 3], [4]]
    write_numbered(tmp_path / "both", images, range(6))
    with pytest.raises(DataError, match="for as many images by picture file as by imgid"):
        open_split(tmp_path / "both", "test")


def test_picture_files_of_one_name_in_two_folders_do_not_share_features(tmp_path: Path) -> None:
    write_numbered(tmp_path, [("cat", "1.jpg", "train"), ("dog", "1.jpg", "train")], range(2))
    assert read_numbers(tmp_path, "train") == [0, 1]
    assert open_split(tmp_path, "train").image_ids == ("1.jpg", "1.jpg")


def test_boxes_of_a_folder_are_padded_for_the_whole_set(tmp_path: Path) -> None:
    write_karpathy(tmp_path, ["train", "test"], [1, 1])
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "0.npy", random_regions(1, 3)[0])
    np.save(tmp_path / "features" / "1.npy", random_regions(1, 2)[0])
    boxes = random_boxes(2)
    np.save(tmp_path / "boxes.npy", boxes)
    read = open_split(tmp_path, "test").regions.boxes
    assert read is not None
    assert np.array_equal(read, boxes[1:, :2])
    np.save(tmp_path / "boxes.npy", boxes[:1])
    with pytest.raises(DataError, match="boxes of 1 images; expected 2"):
        open_split(tmp_path, "test")


def test_a_missing_feature_file_is_named(tmp_path: Path) -> None:
    write_karpathy(tmp_path, SPLITS, CAPTIONS)
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "picture0.npy", random_regions(1)[0])
    with pytest.raises(DataError, match=r"lacks 1 of 2 files, for example picture4.npy"):
        open_split(tmp_path, "test")


def test_features_of_another_number_of_images_are_refused(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, SPLITS, CAPTIONS)
    np.save(tmp_path / "features.npy", random_regions(4))
    with pytest.raises(DataError, match="features of 4 images; expected 5, one row per image in the order of the JSON"):
        open_karpathy(path, "test")


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    write_karpathy(tmp_path, SPLITS, CAPTIONS)
    with pytest.raises(DataError, match="has no split 'testall'; it has dev, test, train"):
        open_split(tmp_path, "testall")


def test_several_data_sets_in_a_folder_must_be_named(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, SPLITS, CAPTIONS)
    (tmp_path / "dataset_other.json").write_bytes(path.read_bytes())
    np.save(tmp_path / "features.npy", random_regions(5))
    with pytest.raises(DataError, match=r"several data sets \(dataset_other.json, dataset_small.json\)"):
        open_split(tmp_path, "test")
    assert len(open_split(path, "test").regions) == 2


def test_sentences_without_raw_text_are_joined_from_their_words(tmp_path: Path) -> None:
    path = write_karpathy(tmp_path, ["test"], [1])
    values = json.loads(path.read_text())
    tokens = ["a", "dog"]
    values["images"][0]["sentences"] = [{"tokens": tokens, "imgid": 0}, {"raw": None, "tokens": tokens}, {"raw": "cat"}]
    values["images"][0] |= {"cocoid": None, "filepath": None, "imgid": None}
    path.write_text(json.dumps(values))
    (image,) = read_images(path)
    assert image.captions == ("a dog", "a dog", "cat")
    assert (image.cocoid, image.folder, image.imgid) == (None, "", "0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filename": 3}, r"images\[0\] has no filename"),
        ({"split": "extra"}, r"images\[0\] has split 'extra'; expected one of train, restval, val, test"),
        ({"sentences": []}, r"images\[0\] \(picture0.jpg\) lacks sentences"),
        ({"sentences": [{"imgid": 0}]}, "neither raw text nor tokens"),
        ({"sentences": [{"imgid": 0, "raw": " "}]}, "neither raw text nor tokens"),
        ({"sentences": [{"imgid": 0, "raw": 5}]}, "neither raw text nor tokens"),
        ({"sentences": [{"imgid": 0, "tokens": [1, 2]}]}, "neither raw text nor tokens"),
        ({"sentences": [{"imgid": 0, "tokens": None}]}, "neither raw text nor tokens"),
    ],
)
def test_an_entry_that_lacks_something_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_karpathy(tmp_path, ["test"], [1], **change)
    with pytest.raises(DataError, match=message):
        read_images(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"images": []}', '{"images": 3}', "\udcff"])
def test_a_file_that_is_no_dataset_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset_x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"dataset_x.json (is not valid JSON|has no list of images)"):
        read_images(path)


def test_pictures_are_found_in_their_own_folder(tmp_path: Path) -> None:
    write_karpathy(tmp_path, ["test"], [1], filepath="val2014")
    np.save(tmp_path / "features.npy", random_regions(1))
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    (tmp_path / "images" / "val2014" / "picture0.jpg").touch()
    assert open_split(tmp_path, "test").picture(0) == tmp_path / "images" / "val2014" / "picture0.jpg"
