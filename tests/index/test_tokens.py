"""Indexes with regions in int8."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.indexed import Small
from tshsr.index.collection import Index
from tshsr.index.rows import ITEMS, PICTURES, schema_of, tokens_of


@pytest.fixture(scope="module")
def folder(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index in int8, made by the command."""
    out = tmp_path_factory.mktemp("int8") / "index"
    said = tshsr(*command(small, out), "--tokens", "int8")
    assert said.code == 0, said.err
    return out


def command(small: Small, out: Path) -> tuple[str | Path, ...]:
    """The command that makes an index."""
    return ("index", small.run, "--data", small.store, "--out", out, "--device", "cpu", "--quiet")


def test_regions_in_int8_score_as_those_in_float16(small: Small, folder: Path, index_folder: Path) -> None:
    one, other = Index.open(folder, run=str(small.run)), Index.open(index_folder)
    assert (one.about.tokens, other.about.tokens) == ("int8", "float16")
    for text in ("a red dog here", "one white boat"):
        exact = {result.id: result.score for result in other.search(text, 12)}
        found = {result.id: result.score for result in one.search(text, 12)}
        assert found == pytest.approx(exact, abs=0.02)
        assert found != exact
    assert one.search("a red dog here")[0].words
    assert one.explain("a red dog here", "p1").regions == 2


def test_an_index_keeps_its_numbers(small: Small, folder: Path) -> None:
    said = tshsr(*command(small, folder), "--replace")
    assert said.code == 0, said.err
    index = Index.open(folder, run=str(small.run))
    assert index.about.tokens == tokens_of(index._tables.pictures.schema) == "int8"
    assert refused(*command(small, folder), "--tokens", "float16") == (
        f"tshsr: {folder} holds regions in int8, float16 was asked for; make another index in a new folder."
    )


def test_the_schema_says_the_numbers() -> None:
    assert tokens_of(schema_of(PICTURES, tokens="int8")) == "int8"
    assert tokens_of(schema_of(PICTURES)) == "float16"
    assert tokens_of(schema_of("captions", tokens="int8")) == "float16", f"{ITEMS} of captions are small"
