"""An index on object storage: that of a folder, one writer, several servers over one table while rows are added."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import pytest

from tests.support.command_line import tshsr
from tests.support.indexed import Small, built
from tests.support.served import Served, serving
from tshsr.data.npy import NpyFile, npy_header
from tshsr.errors import DataError, SettingsError
from tshsr.features.decoding import decode
from tshsr.files import place_of, remove_folder, write_text
from tshsr.index import database
from tshsr.index.about import read_info
from tshsr.index.collection import Index
from tshsr.index.database import LOCK, open_table, write_lock
from tshsr.index.updates import check_place
from tshsr.reranking.reranker import Reranker

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the server's and the client's packages


@pytest.fixture
def url(storage: str, tmp_path: Path) -> str:
    """The URL of an index that is not there yet."""
    return f"{storage}/{tmp_path.name}/index"


def asked_until(done: Event, *servers: Served) -> set[int]:
    """Numbers of results of the servers, asked again and again."""
    found = {len(answers(each.address, "one red dog")) for each in servers}
    while not done.wait(0.2):
        found |= {len(answers(each.address, "one red dog")) for each in servers}
    return found


def answers(address: str, query: str) -> list[str]:
    with urlopen(f"{address}api/search?q={quote(query)}&k=10") as answer:
        return [result["id"] for result in json.load(answer)["results"]]


def test_an_index_on_object_storage_is_that_of_a_folder(small: Small, url: str, tmp_path: Path) -> None:
    local = built(small, tmp_path / "index", "test")  # in the same steps, so that rows are in the same order
    local.add(small.split())
    index = Index.build(url, small.retriever(), small.split("test"), run=small.run, settings={"windows": 3})
    assert index.add(small.split()).new == 8
    opened = Index.open(url)
    assert (len(opened), opened.captions, opened.about.run) == (12, 24, str(small.run.resolve()))
    assert opened.search("one red dog", k=5) == local.search("one red dog", k=5)
    assert opened.explain("one red dog", "p0").scores == local.explain("one red dog", "p0").scores
    reranked = Reranker(small.retriever(), source=url).rank("one red dog", ["p0", "p1"])
    assert {each.id for each in reranked} == {"p0", "p1"}
    index.delete(["p0"])
    assert len(opened) == 11
    said = tshsr("search", url, "one red dog", "--json", "-", "--device", "cpu")
    assert [each["id"] for each in said.json()["results"]] == [each.id for each in opened.search("one red dog")]


def test_one_process_writes_and_what_a_killed_one_leaves_is_named(small: Small, url: str) -> None:
    index = Index.build(url, small.retriever(), small.split("test"), run=small.run)
    with (
        write_lock(index.folder),
        pytest.raises(DataError, match=r"is being written by another .* It belongs to process"),
    ):
        index.add(small.split())
    index.add(small.split())
    assert not (place_of(url) / LOCK).exists()
    with pytest.raises(DataError, match=r"no-index does not exist; make one with tshsr index"):
        Index.open(f"{url}/no-index")
    (place_of(url).parent / "other" / "file").write_bytes(b"other")
    with pytest.raises(DataError, match="other holds something that is no index \\(file\\)"):
        Index.create(place_of(url).parent / "other", small.retriever(), extractor=small.split().extractor)


def test_many_small_additions_are_compacted_and_a_reader_goes_on(
    small: Small, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.build(url, small.retriever(), small.split("test"), run=small.run)
    reader = Index.open(url)
    before = [result.id for result in reader.search("one red dog", k=20)]
    monkeypatch.setattr(database, "MAX_FRAGMENTS", 1)
    index.add(small.split())
    assert index._pictures.live.stats()["fragment_stats"]["num_fragments"] == 1
    found = [result.id for result in reader.search("one red dog", k=20)]
    assert (len(before), len(found)) == (4, 12)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tshsr.files.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"needs universal-pathlib, .* pip install 'tshsr\[storage\]'"):
        place_of("s3://bucket/index")
    monkeypatch.undo()
    with pytest.raises(SettingsError, match="nothing://x cannot be opened: "):
        place_of("nothing://x")


def without_credentials(*_: object, **__: object) -> None:
    """As a client of object storage fails: its errors are of no common class."""
    raise RuntimeError("Unable to locate credentials")


def test_storage_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    place: Any = place_of("memory://tshsr-storage")
    (place / "regions.npy").write_bytes(npy_header((4, 1, 1), np.dtype("<f4")) + bytes(16))
    regions = NpyFile.open(place / "regions.npy", axes=3)
    for name in ("_open", "cat_file", "pipe_file", "info", "exists", "ls", "rm"):
        monkeypatch.setattr(type(place.fs), name, without_credentials)
    reading = [
        lambda: NpyFile.open(place / "regions.npy", axes=3),
        lambda: regions.read(np.array([0, 2])),
        lambda: read_info(place),
        lambda: check_place(place),
        lambda: decode(place / "p.jpg", without_credentials),
    ]
    writing = [lambda: write_lock(place).__enter__(), lambda: write_text(place / "x", ""), lambda: remove_folder(place)]
    for to, jobs in (("read", reading), ("write", writing)):
        for job in jobs:
            with pytest.raises(
                DataError, match=f"Cannot {to} memory://tshsr-storage.*: RuntimeError: Unable to loc.*;"
            ):
                job()


def test_an_object_that_is_missing_is_a_problem_of_its_picture() -> None:
    place: Any = place_of("memory://tshsr-storage/none.jpg")
    assert decode(place, without_credentials).problem == "cannot be read (No such file or directory)."


@pytest.mark.parametrize("scheme", ["abfs", "gcs", "s3a", "memory"])
def test_an_index_is_refused_where_lancedb_cannot_follow(scheme: str) -> None:
    with pytest.raises(SettingsError, match=f"its scheme is {scheme}, LanceDB knows s3, gs, az, abfss, .*; write the"):
        Index.open(f"{scheme}://bucket/index")


def test_a_database_that_cannot_be_connected_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database.lancedb, "connect", without_credentials)
    with pytest.raises(DataError, match=r"has no pictures that can be read \(Unable to locate credentials\)"):
        open_table(tmp_path, "pictures")
    with pytest.raises(DataError, match=r"Cannot write .*: Unable to locate credentials"):
        open_table(tmp_path, "pictures", pa.schema([("id", pa.string())]))


@pytest.mark.slow
def test_two_servers_over_one_table_find_what_another_process_adds(small: Small, url: str) -> None:
    Index.build(url, small.retriever(), small.split("test"), run=small.run)
    place: Any = place_of(url)
    with serving(place) as one, serving(place) as other:
        assert [len(answers(each.address, "one red dog")) for each in (one, other)] == [4, 4]
        done = Event()
        with ThreadPoolExecutor(1) as thread:
            meanwhile = thread.submit(asked_until, done, one, other)
            try:
                said = tshsr("index", small.run, "--data", small.store, "--out", url, "--device", "cpu")
            finally:
                done.set()
        assert said.code == 0, said.err
        assert meanwhile.result() <= {4, 10}, "all of the added pictures, or none"
        first, second = (answers(each.address, "one red dog") for each in (one, other))
    assert len(first) == 10
    assert first == second == [result.id for result in Index.open(url).search("one red dog", k=10)]
