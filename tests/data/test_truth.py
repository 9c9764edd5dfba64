"""The truth of generated data: round trips, and damage reported by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tshsr.data.truth import Foil, Truth, read_truth, truth_file, write_truth
from tshsr.errors import DataError

TRUTH = Truth(
    regions_of_word=({1: (3,), 2: (3, 5)}, {}, {0: (0,)}),
    foils=(Foil(0, 1, "a blue ring", "attribute"), Foil(1, 2, "a star left of a cross", "relation")),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_truth(tmp_path, "dev", TRUTH)
    return truth_file(tmp_path, "dev")


def replace_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_what_is_written_comes_back(path: Path) -> None:
    assert read_truth(path.parent, "dev") == TRUTH


def test_a_line_is_a_json_object(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"version": 1, "captions": 3, "foils": 2}
    assert lines[1] == {"words": {"1": [3], "2": [3, 5]}}
    assert lines[4] == {"image": 0, "caption": 1, "text": "a blue ring", "kind": "attribute"}


def test_data_without_truth_has_none(path: Path) -> None:
    assert read_truth(path.parent, "test") is None
    assert read_truth(path / "below", "dev") is None


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (1, '{"version": 2, "captions": 3, "foils": 2}', "has version 2; this tshsr reads version 1"),
        (1, '{"version": 1}', r"dev.jsonl:1: captions: Field required"),
        (2, '{"words": {"1": [3], ', r"dev.jsonl:2: Invalid JSON"),
        (3, '{"words": {"1": []}}', r"dev.jsonl:3: words.1: Tuple should have at least 1 item"),
        (4, '{"words": {"-1": [2]}}', r"dev.jsonl:4: words.-1.*greater than or equal to 0"),
        (
            5,
            '{"image": 0, "caption": 1, "text": "x", "kind": "odd"}',
            r"dev.jsonl:5: kind: Input should be 'attribute'",
        ),
        (6, '{"image": 0, "caption": 3, "text": "x", "kind": "relation"}', r"dev.jsonl:6: .*captions 0 to 2"),
    ],
)
def test_a_damaged_line_is_named(path: Path, number: int, text: str, message: str) -> None:
    replace_line(path, number, text)
    with pytest.raises(DataError, match=message) as caught:
        read_truth(path.parent, "dev")
    assert str(caught.value).endswith("Generate the data again.")


def test_a_cut_file_is_refused(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"has 5 lines; its first one expects 3 captions and 2 foils, 6 lines in all"):
        read_truth(path.parent, "dev")


def test_an_empty_file_is_refused(path: Path) -> None:
    path.write_text("")
    with pytest.raises(DataError, match=r"truth_dev.jsonl is empty; this tshsr reads version 1"):
        read_truth(path.parent, "dev")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    truth_file(tmp_path, "dev").mkdir()
    with pytest.raises(DataError, match=r"Cannot read .*truth_dev.jsonl: Is a directory"):
        read_truth(tmp_path, "dev")


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write .*truth_dev.jsonl"):
        write_truth(tmp_path / "file", "dev", TRUTH)
