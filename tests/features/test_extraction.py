"""Extraction of a folder into a store."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.extractors import Means, everything, work_folders
from tests.support.picture_files import drawn, write_pictures, write_rubbish
from tshsr.data.layouts import open_split
from tshsr.data.picture_captions import PictureCaption
from tshsr.errors import DataError
from tshsr.features import extraction
from tshsr.features.catalog import open_extractor
from tshsr.features.extraction import extract_folder
from tshsr.features.extractor import PictureRegions
from tshsr.features.resume import FILES, SKIPPED, FinishedPicture, WorkFolder, exclusive_job
from tshsr.features.shards import ExtractionOptions


def test_a_folder_becomes_a_store_with_sizes_boxes_and_the_path_of_its_pictures(pictures: Path, out: Path) -> None:
    done = extract_folder(pictures, out, Means(), options=ExtractionOptions(batch=4))
    assert (done.pictures, done.reused, done.skipped) == (10, 0, ())
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


def test_unreadable_files_are_listed_with_a_reason_and_all_others_are_stored(pictures: Path, out: Path) -> None:
    expected = write_rubbish(pictures)
    done = extract_folder(pictures, out, Means())
    assert done.pictures == 10
    lines = [json.loads(line) for line in (out / SKIPPED).read_text().splitlines()]
    reported = {line["file"]: line["reason"] for line in lines}
    assert list(reported) == sorted(expected)
    for name, said in expected.items():
        assert said in reported[name], name
    assert len(everything(out).regions) == 10


def test_pictures_may_have_different_numbers_of_regions(pictures: Path, out: Path) -> None:
    drawn(0, (400, 50)).save(pictures / "wide.png")
    extract_folder(pictures, out, Means())
    split = everything(out)
    assert split.regions.mask is not None
    assert split.regions.mask.sum(axis=1).tolist() == [1] * 10 + [4]


def test_a_finished_store_is_updated_with_new_changed_and_deleted_files(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means())
    drawn(77).save(pictures / "new.png")
    drawn(88, (200, 90)).save(pictures / "p00.jpg")
    (pictures / "p02.jpg").unlink()
    again = Means()
    done = extract_folder(pictures, out, again)
    assert (done.pictures, done.reused, sum(again.seen)) == (10, 8, 2)
    split = everything(out)
    assert {"new", "p00"} <= set(split.image_ids)
    assert "p02" not in split.image_ids
    changed = split.regions.read([split.image_ids.index("p00")]).regions[0, 0]
    assert changed[3] == 200
    assert work_folders(out) == []


def test_a_store_in_half_precision_is_half_as_large(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means(), options=ExtractionOptions(dtype="float16"))
    assert everything(out).regions.dtype == np.float16


def test_pictures_may_lie_in_the_store_and_the_store_among_the_pictures(pictures: Path, tmp_path: Path) -> None:
    inside = pictures / "store"
    assert extract_folder(pictures, inside, Means()).pictures == 10
    assert extract_folder(pictures, inside, Means()).pictures == 10
    write_pictures(tmp_path / "other" / "pictures", 3)
    assert extract_folder(tmp_path / "other" / "pictures", tmp_path / "other", Means()).pictures == 3
    assert everything(tmp_path / "other").picture(0) is not None


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85"])
def test_a_file_name_may_contain_a_unicode_line_separator(pictures: Path, out: Path, inside: str) -> None:
    drawn(5).save(pictures / f"odd{inside}name.png")
    extract_folder(pictures, out, Means())
    drawn(6).save(pictures / "new.png")
    assert extract_folder(pictures, out, Means()).reused == 11
    assert f"odd{inside}name" in everything(out).image_ids


def inodes(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in out.iterdir()}


def test_without_changes_the_files_of_the_store_stay(pictures: Path, out: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"broken")
    reported = [PictureCaption("p02.jpg", "a red disc", "test")]
    extract_folder(pictures, out, Means(), captions=lambda files: reported)
    before = inodes(out)
    again = Means()
    done = extract_folder(pictures, out, again)
    assert (done.pictures, done.reused, done.captions, again.seen) == (10, 10, 1, [])
    assert [one.file for one in done.skipped] == ["broken.jpg"]
    assert {name: before[name] for name in before if name != SKIPPED} == {
        name: number for name, number in inodes(out).items() if name != SKIPPED
    }
    assert work_folders(out) == []


def test_any_change_rewrites_the_store(pictures: Path, out: Path) -> None:
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


def test_a_second_job_on_one_store_is_refused(tmp_path: Path) -> None:
    second = exclusive_job(tmp_path / "work", Path("STORE"))
    with (
        exclusive_job(tmp_path / "work", Path("STORE")),
        pytest.raises(DataError, match="another tshsr features is making STORE"),
    ):
        second.__enter__()
    with exclusive_job(tmp_path / "work", Path("STORE")):
        pass


def test_parts_are_read_in_any_order(tmp_path: Path) -> None:
    kept = WorkFolder(tmp_path / "work")
    for part in ("ab", "c"):
        records = [FinishedPicture(name, 1, 1, 5, 5, 2) for name in part]
        values = [np.full((2, 3), ord(name), np.float32) for name in part]
        kept.add(records, [PictureRegions(value, np.tile(value[:, :2], 2)) for value in values])
    again = WorkFolder(tmp_path / "work")
    assert [chr(int(features[0, 0])) for features in again.read("cab", "features")] == ["c", "a", "b"]


def test_only_the_requested_rows_of_a_part_are_read(tmp_path: Path) -> None:
    kept = WorkFolder(tmp_path / "work")
    for part in ("ab", "cd"):
        records = [FinishedPicture(name, 1, 1, 5, 5, 500) for name in part]
        values = [np.full((500, 500), ord(name), np.float32) for name in part]
        kept.add(records, [PictureRegions(value, value[:, :4]) for value in values])
    tracemalloc.start()
    try:
        found = [chr(int(features[499, 499])) for features in kept.read("acbd", "features")]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["a", "c", "b", "d"]
    assert peak < 2.5 * 500 * 500 * 4, "a part is twice as large as one picture's features"


def test_captions_are_stored_and_kept_by_later_jobs(pictures: Path, out: Path) -> None:
    (pictures / "p04.jpg").write_bytes(b"")
    reported = [
        PictureCaption("p02.jpg", "a red disc", "test"),
        PictureCaption("p02.jpg", "a disc", "test"),
        PictureCaption("p04.jpg", "gone", "test"),
        PictureCaption("a/p01.jpg", "a box", "train"),
    ]
    assert extract_folder(pictures, out, Means(), captions=lambda files: reported).captions == 3
    split = open_split(out, "test")
    assert (split.captions, split.image_ids) == (("a red disc", "a disc"), ("p02",))
    drawn(99).save(pictures / "new.jpg")
    assert extract_folder(pictures, out, Means()).captions == 3
    assert open_split(out, "test").captions == split.captions
    assert everything(out).captions[-1] == "a box"


def test_captions_that_another_job_wrote_meanwhile_are_kept(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = [PictureCaption("p02.jpg", "a red disc", "test")]
    extract_folder(pictures, out, Means())

    def after_another_job(*places: Path) -> AbstractContextManager[None]:
        monkeypatch.setattr(extraction, "exclusive_job", exclusive_job)
        extract_folder(pictures, out, Means(), captions=lambda files: reported)
        return exclusive_job(*places)

    monkeypatch.setattr(extraction, "exclusive_job", after_another_job)
    (pictures / "a/p01.jpg").unlink()  # so that the store is written again
    assert extract_folder(pictures, out, Means()).captions == 1


def test_captions_of_pictures_that_cannot_be_read_are_not_dropped(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = [PictureCaption(name, "a disc", "test") for name in ("p02.jpg", "a/p01.jpg")]
    extract_folder(pictures, out, Means(), captions=lambda files: reported)
    whole = (pictures / "p02.jpg").read_bytes()
    (pictures / "p02.jpg").write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"store has captions of the picture 'p02\.jpg', but 'p02\.jpg' cannot be used"):
        extract_folder(pictures, out, Means())
    (pictures / "p02.jpg").write_bytes(whole)
    listed = Path.iterdir

    def denied(folder: Path) -> Iterator[Path]:
        if folder.name == "a":
            raise PermissionError(13, "Permission denied")
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(DataError, match=r"'a/p01\.jpg', but 'a' cannot be used now: the folder cannot be read"):
        extract_folder(pictures, out, Means())
    monkeypatch.undo()
    (pictures / "p02.jpg").unlink()
    assert extract_folder(pictures, out, Means()).captions == 1


def test_progress_counts_the_missing_pictures(pictures: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), options=ExtractionOptions(batch=2))
    reported: list[tuple[str, int, int]] = []

    def begin(what: str, counted: str) -> extraction.Tell:
        assert counted == "pictures"
        return lambda done, total: reported.append((what, done, total))

    extract_folder(pictures, out, Means(), options=ExtractionOptions(batch=2), begin=begin)
    assert reported == [("extracting", 2, 4), ("extracting", 4, 4), ("writing", 10, 10)]


def test_the_scenes_extractor_works_in_processes_as_in_this_one(pictures: Path, out: Path) -> None:
    extractor = open_extractor("scenes")
    extract_folder(pictures, out, extractor, options=ExtractionOptions(workers=1))
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
