"""The job: a folder of anything becomes a store, however often the job is interrupted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data_files import failing_at
from tests.picture_files import crash, drawn, write_pictures, write_rubbish
from tshsr.data.check import check_data
from tshsr.data.dataset import Split
from tshsr.data.layouts import open_split
from tshsr.data.store import OWN
from tshsr.errors import DataError
from tshsr.features import extraction, open_extractor, work
from tshsr.features.captions import PictureCaption
from tshsr.features.decoding import decode_all
from tshsr.features.extraction import How, extract_folder
from tshsr.features.extractor import PictureRegions
from tshsr.features.place import FILES, SKIPPED
from tshsr.features.work import Work, only_one


@dataclass
class Means:
    """An extractor whose features are a picture's mean colour and its size; it counts, and can be told to fail.

    A picture has as many regions as its width has hundreds of pixels, and at least one.
    """

    name: str = "means"
    fails_after: int = 10**9
    refuses: float = -1.0
    seen: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=lambda: {"family": "none"})
    feature_dim: int = 4
    regions: int = 9
    in_processes: bool = False

    def prepare(self, picture: Image.Image) -> tuple[np.ndarray, int]:
        return np.asarray(picture, np.float32).mean(axis=(0, 1)), picture.width

    def compute(self, prepared: Sequence[tuple[np.ndarray, int]]) -> list[PictureRegions]:
        self.seen.append(len(prepared))
        if sum(self.seen) > self.fails_after:
            raise KeyboardInterrupt
        if any(abs(mean[0] - self.refuses) < 1 for mean, _ in prepared):
            raise RuntimeError("Kernel size can't be greater\n than the input")
        return [self.of(mean, width) for mean, width in prepared]

    def of(self, mean: np.ndarray, width: int) -> PictureRegions:
        count = max(1, width // 100)
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1))
        return PictureRegions(np.tile(np.append(mean, width).astype(np.float32), (count, 1)), boxes)

    def extract(self, pictures: Sequence[Image.Image]) -> list[PictureRegions]:
        return self.compute([self.prepare(picture) for picture in pictures])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Ten pictures in two folders."""
    write_pictures(tmp_path / "pictures", 10)
    return tmp_path / "pictures"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "store"


def everything(out: Path) -> Split:
    problems, _ = check_data(str(out))
    assert problems == []
    return open_split(out, "all")


def work_folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob(".*"))


def test_a_folder_becomes_a_store_with_sizes_boxes_and_the_way_to_its_pictures(pictures: Path, out: Path) -> None:
    done = extract_folder(pictures, out, Means(), how=How(batch=4))
    assert (done.pictures, done.before, done.skipped) == (10, 0, ())
    split = everything(out)
    assert split.extractor == "means"
    assert split.image_ids[:2] == ("a/p01", "a/p03")
    assert split.picture(0) == pictures / "a/p01.jpg"
    for number, name in enumerate(split.files or ()):
        with Image.open(pictures / name) as picture:
            (expected,) = Means().extract([picture.convert("RGB")])
        np.testing.assert_array_equal(split.regions.read([number]).regions[0].numpy(), expected.features)
    record = json.loads((out / "images.jsonl").read_text().splitlines()[0])
    assert record == {"id": "a/p01", "file": "a/p01.jpg", "width": 160, "height": 120}
    assert work_folders(out) == []
    assert not (out / SKIPPED).exists()


def test_what_cannot_be_read_is_listed_with_its_reason_and_everything_else_is_there(pictures: Path, out: Path) -> None:
    expected = write_rubbish(pictures)
    done = extract_folder(pictures, out, Means())
    assert done.pictures == 10
    lines = [json.loads(line) for line in (out / SKIPPED).read_text().splitlines()]
    told = {line["file"]: line["reason"] for line in lines}
    assert list(told) == sorted(expected)
    for name, said in expected.items():
        assert said in told[name], name
    assert len(everything(out).regions) == 10


def test_pictures_may_have_different_numbers_of_regions(pictures: Path, out: Path) -> None:
    drawn(0, (400, 50)).save(pictures / "wide.png")
    extract_folder(pictures, out, Means())
    split = everything(out)
    assert split.regions.mask is not None
    assert split.regions.mask.sum(axis=1).tolist() == [1] * 10 + [4]


def test_an_interrupted_job_goes_on_and_comes_to_the_same(pictures: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), how=How(batch=2))
    assert not out.exists()
    again = Means()
    done = extract_folder(pictures, out, again, how=How(batch=2))
    assert (done.pictures, done.before, sum(again.seen)) == (10, 6, 4)
    extract_folder(pictures, tmp_path / "at once", Means())
    for name in ("regions.npy", "boxes.npy", "images.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


def test_a_killed_job_loses_at_most_what_it_had_not_kept(pictures: Path, out: Path) -> None:
    code = f"""
import sys, time; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.unit.test_extraction import Means
from tshsr.features import extraction
class Slow(Means):
    def compute(self, prepared):
        time.sleep(0.3)
        return super().compute(prepared)
extraction.PART_PICTURES = 2
extraction.extract_folder(Path({str(pictures)!r}), Path({str(out)!r}), Slow(), how=extraction.How(batch=1))
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        end = time.monotonic() + 60
        while not list(out.parent.glob(".store*/part-000001*")):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    again = Means()
    done = extract_folder(pictures, out, again)
    assert 4 <= done.before < 10
    assert sum(again.seen) == 10 - done.before
    assert len(everything(out).regions) == 10


def test_a_finished_store_takes_in_what_is_new_or_has_changed_and_forgets_what_is_gone(
    pictures: Path, out: Path
) -> None:
    extract_folder(pictures, out, Means())
    drawn(77).save(pictures / "new.png")
    drawn(88, (200, 90)).save(pictures / "p00.jpg")
    (pictures / "p02.jpg").unlink()
    again = Means()
    done = extract_folder(pictures, out, again)
    assert (done.pictures, done.before, sum(again.seen)) == (10, 8, 2)
    split = everything(out)
    assert {"new", "p00"} <= set(split.image_ids)
    assert "p02" not in split.image_ids
    changed = split.regions.read([split.image_ids.index("p00")]).regions[0, 0]
    assert changed[3] == 200
    assert work_folders(out) == []


def test_a_store_in_half_precision_is_half_as_large(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means(), how=How(dtype="float16"))
    assert everything(out).regions.dtype == np.float16


class Infinite(Means):
    def of(self, mean: np.ndarray, width: int) -> PictureRegions:
        regions = super().of(mean, width)
        return PictureRegions(regions.features * 1000, regions.boxes)


def test_features_that_do_not_fit_the_dtype_are_told_and_not_stored(pictures: Path, out: Path) -> None:
    Image.new("RGB", (50, 50)).save(pictures / "black.png")
    done = extract_folder(pictures, out, Infinite(), how=How(dtype="float16"))
    assert done.pictures == 1
    assert done.skipped[0].reason == "one of its features is not finite as float16."


def test_a_picture_that_the_network_refuses_takes_no_other_with_it(pictures: Path, out: Path) -> None:
    Image.new("RGB", (50, 50), (7, 7, 7)).save(pictures / "odd.png")
    done = extract_folder(pictures, out, Means(refuses=7))
    assert done.pictures == 10
    assert [(one.file, one.reason) for one in done.skipped] == [
        ("odd.png", "the network can't take it: Kernel size can't be greater than the input")
    ]


def test_a_folder_without_a_picture_is_refused_and_leaves_nothing(tmp_path: Path, out: Path) -> None:
    write_rubbish(tmp_path / "rubbish")
    with pytest.raises(DataError, match=r"rubbish: none of its \d files is a picture; the first: "):
        extract_folder(tmp_path / "rubbish", out, Means())
    assert not out.exists()
    assert work_folders(out) == []


def test_a_store_of_something_else_is_never_overwritten(pictures: Path, out: Path, tmp_path: Path) -> None:
    extract_folder(pictures, out, Means())
    with pytest.raises(DataError, match=r"store is a store already, of .*pictures by 'means'; name another"):
        extract_folder(pictures, out, Means(name="others"))
    write_pictures(tmp_path / "more", 1)
    with pytest.raises(DataError, match="store is a store already"):
        extract_folder(tmp_path / "more", out, Means())
    with pytest.raises(DataError, match=r"more is no feature store and holds p00\.jpg; name a new folder"):
        extract_folder(pictures, tmp_path / "more", Means())
    with pytest.raises(DataError, match="pictures is the folder of the pictures itself"):
        extract_folder(pictures, pictures, Means())
    with pytest.raises(DataError, match=r"p00\.jpg is a file; name a folder for the store"):
        extract_folder(pictures, pictures / "p00.jpg", Means())


def test_pictures_may_lie_in_the_store_and_the_store_among_the_pictures(pictures: Path, tmp_path: Path) -> None:
    inside = pictures / "store"
    assert extract_folder(pictures, inside, Means()).pictures == 10
    assert extract_folder(pictures, inside, Means()).pictures == 10
    write_pictures(tmp_path / "other" / "pictures", 3)
    assert extract_folder(tmp_path / "other" / "pictures", tmp_path / "other", Means()).pictures == 3
    assert everything(tmp_path / "other").picture(0) is not None


def test_a_full_disk_is_one_sentence_and_nothing_that_was_kept_is_lost(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "PART_PICTURES", 2)
    kept = []

    def full(path: Path, content: bytes) -> None:
        if len(kept) == 2:
            with work.explained(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        kept.append(path)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(work, "write_bytes", full)
        with pytest.raises(DataError, match=r"No space left on device\. Make room"):
            extract_folder(pictures, out, Means(), how=How(batch=2))
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.before) == (10, 4)


@pytest.mark.parametrize("last", [*OWN, "manifest.json"])
def test_a_disk_that_is_full_while_the_store_is_written_does_not_keep_the_next_run_out(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    drawn(0, (400, 50)).save(pictures / "wide.png")  # for the mask
    with monkeypatch.context() as patch:
        patch.setattr("tshsr.data.store.replacing", failing_at(last))
        with pytest.raises(DataError, match="the disk is full"):
            extract_folder(pictures, out, Means())
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.before) == (11, 11)
    assert len(everything(out).regions) == 11


def test_a_damaged_store_is_refused_with_the_way_to_make_it_anew(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means())
    (out / "boxes.npy").unlink()
    with pytest.raises(DataError, match=rf"Cannot read .*boxes\.npy: .* To make it anew, remove {out} first\.$"):
        extract_folder(pictures, out, Means())


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85"])
def test_a_name_with_a_line_end_of_unicode_is_a_name(pictures: Path, out: Path, inside: str) -> None:
    drawn(5).save(pictures / f"odd{inside}name.png")
    extract_folder(pictures, out, Means())
    drawn(6).save(pictures / "new.png")
    assert extract_folder(pictures, out, Means()).before == 11
    assert f"odd{inside}name" in everything(out).image_ids


@pytest.mark.parametrize("damage", ["swap", "cut"])
def test_a_list_of_other_files_gives_nothing(pictures: Path, out: Path, damage: str) -> None:
    extract_folder(pictures, out, Means())
    first, second, *others = (out / FILES).read_bytes().splitlines(keepends=True)
    (out / FILES).write_bytes(b"".join([second, first, *others] if damage == "swap" else [first[:9], second, *others]))
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.before) == (10, 0)


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in out.iterdir()}


def test_where_nothing_is_new_the_files_of_the_store_stay(pictures: Path, out: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"broken")
    told = [PictureCaption("p02.jpg", "a red disc", "test")]
    extract_folder(pictures, out, Means(), captions=lambda files: told)
    before = inodes(out)
    again = Means()
    done = extract_folder(pictures, out, again)
    assert (done.pictures, done.before, done.captions, again.seen) == (10, 10, 1, [])
    assert [one.file for one in done.skipped] == ["broken.jpg"]
    assert {name: before[name] for name in before if name != SKIPPED} == {
        name: number for name, number in inodes(out).items() if name != SKIPPED
    }
    assert work_folders(out) == []


def test_a_store_is_written_again_where_anything_is_new(pictures: Path, out: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"broken")
    extract_folder(pictures, out, Means())
    changes: list[tuple[Callable[[], object], dict[str, Any], int]] = [
        (lambda: drawn(9).save(pictures / "broken.jpg"), {}, 11),
        (lambda: (pictures / "p00.jpg").unlink(), {}, 10),
        (lambda: None, {"captions": lambda files: [PictureCaption("p02.jpg", "a red disc", "test")]}, 10),
        (lambda: None, {"extractor": Means(settings={"family": "none", "weights": "moved"})}, 10),
        (lambda: None, {"extractor": Means(settings={"family": "none", "weights": "moved"})}, 10),
    ]
    written = []
    for change, options, pictures_left in changes:
        before = inodes(out)["manifest.json"]
        change()
        done = extract_folder(pictures, out, **{"extractor": Means(), **options})
        assert done.pictures == pictures_left == len(everything(out).regions)
        written.append(inodes(out)["manifest.json"] != before)
    assert written == [True, True, True, True, False]
    assert everything(out).captions == ("a red disc",)


def test_a_place_that_cannot_be_written_is_one_sentence(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot write .*(Not a directory|File exists)\. Make room or name another"):
        extract_folder(pictures, pictures / "p00.jpg" / "store", Means())


def test_two_jobs_on_one_store_do_not_meet(tmp_path: Path) -> None:
    second = only_one(tmp_path / "work", "STORE")
    with only_one(tmp_path / "work", "STORE"), pytest.raises(DataError, match="another tshsr features is making STORE"):
        second.__enter__()
    with only_one(tmp_path / "work", "STORE"):
        pass


def test_a_damaged_part_is_done_again(pictures: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), how=How(batch=2))
    (part,) = out.parent.glob(".store*/part-*")
    part.write_bytes(part.read_bytes()[:50])
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.before) == (10, 0)


def test_parts_are_read_in_any_order(tmp_path: Path) -> None:
    kept = Work(tmp_path / "work")
    for part in ("ab", "c"):
        records = [work.Done(name, 1, 1, 5, 5, 2) for name in part]
        values = [np.full((2, 3), ord(name), np.float32) for name in part]
        kept.keep(records, [PictureRegions(value, value[:, :2]) for value in values])
    again = Work(tmp_path / "work")
    assert [chr(int(features[0, 0])) for features in again.read("cab", "features")] == ["c", "a", "b"]


def test_of_a_part_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    kept = Work(tmp_path / "work")
    for part in ("ab", "cd"):
        records = [work.Done(name, 1, 1, 5, 5, 500) for name in part]
        values = [np.full((500, 500), ord(name), np.float32) for name in part]
        kept.keep(records, [PictureRegions(value, value[:, :4]) for value in values])
    tracemalloc.start()
    try:
        found = [chr(int(features[499, 499])) for features in kept.read("acbd", "features")]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["a", "c", "b", "d"]
    assert peak < 2.5 * 500 * 500 * 4, "a part is twice as large as one picture's features"


def test_captions_go_with_their_pictures_and_stay_when_the_job_is_run_again(pictures: Path, out: Path) -> None:
    (pictures / "p04.jpg").write_bytes(b"")
    told = [
        PictureCaption("p02.jpg", "a red disc", "test"),
        PictureCaption("p02.jpg", "a disc", "test"),
        PictureCaption("p04.jpg", "gone", "test"),
        PictureCaption("a/p01.jpg", "a box", "train"),
    ]
    assert extract_folder(pictures, out, Means(), captions=lambda files: told).captions == 3
    split = open_split(out, "test")
    assert (split.captions, split.image_ids) == (("a red disc", "a disc"), ("p02",))
    drawn(99).save(pictures / "new.jpg")
    assert extract_folder(pictures, out, Means()).captions == 3
    assert open_split(out, "test").captions == split.captions
    assert everything(out).captions[-1] == "a box"


def test_progress_tells_of_what_is_left_alone(pictures: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), how=How(batch=2))
    told: list[tuple[str, int, int]] = []

    def begin(what: str, counted: str) -> extraction.Tell:
        assert counted == "pictures"
        return lambda done, total: told.append((what, done, total))

    extract_folder(pictures, out, Means(), how=How(batch=2), begin=begin)
    assert told == [("extracting", 2, 4), ("extracting", 4, 4), ("writing", 10, 10)]


def test_a_picture_that_ends_its_process_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    sizes = [10, 13, 12, 13, 14, 15]
    for number, size in enumerate(sizes):
        Image.new("RGB", (size, size)).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    found = list(decode_all(paths, crash, workers=1, processes=True))
    assert [one.prepared for one in found] == [10, None, 12, None, 14, 15]
    assert found[1].problem == "ended the process that read it: damaged, or too large for the memory."


def test_the_scenes_extractor_works_in_processes_as_in_this_one(pictures: Path, out: Path) -> None:
    extractor = open_extractor("scenes")
    extract_folder(pictures, out, extractor, how=How(workers=1))
    split = everything(out)
    with Image.open(pictures / "p00.jpg") as picture:
        (expected,) = extractor.extract([picture.convert("RGB")])
    row = split.image_ids.index("p00")
    np.testing.assert_array_equal(split.regions.read([row]).regions[0].numpy(), expected.features)


def test_a_file_list_remembers_size_and_date(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means())
    first = json.loads((out / FILES).read_text().splitlines()[0])
    status = (pictures / "a/p01.jpg").stat()
    assert (first["bytes"], first["changed"]) == (status.st_size, status.st_mtime_ns)
