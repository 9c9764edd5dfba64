"""Benchmarks of large collections at tiny sizes: index, simulation, bulk work, and their tables."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import bulk, growth, scale, scale_tables, tables
from tests.support.indexed import Small
from tshsr.data.dataset import Split
from tshsr.data.layouts import select_images
from tshsr.errors import SettingsError
from tshsr.index import ann, database
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import score_encoded

PROVENANCE = {"command", "commit", "hardware", "versions", "time"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go, instead of into the checkout."""
    for module in (bulk, growth, scale, scale_tables, tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def written(module: Any, results: Path, file: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What a script writes."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()
    values: dict[str, Any] = json.loads((results / file).read_text(encoding="utf-8"))
    assert set(values) >= PROVENANCE
    return values


@pytest.mark.slow
def test_the_index_is_measured_exact_and_approximate_and_after_changes(
    small: Small, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ann, "MIN_ROWS", 300)
    for module in (ann, scale):
        monkeypatch.setattr(module, "ROWS_PER_PARTITION", 100)
    monkeypatch.setattr(database, "MAX_FRAGMENTS", 4)
    sizes = (
        "--run",
        str(small.run),
        "--sizes",
        "120",
        "400",
        "--around-centres",
        "400",
        "--queries",
        "3",
        "--commits",
        "5",
        "--regions",
        "2",
    )
    resets = iter((True, False, True))  # the second is not allowed
    monkeypatch.setattr(scale, "clear_peak", lambda: next(resets))
    monkeypatch.setattr(scale, "resident", lambda name: {"VmHWM": 5}[name])
    values = written(scale, results, "scale.json", monkeypatch, *sizes)
    few, many, around = values["growth"]
    assert [(row["pictures"], row["clustered"]) for row in (few, many, around)] == [
        (120, False),
        (400, False),
        (400, True),
    ]
    assert (few["probes"], few["partitions"], many["partitions"]) == (0, 0, 4)
    assert 1 <= many["probes"] <= 4
    assert (many["fragments"], many["fragments_compacted"]) == (6, 1)
    assert 0 < many["milliseconds"]["search"]["fastest"] <= many["milliseconds"]["search"]["p95"]
    assert many["bytes"] > few["bytes"] > 120 * (2 * 2 * 8 + 4 * 8)
    assert many["exact_bytes"] == 4 * 400 * 8
    assert [row["peak_bytes"] for row in (few, many, around)] == [5, None, 5]
    assert next(resets, None) is None, "each size has its own peak"
    table = tables.with_tables("<!-- results scale -->\n<!-- end -->").splitlines()
    assert len([line for line in table if line.startswith("|")]) == 5
    assert "| none: exact |" in table[3]
    assert "the compaction of 6 fragments to 1 takes" in table[-2]


@pytest.fixture
def collection(small: Small) -> tuple[Retriever, Split, Split, growth.Collection]:
    """The pictures of the store, without padding."""
    everything = small.split()
    whole = replace(everything, regions=replace(everything.regions, mask=None))
    test = select_images(whole, range(8, 12))
    retriever = small.retriever()
    with torch.inference_mode():
        return retriever, test, whole, growth.encode(retriever, test, whole)


@torch.inference_mode()
def test_mixtures_have_regions_of_two_pictures_and_none_of_the_tests(
    collection: tuple[Retriever, Split, Split, growth.Collection],
) -> None:
    retriever, test, whole, made = collection
    assert (made.tests, len(made.items)) == (4, 12)
    batch = retriever.encode_images(whole.regions.read([8, 9]))
    torch.testing.assert_close(made.items[:2], batch.items)
    mixtures = made.mixtures(300, of=8, seed=0)
    assert min(mixtures.first.min(), mixtures.second.min()) >= 4
    assert (mixtures.first != mixtures.second).all()
    assert 0.15 < mixtures.of_second.mean() < 0.35
    one = made.mixed(mixtures, np.array([7]))
    for region, second in enumerate(mixtures.of_second[7]):
        source = mixtures.second[7] if second else mixtures.first[7]
        torch.testing.assert_close(one.items[0, region], made.items[source, region])
    torch.testing.assert_close(one.pooled, next(made.vectors(mixtures))[7:8])
    with pytest.raises(SettingsError, match="pictures can be mixed for networks of streams without places only"):
        growth.encode(retriever, test, replace(whole, regions=replace(whole.regions, mask=np.ones((12, 3), bool))))


@torch.inference_mode()
def test_ranks_and_candidates_are_those_of_all_scores_at_once(
    collection: tuple[Retriever, Split, Split, growth.Collection],
) -> None:
    retriever, test, _, made = collection
    vectors = growth.caption_vectors(retriever, test)
    mixtures = made.mixtures(40, of=8, seed=0)
    stage = replace(growth.first_stage(made, vectors, test, 3), depth=10)
    everything = torch.cat([made.pooled, *made.vectors(mixtures)])
    for start in range(0, len(everything), 15):
        stage.add(everything[start : start + 15])
    scores = vectors @ everything.T
    for query, picture in enumerate(test.image_of_caption):
        ahead = [other for other in range(52) if other != picture and scores[query, other] >= scores[query, picture]]
        assert int(stage.better[query]) == len(ahead), query
    for row, query in enumerate(stage.kept):
        expected = scores[query].topk(10).values
        torch.testing.assert_close(stage.best[row], expected)
        torch.testing.assert_close(scores[query, stage.numbers[row]], expected)
    assert growth.proportional(np.array([1, 2, 11]), 10.0)["10"] == pytest.approx(100 / 3)
    assert growth.proportional(np.array([1, 2, 11]), 10.0)["20"] == pytest.approx(200 / 3)


@torch.inference_mode()
def test_recalls_before_the_second_stage_are_of_the_same_captions(
    collection: tuple[Retriever, Split, Split, growth.Collection],
) -> None:
    retriever, test, _, made = collection
    stage = growth.first_stage(made, growth.caption_vectors(retriever, test), test, 2)
    stage.add(made.pooled[: made.tests])
    stage.better[:] = 20
    stage.better[stage.kept] = torch.tensor([0, 5])
    found = growth.rescore(retriever, test, made, made.mixtures(1, of=8, seed=0), stage)
    assert found["r_before_second_stage"] == [50, 50, 100]


def test_the_growth_is_simulated_with_both_stages(
    small: Small, results: Path, monkeypatch: pytest.MonkeyPatch, collection: tuple[Any, Split, Split, Any]
) -> None:
    _, test, whole, _ = collection
    monkeypatch.setattr(growth, "open_split", lambda _, name: test if name == "test" else whole)
    arguments = ("--run", str(small.run), "--sizes", "4", "12", "30", "--rescored", "4", "30", "--queries", "2")
    values = written(growth, results, "growth-flickr8k.json", monkeypatch, *arguments, "--source", "4")
    assert [row["pictures"] for row in values["rows"]] == [4, 12, 30]
    assert [row.get("pairs") for row in values["rows"]] == [8, None, 60]
    kept = [row["first_stage_recall"]["10"] for row in values["rows"]]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 100
    assert values["rows"][0]["r_after_second_stage"][2] == 100
    assert set(values["check"]) == {"source", "pictures", "real", "replaced", "few"}
    table = tables.with_tables("<!-- results growth-flickr8k -->\n<!-- end -->").splitlines()
    assert len([line for line in table if line.startswith("|")]) == 5
    cells = [cell.strip() for cell in table[5].split("|")]
    assert all(re.fullmatch(r"[\d,.e-]+ m?s( / [\d,.e-]+ m?s)?", cell) for cell in cells[7:9])
    assert list(values["second_stage_milliseconds"]) == ["100", "1000"]


@torch.inference_mode()
def test_the_clock_of_the_second_stage_covers_the_scoring_alone(
    collection: tuple[Retriever, Split, Split, growth.Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever, test, _, made = collection
    seconds = [0.0]

    def lasting(call: Callable[..., Any], cost: Callable[..., float]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            seconds[0] += cost(*arguments)
            return call(*arguments)

        return timed

    monkeypatch.setattr(growth, "time", SimpleNamespace(process_time=lambda: seconds[0]))
    monkeypatch.setattr(growth, "score_encoded", lasting(score_encoded, lambda _, images, __: len(images) / 1e3))
    for owner, name in ((Retriever, "encode_captions"), (growth.Collection, "real")):
        monkeypatch.setattr(owner, name, lasting(getattr(owner, name), lambda *_: 7.0))
    found = growth.second_stage_milliseconds(retriever, test, made)
    assert found == {"100": pytest.approx(100), "1000": pytest.approx(1000)}


def growth_values(*pictures: int) -> dict[str, Any]:
    """Figures of a growth beyond 1,000 real pictures, at these sizes."""
    check = {"r": [8.1, 20.0, 34.4], "first_stage_recall": {"10": 34.4, "100": 76.4, "1000": 98.0}}
    row = {**check, "depth_for": {"0.8": 200, "0.95": 2000}, "first_stage_milliseconds": 0.5}
    row |= {"if_proportional": {"100": 55.5}, "r_before_second_stage": [1.0] * 3, "r_after_second_stage": [2.0] * 3}
    values = {"model": "m", "queries": 10, "rescored_queries": 5, "tests": 4, "real": 1000, "threads": 1}
    easier = {**check, "r": [11.9, 20.0, 39.4]}
    values |= {"check": {"pictures": 1000, "source": 500, "real": check, "replaced": easier, "few": easier}}
    return {**values, "rows": [{**row, "pictures": size} for size in pictures]}


def test_the_cost_of_candidates_is_that_of_a_query_and_their_number() -> None:
    values = growth_values(1000)
    line = scale_tables.growth_table({**values, "second_stage_milliseconds": {"100": 15.0, "1000": 105.0}})
    assert "| 200 / 2,000 | 25 ms / 205 ms |" in line
    assert "5.0 ms and 0.100 ms a candidate, processor time, as measured with 100 and 1,000" in line
    assert "| 200 / 2,000 |  |" in scale_tables.growth_table(values), "files without these durations"


def test_figures_that_distractors_or_ranks_of_one_would_flatter_are_left_out() -> None:
    text = scale_tables.growth_table(growth_values(1000, 2000, 99_000, 100_000))
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:6]]
    columns = {
        name: [row[column] for row in cells] for name, column in (("10", 1), ("grown", 4), ("r", 8), ("both", 9))
    }
    assert columns == {
        "10": ["34.4 %", "", "", ""],
        "grown": ["55.5 %", "55.5 %", "55.5 %", ""],
        "r": ["8.1 / 34.4", "", "", ""],
        "both": ["2.0 / 2.0 (1.0 / 1.0)", "", "", ""],
    }
    assert "8.1 / 34.4 / 76.4 with real ones alone, 11.9 / 39.4 / 76.4 with distractors in place" in text


def test_the_tables_of_bulk_work_say_whether_the_stores_are_equal(results: Path) -> None:
    made = {"hardware": "a machine", "versions": {"torch": "2.13.0"}, "commit": "0123456789abcdef", "command": "do it"}
    seconds = {"one process": 10.0, "engine": 6.0, "one worker killed": 8.0, "start of the engine": 4.0}
    one = {"extractor": "e", "regions": 16, "store_bytes": 46_000, "command": "do it"}
    one |= {"seconds": {"decoding": 0.01, "extraction": 0.1, "encoding": 0.001}}
    values = {**made, "pictures": 2000, "shard": 128, "workers": 2, "load": 1.2, "seconds": seconds, "killed": True}
    values |= {"engine: equal": True, "one worker killed: equal": True, "per_picture": one}
    (results / "bulk.json").write_text(json.dumps(values))
    row = {"clustered": False, "pictures": 1000, "bytes": 9_400_000, "ann_bytes": 1_000_000, "exact_bytes": 1_024_000}
    row |= {"regions": 16}
    (results / "scale.json").write_text(json.dumps({"growth": [{**row, "write_seconds": {"processor": 0.1}}]}))
    text = tables.with_tables("<!-- results bulk -->\n<!-- end -->")
    assert "the store of that job **equals** the one of one process" in text
    assert "DIFFERS" in tables.table_of({**values, "one worker killed: equal": False})
    lines = tables.table_of(values, "projection").splitlines()
    assert "| feature store, float16 | 46.0 kB | 4.60 TB |" in lines
    assert "| index: encodings | 9.4 kB | 0.94 TB |" in lines
    assert "| extraction | 100.00 ms | 115.74 core-days |" in lines
