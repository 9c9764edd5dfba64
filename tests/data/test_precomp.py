"""SCAN's layout: the number of captions an image follows from the counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_boxes, random_regions, real_data, write_precomp
from tshsr.data.layouts import open_split
from tshsr.data.precomp import open_precomp, precomp_splits
from tshsr.errors import DataError


@pytest.mark.parametrize("each", [1, 2, 5])
def test_captions_follow_their_image(tmp_path: Path, each: int) -> None:
    write_precomp(tmp_path, "dev", random_regions(10), each=each)
    split = open_precomp(tmp_path, "dev")
    assert len(split.captions) == 10 * each
    for caption, image in zip(split.captions, split.image_of_caption.tolist(), strict=True):
        assert caption.startswith(f"image {image} caption")
    assert split.image_ids == tuple(str(image) for image in range(10))
    assert split.extractor == "precomp-4"
    assert split.name == "dev"
    assert split.data == tmp_path.name


def test_rows_repeated_five_times_are_one_image(tmp_path: Path) -> None:
    regions, boxes = random_regions(10), random_boxes(10)
    write_precomp(tmp_path, "test", np.repeat(regions, 5, axis=0), each=1, boxes=np.repeat(boxes, 5, axis=0))
    split = open_precomp(tmp_path, "test")
    assert len(split.regions) == 10
    assert split.image_of_caption.tolist() == [i // 5 for i in range(50)]
    assert np.array_equal(split.regions.read([7, 2]).regions.numpy(), regions[[7, 2]])
    assert split.regions.boxes is not None
    assert np.array_equal(split.regions.boxes, boxes)


def test_as_many_different_rows_as_captions_are_one_caption_an_image(tmp_path: Path) -> None:
    regions = np.repeat(random_regions(20), 5, axis=0)
    regions[99, 2, 3] += 1  # the last group differs in a single value
    write_precomp(tmp_path, "test", regions, each=1)
    assert len(open_precomp(tmp_path, "test").regions) == 100


def test_captions_that_are_no_multiple_of_the_images_are_refused(tmp_path: Path) -> None:
    write_precomp(tmp_path, "test", random_regions(4), each=5)
    with (tmp_path / "test_caps.txt").open("a") as file:
        file.write("one more\n")
    with pytest.raises(DataError, match=r"21 captions for 4 images.*21 is not a multiple of 4. Is test_caps.txt from"):
        open_precomp(tmp_path, "test")


def test_more_rows_than_captions_are_refused(tmp_path: Path) -> None:
    write_precomp(tmp_path, "test", random_regions(10), each=1)
    (tmp_path / "test_caps.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="2 captions for 10 images"):
        open_precomp(tmp_path, "test")


def test_ids_may_be_given_for_each_image_or_each_caption(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(3)]
    write_precomp(tmp_path, "a", random_regions(3), ids=names)
    write_precomp(tmp_path, "b", random_regions(3), ids=[name for name in names for _ in range(5)])
    write_precomp(tmp_path, "c", random_regions(3), ids=[str(900 + i) for i in range(15)])
    assert open_precomp(tmp_path, "a").image_ids == tuple(names)
    assert open_precomp(tmp_path, "b").image_ids == tuple(names)
    assert open_precomp(tmp_path, "c").image_ids == ("0", "1", "2")  # ids of captions do not identify images


def test_a_wrong_number_of_ids_is_refused(tmp_path: Path) -> None:
    write_precomp(tmp_path, "a", random_regions(3), ids=["x", "y"])
    with pytest.raises(DataError, match="2 ids for 3 images and 15 captions"):
        open_precomp(tmp_path, "a")


def test_boxes_are_read_from_either_file(tmp_path: Path) -> None:
    boxes = random_boxes(3)
    write_precomp(tmp_path, "a", random_regions(3), boxes=boxes)
    write_precomp(tmp_path, "b", random_regions(3))
    np.save(tmp_path / "b_boxes.npy", boxes)
    for name in "ab":
        read = open_precomp(tmp_path, name).regions.boxes
        assert read is not None
        assert np.array_equal(read, boxes)


def test_image_vectors_are_read_with_their_images(tmp_path: Path) -> None:
    pooled = random_regions(10)[:, 0]
    write_precomp(tmp_path, "a", random_regions(2).repeat(5, axis=0), each=1, pooled=pooled)
    assert np.array_equal(open_precomp(tmp_path, "a").regions.read([1, 0]).pooled, pooled[[5, 0]])
    np.save(tmp_path / "a_pooled.npy", pooled[:2])
    with pytest.raises(DataError, match=r"a_pooled\.npy has the image vectors of 2 images; .*a_ims\.npy holds 10"):
        open_precomp(tmp_path, "a")


def test_damaged_boxes_are_refused(tmp_path: Path) -> None:
    write_precomp(tmp_path, "a", random_regions(3), boxes=random_boxes(2))
    with pytest.raises(DataError, match="boxes of 2 images; expected 3"):
        open_precomp(tmp_path, "a")
    np.savez(tmp_path / "a_boxes.npz", other=random_boxes(3))
    with pytest.raises(DataError, match=r"a_boxes.npz: cannot read an array named boxes"):
        open_precomp(tmp_path, "a")
    (tmp_path / "a_boxes.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"a_boxes.npz: cannot read an array named boxes"):
        open_precomp(tmp_path, "a")


def test_a_text_file_names_the_extractor(tmp_path: Path) -> None:
    write_precomp(tmp_path, "a", random_regions(3))
    (tmp_path / "extractor.txt").write_text("bottom-up-attention\n")
    assert open_precomp(tmp_path, "a").extractor == "bottom-up-attention"


def test_a_split_needs_features_and_captions(tmp_path: Path) -> None:
    write_precomp(tmp_path, "testall", random_regions(3))
    np.save(tmp_path / "lonely_ims.npy", random_regions(1))
    (tmp_path / "other_caps.txt").write_text("a\n")
    assert precomp_splits(tmp_path) == ("testall",)


def test_the_real_flickr8k_opens_with_five_captions_an_image() -> None:
    folder = real_data("flickr8k")
    for name, images in (("train", 6000), ("val", 1000), ("test", 1000)):
        split = open_split(folder, name)
        assert len(split.regions) == images
        assert np.bincount(split.image_of_caption).tolist() == [5] * images
        assert (split.regions.regions, split.regions.feature_dim, split.extractor) == (36, 256, "precomp-256")
        assert split.regions.boxes is not None
        assert split.regions.boxes[:, 20].tolist() == [[0, 0, 1, 1]] * images  # window 20 is the whole picture
        assert split.image_ids[0].endswith(".jpg")
    picture = split.picture(999)
    assert picture is not None
    assert picture.name == split.image_ids[999]
    raw = np.load(folder / "test_ims.npy", mmap_mode="r")
    assert np.array_equal(split.regions.read([3, 999]).regions.numpy(), raw[[3, 999]].astype(np.float32))


def test_the_real_captions_of_coco_and_flickr30k_are_complete() -> None:
    counts = {
        "coco_precomp/testall": 25000,
        "coco_precomp/dev": 5000,
        "f30k_precomp/test": 5000,
        "f30k_precomp/dev": 5070,
    }
    for name, count in counts.items():
        folder, split = name.split("/")
        path = real_data(folder) / f"{split}_caps.txt"
        assert path.read_bytes().count(b"\n") == count
