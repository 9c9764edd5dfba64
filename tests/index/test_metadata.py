"""User metadata of pictures: CSV and JSON lines, typed columns, updates."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.indexed import Small
from tshsr.errors import DataError
from tshsr.index import database
from tshsr.index.collection import Index
from tshsr.index.metadata import Metadata, metadata_of, read_metadata


def read(folder: Path, name: str, text: str) -> Metadata:
    """A file as metadata."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_metadata(path)


def test_csv_and_json_lines_give_the_same_metadata(tmp_path: Path) -> None:
    table = read(tmp_path, "facts.csv", "id,year,place,indoors\np1,2001,Oslo,true\np2,,Rome,false\n")
    lines = read(
        tmp_path,
        "facts.jsonl",
        '{"id": "p1", "year": 2001, "place": "Oslo", "indoors": true}\n\n'
        '{"id": "p2", "place": "Rome", "indoors": false}\n',
    )
    assert table.types == lines.types == {"year": pa.int64(), "place": pa.string(), "indoors": pa.bool_()}
    assert table.rows == lines.rows
    assert table.lookup("p2", None) == {"year": None, "place": "Rome", "indoors": False}
    assert table.lookup("p3", None) == {}


def test_names_of_missing_values_are_texts_in_texts_and_missing_in_numbers(tmp_path: Path) -> None:
    table = read(tmp_path, "facts.csv", "id,place,year\nNA,null,NA\nnan,,2001\np3,Oslo,\n")
    assert table.types == {"place": pa.string(), "year": pa.int64()}
    assert table.rows == {
        "NA": {"place": "null", "year": None},
        "nan": {"place": None, "year": 2001},
        "p3": {"place": "Oslo", "year": None},
    }


def test_line_breaks_inside_quotation_marks_are_read_from_large_files(tmp_path: Path) -> None:
    text = "a line\n" * 50_000  # a block of Arrow's reader has 1 MiB
    table = read(tmp_path, "facts.csv", "id,text\n" + "".join(f'p{number},"{text}"\n' for number in range(6)))
    assert table.rows == {f"p{number}": {"text": text} for number in range(6)}


def test_numbers_that_look_like_ids_are_ids(tmp_path: Path) -> None:
    assert read(tmp_path, "facts.csv", "id,year\n0012,2001\n").lookup("0012", None) == {"year": 2001}
    assert read(tmp_path, "facts.jsonl", '{"id": 12, "year": 2001}\n').lookup("12", None) == {"year": 2001}


def test_pictures_can_be_named_by_their_files(tmp_path: Path) -> None:
    metadata = read(tmp_path, "facts.tsv", "file\tyear\na/one.jpg\t2001\ntwo.jpg\t2002\n")
    assert metadata.lookup("1", "a/one.jpg") == {"year": 2001}
    assert metadata.lookup("2", "b/two.jpg") == {"year": 2002}
    assert metadata.lookup("two.jpg", None) == {"year": 2002}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("facts.txt", "id,year\n", r"facts\.txt is no metadata: expected \.jsonl, \.ndjson, \.json, \.csv, \.tsv"),
        ("facts.csv", "name,year\na,1\n", r"has the columns name, year; expected id or file, and others"),
        ("facts.csv", "id\na\n", r"has the columns id; expected id or file, and others"),
        ("facts.csv", "", r"cannot be read \(Empty CSV file\)"),
        ("facts.csv", "id,a year\na,1\n", "column 'a year' cannot be used in a filter; name it with letters"),
        ("facts.csv", "id,year\na,1\na,2\n", "2 entries name 1 different pictures"),
        ("facts.jsonl", '{"id": "a"\n', r"facts\.jsonl:1: no JSON \(.*\); expected one object per line"),
        ("facts.jsonl", '["a"]\n', r"facts\.jsonl:1: a JSON list; expected one object per line"),
        ("facts.jsonl", '{"year": 1, "id": null}\n', "entry 1 has no id; each needs the id of its picture"),
        (
            "facts.jsonl",
            '{"id": "a", "x": 1}\n{"id": "b", "x": "y"}\n',
            "column 'x' holds int, str; expected values of",
        ),
        ("facts.jsonl", '{"id": "a", "x": [1]}\n', "column 'x' holds lists or objects; expected texts, numbers"),
    ],
)
def test_invalid_metadata_are_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path, name, text)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Cannot read .*none\.csv: No such file or directory\."):
        read_metadata(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("id,place\na,Malmö\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv is not UTF-8"):
        read_metadata(tmp_path / "latin.csv")


def test_metadata_of_indexed_pictures_are_written(small: Small, index: Index) -> None:
    split = small.split()
    assert index.add(split, metadata=metadata_of([{"id": "p3", "year": 2003}], "facts")).kept == 12
    more = [{"file": "p3.png", "place": "Oslo", "caption": "a dog", "image": 7}, {"file": "p4.png"}]
    index.add(split, metadata=metadata_of(more, "more"))
    again = Index.build(index.folder, small.retriever(), split)  # a table with columns of its own is opened too
    found = {result.id: result.metadata for result in again.search("a red dog", k=12)}
    assert found["p3"] == {"year": 2003, "place": "Oslo", "caption": "a dog", "image": 7}
    assert found["p4"] == {"year": None, "place": None, "caption": None, "image": None}


def test_replaced_pictures_keep_metadata_that_are_not_given(small: Small, index: Index) -> None:
    split = small.split()
    old = [{"id": name, "year": 2000, "place": "Oslo"} for name in split.image_ids]
    index.add(split, metadata=metadata_of(old, "facts"))
    index.replace(split, metadata=metadata_of([{"id": "p0", "year": 2001}], "more"))
    found = {result.id: result.metadata for result in index.search("a red dog", k=12)}
    expected = {name: {"year": 2001 if name == "p0" else 2000, "place": "Oslo"} for name in split.image_ids}
    assert found == expected


def test_new_and_indexed_pictures_get_their_metadata_together(small: Small, tmp_path: Path) -> None:
    index = Index.build(tmp_path / "index", small.retriever(), small.split("test"))
    metadata = metadata_of([{"id": "p0", "year": 2000}, {"id": "p8", "year": 2008}], "facts")
    assert index.add(small.split(), metadata=metadata).new == 8
    known = {result.id: result.metadata["year"] for result in index.search("a red dog", k=12)}
    assert (known["p0"], known["p8"], known["p9"]) == (2000, 2008, None)


def test_writing_metadata_repeatedly_does_not_make_an_index_grow(
    small: Small, index: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "VERSION_LIFETIME", timedelta(milliseconds=1))
    split = small.split()

    def write(year: int) -> tuple[int, int]:
        index.add(
            split, metadata=metadata_of([{"id": name, "year": year} for name in (*split.image_ids, "x")], "facts")
        )
        return index._pictures.live.version, len(list((index.folder / "pictures.lance" / "data").iterdir()))

    with caplog.at_level(logging.WARNING):
        first = write(2000)
    assert caplog.text.count("1 entries of facts name no picture here") == 1
    assert write(2000) == first, "nothing changed"
    files = [write(year)[1] for year in (2001, 2002, 2003)]
    assert max(files) <= first[1], "versions without readers are deleted"


def test_metadata_that_do_not_fit_the_index_are_refused(
    small: Small, index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    split = small.split()
    index.add(split, metadata=metadata_of([{"id": "p3", "year": 2003}], "facts"))
    for rows, said in (
        ([{"id": "p3", "year": "old"}], "more: column 'year' holds string, the index holds int64 there"),
        ([{"id": "p3", "width": 3}], "more: the index reserves the column 'width'; give it another name"),
        ([{"id": "p3", "_rowid": 3}], "more: the index reserves the column '_rowid'; give it another name"),
        ([{"id": "p3", "_distance": 3}], "more: the index reserves the column '_distance'; give it another name"),
        ([{"id": "p3", "Folder": "x"}], "more: the index reserves the column 'folder'; give it another name"),
        (
            [{"id": "x3", "year": 3}],
            "more names none of the 12 pictures of store, such as 'p0'; its column id names 'x3'",
        ),
    ):
        with pytest.raises(DataError) as caught:
            index.add(split, metadata=metadata_of(rows, "more"))
        assert said in str(caught.value)
    with caplog.at_level(logging.WARNING):
        index.add(split, metadata=metadata_of([{"id": "p3", "year": 1.0}, {"id": "x3", "year": 2.0}], "more"))
    assert "1 entries of more name no picture here" in caplog.text
    assert index.search("a red dog", where="year = 1")[0].id == "p3"
