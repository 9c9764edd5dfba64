"""Where score matrices are kept: in memory, in a temporary folder that disappears, or in a folder of the user's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tshsr.cli import scores_folder
from tshsr.cli.scores_folder import LARGE, LOCK, NAMES, PART, place_for_scores
from tshsr.errors import DataError, SettingsError
from tshsr.files import exclusive_lock


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_small_matrices_stay_in_memory(temporary: Path) -> None:
    with place_for_scores(None, LARGE) as folder:
        assert folder is None
    assert not list(temporary.iterdir())


def test_large_ones_go_to_a_temporary_folder_that_disappears(temporary: Path) -> None:
    with place_for_scores(None, LARGE + 1) as folder:
        assert folder is not None
        assert folder.parent == temporary
        (folder / "fused.npy").write_bytes(b"x")
    assert not list(temporary.iterdir())


def fill_and_fail(folder: Path | None, size: int) -> None:
    with place_for_scores(folder, size) as place:
        assert place is not None
        (place / "fused.npy").write_bytes(b"half of it")
        raise KeyboardInterrupt


def test_it_disappears_after_an_error_too(temporary: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_and_fail(None, LARGE + 1)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("exists", [True, False])
def test_a_named_folder_holds_the_matrices_in_the_end(tmp_path: Path, exists: bool) -> None:
    wanted = tmp_path / "deep" / "scores"
    if exists:
        wanted.mkdir(parents=True)
    with place_for_scores(wanted, 1) as folder:
        assert folder is not None
        (folder / "fused.npy").write_bytes(b"all of it")
        (folder / "0").mkdir()
        assert not (wanted / "fused.npy").exists()
    assert {path.name for path in wanted.iterdir()} == {"fused.npy", "0"}


def test_a_named_folder_holds_nothing_half_written_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_and_fail(tmp_path / "scores", 1)
    assert not list((tmp_path / "scores").iterdir())


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with (
        pytest.raises(SettingsError, match="is not empty; name a new or an empty folder for the scores"),
        place_for_scores(tmp_path, 1),
    ):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(DataError, match=r"Cannot write .*file/scores: Not a directory"),
        place_for_scores(tmp_path / "file" / "scores", 1),
    ):
        pytest.fail("nothing can be written")


@pytest.mark.parametrize("named", [True, False])
def test_a_disk_that_is_too_small_is_refused_before_scoring(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    monkeypatch.setattr(scores_folder.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**31))
    folder = tmp_path / "scores" if named else None
    with pytest.raises(SettingsError) as caught, place_for_scores(folder, 7 * 2**29):
        pytest.fail("there is no room")
    assert str(caught.value) == (
        f"the scores take 3.5 GiB, and {folder or temporary} has 2.0 GiB left; free some space, or name a folder with "
        "more by --scores-folder."
    )
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_killed_evaluation_left_is_written_again(tmp_path: Path, moved: bool) -> None:
    """Killed while it scores, or while it moves the matrices out."""
    part = tmp_path / "scores" / PART
    part.mkdir(parents=True)
    (part / LOCK).touch()
    (part / "pooled.npy").write_bytes(b"old")
    if moved:
        (part.parent / "fused.npy").write_bytes(b"old")
        (part / NAMES).write_text('["fused.npy", "pooled.npy"]')
    with place_for_scores(part.parent, 1) as folder:
        assert folder == part
        (part / "fused.npy").write_bytes(b"new")
    assert {path.name: path.read_bytes() for path in part.parent.iterdir()} == {"fused.npy": b"new"}


def test_complete_matrices_beside_an_empty_hidden_folder_stay(tmp_path: Path) -> None:
    """Its removal failed."""
    (tmp_path / PART).mkdir()
    (tmp_path / PART / NAMES).write_text('["fused.npy"]')
    (tmp_path / "fused.npy").write_bytes(b"whole")
    with pytest.raises(SettingsError, match="is not empty"), place_for_scores(tmp_path, 1):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "fused.npy").read_bytes() == b"whole"


def test_files_of_the_user_beside_the_remains_of_a_killed_evaluation_stay(tmp_path: Path) -> None:
    (tmp_path / PART).mkdir()
    (tmp_path / PART / NAMES).write_text('["fused.npy"]')
    (tmp_path / "mine.npy").write_text("mine")
    with pytest.raises(SettingsError, match="is not empty"), place_for_scores(tmp_path, 1):
        pytest.fail("nothing is to be written")
    assert (tmp_path / "mine.npy").read_text() == "mine"


def test_two_evaluations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    (folder / PART).mkdir(parents=True)
    with exclusive_lock(folder / PART / LOCK, ""), pytest.raises(DataError) as caught, place_for_scores(folder, 1):
        pytest.fail("nothing is to be written")
    assert str(caught.value) == (
        f"another tshsr evaluate writes scores into {folder}; wait for it, or name another folder."
    )


def test_a_failed_move_leaves_nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fails_at_pooled(self: Path, target: Path) -> Path:
        if self.name == "pooled.npy":
            raise OSError(5, "Input/output error", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_at_pooled)

    def write_two() -> None:
        with place_for_scores(tmp_path / "scores", 1) as folder:
            assert folder is not None
            for name in ("fused", "pooled"):
                (folder / f"{name}.npy").write_bytes(b"whole")

    with pytest.raises(DataError, match=r"^Cannot write .*: Input/output error\. Make room"):
        write_two()
    assert not list((tmp_path / "scores").iterdir())
