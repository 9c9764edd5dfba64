"""Updates of an index: additions, replacements, deletions, interruptions, full disks, concurrent access."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.forked import answer_of, program
from tests.support.indexed import Small, built
from tshsr.data.dataset import Split
from tshsr.errors import CheckpointError, DataError
from tshsr.index import building, collection, database, updates
from tshsr.index.about import Smaller
from tshsr.index.collection import Index
from tshsr.index.database import write_lock
from tshsr.index.metadata import metadata_of
from tshsr.scoring.compression import RegionPooling


def test_indexed_pictures_are_kept_and_new_ones_added(small: Small, tmp_path: Path) -> None:
    index = built(small, tmp_path / "index", "test")
    assert (len(index), index.captions) == (4, 8)
    added = index.add(small.split())
    assert (added.new, added.replaced, added.kept, added.captions) == (8, 0, 4, 16)
    assert (len(index), index.captions) == (12, 24)
    assert index.add(small.split()) == building.Added(0, 0, 12, 0)


def test_pictures_identified_by_row_numbers_are_not_confused(small: Small, tmp_path: Path) -> None:
    def numbered(name: str) -> Split:
        split = small.split(name)
        return replace(split, name=name, image_ids=tuple(map(str, range(len(split.image_ids)))))

    index = Index.build(tmp_path / "index", small.retriever(), numbered("test"))
    assert index.add(numbered("test")).kept == 4, "the same pictures are indexed"
    other = numbered("test")
    other = replace(other, regions=other.regions.select([1, 0, 2, 3]))
    with pytest.raises(DataError, match="no ids except row numbers, and the index has another picture '0'"):
        index.add(other)
    assert index.replace(other).replaced == 4


def test_replacing_encodes_again_and_keeps_metadata(small: Small, index: Index) -> None:
    split = small.split("test")
    index.add(split, metadata=metadata_of([{"id": name, "year": 2000} for name in split.image_ids], "facts"))
    other = replace(
        split,
        regions=split.regions.select([1, 0, 2, 3]),
        captions=split.captions[1:-2],
        image_of_caption=split.image_of_caption[1:-2],
    )
    before = index.explain("one red dog", split.image_ids[0]).scores["fused"]
    assert index.replace(other) == building.Added(0, 4, 0, 5)
    assert (len(index), index.captions) == (12, 21), "removed captions are deleted, also all of a picture"
    index.replace(replace(other, captions=(), image_of_caption=other.image_of_caption[:0]))
    assert index.captions == 21, "pictures for search only say nothing of captions"
    assert index.explain("one red dog", split.image_ids[0]).scores["fused"] != before
    assert len(index.search("one red dog", where="year = 2000")) == 4


def test_captions_are_told_apart_by_their_texts(small: Small, index: Index) -> None:
    def captions() -> list[tuple[str, str]]:
        rows = index._captions.live.search().where("image = 'p0'").select(["id", "caption"]).to_arrow()
        return list(zip(rows["id"].to_pylist(), rows["caption"].to_pylist(), strict=True))

    split, before = small.split(), captions()
    more = replace(
        split, captions=("a new one", *split.captions), image_of_caption=np.insert(split.image_of_caption, 0, 0)
    )
    assert index.add(more).captions == 1
    assert captions() == [*before, ("p0#2", "a new one")]
    assert index.add(more).captions == 0
    others = replace(split, captions=("a new one", "another"), image_of_caption=np.zeros(2, np.int64))
    assert index.add(others).captions == 1, "those of a picture in another split"
    assert captions() == [*before, ("p0#2", "a new one"), ("p0#3", "another")]
    index.replace(more)
    assert sorted(captions()) == [(f"p0#{number}", text) for number, text in enumerate(more.captions[:3])]


def test_an_open_index_notices_that_another_network_built_it_again(small: Small, index: Index) -> None:
    assert index.search("a red dog")
    other = small.retriever()
    with torch.no_grad():
        next(other.matcher.parameters()).add_(1)
    shutil.rmtree(index.folder)
    Index.build(index.folder, other, small.split())
    for use in (lambda: index.search("a red dog"), lambda: index.add(small.split())):
        with pytest.raises(CheckpointError, match=r"was built again, by another network \(run\), since it was opened"):
            use()


def test_caches_of_old_versions_are_released(small: Small, index: Index) -> None:
    """LanceDB's cache of a handle keeps metadata of every version that it has seen."""
    index.search("one red dog")
    assert index._tables().pictures is not index._pictures.live, "a write has a handle of its own"
    old = weakref.ref(index._pictures.live)
    index.replace(small.split("test"))
    index.search("one red dog")
    gc.collect()
    assert old() is None


def test_deleting_includes_captions_and_refuses_unknown_ids(index: Index) -> None:
    with pytest.raises(DataError, match="has no picture 'p99'; did you mean 'p9'"):
        index.delete(["p1", "p99"])
    assert len(index) == 12
    index.delete(["p1", "p2"])
    assert (len(index), index.captions) == (10, 20)
    assert not {"p1", "p2"} & {result.id for result in index.search("a red dog", k=12)}


def test_among_many_ids_none_is_suggested(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "MAX_SUGGESTED_FROM", 11)
    monkeypatch.setattr(collection, "MAX_SUGGESTED_FROM", 11)
    for run in (lambda: index.delete(["p99"]), lambda: index.explain("a dog", "p99")):
        with pytest.raises(DataError, match=r"has no picture 'p99'\.$"):
            run()


def test_ids_with_quotes_are_ids(small: Small, tmp_path: Path) -> None:
    split = small.split("test")
    odd = replace(split, image_ids=("it's", "'); drop", *split.image_ids[2:]))
    index = Index.build(tmp_path / "index", small.retriever(), odd)
    assert index.explain("a red dog", "it's").caption == "a red dog"
    index.delete(["it's", "'); drop"])
    assert len(index) == 2


def test_pictures_that_share_an_id_are_refused(small: Small, tmp_path: Path) -> None:
    split = small.split("test")
    same = replace(split, image_ids=("a", "a", "b", "c"))
    with pytest.raises(DataError, match="2 pictures have the id 'a'; each needs a unique one"):
        Index.build(tmp_path / "index", small.retriever(), same)


def test_a_picture_folder_can_be_named_and_a_wrong_one_is_refused(small: Small, tmp_path: Path) -> None:
    split = replace(small.split("test"), pictures=None)
    index = Index.build(tmp_path / "index", small.retriever(), split)
    assert index.picture_file(split.image_ids[0]) is None
    assert index.search("a dog", k=1)[0].file is not None, "its name is known"
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"other holds none of the expected picture files, such as p8\.png"):
        index.replace(split, pictures=tmp_path / "other")
    index.replace(split, pictures=small.store / "pictures")
    assert index.picture_file("p8") == (small.store / "pictures" / "p8.png").resolve()
    assert len(index.search("a dog", where="width = 8 AND height = 6")) == 4


def test_the_folder_of_the_pictures_is_stored_as_an_absolute_path(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.store.parent)
    split = replace(small.split("test"), pictures=Path("store/pictures"))
    index = Index.build(tmp_path / "index", small.retriever(), split)
    monkeypatch.chdir(tmp_path)
    assert index.picture_file("p8") == (small.store / "pictures" / "p8.png").resolve()
    assert Path(index.search("a dog", k=1)[0].file or "").is_file()


def test_a_picture_folder_that_is_named_later_applies_to_indexed_pictures(small: Small, tmp_path: Path) -> None:
    split = replace(small.split("test"), pictures=None)
    index = Index.build(tmp_path / "index", small.retriever(), split)
    assert index.picture_file("p8") is None
    assert index.add(split, pictures=small.store / "pictures") == building.Added(0, 0, 4, 0)
    assert index.picture_file("p8") == (small.store / "pictures" / "p8.png").resolve()
    assert len(index.search("a dog", where="width = 8 AND height = 6")) == 4
    version = index._pictures.live.version
    index.add(split, pictures=small.store / "pictures")
    index.add(split)
    assert index._pictures.live.version == version, "nothing changed"
    assert index.picture_file("p8") is not None


def test_a_file_name_that_leads_out_of_the_folder_is_refused(small: Small, tmp_path: Path) -> None:
    split = small.split()
    files = ("../run/config.json", *(split.files or ())[1:])
    with pytest.raises(DataError, match=r"'\.\./run/config.json' lies outside its folder"):
        Index.build(tmp_path / "index", small.retriever(), replace(split, files=files))


KILLED = """
import os, signal, sys
from tests.support.indexed import Small
from tshsr.index import building, database
from tshsr.index.collection import Index
from pathlib import Path

building.ENCODE_BLOCK, building.COMMIT_BYTES = 2, 1
run, store, out, counted, at = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])

def begin(what, kind):
    def progress(done, total):
        if kind == counted and done >= at:
            os.kill(os.getpid(), signal.SIGKILL)
    return progress

small = Small(run, store)
Index.build(out, small.retriever(), small.split(), run=run, begin=begin)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are killed by a signal here")
@pytest.mark.parametrize(("counted", "at", "pictures", "captions"), [("pictures", 6, 6, 0), ("captions", 8, 12, 8)])
def test_an_interrupted_build_continues(
    small: Small, tmp_path: Path, counted: str, at: int, pictures: int, captions: int
) -> None:
    out = tmp_path / "index"
    code, _, errors = answer_of(program, KILLED, small.run, small.store, out, counted, str(at))
    assert code == -signal.SIGKILL, errors
    index = Index.open(out)
    assert (len(index), index.captions) == (pictures, captions), "committed rows are searchable"
    assert len(index.search("a red dog", k=12)) == pictures
    assert index.about.unfinished == "store, split all"
    added = index.add(small.split())
    assert (added.new, added.kept, added.captions) == (12 - pictures, pictures, 24 - captions)
    assert index.about.unfinished is None
    found, expected = (each.search("a red dog", k=12) for each in (index, built(small, tmp_path / "whole")))
    assert [result.id for result in found] == [result.id for result in expected]
    # Other block sizes round differently.
    assert [result.score for result in found] == pytest.approx([result.score for result in expected], abs=1e-5)


def test_a_finished_addition_leaves_another_one_unfinished(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    index = built(small, tmp_path / "index", "test")
    with monkeypatch.context() as patched:
        patched.setattr(updates, "add_captions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.add(small.split("train"))
    index.add(small.split("test"))
    assert index.about.unfinished == "store, split train"
    index.add(small.split("train"))
    assert (index.about.unfinished, index.captions) == (None, 24)


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.support.indexed import Small
from tshsr.cli.main import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import lancedb, tshsr.cli.index
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits on files are a thing of POSIX")
def test_a_full_disk_is_one_sentence_and_the_index_is_unchanged(small: Small, tmp_path: Path) -> None:
    index = built(small, tmp_path / "index", "test")
    before = index.search("a red dog", k=12)
    # A file may grow to 2,500 bytes: enough for the small files, not for the rows.
    words = ("index", small.run, "--data", small.store, "--out", index.folder)
    code, _, errors = answer_of(program, FULL, "2500", *map(str, words))
    assert code == 2, errors
    last = errors.splitlines()[-1]
    assert re.match(
        rf"tshsr: Cannot write {index.folder}: (File too large|a file was truncated, as on a full disk)\. "
        "The rows committed before are still there; free some space",
        last,
    )
    assert "Traceback" not in errors
    assert Index.open(index.folder).search("a red dog", k=12) == before
    assert index.add(small.split()).new == 8


def test_searches_run_while_pictures_are_added_replaced_and_deleted(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "ENCODE_BLOCK", 1)
    monkeypatch.setattr(building, "COMMIT_BYTES", 1)
    index = built(small, tmp_path / "index", "test")
    reader, split = Index.open(index.folder), small.split()
    seen: list[int] = []
    failed: list[BaseException] = []

    def search() -> None:
        try:
            while writing.is_alive():
                found = reader.search("a red dog", k=12)
                assert len({result.id for result in found}) == len(found)
                seen.append(len(found))
        except BaseException as error:  # noqa: BLE001 - asserted below
            failed.append(error)

    def write() -> None:
        index.add(split)
        index.replace(split)
        index.delete(["p0", "p1", "p2", "p3"])

    writing = threading.Thread(target=write)
    writing.start()
    search()
    writing.join()
    assert not failed, failed
    assert len(reader.search("a red dog", k=12)) == 8
    assert min(seen) >= 4
    assert len(set(seen)) > 1, "intermediate versions were read"


def test_two_writers_exclude_each_other(small: Small, index: Index) -> None:
    with write_lock(index.folder), pytest.raises(DataError, match="is being written by another process; wait for it"):
        index.add(small.split())
    assert index.add(small.split()).kept == 12


def test_two_first_builds_exclude_each_other(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    with write_lock(folder), pytest.raises(DataError, match="is being written by another process; wait for it"):
        built(small, folder, "test")
    assert [path.name for path in folder.iterdir()] == [database.LOCK], "the second wrote nothing"
    assert len(built(small, folder, "test")) == 4


def test_a_folder_with_other_contents_is_not_changed(small: Small, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(DataError, match="holds something that is no index"):
        built(small, tmp_path, "test")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_build_interrupted_before_its_first_row_starts_again(small: Small, tmp_path: Path) -> None:
    index = built(small, tmp_path / "index", "test")
    for manifest in (index.folder / "captions.lance" / "_versions").iterdir():
        manifest.unlink()
    with pytest.raises(DataError, match=r"has no captions that can be read \(.*\); run tshsr index again"):
        Index.open(index.folder)
    again = built(small, tmp_path / "index", "test")
    assert (len(again), again.captions) == (4, 8)


def test_a_creation_interrupted_after_the_learned_regions_starts_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    folder, retriever, smaller = tmp_path / "index", small.retriever(), Smaller(pooling=RegionPooling(torch.ones(2, 8)))
    with monkeypatch.context() as patched:
        patched.setattr(updates, "write_info", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Index.create(folder, retriever, extractor="small", smaller=smaller)
    assert Index.create(folder, retriever, extractor="small", smaller=smaller).about.regions == 2


def test_many_small_fragments_are_compacted(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "ENCODE_BLOCK", 1)
    monkeypatch.setattr(building, "COMMIT_BYTES", 1)
    pieces = built(small, tmp_path / "pieces")
    before = pieces.search("a red dog", k=12)
    assert pieces._pictures.live.stats()["fragment_stats"]["num_fragments"] == 12
    monkeypatch.setattr(database, "MAX_FRAGMENTS", 3)
    pieces.add(small.split())
    assert pieces._pictures.live.stats()["fragment_stats"]["num_fragments"] == 1
    assert pieces.search("a red dog", k=12) == before
    assert pieces.picture_file("p11") is not None


def test_a_truncated_version_is_rolled_back_by_the_next_writer(
    small: Small, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = built(small, tmp_path / "index", "test")
    before = set((index.folder / "pictures.lance" / "data").iterdir())
    index.add(small.split())
    (new,) = set((index.folder / "pictures.lance" / "data").iterdir()) - before
    new.write_bytes(new.read_bytes()[:-100])  # as a full disk and an interruption would leave it
    with pytest.raises(DataError, match=r"cannot be read \(.*\); run tshsr index on it again, which removes"):
        Index.open(index.folder).search("a red dog")
    again = Index.open(index.folder)
    assert again.add(small.split()) == building.Added(8, 0, 4, 0)
    assert len(again.search("a red dog", k=12)) == 12
    assert "the newest 1 versions of pictures are damaged; rolled back to 4 rows: add what is missing" in caplog.text


def test_a_version_that_cannot_be_read_now_is_not_rolled_back(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    check, errors = database.check_readable, list[Exception]()

    def disturbed(table: object) -> None:
        if errors:
            raise errors.pop()
        check(table)

    monkeypatch.setattr(database, "check_readable", disturbed)
    for error in (
        OSError("LanceError(IO): Generic LocalFileSystem error: Too many open files (os error 24), src/reader.rs:7"),
        RuntimeError("Unable to open file /a/b.lance: Permission denied (os error 13)"),
        PermissionError(13, "Permission denied"),
        OSError("LanceError(IO): Generic S3 error: Error performing GET http://a/b in 9s: operation timed out"),
    ):
        errors.append(error)
        with pytest.raises(
            DataError, match=r"cannot be read \(.*\); nothing was changed\. Remove this cause, then run"
        ):
            index.delete(["p0"])
        assert len(index) == 12
    errors.append(ValueError("the cause is unknown, and gone at the second look"))
    index.delete(["p0"])
    assert len(index) == 11
