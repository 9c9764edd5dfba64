"""The files of a folder: order, ids, and skipped entries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.picture_files import write_pictures, write_rubbish
from tshsr.data.pictures import find_pictures, unique_ids
from tshsr.errors import DataError
from tshsr.files import place_of


def test_files_of_subfolders_are_found_in_order_with_their_paths_as_ids(tmp_path: Path) -> None:
    names = write_pictures(tmp_path, 4)
    files, skipped = find_pictures(tmp_path)
    assert [file.file for file in files] == names == ["a/p01.jpg", "a/p03.jpg", "p00.jpg", "p02.jpg"]
    assert [file.id for file in files] == ["a/p01", "a/p03", "p00", "p02"]
    assert not skipped


def test_an_object_that_is_replaced_at_equal_size_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("upath", reason="universal-pathlib is not installed (extra storage)")
    folder: Any = place_of("memory://tshsr-pictures")  # has a time of creation, and none of modification
    found = []
    for content in (b"one", b"two"):
        folder.fs.pipe("/tshsr-pictures/a.png", content)
        found.append(find_pictures(folder)[0][0])
    assert found[0].bytes == found[1].bytes == 3
    assert found[0].changed != found[1].changed == find_pictures(folder)[0][0].changed
    listed = {"/tshsr-pictures/a.png": {"size": 3}}
    monkeypatch.setattr(folder.fs, "find", lambda *_, **__: listed)
    assert find_pictures(folder)[0][0].changed != find_pictures(folder)[0][0].changed


def test_hidden_and_excluded_entries_are_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / ".thumbs").mkdir()
    (tmp_path / ".thumbs" / "t.jpg").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert len(find_pictures(tmp_path)[0]) == 2
    assert [file.file for file in find_pictures(tmp_path, exclude=[tmp_path / "a"])[0]] == ["p00.jpg"]


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    assert len(find_pictures(tmp_path)[0]) == 2


def test_folders_named_like_pictures_and_broken_links_are_reported(tmp_path: Path) -> None:
    write_rubbish(tmp_path)
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    reported = {one.file: one.reason for one in find_pictures(tmp_path)[1]}
    assert reported == {
        "caf\ufffd.jpg": "its name is not UTF-8; rename it.",
        "folder.jpg": "is a folder; expected a picture file.",
        "link.jpg": "cannot be read (No such file or directory).",
    }


def test_an_unreadable_folder_is_reported_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path, 4)
    looked = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    files, skipped = find_pictures(tmp_path)
    assert [file.file for file in files] == ["p00.jpg", "p02.jpg"]
    assert [(one.file, one.reason) for one in skipped] == [("a", "the folder cannot be read (Permission denied).")]


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files that can be read; name a folder of pictures"):
        find_pictures(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist; name a folder of pictures"):
        find_pictures(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(DataError, match="file is a file; name a folder of pictures"):
        find_pictures(tmp_path / "file")


def test_files_that_share_a_name_keep_their_endings() -> None:
    assert unique_ids(["a.jpg", "a.png", "b.jpg"]) == ["a.jpg", "a.png", "b"]
    assert unique_ids(["a.jpg", "a.jpg.png", "a.png"]) == ["a.jpg", "a.jpg.png", "a.png"]


PARTS = st.text("ab.", min_size=1, max_size=6).filter(lambda part: part[0] != ".")


@given(st.sets(st.lists(PARTS, min_size=1, max_size=2).map("/".join)))
def test_ids_are_always_unique(names: set[str]) -> None:
    ids = unique_ids(sorted(names))
    assert len(set(ids)) == len(names)
