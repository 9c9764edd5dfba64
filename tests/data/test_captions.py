"""Caption files: exactly one caption a line, and errors that name the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tshsr.data.text import captions_digest, numbered_caption_ids, read_captions
from tshsr.errors import DataError


def written(folder: Path, content: bytes) -> Path:
    (folder / "caps.txt").write_bytes(content)
    return folder / "caps.txt"


@pytest.mark.parametrize(
    "content", [b"A dog .\nTwo dogs .\n", b"A dog .\r\nTwo dogs .\r\n", b"\xef\xbb\xbf A dog .\nTwo dogs ."]
)
def test_each_line_is_a_caption(tmp_path: Path, content: bytes) -> None:
    assert read_captions(written(tmp_path, content)) == ("A dog .", "Two dogs .")


def test_unicode_line_ends_inside_a_caption_do_not_shift_the_others(tmp_path: Path) -> None:
    captions = "a\u2028dog", "a\x85cat", "a\x0bcow", "café"
    assert read_captions(written(tmp_path, "\n".join(captions).encode())) == captions


@pytest.mark.parametrize("content", [b"A dog\n\nA cat\n", b"A dog\n   \n", b"A dog\n\n"])
def test_an_empty_caption_is_named_by_its_line(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"caps\.txt:2: the line is empty"):
        read_captions(written(tmp_path, content))


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"caps\.txt:1: the line is empty"):
        read_captions(written(tmp_path, b""))


def test_bytes_that_are_no_utf8_are_named_by_their_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"caps\.txt:3: not UTF-8 .*Save the file as UTF-8"):
        read_captions(written(tmp_path, b"one\ntwo\ncaf\xe9\n"))


def test_a_missing_caption_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*caps\.txt: No such file"):
        read_captions(tmp_path / "caps.txt")


def test_captions_printed_as_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="every caption is a printed bytes object"):
        read_captions(written(tmp_path, b"b'A dog .'\nb\"A dog's bone .\"\n"))


def test_a_single_caption_in_bytes_notation_is_accepted(tmp_path: Path) -> None:
    assert read_captions(written(tmp_path, b"b'A dog'\nA cat\n")) == ("b'A dog'", "A cat")


def test_a_digest_depends_on_texts_their_order_and_their_images() -> None:
    owners = np.array([0, 0, 1])
    digest = captions_digest(["a", "b", "c"], owners)
    assert digest == captions_digest([" a\r", "b", "c "], owners) == captions_digest(["\ufeffa", "b", "c"], owners)
    others = (["a", "c", "b"], owners), (["a", "b", "d"], owners), (["a", "b", "c"], np.array([0, 1, 1]))
    assert len({digest, *(captions_digest(*other) for other in others)}) == 4


def test_captions_are_numbered_within_their_image_in_any_order() -> None:
    assert numbered_caption_ids(["a", "b", "a", "c", "a", "b"]) == ["a#0", "b#0", "a#1", "c#0", "a#2", "b#1"]
    assert numbered_caption_ids([]) == []
