"""`data info` and `data check`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.data_files import random_regions, small_store, write_precomp
from tshsr.data import check
from tshsr.data.check import check_data, inspect
from tshsr.data.layouts import open_split
from tshsr.data.store import StoreCaption
from tshsr.errors import DataError


def test_inspect_summarises_every_split(tmp_path: Path) -> None:
    info = inspect(small_store(tmp_path))
    assert (info.layout, info.extractor, info.feature_dim, info.dtype) == ("store", "small", 4, "float32")
    assert [(s.name, s.images, s.captions, s.regions, s.boxes, s.masked) for s in info.splits] == [
        ("test", 1, 2, 3, True, False),
        ("train", 3, 6, 3, True, False),
    ]
    assert info.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_sound_data_set_has_no_problems(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    problems, info = check_data(small_store(tmp_path), lambda done, total: seen.append((done, total)))
    assert problems == []
    assert info == inspect(tmp_path)
    assert seen == [(1, 4), (4, 4)]


def two_captions(split: str) -> list[StoreCaption]:
    """Captions of the first two images of a small store; the others have none."""
    return [StoreCaption(f"c{i}", f"i{i}", "a dog", split) for i in range(2)]


def test_images_without_captions_are_counted_and_read(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    store = small_store(tmp_path, captions=two_captions("train"))
    problems, info = check_data(store, lambda done, total: seen.append((done, total)))
    assert problems == []
    assert info is not None
    assert [(split.name, split.images, split.captions) for split in info.splits] == [("train", 2, 2), ("all", 4, 2)]
    assert info == inspect(store)
    assert seen == [(4, 4)]


def test_a_bad_feature_of_an_image_without_captions_is_found(tmp_path: Path) -> None:
    path = small_store(tmp_path, captions=two_captions("train")) / "regions.npy"
    content = np.load(path)
    content[3, 1, 0] = np.nan
    np.save(path, content)
    problems, _ = check_data(tmp_path)
    assert len(problems) == 2
    assert "its hash differs" in problems[0]
    assert "row 3, region 1: a feature is not finite" in problems[1]


def test_a_store_without_any_caption_is_listed_once(tmp_path: Path) -> None:
    problems, info = check_data(small_store(tmp_path, captions=[]))
    assert problems == []
    assert info is not None
    assert [(split.name, split.images) for split in info.splits] == [("all", 4)]


def test_checking_opens_every_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(check, "open_split", lambda path, name: opened.append(name) or open_split(path, name))
    assert check_data(small_store(tmp_path))[0] == []
    assert opened == ["test", "train"]


def test_hashing_reports_bytes_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tshsr.data.manifest.HASH_BLOCK", 100)
    folder, reported = small_store(tmp_path), []
    check_data(
        folder, lambda *now: reported.append(("read", *now)), hashing=lambda *now: reported.append(("hashed", *now))
    )
    hashed = [now[1:] for now in reported if now[0] == "hashed"]
    sizes = [file["bytes"] for file in json.loads((folder / "manifest.json").read_text())["files"].values()]
    assert len(hashed) == sum(-(-size // 100) for size in sizes)
    assert hashed == sorted(set(hashed))
    assert hashed[-1] == (sum(sizes), sum(sizes))
    assert [now[0] for now in reported] == ["hashed"] * len(hashed) + ["read"] * 2


def test_a_single_changed_byte_is_found(tmp_path: Path) -> None:
    path = small_store(tmp_path) / "regions.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_split(tmp_path, "train")  # opening compares sizes only
    problems, _ = check_data(tmp_path)
    assert len(problems) == 1
    assert "regions.npy has changed since the store was written: its hash differs" in problems[0]


def test_a_truncated_store_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    path = small_store(tmp_path) / "regions.npy"
    path.write_bytes(path.read_bytes()[:-1])
    problems, info = check_data(tmp_path)
    assert len(problems) == 1
    assert "bytes; manifest.json expects" in problems[0]
    assert info is None


def test_every_bad_split_is_reported(tmp_path: Path) -> None:
    regions = random_regions(130)
    regions[[3, 129], 0, 0] = np.nan
    write_precomp(tmp_path, "train", regions, ids=[f"{i}.jpg" for i in range(130)])
    write_precomp(tmp_path, "test", random_regions(2, features=5), ids=["7.jpg", "7.jpg"])
    (tmp_path / "test_caps.txt").write_text("a dog\n...\n")
    write_precomp(tmp_path, "dev", random_regions(2))
    (tmp_path / "dev_caps.txt").write_text("a\nb\nc\n")
    problems, info = check_data(tmp_path)
    expected = [
        "3 captions for 2 images",
        "split test: caption 1 has no word: '...'",
        "2 images share 1 ids",
        "image row 3, region 0: a feature is not finite",
        "image row 129, region 0: a feature is not finite",
        "splits train and test have features of widths 4 and 5",
        "1 images of split test are training images too",
    ]
    assert len(problems) == len(expected)
    for problem, text in zip(problems, expected, strict=True):
        assert text in problem
    assert info is None


def test_a_store_with_images_in_two_splits_is_reported(tmp_path: Path) -> None:
    captions = [StoreCaption(f"c{i}", "i0", "a dog", split) for i, split in enumerate(("train", "test"))]
    problems, _ = check_data(small_store(tmp_path, captions=captions))
    assert len(problems) == 1
    assert "1 images of split test are training images too" in problems[0]


def test_a_missing_data_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_data(tmp_path / "none")
