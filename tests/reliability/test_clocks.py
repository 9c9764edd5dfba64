"""Clocks that jump: no job, lock or limit depends on the time of day."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from reliability import clocks
from reliability.clocks import CLOCKS, Clock, compiler
from reliability.syscalls import is_supported
from tests.support.extractors import Means
from tests.support.indexed import Small, built
from tests.support.picture_files import write_pictures
from tests.support.small_runs import run, small_config, small_split, weights
from tshsr.data.generated import LOCK, is_stale, remove_stale
from tshsr.data.pictures import find_pictures
from tshsr.errors import DataError
from tshsr.features import shards
from tshsr.features.decoding import decode
from tshsr.features.extraction import extract_folder
from tshsr.files import exclusive_lock
from tshsr.index import database
from tshsr.index.collection import Index
from tshsr.server.guard import Worker
from tshsr.server.logs import JsonLines

ROOT = Path(__file__).resolve().parents[2]
YEAR = 365 * 86_400


@pytest.fixture(params=["back", "forward"])
def jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that jumps by a year between two calls, and returns between the next two."""
    far = -YEAR if request.param == "back" else YEAR
    turns, seconds, nanoseconds = itertools.count(), time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: seconds() + far * (next(turns) % 2))
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + far * (next(turns) % 2) * 10**9)


@pytest.mark.usefixtures("jumping")
def test_training_ends_as_under_a_steady_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_split(tmp_path / "data", "train"), small_split(tmp_path / "data", "dev", images=6)
    jumped = run(small_config(epochs=1), data, tmp_path / "jumped")
    monkeypatch.undo()
    assert jumped.steps == run(small_config(epochs=1), data, tmp_path / "steady").steps
    assert weights(tmp_path / "jumped") == weights(tmp_path / "steady")
    assert '"seconds":-' not in (tmp_path / "jumped" / "log.jsonl").read_text().replace(" ", "")


@pytest.mark.usefixtures("jumping")
def test_features_are_written_in_parts_by_their_duration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the wall clock, a part would seem due after every jump."""
    write_pictures(tmp_path / "pictures", 6)
    monkeypatch.setattr(shards, "PART_SECONDS", YEAR / 2)
    files, _ = find_pictures(tmp_path / "pictures")
    decoding = (decode(tmp_path / "pictures" / file.file, Means().prepare) for file in files)
    parts: list[int] = []
    options = shards.ExtractionOptions(batch=1)
    shards.extract_shard(files, decoding, Means(), options, lambda finished: parts.append(len(finished)))
    assert parts == [6]


@pytest.mark.parametrize("seconds", [0, -1000, 4_102_444_800])
def test_a_picture_whose_time_went_back_is_another_one(tmp_path: Path, seconds: int) -> None:
    """Times of files are compared for equality: those of a wrong clock, before 1970 or far ahead, serve as well."""
    write_pictures(tmp_path / "pictures", 3)
    means = Means()
    extract_folder(tmp_path / "pictures", tmp_path / "store", means)
    (name, *_) = sorted((tmp_path / "pictures").rglob("*.jpg"))
    os.utime(name, (seconds, seconds))
    for expected in (1, 0):
        means.seen.clear()
        extract_folder(tmp_path / "pictures", tmp_path / "store", means)
        assert sum(means.seen) == expected


@pytest.mark.parametrize("lifetime", [timedelta(milliseconds=1), timedelta(days=3650)])
def test_a_search_survives_that_old_versions_seem_older_or_newer(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifetime: timedelta
) -> None:
    """After a jump forward they are deleted at once, also those that a search reads; after one back, they are kept."""
    monkeypatch.setattr(database, "VERSION_LIFETIME", lifetime)
    reader, writer = built(small, tmp_path / "index"), Index(tmp_path / "index", small.retriever())
    expected = reader.search("a red dog", k=12)
    for _ in range(3):
        writer.replace(small.split())
        assert reader.search("a red dog", k=12) == expected


@pytest.mark.usefixtures("jumping")
def test_the_time_limit_of_a_request_is_a_duration() -> None:
    worker, go = Worker("clock", threads=1, waiting=1, seconds=0.2), threading.Event()

    async def submit() -> None:
        begun = time.monotonic()
        with pytest.raises(HTTPException, match=r"^503: this took longer than 0\.2 s"):
            await worker.run(lambda: go.wait(600))
        assert time.monotonic() - begun > 0.15
        assert 0 < worker.longest < YEAR / 2
        go.set()

    asyncio.run(submit())
    worker.seconds = 600.0
    assert asyncio.run(worker.run(lambda: "in time")) == "in time"
    worker.close()


@pytest.mark.usefixtures("jumping")
def test_a_lock_is_held_until_it_is_released(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock", "it is held."):
        os.utime(tmp_path / "lock", (0, 0))
        for _ in range(3):
            with pytest.raises(DataError, match=r"^it is held\.$"), exclusive_lock(tmp_path / "lock", "it is held."):
                pass
    with exclusive_lock(tmp_path / "lock", "it is held."):
        pass


def test_an_old_unfinished_folder_stays_while_its_lock_is_held(tmp_path: Path) -> None:
    """Of another machine, on a shared disk; the age of a folder in use is a jump of the clock."""
    unfinished = tmp_path / ".scenes-elsewhere-1-x"
    unfinished.mkdir()
    with exclusive_lock(unfinished / LOCK, "held"):
        for path in (unfinished / LOCK, unfinished):
            os.utime(path, (0, 0))
        remove_stale(tmp_path)
        assert unfinished.is_dir()
    os.utime(unfinished / LOCK, (0, 0))
    os.utime(unfinished, (0, 0))
    assert is_stale(unfinished)
    remove_stale(tmp_path)
    assert not unfinished.exists()


@pytest.mark.parametrize(("seconds", "written"), [(86_400, "1970-01-02T"), (4_102_444_800, "2100-01-01T")])
def test_a_log_line_has_the_time_of_the_clock_whatever_it_is(seconds: int, written: str) -> None:
    record = logging.LogRecord("tshsr", logging.INFO, "x.py", 1, "a message", None, None)
    record.created = float(seconds)
    assert f'"time": "{written}00:00:00.000+00:00"' in JsonLines().format(record)


def test_the_clocks_of_the_campaign_go_back_and_forward_and_beyond_2038() -> None:
    steps = [clock.second - clock.first for clock in CLOCKS]
    assert min(steps) < 0 < max(steps)
    assert time.time() + min(clock.first for clock in CLOCKS) < YEAR
    assert time.time() + max(clock.second for clock in CLOCKS) > 2**31


@pytest.mark.parametrize("jumps", [False, True])
@pytest.mark.parametrize("clock", CLOCKS, ids=lambda clock: clock.name)
def test_a_clock_that_does_not_jump_ends_the_campaign(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, jumps: bool
) -> None:
    """A job under it would survive without a trial."""
    seconds = time.time

    class Library:
        def __init__(self, _: None) -> None:
            def set_clock(first: int, second: int, calls: int) -> None:
                offsets = itertools.cycle([first] * calls + [second] * calls) if jumps else itertools.repeat(first)
                monkeypatch.setattr(time, "time", lambda: seconds() + next(offsets))

            self.set_clock = set_clock

    monkeypatch.setattr(clocks.ctypes, "CDLL", Library)
    if jumps:
        clock.set()
        return
    with pytest.raises(RuntimeError, match=rf"^{clock.name}: the time jumps by .* s instead of \["):
        clock.set()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux") or compiler() is None, reason="needs Linux and a C compiler")
def test_an_index_changes_as_under_a_steady_clock_where_its_library_reads_it_too() -> None:
    """Other than the fixture, this clock is also that of LanceDB."""
    if not is_supported():
        pytest.skip("this machine does not report system calls")
    words = [sys.executable, "-m", "reliability.clocks", "--clock", "61", "--job", "changes of an"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "survived 1 of 1 tried"
