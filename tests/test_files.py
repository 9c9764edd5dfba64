import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tshsr.errors import DataError
from tshsr.files import (
    complete_folder,
    exclusive_lock,
    remove_partial,
    replacing,
    replacing_folder,
    write_bytes,
    write_text,
)

HOLDER = """
import sys
from pathlib import Path
from tshsr.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "it is held already"):
    print("held", flush=True)
    sys.stdin.read()
"""
"""A process that holds a lock until its input ends."""


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_takes_the_place_of_the_former_one(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "old")
    write_text(tmp_path / "deep" / "a.txt", "naïve")
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "naïve".encode()
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permissions")
def test_a_file_that_takes_the_place_keeps_the_permissions(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    (tmp_path / "a.txt").chmod(0o600)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


def test_a_file_system_without_permissions_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    for text in ("old", "new"):
        write_text(tmp_path / "a.txt", text)
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_full_disk_is_one_sentence_and_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(DataError, match=r"Cannot write .*a\.txt: No space left on device\. Make room"):
        write_text(tmp_path / "a.txt", "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    write_text(real, "old")
    link.symlink_to(real)
    write_text(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "through")
        assert os.read(reader, 100) == b"through"
        assert pipe.is_fifo()
    finally:
        os.close(reader)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no /dev/fd")
def test_a_pipe_without_a_name_is_written_to() -> None:
    reader, writer = os.pipe()
    try:
        write_text(Path(f"/dev/fd/{writer}"), "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
        os.close(writer)


def test_an_error_inside_the_block_leaves_the_former_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt") as file:
        file.write(b"half" * (1 // 0))
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*: (File exists|Not a directory)"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_an_unreadable_other_file_keeps_its_own_error(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "missing.jpg"
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"), replacing_folder(tmp_path / "out" / "store"):
        other.read_bytes()


def test_a_folder_takes_the_place_of_the_former_one_whole(tmp_path: Path) -> None:
    for names in (["a", "b"], ["c"]):
        with replacing_folder(tmp_path / "last") as folder:
            for name in names:
                write_bytes(folder / name, name.encode())
    assert [entry.name for entry in (tmp_path / "last").iterdir()] == ["c"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_a_folder_named_former_of_someone_else_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "last.former" / "mine", "mine")
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "last") as folder:
            write_text(folder / "a", text)
    assert (tmp_path / "last.former" / "mine").read_text() == "mine"
    assert (complete_folder(tmp_path / "last") / "a").read_text() == "new"


def test_two_writers_of_the_same_process_number_have_folders_of_their_own(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "last") as first:
        write_text(first / "a", "first")
        with replacing_folder(tmp_path / "last") as second:
            write_text(second / "b", "second")
        assert [path.name for path in (tmp_path / "last").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.rglob("*")] == ["last", "a"]


def test_a_link_to_a_folder_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with replacing_folder(tmp_path / "link") as folder:
        write_text(folder / "a", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    (tmp_path / "real").rename(tmp_path / ".real.former")  # as a kill between the renames leaves it
    assert (complete_folder(tmp_path / "link") / "a").read_text() == "new"


def test_a_file_and_the_working_folder_are_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "last" / "epoch" / "a", "old")
    monkeypatch.chdir(tmp_path / "last" / "epoch")
    for place, said in (
        (Path("a"), r"/a is a file; expected a folder\. Name another one"),
        (Path(), "/epoch is the working folder, so it cannot be replaced; name another folder"),
        (tmp_path / "last", "/last holds the working folder, so it cannot be replaced; name another folder"),
    ):
        with pytest.raises(DataError, match=said), replacing_folder(place):
            pytest.fail("nothing is prepared")
    assert Path("a").read_text() == "old"
    with replacing_folder(Path("b")) as folder:
        write_text(folder / "c", "new")
    assert sorted(path.name for path in Path().iterdir()) == ["a", "b"]


def test_an_error_while_a_folder_is_filled_leaves_the_former_one(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "last") as folder:
        write_text(folder / "a", "old")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "last") as folder:
        write_text(folder / "a", "new" * (1 // 0))
    assert (tmp_path / "last" / "a").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_at_either_rename_leaves_a_complete_folder_that_the_next_write_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    with replacing_folder(tmp_path / "last") as folder:
        write_text(folder / "a", "old")
    real, done = Path.rename, []

    def killed(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "last") as folder:
            write_text(folder / "a", "new")
    assert (tmp_path / "last").exists() == (renames == 0)
    assert (complete_folder(tmp_path / "last") / "a").read_text() == "old"
    with replacing_folder(tmp_path / "last") as folder:
        write_text(folder / "a", "newer")
    assert complete_folder(tmp_path / "last") == tmp_path / "last"
    assert (tmp_path / "last" / "a").read_text() == "newer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["last"]


def test_only_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.123.partial").mkdir()
    (tmp_path / ".last.123.partial" / "a").write_text("half")
    (tmp_path / ".log.jsonl.9.partial").write_text("half")
    (tmp_path / "kept.partial").write_text("mine")
    remove_partial(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept.partial"]


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "lock", "first"):
        with pytest.raises(DataError, match=r"^second waits$"), exclusive_lock(tmp_path / "lock", "second waits"):
            pass
        with exclusive_lock(tmp_path / "other", "another lock is free"):
            pass
    with pytest.raises(ZeroDivisionError), exclusive_lock(tmp_path / "lock", "the block fails"):
        _ = 1 // 0
    with exclusive_lock(tmp_path / "lock", "it is free again"):
        pass


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="it is held"), exclusive_lock(tmp_path / "lock", "it is held"):
            pass
        holder.kill()
        holder.wait()
    with exclusive_lock(tmp_path / "lock", "it is free"):
        pass


def test_a_lock_in_a_folder_that_is_missing_makes_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(DataError, match=r"Cannot write .*missing: No such file"), exclusive_lock(missing / "lock", ""):
        pass
    assert not missing.exists()
