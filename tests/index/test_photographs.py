"""A folder of photographs as a collection: made, updated, interrupted anywhere, made again for another checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.extractors import Means
from tests.support.picture_files import drawn, write_pictures, write_rubbish
from tests.support.small_runs import StopError, small_config
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError
from tshsr.features import extraction, resume
from tshsr.features.catalog import extractor_named, open_extractor
from tshsr.files import exclusive_lock
from tshsr.index import building, photographs, updates
from tshsr.index.photographs import INDEX, INDEXED, LOCK, MARK, STORE, Photographs, update_photographs
from tshsr.models.build import build_matcher
from tshsr.retriever import Retriever


def network(seed: int = 0, extractor: str = "means") -> Retriever:
    """A tiny network over the features of `Means`."""
    tokenizer = Tokenizer.build(["a red dog", "one blue boat"], 1)
    config = small_config()
    encoder = replace(config.model.encoder, feature_dim=4, vocabulary=len(tokenizer))
    config = replace(config, extractor=extractor, model=replace(config.model, encoder=encoder))
    torch.manual_seed(seed)
    return Retriever(build_matcher(config.model), tokenizer, config, "tiny")


@pytest.fixture
def extractor(monkeypatch: pytest.MonkeyPatch) -> Means:
    """The extractor of every checkpoint here; it counts the pictures that it has seen."""
    means = Means()
    monkeypatch.setattr("tshsr.retriever.extractor_named", lambda name, **_: replace(means, name=name, seen=means.seen))
    return means


def update(pictures: Path, out: Path, retriever: Retriever | None = None) -> Photographs:
    return update_photographs(pictures, out, retriever or network(), run="nowhere")


def content(done: Photographs) -> dict[str, tuple[float, str]]:
    """Score and file of every picture that a search finds, by id."""
    found = done.index.search("a red dog", k=100)
    assert len(found) == len(done.index)
    return {one.id: (round(one.score, 5), str(one.file)) for one in found}


def change(pictures: Path, name: str) -> None:
    """Another picture in the same file."""
    before = (pictures / name).stat().st_mtime_ns
    drawn(77, (350, 120)).save(pictures / name)
    os.utime(pictures / name, ns=(before + 10**9, before + 10**9))


def test_a_folder_becomes_a_collection(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    write_rubbish(pictures)
    done = update(pictures, tmp_path / "out")
    assert (len(done.index), done.added, done.removed, done.discarded) == (10, 10, 0, False)
    assert {"cut.jpg", "notes.txt", "folder.jpg"} <= {one.file for one in done.extraction.skipped}
    assert content(done)["a/p01"][1] == str(pictures / "a/p01.jpg")
    assert sum(extractor.seen) == 10


def test_an_update_does_what_is_missing(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    update(pictures, tmp_path / "out")
    extractor.seen.clear()
    done = update(pictures, tmp_path / "out")
    assert (done.added, done.removed, extractor.seen) == (0, 0, [])
    drawn(50, (300, 90)).save(pictures / "new.jpg")
    (pictures / "p02.jpg").unlink()
    change(pictures, "p04.jpg")
    done = update(pictures, tmp_path / "out")
    assert (len(done.index), done.added, done.removed, done.changed) == (10, 2, 2, 1)
    assert sum(extractor.seen) == 2
    assert content(done) == content(update(pictures, tmp_path / "fresh"))


POINTS: dict[str, tuple[Any, str, int]] = {
    "the first part of regions": (resume.WorkFolder, "add", 1),
    "the second part of regions": (resume.WorkFolder, "add", 2),
    "the store": (extraction, "write_store", 1),
    "the list of files": (extraction, "write_file_list", 1),
    "the creation of the index": (updates, "write_info", 1),
    "the removal from the index": (photographs.Index, "delete", 1),
    "the list of indexed files": (photographs, "write_text", 2),
    "the first rows": (building, "write_rows", 1),
    "the second rows": (building, "write_rows", 2),
    "the upkeep of the tables": (updates, "maintain_tables", 2),
}
"""Functions that write: where, which, and the call that a job does not survive."""


def killed(monkeypatch: pytest.MonkeyPatch, point: str, job: Callable[[], object]) -> bool:
    """Whether a job that dies at a call got there."""
    owner, name, last = POINTS[point]
    function, calls = getattr(owner, name), []

    def dying(*given: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == last:
            raise StopError
        return function(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying)
        try:
            job()
        except StopError:
            return True
    return False


@pytest.mark.parametrize("point", POINTS)
def test_after_a_kill_at_any_write_the_same_call_continues(
    pictures: Path, tmp_path: Path, extractor: Means, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """In the first run and in an update; pictures change between the kill and the next run, too."""
    monkeypatch.setattr(extraction, "SHARD", 4)
    monkeypatch.setattr(building.Addition, "rows_per_shard", property(lambda _: 4))
    options = replace(photographs.OPTIONS, batch=2)
    out, reached = tmp_path / "out", []

    def job() -> Photographs:
        return update_photographs(pictures, out, network(), run="nowhere", options=options)

    reached.append(killed(monkeypatch, point, job))
    change(pictures, "p00.jpg")
    job()
    for name in ("p02.jpg", "p04.jpg", "p06.jpg", "a/p01.jpg", "a/p03.jpg"):
        change(pictures, name)
    reached.append(killed(monkeypatch, point, job))
    change(pictures, "p06.jpg")
    (pictures / "p08.jpg").unlink()
    done = job()
    assert any(reached), "the point is passed"
    assert content(done) == content(update(pictures, tmp_path / "fresh"))
    assert sorted(path.name for path in out.iterdir()) == [LOCK, INDEX, INDEXED, MARK, STORE]


def test_another_checkpoint_indexes_again(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    update(pictures, tmp_path / "out")
    extractor.seen.clear()
    done = update(pictures, tmp_path / "out", network(1))
    assert (done.discarded, done.added, extractor.seen) == (True, 10, [])
    assert content(done) == content(update(pictures, tmp_path / "fresh", network(1)))


def test_a_checkpoint_of_other_regions_extracts_again(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    out = tmp_path / "out"
    update(pictures, out)
    (out / ".store.means.float16.work").mkdir()
    extractor.seen.clear()
    done = update(pictures, out, network(0, "other means"))
    assert (done.discarded, done.added, sum(extractor.seen)) == (True, 10, 10)
    assert sorted(path.name for path in out.iterdir()) == [LOCK, INDEX, INDEXED, MARK, STORE]


def test_the_output_folder_may_lie_among_the_pictures(pictures: Path, extractor: Means) -> None:
    for _ in range(2):
        done = update(pictures, pictures / "out")
        assert (len(done.index), done.extraction.skipped) == (10, ())


def test_a_damaged_list_of_indexed_files_indexes_again(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    update(pictures, tmp_path / "out")
    (tmp_path / "out" / INDEXED).write_text("{")
    done = update(pictures, tmp_path / "out")
    assert (done.added, done.removed) == (10, 10)


def test_folders_that_cannot_be_used_are_refused_and_stay_as_they_are(
    pictures: Path, tmp_path: Path, extractor: Means
) -> None:
    def refusal(folder: Path, out: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(DataError) as caught:
            update(folder, out)
        assert sorted(tmp_path.rglob("*")) == before
        return str(caught.value)

    update(pictures, tmp_path / "out")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "others", 2)
    assert refusal(pictures, tmp_path / "file") == f"{tmp_path / 'file'} is a file; name a folder with --out."
    assert (
        refusal(pictures, pictures)
        == f"{pictures} is the folder of the pictures itself; name another folder with --out."
    )
    assert refusal(pictures, tmp_path / "others") == (
        f"{tmp_path / 'others'} holds something that tshsr photos did not write (a); name another folder with --out."
    )
    others, out = tmp_path / "others", tmp_path / "out"
    assert refusal(others, out) == (
        f"{out} is the collection of {pictures}; name another folder with --out for {others}, or remove {out}."
    )
    assert refusal(tmp_path / "empty", tmp_path / "new") == (
        f"{tmp_path / 'empty'} holds no files that can be read; name a folder of pictures."
    )
    assert (
        refusal(tmp_path / "none", tmp_path / "new")
        == f"{tmp_path / 'none'} does not exist; name a folder of pictures."
    )


def test_two_at_a_time_are_refused(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    out = tmp_path / "out"
    update(pictures, out)
    with exclusive_lock(out / LOCK, ""), pytest.raises(DataError) as caught:
        update(pictures, out)
    assert str(caught.value) == f"another tshsr photos works in {out}; wait for it, or name another --out."


def test_the_mark_names_the_pictures(pictures: Path, tmp_path: Path, extractor: Means) -> None:
    update(pictures, tmp_path / "out")
    assert json.loads((tmp_path / "out" / MARK).read_text()) == {"version": 1, "pictures": str(pictures)}


def test_an_extractor_is_opened_by_its_name() -> None:
    assert extractor_named(open_extractor("scenes").name).name == open_extractor("scenes").name
    with pytest.raises(
        DataError, match=r"^the extractor 'grid-dinov2-6x6-64490f968e' can't be opened by its name, bec"
    ):
        extractor_named("grid-dinov2-6x6-64490f968e")
