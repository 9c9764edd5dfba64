"""`data convert`."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.data_files import (
    failing_at,
    random_boxes,
    random_regions,
    real_data,
    small_store,
    write_karpathy,
    write_precomp,
)
from tests.support.picture_files import png_of_size
from tshsr.data.check import check_data
from tshsr.data.convert import convert
from tshsr.data.layouts import open_split, splits_of
from tshsr.data.store import DATA_FILES
from tshsr.errors import DataError


def same(tmp_path: Path, source: Path, store: Path) -> None:
    """Check that both have the same splits, but for image ids."""
    assert splits_of(source) == splits_of(store)
    assert check_data(store)[0] == []
    for name in splits_of(source):
        old, new = open_split(source, name), open_split(store, name)
        images = np.arange(len(old.regions))
        assert (old.captions, old.extractor) == (new.captions, new.extractor)
        assert np.array_equal(old.image_of_caption, new.image_of_caption)
        assert old.regions.dtype == new.regions.dtype
        a, b = old.regions.read(images), new.regions.read(images)
        assert np.array_equal(a.regions, b.regions)
        assert np.array_equal(a.mask, b.mask)
        assert (a.boxes is None) == (b.boxes is None)
        assert a.boxes is None or np.array_equal(a.boxes, b.boxes)  # type: ignore[arg-type]
        assert (a.pooled is None) == (b.pooled is None)
        assert a.pooled is None or np.array_equal(a.pooled, b.pooled)  # type: ignore[arg-type]


def test_a_precomp_folder_becomes_the_same_store(tmp_path: Path) -> None:
    for seed, (name, images) in enumerate((("train", 70), ("dev", 5), ("test", 3))):
        regions = random_regions(images, dtype="float16", seed=seed)
        write_precomp(tmp_path / "scan", name, regions, boxes=random_boxes(images))
    seen: list[tuple[int, int]] = []
    out = convert(tmp_path / "scan", tmp_path / "store", progress=lambda done, total: seen.append((done, total)))
    same(tmp_path, tmp_path / "scan", out)
    assert open_split(out, "dev").image_ids == tuple(f"dev/{i}" for i in range(5))
    assert seen[-1] == (78, 78)


def test_image_vectors_are_converted(tmp_path: Path) -> None:
    for name, images in (("train", 70), ("test", 3)):
        pooled = random_regions(images, seed=images)[:, 0]
        write_precomp(tmp_path / "scan", name, random_regions(images), pooled=pooled)
    out = convert(tmp_path / "scan", tmp_path / "store")
    same(tmp_path, tmp_path / "scan", out)
    assert open_split(out, "train").regions.joint_dim == 4
    (tmp_path / "scan/test_pooled.npy").unlink()
    with pytest.raises(DataError, match=r"image vectors of different widths \(test 0, train 4; 0: none\)\.$"):
        convert(tmp_path / "scan", tmp_path / "other")


def test_repeated_rows_are_stored_once(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", np.repeat(random_regions(10), 5, axis=0), each=1)
    out = convert(tmp_path / "scan", tmp_path / "store")
    assert np.load(out / "regions.npy").shape == (10, 3, 4)
    same(tmp_path, tmp_path / "scan", out)


def test_a_karpathy_folder_becomes_the_same_store(tmp_path: Path) -> None:
    source = tmp_path / "coco"
    write_karpathy(source, ["train", "val", "test", "train"], [5, 6, 1, 2])
    (source / "features").mkdir()
    for i in range(4):
        np.save(source / "features" / f"{i}.npy", random_regions(1, regions=1 + i, seed=i)[0])
    out = convert(source, tmp_path / "store", extractor="grid")
    stored = open_split(out, "train")
    assert stored.extractor == "grid"
    assert stored.regions.mask is not None
    (source / "extractor.txt").write_text("grid\n")
    same(tmp_path, source, out)


def test_the_larger_split_keeps_the_ids_of_images_that_are_in_two(tmp_path: Path) -> None:
    regions = random_regions(4)
    write_precomp(tmp_path / "coco", "test", regions[:2], ids=["391895", "60623"])
    write_precomp(tmp_path / "coco", "testall", regions, ids=["391895", "60623", "483108", "384213"])
    out = convert(tmp_path / "coco", tmp_path / "store")
    assert open_split(out, "testall").image_ids == ("391895", "60623", "483108", "384213")
    assert open_split(out, "test").image_ids == ("test/391895", "test/60623")
    same(tmp_path, tmp_path / "coco", out)


def test_duplicate_ids_of_a_split_become_unique(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(3), ids=["a", "a", "a"])
    out = convert(tmp_path / "scan", tmp_path / "store")
    assert open_split(out, "test").image_ids == ("a", "test/a", "test/a/2")


def test_pictures_are_recorded_with_their_sizes(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2), ids=["a.png", "b.png"])
    (tmp_path / "photos").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (6, 8)).save(tmp_path / "photos" / "a.png", exif=turned)
    out = convert(tmp_path / "scan", tmp_path / "store", pictures=tmp_path / "photos")
    lines = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "a.png", "file": "a.png", "width": 8, "height": 6}
    assert lines[1] == {"id": "b.png", "file": None, "width": 0, "height": 0}
    assert open_split(out, "test").picture(0) == (tmp_path / "photos" / "a.png").resolve()
    (tmp_path / "photos" / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png is no readable picture"):
        convert(tmp_path / "scan", tmp_path / "other", pictures=tmp_path / "photos")
    with pytest.raises(DataError, match="none is no folder; name the one that holds the pictures"):
        convert(tmp_path / "scan", tmp_path / "other", pictures=tmp_path / "none")


def test_opening_the_pictures_reports_progress_before_the_first_block(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    write_precomp(tmp_path / "scan", "test", random_regions(70), ids=[f"{i}.png" for i in range(70)])
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "photos" / "0.png")

    def convert_to(name: str, pictures: Path | None) -> None:
        convert(
            tmp_path / "scan",
            tmp_path / name,
            pictures=pictures,
            opening=lambda *now: reported.append(("open", *now)),
            progress=lambda *now: reported.append(("convert", *now)),
        )

    convert_to("store", tmp_path / "photos")
    assert reported == [("open", 64, 70), ("open", 70, 70), ("convert", 64, 70), ("convert", 70, 70)]
    reported.clear()
    convert_to("bare", None)
    assert reported == [("convert", 64, 70), ("convert", 70, 70)], "nothing was opened"


def test_boxes_of_only_some_splits_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2), boxes=random_boxes(2))
    write_precomp(tmp_path / "scan", "train", random_regions(2))
    with caplog.at_level(logging.WARNING):
        out = convert(tmp_path / "scan", tmp_path / "store")
    assert caplog.messages == ["Boxes are left out of the store: split train has none."]
    assert open_split(out, "test").regions.boxes is None


def test_splits_of_different_widths_are_not_mixed(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2))
    write_precomp(tmp_path / "scan", "train", random_regions(2, features=5))
    with pytest.raises(DataError, match=r"different widths \(test 4, train 5\); expected one extractor"):
        convert(tmp_path / "scan", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_or_the_source_itself_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a feature store already"):
        convert(small_store(tmp_path / "store"), tmp_path / "out")
    write_precomp(tmp_path / "scan", "test", random_regions(2))
    with pytest.raises(DataError, match="is the source itself; name another folder"):
        convert(tmp_path / "scan", tmp_path / "scan")
    path = write_karpathy(tmp_path / "json", ["test"], [1])
    with pytest.raises(DataError, match="is the source itself; name another folder"):
        convert(path, tmp_path / "json")


def test_another_store_is_no_target(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2))
    store = small_store(tmp_path / "store")
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    with pytest.raises(DataError, match=r"store is a feature store already; name another folder, or remove it first\."):
        convert(tmp_path / "scan", store)
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


@pytest.mark.parametrize("name", ["captions.jsonl", "mask.npy", "notes.txt"])
def test_a_folder_of_other_things_is_no_target(tmp_path: Path, name: str) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(2))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("my own")
    with pytest.raises(DataError, match=rf"mine is no feature store and holds {name}; name a new folder for the store"):
        convert(tmp_path / "scan", tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_text() == "my own"


@pytest.mark.parametrize("last", [*DATA_FILES, "manifest.json"])
def test_remains_of_an_interrupted_conversion_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    pooled = np.ones((2, 3), np.float32)
    write_precomp(tmp_path / "scan", "test", random_regions(2), boxes=random_boxes(2), pooled=pooled)
    more = random_regions(2, regions=5)
    write_precomp(tmp_path / "scan", "train", more, boxes=random_boxes(2, regions=5), pooled=pooled)
    with monkeypatch.context() as patch:
        patch.setattr("tshsr.data.store.replacing", failing_at(last))
        with pytest.raises(DataError, match="the disk is full"):
            convert(tmp_path / "scan", tmp_path / "store")
    assert not (tmp_path / "store" / last).exists()
    same(tmp_path, tmp_path / "scan", convert(tmp_path / "scan", tmp_path / "store"))


def test_a_picture_that_pillow_refuses_as_a_decompression_bomb_is_one_sentence(tmp_path: Path) -> None:
    write_precomp(tmp_path / "scan", "test", random_regions(1), ids=["huge.png"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "huge.png").write_bytes(png_of_size(60_000, 60_000))
    with pytest.raises(DataError, match=r"huge\.png is no readable picture \(Image size .*; copy it again or"):
        convert(tmp_path / "scan", tmp_path / "store", pictures=tmp_path / "photos")


def test_a_bad_feature_stops_a_conversion_without_a_trace(tmp_path: Path) -> None:
    regions = random_regions(70)
    regions[69, 2, 0] = np.inf
    write_precomp(tmp_path / "scan", "test", regions)
    with pytest.raises(DataError, match="image 69, region 2: a feature is not finite"):
        convert(tmp_path / "scan", tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def test_the_real_flickr8k_converts(tmp_path: Path) -> None:
    source = tmp_path / "flickr8k"
    source.mkdir()
    for path in real_data("flickr8k").glob("test_*"):
        (source / path.name).symlink_to(path)
    (source / "images").symlink_to(real_data("flickr8k") / "images")
    out = convert(source, tmp_path / "store")
    same(tmp_path, source, out)
    split = open_split(out, "test")
    assert split.files == split.image_ids
    assert json.loads((out / "images.jsonl").read_text().split("\n")[0])["width"] == 224
