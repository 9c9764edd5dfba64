"""Failures of an extraction: messages, kept parts, resuming."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.data_files import failing_at
from tests.support.extractors import Joint, Means, everything, work_folders
from tests.support.forked import forked, program
from tests.support.picture_files import crash, drawn, write_pictures, write_rubbish
from tshsr.data.store import DATA_FILES
from tshsr.errors import DataError
from tshsr.features import extraction, resume
from tshsr.features.decoding import decode_all, needs_main
from tshsr.features.extraction import extract_folder
from tshsr.features.extractor import PictureRegions
from tshsr.features.resume import FILES
from tshsr.features.shards import ExtractionOptions


def test_an_interrupted_job_resumes_with_the_same_result(pictures: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), options=ExtractionOptions(batch=2))
    assert not out.exists()
    again = Means()
    done = extract_folder(pictures, out, again, options=ExtractionOptions(batch=2))
    assert (done.pictures, done.reused, sum(again.seen)) == (10, 6, 4)
    extract_folder(pictures, tmp_path / "at once", Means())
    for name in ("regions.npy", "boxes.npy", "images.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "at once" / name).read_bytes()


def test_parts_of_another_folder_of_pictures_are_not_reused(pictures: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), options=ExtractionOptions(batch=2))
    other = shutil.copytree(pictures, tmp_path / "copy")  # names, sizes and dates are equal
    assert extract_folder(other, out, Means()).reused == 0


def test_a_killed_job_loses_at_most_its_unwritten_part(pictures: Path, out: Path) -> None:
    code = f"""
import threading
from pathlib import Path
from tests.support.extractors import Joint, Means
from tshsr.features import extraction
from tshsr.features.shards import ExtractionOptions
class Stuck(Means):
    def compute(self, prepared):
        if len(self.seen) == 7:
            threading.Event().wait()
        return super().compute(prepared)
extraction.SHARD = 2
options = ExtractionOptions(batch=1)
extraction.extract_folder(Path({str(pictures)!r}), Path({str(out)!r}), Stuck(), options=options)
"""
    with forked(program, code) as process:
        end = time.monotonic() + 600
        while not list(out.parent.glob(".store*/part-000001*")):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    assert not out.exists()
    again = Means()
    done = extract_folder(pictures, out, again)
    assert 4 <= done.reused < 10
    assert sum(again.seen) == 10 - done.reused
    assert len(everything(out).regions) == 10


class Infinite(Means):
    def of(self, mean: np.ndarray, width: int) -> PictureRegions:
        regions = super().of(mean, width)
        return PictureRegions(regions.features * 1000, regions.boxes)


def test_features_beyond_the_range_of_the_dtype_are_reported_and_not_stored(pictures: Path, out: Path) -> None:
    Image.new("RGB", (50, 50)).save(pictures / "black.png")
    done = extract_folder(pictures, out, Infinite(), options=ExtractionOptions(dtype="float16"))
    assert done.pictures == 1
    assert done.skipped[0].reason == "one of its features is not finite as float16."


def test_a_picture_that_the_network_refuses_is_the_only_one_skipped(pictures: Path, out: Path) -> None:
    Image.new("RGB", (50, 50), (7, 7, 7)).save(pictures / "odd.png")
    done = extract_folder(pictures, out, Means(refuses=7))
    assert done.pictures == 10
    assert [(one.file, one.reason) for one in done.skipped] == [
        ("odd.png", "the network failed on it: Kernel size can't be greater than the input")
    ]


class Lost(Means):
    def compute(self, prepared: Sequence[tuple[np.ndarray, int]]) -> list[PictureRegions]:
        if sum(self.seen) == 6:
            raise RuntimeError("CUDA error: unspecified launch failure")
        return super().compute(prepared)


def test_an_error_of_the_device_is_not_one_of_the_pictures(pictures: Path, out: Path) -> None:
    with pytest.raises(DataError, match=r"the network fails on every picture \(CUDA error: .*pictures are kept: run"):
        extract_folder(pictures, out, Lost(), options=ExtractionOptions(batch=2))
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.reused, done.skipped) == (10, 6, ())


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


def test_a_full_disk_is_one_sentence_and_no_written_part_is_lost(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "SHARD", 2)
    kept = []

    def full(path: Path, content: bytes) -> None:
        if len(kept) == 2:
            with resume.explained(path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        kept.append(path)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "write_bytes", full)
        with pytest.raises(DataError, match=r"No space left on device\. Make room"):
            extract_folder(pictures, out, Means(), options=ExtractionOptions(batch=2))
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.reused) == (10, 4)


@pytest.mark.parametrize("last", [*DATA_FILES, "manifest.json"])
def test_after_a_full_disk_while_the_store_is_written_the_next_job_finishes_it(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    drawn(0, (400, 50)).save(pictures / "wide.png")  # for the mask
    with monkeypatch.context() as patch:
        patch.setattr("tshsr.data.store.replacing", failing_at(last))
        with pytest.raises(DataError, match="the disk is full"):
            extract_folder(pictures, out, Joint())
    done = extract_folder(pictures, out, Joint())
    assert (done.pictures, done.reused) == (11, 11)
    assert len(everything(out).regions) == 11


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf8_are_refused_or_reported(pictures: Path, out: Path) -> None:
    (pictures / os.fsdecode(b"\xe9t\xe9.jpg")).mkdir()
    (found,) = extract_folder(pictures, out, Means()).skipped
    assert (found.file, found.reason) == ("\ufffdt\ufffd.jpg", "is a folder; expected a picture file.")
    renamed = pictures.rename(pictures.with_name(os.fsdecode(b"Bilder-\xe4")))
    with pytest.raises(DataError, match=r"the path .*Bilder-\ufffd is not UTF-8, so no store can name it; rename it"):
        extract_folder(renamed, out.with_name("other"), Means())


def test_the_error_of_a_damaged_store_says_how_to_replace_it(pictures: Path, out: Path) -> None:
    extract_folder(pictures, out, Means())
    (out / "boxes.npy").unlink()
    with pytest.raises(DataError, match=rf"Cannot read .*boxes\.npy: .* To extract again, remove {out} first\.$"):
        extract_folder(pictures, out, Means())


@pytest.mark.parametrize("damage", ["swap", "cut"])
def test_a_wrong_list_of_files_is_not_reused(pictures: Path, out: Path, damage: str) -> None:
    extract_folder(pictures, out, Means())
    first, second, *others = (out / FILES).read_bytes().splitlines(keepends=True)
    (out / FILES).write_bytes(b"".join([second, first, *others] if damage == "swap" else [first[:9], second, *others]))
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.reused) == (10, 0)


def test_a_place_that_cannot_be_written_is_one_sentence(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot write .*(Not a directory|File exists)\. Make room or name another"):
        extract_folder(pictures, pictures / "p00.jpg" / "store", Means())


def test_a_damaged_part_is_extracted_again(pictures: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract_folder(pictures, out, Means(fails_after=6), options=ExtractionOptions(batch=2))
    (part,) = out.parent.glob(".store*/part-*")
    part.write_bytes(part.read_bytes()[:50])
    done = extract_folder(pictures, out, Means())
    assert (done.pictures, done.reused) == (10, 0)


def test_a_picture_that_crashes_its_process_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    sizes = [10, 13, 12, 13, 14, 15]
    for number, size in enumerate(sizes):
        Image.new("RGB", (size, size)).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    found = list(decode_all(paths, crash, workers=1, processes=True))
    assert [one.prepared for one in found] == [10, None, 12, None, 14, 15]
    assert found[1].problem == "ended the process that read it: damaged, or too large for the memory."


def test_a_script_without_a_guard_does_not_run_again_in_each_worker(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('ran again')")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    (found,) = decode_all([pictures / "p00.jpg"], Means().prepare, workers=1, processes=True)
    assert (found.problem, main.__file__) == ("", str(script))


def test_workers_import_the_script_only_for_what_is_defined_there(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(Means):
        pass

    assert not needs_main(Means().prepare)
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    Own.__module__, Own.__qualname__ = "__main__", "Own"
    assert needs_main(Own().prepare)
