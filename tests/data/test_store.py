"""The feature store: round trips, and a correct manifest after any kill."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.data_files import failing_at, random_boxes, random_regions, small_store
from tshsr.data.manifest import read_manifest
from tshsr.data.store import UNFINISHED, StoreCaption, StoreImage, open_store, refuse_foreign
from tshsr.errors import DataError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    regions, boxes = random_regions(4, dtype="float16"), random_boxes(4)
    small_store(tmp_path / "pets", regions=regions, boxes=boxes)
    split = open_store(tmp_path / "pets", "train")
    assert (split.data, split.name, split.extractor, split.pictures) == ("pets", "train", "small", None)
    assert split.image_ids == ("i0", "i1", "i2")
    assert split.files == ("i0.jpg", "i1.jpg", "i2.jpg")
    assert split.captions[3] == "image 1 caption 1"
    assert split.image_of_caption.tolist() == [0, 0, 1, 1, 2, 2]
    batch = split.regions.read([2, 0])
    assert np.array_equal(batch.regions.numpy(), regions[[2, 0]].astype(np.float32))
    assert np.array_equal(batch.boxes.numpy(), boxes[[2, 0]])  # type: ignore[union-attr]
    assert split.regions.dtype == np.float16
    assert np.array_equal(open_store(tmp_path / "pets", "test").regions.read([0]).regions[0].numpy(), regions[3])


def test_the_manifest_counts_and_hashes_every_file(tmp_path: Path) -> None:
    small_store(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {name: manifest[name] for name in ("version", "images", "captions", "regions", "feature_dim", "dtype")} == {
        "version": 1, "images": 4, "captions": 8, "regions": 3, "feature_dim": 4, "dtype": "float32",
    }  # fmt: skip
    assert (manifest["extractor"], manifest["settings"]) == ("small", {"windows": 3})
    assert manifest["splits"] == {"train": 6, "test": 2}
    names = {file["name"] for file in manifest["files"].values()}
    assert names | {"manifest.json"} == {path.name for path in tmp_path.iterdir()}
    for file in manifest["files"].values():
        content = (tmp_path / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert np.load(tmp_path / "regions.npy").shape == (4, 3, 4)  # an ordinary .npy file


def test_image_vectors_stream_in_blocks_and_are_stored_in_float32(tmp_path: Path) -> None:
    vectors = random_regions(4)[:, 0].astype(np.float64)
    small_store(tmp_path, pooled=iter([vectors[:3], vectors[3:]]))
    split = open_store(tmp_path, "all")
    assert split.regions.joint_dim == 4
    assert np.array_equal(split.regions.read([3, 1]).pooled, vectors[[3, 1]].astype(np.float32))
    assert np.array_equal(open_store(tmp_path, "test").regions.read([0]).pooled, vectors[3:].astype(np.float32))
    assert np.load(tmp_path / "pooled.npy").dtype == np.float32


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([], "the image vectors have shape (0, 0); expected images x joint."),
        ([np.ones((3, 2))], "got image vectors of 3 images; expected 4."),
        ([np.ones((3, 2)), np.ones((2, 2))], "images 3 to 4 have image vectors of shape (2, 2); expected 2 numbers"),
        ([np.ones((3, 2)), np.ones((1, 3))], "images 3 to 3 have image vectors of shape (1, 3); expected 2 numbers"),
        ([np.ones((3, 2)), np.full((1, 2), np.nan)], "image 3: a value of the image vector is not finite."),
    ],
)
def test_image_vectors_that_do_not_fit_are_refused(tmp_path: Path, blocks: list[np.ndarray], said: str) -> None:
    with pytest.raises(DataError) as caught:
        small_store(tmp_path / "store", pooled=blocks)
    assert str(caught.value).startswith(f"{tmp_path / 'store'}: {said}")
    assert not (tmp_path / "store/manifest.json").exists()


def test_regions_may_stream_in_blocks(tmp_path: Path) -> None:
    regions = random_regions(4)
    small_store(tmp_path / "blocks", regions=iter([regions[:1], regions[1:4]]))
    np.save(tmp_path / "map.npy", regions)
    small_store(tmp_path / "map", regions=np.load(tmp_path / "map.npy", mmap_mode="r"))
    small_store(tmp_path / "whole", regions=regions)
    written = [(tmp_path / name / "regions.npy").read_bytes() for name in ("whole", "blocks", "map")]
    assert written[0] == written[1] == written[2]


def test_regions_in_another_byte_order_come_out_right(tmp_path: Path) -> None:
    regions = random_regions(4)
    store = small_store(tmp_path, regions=regions.astype(">f4"), mask=np.ones((4, 3), np.bool_))
    assert np.array_equal(open_store(store, "all").regions.read(range(4)).regions.numpy(), regions)
    assert read_manifest(store).dtype == "float32"


def test_images_without_captions_belong_to_the_split_all(tmp_path: Path) -> None:
    small_store(tmp_path / "none", captions=[])
    everything = open_store(tmp_path / "none", "all")
    assert (len(everything.regions), everything.captions, len(everything.image_of_caption)) == (4, (), 0)
    small_store(tmp_path / "some", captions=[StoreCaption("c", "i2", "a dog", "train")])
    assert open_store(tmp_path / "some", "train").image_ids == ("i2",)
    some = open_store(tmp_path / "some", "all")
    assert (len(some.image_ids), some.image_of_caption.tolist()) == (4, [2])


def test_captions_may_be_in_any_order(tmp_path: Path) -> None:
    captions = [StoreCaption(f"c{n}", f"i{image}", "a dog", "train") for n, image in enumerate([3, 0, 3, 1])]
    split = open_store(small_store(tmp_path, captions=captions), "train")
    assert split.image_ids == ("i0", "i1", "i3")
    assert split.image_of_caption.tolist() == [2, 0, 2, 1]


def test_a_mask_hides_padding(tmp_path: Path) -> None:
    regions, mask = random_regions(4), np.ones((4, 3), np.bool_)
    regions[1, 2], mask[1, 2] = np.nan, False
    batch = open_store(small_store(tmp_path, regions=regions, mask=mask), "train").regions.read([0, 1])
    assert batch.mask.tolist() == [[True, True, True], [True, True, False]]
    assert not np.isnan(np.load(tmp_path / "regions.npy")).any()


def test_pictures_are_found_inside_the_store_or_at_the_recorded_place(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "i1.jpg").touch()
    store = small_store(tmp_path / "store", settings={"pictures": str(tmp_path / "elsewhere")})
    split = open_store(store, "train")
    assert (split.picture(1), split.picture(0)) == (tmp_path / "elsewhere" / "i1.jpg", None)
    (store / "pictures").mkdir()
    assert open_store(store, "train").pictures == store / "pictures"


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text("{}")
    small_store(small_store(tmp_path))
    assert (tmp_path / "truth.json").read_text() == "{}"


def test_a_store_can_be_replaced_again_and_again(tmp_path: Path) -> None:
    for seed in range(4):
        regions = random_regions(4, seed=seed)
        small_store(tmp_path, regions=regions)
        assert np.array_equal(open_store(tmp_path, "all").regions.read(range(4)).regions.numpy(), regions)
        assert len(list(tmp_path.iterdir())) == 5  # no file of the former one is left


class Killed(BaseException):
    """Simulates the end of the process."""


def test_a_kill_at_any_moment_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = random_regions(4, seed=1), random_regions(4, seed=2)
    store = small_store(tmp_path / "store", regions=old)
    left_by_a_kill: list[Path] = []

    def keep_a_copy_before(original: Any) -> Any:
        def step(*arguments: Any, **more: Any) -> Any:
            left_by_a_kill.append(tmp_path / f"kill{len(left_by_a_kill)}")
            shutil.copytree(store, left_by_a_kill[-1])
            return original(*arguments, **more)

        return step

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", keep_a_copy_before(os.fsync))
        patch.setattr(Path, "replace", keep_a_copy_before(Path.replace))
        patch.setattr(Path, "unlink", keep_a_copy_before(Path.unlink))
        small_store(store, regions=new)
    found = []
    for folder in left_by_a_kill:
        for file in read_manifest(folder).files.values():
            assert hashlib.sha256((folder / file.name).read_bytes()).hexdigest() == file.sha256
        regions = open_store(folder, "all").regions.read(range(4)).regions.numpy()
        found.append("old" if np.array_equal(regions, old) else "new" if np.array_equal(regions, new) else "wrong")
        small_store(folder, regions=new)  # the next run repairs it
        assert np.array_equal(open_store(folder, "all").regions.read(range(4)).regions.numpy(), new)
    turn = found.index("new")
    assert turn > 15  # five files and the manifest, each flushed and renamed
    assert found == ["old"] * turn + ["new"] * (len(found) - turn)


def test_a_kill_during_the_first_write_leaves_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise Killed

    original = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: stop() if to.name == "manifest.json" else original(path, to))
    with pytest.raises(Killed):
        small_store(tmp_path)
    assert (tmp_path / "regions.npy").exists()
    with pytest.raises(DataError, match="is no feature store"):
        open_store(tmp_path, "train")


def test_only_what_an_interrupted_write_has_left_may_be_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "regions.npy", np.arange(3))
    np.save(tmp_path / "boxes.npy", np.arange(3))
    with pytest.raises(DataError, match=r"is no feature store and holds boxes\.npy; name a new folder"):
        refuse_foreign(tmp_path)
    with pytest.raises(DataError, match=r"or remove what an earlier version of tshsr left there"):
        refuse_foreign(tmp_path)
    monkeypatch.setattr("tshsr.data.store.replacing", failing_at("captions.jsonl"))
    with pytest.raises(DataError, match="the disk is full"):
        small_store(tmp_path / "store")
    refuse_foreign(tmp_path / "store")
    monkeypatch.undo()
    small_store(tmp_path / "store")
    assert not (tmp_path / "store" / UNFINISHED).exists()


def test_an_error_while_streaming_leaves_no_partial_file(tmp_path: Path) -> None:
    def blocks() -> Iterator[np.ndarray]:
        yield random_regions(2)
        raise Killed

    with pytest.raises(Killed):
        small_store(tmp_path, regions=blocks())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"Cannot write .*regions\.npy: No space left on device. Make room"):
        small_store(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions": random_regions(3)}, "got regions of 3 images; expected 4"),
        ({"regions": random_regions(5)}, r"images 0 to 4 have regions float32 \(3, 4\); expected .* of 4 images"),
        (
            {"regions": iter([random_regions(2), random_regions(2, 2)])},
            r"images 2 to 3 have .* expected float32 \(3, 4\)",
        ),
        ({"regions": iter([random_regions(2), random_regions(2).astype("f8")])}, "images 2 to 3 have regions float64"),
        ({"regions": iter([])}, "the regions are nothing; expected floats"),
        ({"regions": np.ones((4, 3, 4), np.int32)}, "the regions are int32"),
        ({"regions": np.ones((4, 3))}, r"the regions are float64 \(4, 3\)"),
        ({"regions": np.full((4, 3, 4), np.nan)}, "image 0, region 0: a feature is not finite"),
        ({"boxes": random_boxes(3)}, r"expected floats of shape \(4, 3, 4\)"),
        ({"boxes": random_boxes(4) * 640}, "divide pixels by its width and height"),
        ({"mask": np.zeros((4, 3), np.bool_)}, "image 0: every region is masked"),
        ({"images": [StoreImage("i0")] * 4}, "4 images with 1 different ids"),
        ({"images": []}, "0 images with 0 different ids"),
        ({"captions": [StoreCaption("c", "i0", "x", "train")] * 2}, "two captions share an id"),
        (
            {"captions": [StoreCaption("c", "i9", "x", "train")]},
            "caption 'c' belongs to image 'i9', which is not there",
        ),
        ({"captions": [StoreCaption("c", "i0", " ", "train")]}, "caption 'c' is empty"),
        ({"captions": [StoreCaption("c", "i0", "x", "all")]}, "caption 'c' has split 'all'; expected train, dev"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small_store(tmp_path, **changes)
    assert not (tmp_path / "manifest.json").exists()


def test_an_unknown_split_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split 'dev'; it has train, test, all"):
        open_store(small_store(tmp_path), "dev")


@pytest.mark.parametrize("name", ["regions.npy", "boxes.npy", "images.jsonl", "captions.jsonl"])
def test_a_file_of_another_size_is_refused(tmp_path: Path, name: str) -> None:
    path = small_store(tmp_path) / name
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=rf"{name} has {size + 1} bytes; manifest.json expects {size}"):
        open_store(tmp_path, "train")
    path.unlink()
    with pytest.raises(DataError, match=f"Cannot read .*{name}: No such file"):
        open_store(tmp_path, "train")


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2; this tshsr reads 1. Update tshsr"),
        ({"images": "many"}, "manifest.json is damaged: images: Input should be a valid integer"),
        ({"files": {}}, "is damaged: it names no regions file"),
        ({"images": 5}, "images.jsonl has 4 lines; manifest.json expects 5"),
        ({"captions": 7}, "captions.jsonl has 8 lines; manifest.json expects 7"),
        ({"feature_dim": 8}, r"has shape \(4, 3, 4\); manifest.json expects \(4, 3, 8\)"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    small_store(tmp_path)
    change_manifest(tmp_path, **changes)
    with pytest.raises(DataError, match=message):
        open_store(tmp_path, "train")


def test_a_manifest_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    small_store(tmp_path / "store")
    files = json.loads((tmp_path / "store" / "manifest.json").read_text())["files"]
    files["regions"]["name"] = "../regions.npy"
    change_manifest(tmp_path / "store", files=files)
    with pytest.raises(DataError, match="lies outside its store"):
        open_store(tmp_path / "store", "train")


def test_a_damaged_record_is_named_by_its_line(tmp_path: Path) -> None:
    path = small_store(tmp_path) / "captions.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[0], lines[1].replace('"text"', '"next"'), *lines[2:]]))
    with pytest.raises(DataError, match=r"captions.jsonl:2: text: Field required. Write the store again"):
        open_store(tmp_path, "train")


def test_a_caption_of_a_missing_image_is_refused(tmp_path: Path) -> None:
    path = small_store(tmp_path) / "captions.jsonl"
    path.write_text(path.read_text().replace('"image": "i3"', '"image": "i9"'))
    for split in ("test", "all"):
        with pytest.raises(DataError, match="1 images with captions are missing"):
            open_store(tmp_path, split)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"manifest.json is damaged: .* Write the store again"):
        open_store(tmp_path, "train")


def test_a_folder_without_manifest_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no feature store: cannot read manifest.json \(No such file"):
        open_store(tmp_path, "train")
