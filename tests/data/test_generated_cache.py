"""The cache of the built-in scenes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.forked import forked, program
from tshsr.data.generated import is_stale, remove_stale, scenes_folder
from tshsr.data.store import open_store
from tshsr.errors import DataError
from tshsr.files import exclusive_lock


def test_scenes_are_cached_by_their_sizes_and_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = scenes_folder(train=2, dev=1, test=1, seed=7)
    assert folder == tmp_path / "tshsr" / "scenes-v1-2-1-1-7"
    assert open_store(folder, "test").data == "scenes-v1-2-1-1-7"
    before = (folder / "manifest.json").stat().st_mtime_ns
    assert scenes_folder(train=2, dev=1, test=1, seed=7) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    assert list(folder.parent.iterdir()) == [folder]


def test_unfinished_folders_of_a_killed_process_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "import tshsr.data.generated as s; s.generate_chunks = lambda c, _: map(s.generate_chunk, c); s.scenes_folder()"
    )
    cache = tmp_path / "tshsr"
    with forked(program, code) as process:
        deadline = time.monotonic() + 600
        while not list(cache.glob(".scenes-*/.*/pictures/*.png")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_stale(next(cache.glob(".scenes-*"))), "its process is alive"
        process.kill()
    assert is_stale(next(cache.glob(".scenes-*")))
    folder = scenes_folder(train=1, dev=0, test=0)
    assert list(cache.iterdir()) == [folder]


def test_an_unfinished_folder_whose_lock_is_held_is_kept(tmp_path: Path) -> None:
    """The process of another container is not visible from here."""
    unfinished = tmp_path / f".scenes-{socket.gethostname()}-4000000-x"
    unfinished.mkdir()
    with exclusive_lock(unfinished / ".lock", "held"):
        assert not is_stale(unfinished)
    assert is_stale(unfinished)


def test_an_unfinished_folder_of_another_machine_is_kept_for_an_hour_after_its_last_change(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for name in (
        f".scenes-elsewhere-{int(gone.stdout)}-x",
        f".scenes-{socket.gethostname()}-{os.getpid()}-x",
        ".scenes-x",
    ):
        unfinished, hour = tmp_path / name, time.time() - 3601
        (unfinished / "pictures").mkdir(parents=True)
        (unfinished / "pictures" / "0.png").touch()
        for path in (unfinished, unfinished / "pictures"):
            os.utime(path, (hour, hour))
        remove_stale(tmp_path)
        assert unfinished.is_dir(), "a picture in it is new"
        os.utime(unfinished / "pictures" / "0.png", (hour, hour))
        remove_stale(tmp_path)
        assert not unfinished.exists()


def test_nothing_else_in_the_cache_is_removed(tmp_path: Path) -> None:
    for name in ("scenes-v1-1-0-0-0", ".cache", "mine"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (0, 0))
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_a_cache_variable_the_home_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert scenes_folder(train=1, dev=0, test=0) == tmp_path / ".cache" / "tshsr" / "scenes-v1-1-0-0-0"


def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"Cannot write .*scenes-v1-1-0-0-0: .*Set XDG_CACHE_HOME to another folder"):
        scenes_folder(train=1, dev=0, test=0)


@pytest.mark.slow
def test_two_processes_may_fill_the_cache_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from tshsr.data import generated as g; g.usable_cores = lambda: 1; "
        "print(g.scenes_folder(train=20, dev=1, test=1))"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with forked(program, code) as first, forked(program, code) as second:
        folders = {run.communicate()[0].strip() for run in (first, second)}
    assert [run.returncode for run in (first, second)] == [0, 0]
    assert folders == {str(tmp_path / "tshsr" / "scenes-v1-20-1-1-0")}
    assert [entry.name for entry in (tmp_path / "tshsr").iterdir()] == ["scenes-v1-20-1-1-0"]


def test_the_slower_of_two_processes_uses_the_finished_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = tmp_path / "tshsr" / "scenes-v1-1-0-0-0"
    rename = Path.rename

    def lose(self: Path, goal: Path) -> Path:
        if goal == target:
            goal.mkdir()
            (goal / "of-the-winner").touch()
        return rename(self, goal)

    monkeypatch.setattr(Path, "rename", lose)
    assert scenes_folder(train=1, dev=0, test=0) == target
    assert [entry.name for entry in target.iterdir()] == ["of-the-winner"]
