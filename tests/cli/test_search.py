"""`tshsr index` and `tshsr search` from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import refused, tshsr
from tests.support.data_files import random_regions, write_precomp
from tshsr.data.layouts import open_split
from tshsr.errors import InputError
from tshsr.index.collection import Index
from tshsr.retriever import Retriever


@pytest.fixture(scope="module")
def index(run: Path, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of all scenes with metadata of the test scenes, for reading only."""
    folder = tmp_path_factory.mktemp("search")
    facts = "".join(f"test-{number:05},{2000 + number}\n" for number in range(10))
    (folder / "facts.csv").write_text(f"id,year\n{facts}")
    out = folder / "index"
    said = tshsr("index", run, "--data", scenes, "--out", out, "--metadata", folder / "facts.csv", "--device", "cpu")
    assert said.code == 0, said.err
    assert "scenes, split all: 32 pictures added; 160 captions written." in said.out
    assert f"{out} holds 32 pictures and 160 captions." in said.out
    assert "encoding: 32 pictures in" in said.err
    return out


def test_results_as_json_are_those_of_the_contract(index: Path, run: Path, scenes: Path) -> None:
    split = open_split(scenes, "all")
    text = split.captions[-1]
    found = tshsr("search", index, text, "-k", "5", "--json", "-", "--device", "cpu").json()
    assert set(found) == {"query", "results"}
    assert found["query"] == text
    scores = Retriever.from_pretrained(run).score(split, [text])[:, 0]
    assert [result["id"] for result in found["results"]] == [split.image_ids[i] for i in scores.topk(5).indices]
    for result in found["results"]:
        assert set(result) == {"id", "file", "score", "words", "metadata"}
        assert Path(result["file"]).is_file()
        for word in result["words"]:
            assert set(word) == {"word", "boxes"}
            assert word["word"] in text
            for x1, y1, x2, y2, weight in word["boxes"]:
                assert 0 <= x1 <= x2 <= 1
                assert 0 <= y1 <= y2 <= 1
                assert 0 < weight <= 1


def test_a_table_shows_pictures_scores_words_and_files(index: Path, scenes: Path) -> None:
    said = tshsr("search", index, "a red circle and a zebra", "-k", "2", "--device", "cpu")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == ["picture", "score", "where", "its", "words", "are", "file"]
    assert lines[1].split()[0].rpartition("-")[0] in ("train", "dev", "test")
    assert ["red" in lines[1], "circle" in lines[2]] == [True, True]
    assert "left, top, right and bottom in percent" in lines[-1]
    assert said.err == "Not in the vocabulary of small, and without regions: zebra.\n"


def test_a_filter_selects_by_metadata(index: Path) -> None:
    found = tshsr("search", index, "a red circle", "--where", "year >= 2008", "--json", "-", "--device", "cpu").json()
    assert {result["id"]: result["metadata"] for result in found["results"]} == {
        "test-00008": {"year": 2008},
        "test-00009": {"year": 2009},
    }
    nothing = tshsr("search", index, "a red circle", "--where", "year = 1", "--device", "cpu")
    assert nothing.out == "No results: the index holds nothing that matches the query.\n"
    assert "No field named yeer; expected a condition on id, file, width, height, year" in refused(
        "search", index, "a red circle", "--where", "yeer > 3"
    )


def test_a_picture_finds_sentences(index: Path, run: Path, scenes: Path, tmp_path: Path) -> None:
    picture, page = scenes / "pictures" / "test-00003.png", tmp_path / "page.html"
    found = tshsr("search", index, "--image", picture, "-k", "4", "--json", "-", "--explain", page).json()
    assert set(found) == {"image", "results"}
    assert len(found["results"]) == 4
    captions = open_split(scenes, "all").captions
    for result in found["results"]:
        assert set(result) == {"id", "caption", "image", "score"}
        assert result["caption"] in captions
    assert page.read_text().count("<article") == 4
    said = tshsr("search", index, "--image", picture, "-k", "2", "--device", "cpu")
    assert said.out.split()[:3] == ["sentence", "score", "picture"]


def test_the_page_explains_every_result_in_its_picture(index: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    said = tshsr("search", index, "a red circle", "-k", "3", "--explain", page, "--json", tmp_path / "found.json")
    assert said.out.splitlines()[-1] == f"Open {page} to see why."
    text = page.read_text()
    assert text.count("<article") == 3
    assert text.count("data:image/") >= 3
    assert len(json.loads((tmp_path / "found.json").read_text())["results"]) == 3


def test_an_index_grows_and_shrinks(run: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    start = ("index", run, "--data", scenes, "--out", out, "--device", "cpu", "--quiet")
    said = tshsr(*start, "--split", "dev", "--no-captions")
    assert (said.err, said.code) == ("", 0)
    assert f"{out} holds 6 pictures and 0 captions." in said.out
    assert "holds no captions; index some, without --no-captions" in refused(
        "search", out, "--image", scenes / "pictures" / "test-00003.png"
    )
    assert "dev: 0 pictures added, 6 kept; 30 captions written." in tshsr(*start, "--split", "dev").out
    assert "0 pictures added, 6 encoded again; 30 captions written." in tshsr(*start, "--split", "dev", "--replace").out
    said = tshsr("index", run, "--out", out, "--delete", "dev-00001", "dev-00002")
    assert said.out == f"2 pictures removed.\n{out} holds 4 pictures and 20 captions.\n"
    assert "has no picture 'dev-0001'; did you mean 'dev-0000" in refused(
        "index", run, "--out", out, "--delete", "dev-0001"
    )


def test_a_search_reports_an_interrupted_build(index: Path, tmp_path: Path) -> None:
    half = shutil.copytree(index, tmp_path / "half")
    values = json.loads((half / "index.json").read_text())
    (half / "index.json").write_text(json.dumps({**values, "unfinished": "scenes, split all"}))
    said = tshsr("search", half, "a red circle", "-k", "1")
    assert said.err.startswith("The addition of scenes, split all is in progress or was interrupted")


def test_all_splits_of_the_fields_files_go_into_one_index(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "scan"
    for seed, split in enumerate(("dev", "test")):
        names = [f"{split}{number}.jpg" for number in range(3)]
        write_precomp(data, split, random_regions(3, features=4, seed=seed), ids=names)
    other = shutil.copytree(run, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "extractor": "precomp-4"}))
    said = refused("index", run, "--data", data, "--out", tmp_path / "index")
    assert "small was trained on features of 'scenes-pixels-1', these are of 'precomp-4'" in said
    assert not (tmp_path / "index").exists()
    write_precomp(data, "test", random_regions(3, seed=2), ids=[f"dev{number}.jpg" for number in range(3)])
    said = refused("index", other, "--data", data, "--out", tmp_path / "index")
    assert "the splits dev and test both have a picture 'dev0.jpg'; index one split with --split" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("index", "RUN and --out are missing; for example: tshsr index runs/first --data DIR --out INDEX."),
        ("index run --out x", "expected something to add, --data DIR, or to remove, --delete ID; for example: tshsr"),
        ("index run --out x --captons", "there is no option --captons; did you mean --captions?"),
        ("index run --out x --no-caption", "there is no option --no-caption; did you mean --no-captions?"),
        ("index run --out x --captions yes", "'yes' is one argument too many: --captions takes no value."),
        ("index run --out x --delete a --regions 3", "--regions is for pictures that are added; name them with --data"),
        ("index run --out x --delete a --no-captions", "--no-captions is for pictures that are added; name them with"),
        ("index run --out x --data d --delete", "--delete expects at least one argument."),
        ("search", "INDEX is missing; for example: tshsr search INDEX"),
        ("search x", "expected a sentence to search for, or --image FILE; for example: tshsr search INDEX"),
        ("search x y -k 0", "-k is 0; expected at least 1."),
        ("search x y -k ten", "--k/-k expects a whole number, got 'ten'."),
        ("search x y -k 1 2", "'2' is one argument too many; put a text of several words in quotes."),
        ("search x y --candidates 0", "--candidates is 0; expected at least 1."),
        ("search x y --image z", "a search has one query: give the sentence or --image FILE, not both."),
        ("search x --image z --where year>3", "--where filters pictures, and --image FILE finds sentences"),
        ("search nowhere y", "nowhere does not exist; make one with tshsr index RUN --data DIR --out nowhere."),
        ("search x a dog", "'dog' is one argument too many; put a text of several words in quotes."),
    ],
)
def test_wrong_arguments_are_one_sentence(given: str, said: str) -> None:
    assert refused(*given.split()).startswith(f"tshsr: {said}")


def test_queries_that_cannot_be_searched_are_one_sentence(index: Path, tmp_path: Path) -> None:
    assert "the query has no word: '?!'" in refused("search", index, "?!")
    assert "gone.png does not exist" in refused("search", index, "--image", tmp_path / "gone.png")
    assert "does not exist; expected a run's folder" in refused("search", index, "a dog", "--run", tmp_path / "gone")
    assert "there is no index" not in tshsr("search", index, "x" * 10_000 + " dog", "-k", "1").err


@pytest.mark.parametrize("text", ["a dog " * 10_000, "dog," * 10_000])
def test_a_query_of_very_many_words_is_refused(index: Path, text: str) -> None:
    sentence = "the query has 20,000 words; expected at most 1,000: describe the picture in a few sentences."
    assert refused("search", index, text, "--device", "cpu") == f"tshsr: {sentence}"
    opened = Index.open(index)
    for ask in (opened.search, opened.unknown_words, lambda query: opened.explain(query, "test-00000")):
        with pytest.raises(InputError, match=sentence):
            ask(text)
    assert len(opened.search("a dog " * 500, 1)) == 1


def test_metadata_that_cannot_be_used_leaves_the_index_as_it_was(index: Path, run: Path, scenes: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in index.glob("pictures.lance/**/*"))
    facts = index.parent / "wrong.csv"
    facts.write_text("id,year\nnobody,3\n")
    said = refused("index", run, "--data", scenes, "--out", index, "--metadata", facts)
    assert "wrong.csv names none of the 32 pictures of scenes, such as 'train-00000'" in said
    assert sorted((path, path.stat().st_mtime_ns) for path in index.glob("pictures.lance/**/*")) == before
    assert np.isfinite(tshsr("search", index, "a dog", "-k", "1", "--json", "-").json()["results"][0]["score"])


def test_the_example_of_the_page_about_searching_runs(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "guide" / "search.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(code.replace('"index"', repr(str(index))), page.name, "exec"), {})
    assert len([line for line in capsys.readouterr().out.splitlines() if line[0] != " "]) == 3
