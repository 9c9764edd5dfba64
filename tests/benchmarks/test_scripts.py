"""The benchmarks' scripts at tiny sizes: each writes a results file that the README's tables can be made from."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory, rerank, search, speed, tables, text
from tests.support.indexed import Small
from tests.support.tiny_text import save_text
from tshsr.bench import machine
from tshsr.bench.speed import Workload
from tshsr.models.build import build_matcher
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.retriever import Retriever

PROVENANCE = {"command", "commit", "hardware", "versions", "time"}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go, instead of into the checkout."""
    for module in (memory, rerank, search, speed, tables, text):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(speed, "update_readme", lambda: None)
    return tmp_path


def written(module: Any, results: Path, file: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What a script writes."""
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()
    values: dict[str, Any] = json.loads((results / file).read_text(encoding="utf-8"))
    assert set(values) >= PROVENANCE
    assert values["command"].startswith(f"python -m {module.__name__}")
    assert tables.with_tables(f"<!-- results {Path(file).stem} -->\n<!-- end -->").count("\n") >= 2
    return values


@pytest.mark.slow
def test_the_speed_benchmark_measures_all_four_networks_in_both_precisions(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SIZES", ((32, 32, 32),))
    monkeypatch.setattr(speed, "Workload", partial(Workload, images=2, regions=3, dim=16, width=8))
    arguments = ("--captions", "3", "--repeats", "1", "--device", "cpu")
    values = written(speed, results, "speed-cpu.json", monkeypatch, *arguments)
    assert [(row["name"], row["dtype"]) for row in values["rows"]] == [
        (name, dtype) for name in ("tshsr", "sgr", "saf", "scan") for dtype in ("float32", "bfloat16")
    ]
    assert values["workload"]["captions"] == 3


@pytest.mark.slow
def test_the_speed_benchmark_measures_the_network_for_photographs_in_two_sizes(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SIZES", ((32, 32, 32),))
    monkeypatch.setattr(speed, "Workload", partial(Workload, images=2, regions=3, dim=16, width=8))
    monkeypatch.setattr(speed, "RECIPE_SIZE", Workload(images=2, regions=3, dim=8, width=4, compared=6))
    arguments = ("--captions", "3", "--repeats", "1", "--device", "cpu", "--photos")
    values = written(speed, results, "speed-photos-cpu.json", monkeypatch, *arguments)
    assert values["command"] == "python -m benchmarks.speed --captions 3 --photos"
    assert list(values["speed_photos"]) == ["full", "recipe"]
    rows = [row for size in values["speed_photos"].values() for row in size["rows"]]
    assert [row["name"] for row in rows] == ["tshsr_photos"] * 4


def test_the_speed_benchmark_is_at_full_size() -> None:
    work, wanted = Workload(), speed.Speed()
    assert (work.images, work.regions, work.dim, work.width) == (100, 36, 1024, 256)
    assert wanted.captions >= 100
    assert wanted.repeats >= 5


@pytest.mark.skipif(not machine.STATUS.exists(), reason="peak memory is read from /proc, which only Linux has")
def test_the_memory_benchmark_scores_and_evaluates_every_pair(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = written(memory, results, "memory.json", monkeypatch, "--images", "12", "--dim", "16")
    assert (values["images"], values["captions"], values["score_names"]) == (12, 60, 7)
    assert values["bytes_of_matrices"] == 4 * 12 * 60 * 7
    assert 0 < values["bytes_before"] <= values["peak_bytes_scoring"] <= values["peak_bytes"]


def test_the_search_benchmark_runs_both_first_stages(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--images", "300", "--queries", "5", "--dim", "16", "--features", "8", "--similarity-dim", "8")
    values = written(search, results, "search.json", monkeypatch, *arguments)
    assert (values["images"], values["queries"], values["candidates"]) == (300, 5, 100)
    assert values["bytes_with_ann"] > values["bytes"] > values["bytes_of_encodings"] > 300 * 10 * 16 * 2
    assert values["agreement"] == 1.0, "one part, probed by every query"
    assert set(values["milliseconds"]) == {"approximate", "approximate_first_stage", "exact"}
    assert all(0 < each["p50"] <= each["p95"] for each in values["milliseconds"].values())


def test_the_text_benchmark_times_frozen_text_and_the_gru(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "CASES", (text.Case("tshsr-flickr8k", 5, 6, dim=8),))
    values = written(text, results, "text.json", monkeypatch, "--repeats", "2", "--batch", "4")
    (row,) = values["text_steps"]
    assert set(row["seconds"]) == {"gru", "frozen"}
    assert row["parameters"]["frozen"] < row["parameters"]["gru"]
    low, high = row["ratio_spread"]
    assert low <= row["ratio"] <= high


def test_the_text_benchmark_is_at_full_size() -> None:
    assert text.Settings().batch == 128
    assert [(case.features, case.width, case.dim) for case in text.CASES] == [(2048, 768, None), (256, 384, None)]


@pytest.mark.slow
def test_the_reranking_benchmark_measures_our_candidates_and_the_exported_graphs(
    results: Path, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_encoder, config = FrozenText(str(save_text("bert", tmp_path / "bert"))), small.retriever().config
    encoder = replace(
        config.model.encoder,
        text="pretrained",
        text_weights=text_encoder.weights,
        text_width=text_encoder.width,
        text_fingerprint=text_encoder.fingerprint,
        vocabulary=len(text_encoder),
    )
    config = replace(config, model=replace(config.model, encoder=encoder))
    Retriever(build_matcher(config.model), text_encoder, config, "tiny").save_pretrained(tmp_path / "run")
    monkeypatch.setattr(rerank, "WARMUP", 1)
    sizes = ("--queries", "2", "--recall-queries", "4", "--candidates", "3")
    where = ("--data", str(small.store), "--run", str(tmp_path / "run"), "--split", "all")
    values = written(rerank, results, "reranker.json", monkeypatch, *where, *sizes)
    measured = values["reranker"]
    assert set(measured["milliseconds"]) == {"encoded", "index", "index_words", "store"}
    assert measured["largest_difference"] < 1e-5
    assert set(measured["recall"]) == {"v·t", "onnx", "int8 text", "int8 images", "int8 head", "int8"}
    assert all(0 <= one <= two <= three <= 100 for one, two, three in measured["recall"].values())
    assert set(measured["recall_changes"]) == {"int8 text", "int8 images", "int8 head", "int8"}
