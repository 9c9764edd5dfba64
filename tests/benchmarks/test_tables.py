"""The README's figures come from files, and stand there as the files say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cells, tables
from benchmarks.cells import seed_span
from benchmarks.rows import ABLATION, MODELS

SIDE = {"r1": 10.0, "r5": 20.0, "r10": 30.04}
SCORES = ("pooled", "level_0", "region_stream", "word_stream", "fused")
REPORT = {
    "data": "d",
    "split": "test",
    "images": 1000,
    "captions": 5000,
    "hardware": "a machine",
    "commit": "0123456789abcdef",
    "seconds": 12.3,
    "scores": {name: {"image_to_text": SIDE, "text_to_image": SIDE, "rsum": 120.08} for name in SCORES},
}


def row(name: str, **more: Any) -> dict[str, Any]:
    """A row of a race."""
    values = {
        "model": name,
        "title": f"The {name}",
        "seeds": [0, 1],
        "rsum_mean": 120.06,
        "rsum_std": 1.5,
        "r": [10.0, 20.0, 30.04, 10.0, 20.0, 30.0],
        "rsum_by_score": {"fused": 120.06, "pooled": 100.0},
        "parameters": 1_500_000,
        "macs_per_pair": 123_456.0,
        "pairs_per_s": 7654.3,
        "train_minutes": 4.6,
    }
    return values | more


def lead(name: str, **more: Any) -> dict[str, Any]:
    """A difference of a race."""
    return {"a": "tshsr", "b": name, "mean": 5.04, "low": -1.0, "high": 9.0, "p": 0.1, **more}


MADE = {"hardware": "a machine", "versions": {"torch": "2.13.0"}, "commit": "0123456789abcdef", "command": "do it"}
RACE = {
    **MADE,
    "trained_at": ["0123456789abcdef", "fedcba9876543210+changed"],
    "rows": [row("sgr"), row("tshsr")],
    "differences": [lead("sgr")],
    "ablation": [],
}


def test_the_race_has_a_row_a_method_with_the_lead_over_it_and_its_costs() -> None:
    lines = tables.table_of(RACE).splitlines()
    figures = "10.0 | 20.0 | 30.0 | 10.0 | 20.0 | 30.0 | 120.1 ± 1.5"
    costs = "1.50 M | 123 k | 7,654 | 4.6 min | 0 to 1"
    assert lines[2] == f"| The sgr | {figures} | +5.0 [-1.0, +9.0] | {costs} |"
    assert lines[3] == f"| The tshsr | {figures} |  | {costs} |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[-1].startswith(
        "Means over 2 seeds ± their deviation; in brackets 95 % intervals: paired bootstrap over images and seeds."
    )
    assert "torch 2.13.0; trained at commit 0123456789ab, fedcba987654+changed; `do it`. Training time" in lines[-1]
    many = tables.table_of({**RACE, "trained_at": list("abcd")})
    assert "; trained at 4 commits (in the results file); " in many
    assert " intervals: paired bootstrap over images and seeds. one or another; torch" in tables.table_of(
        {**RACE, "trained_on": ["one", "another"]}
    )


def test_seeds_in_sequence_are_named_by_their_ends() -> None:
    assert [seed_span(seeds) for seeds in ([3], [2, 0, 1], [0, 5, 6, 7, 9])] == ["3", "0 to 2", "0, 5 to 7, 9"]


def test_a_race_with_binding_negatives_has_a_column_for_them() -> None:
    rows = [
        row("sgr", binding_by_kind={"attribute": 0.6, "relation": 0.5}),
        row("tshsr", binding_by_kind={"attribute": 0.7, "relation": 0.9}, macs_per_pair=None, pairs_per_s=None),
    ]
    lines = tables.table_of({**RACE, "rows": rows}).splitlines()
    assert "| TSHSR leads by | attributes bound | relations bound | parameters |" in lines[0]
    assert "| 60.0 % | 50.0 % | 1.50 M | 123 k |" in lines[2]
    assert "| 70.0 % | 90.0 % | 1.50 M |  |  |" in lines[3]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_the_ablation_has_a_row_a_change_after_that_of_the_whole_network() -> None:
    changed = row("no-gate") | lead("tshsr", a="no-gate", mean=-2.0, low=-4.0, high=0.5)
    lines = tables.table_of({**RACE, "ablation": [changed]}, "ablation").splitlines()
    assert lines[2] == "| The tshsr | 120.1 ± 1.5 |  | 123 k | 1.50 M | 4.6 min | 0 to 1 |"
    assert lines[3] == "| The no-gate | 120.1 ± 1.5 | -2.0 [-4.0, +0.5] | 123 k | 1.50 M | 4.6 min | 0 to 1 |"
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert len(lines) == 4
    paired = tables.table_of({**RACE, "ablation": [{**changed, "paired": True}]}, "ablation").splitlines()
    assert paired[-1] == "Compared seed by seed, on the seeds that they share with TSHSR: The no-gate."


def test_tables_say_where_an_interval_covers_images_alone() -> None:
    differences = [lead("sgr", seed_deviation=number) for number in (0.0, 1.2, 0.0, None)]
    said = "In 2 of 3 intervals the estimated variation between seeds is 0, so that they cover images alone"
    assert said in tables.table_of({**RACE, "differences": differences})
    changed = row("no-gate") | lead("tshsr", a="no-gate", seed_deviation=0.0)
    assert "In 1 of 1 intervals" in tables.table_of({**RACE, "ablation": [changed]}, "ablation").splitlines()[-1]
    assert "intervals the estimated" not in tables.table_of({**RACE, "differences": differences[1:2]})


def test_the_side_of_zero_is_seen() -> None:
    found = lead("sgr", mean=5.04, low=-0.02, high=0.044)
    assert cells.lead(found) == "+5.0 [-0.02, +0.04]"


def test_the_scores_of_every_method_stand_side_by_side() -> None:
    rows = [row("vse", rsum_by_score={"fused": 90.0}), row("tshsr")]
    lines = tables.table_of({**RACE, "rows": rows}, "scores").splitlines()
    assert lines[0] == "| method | fused | pooled |"
    assert lines[2:] == ["| The vse | 90.0 |  |", "| The tshsr | 120.1 | 100.0 |"]


def test_a_table_is_written_between_its_markers_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "quality-d.json").write_text(json.dumps(RACE), encoding="utf-8")
    text = "before\n<!-- results quality-d -->\nstale\n<!-- end -->\n"
    text += "<!-- results quality-d scores -->\n<!-- end -->\nafter\n"
    result = tables.with_tables(text)
    assert result.startswith("before\n<!-- results quality-d -->\n| method | image")
    assert "<!-- results quality-d scores -->\n| method | fused" in result
    assert result.endswith("\n<!-- end -->\nafter\n")
    assert "stale" not in result
    assert tables.with_tables(result) == result


def test_reranking_has_a_table_of_times_and_one_of_int8() -> None:
    row = {"p50": 30.4, "p95": 61.0, "cpu": 12.6}
    measured = {
        "milliseconds": dict.fromkeys(("encoded", "index", "index_words", "store"), row),
        "parts": {part: dict.fromkeys(("torch", "onnx", "int8"), row) for part in ("text", "head")},
        "bytes": {f"{part}{kind}": 10**6 for part in ("images", "text", "head") for kind in ("", ".int8")},
        "largest_difference": 3e-7,
        "recall": {"v·t": [20.0, 40.0, 50.0], "onnx": [21.04, 41.0, 51.0], "int8 text": [20.0, 40.0, 50.0]},
        "recall_changes": {"int8 text": {"change": -3.04, "low": -4.0, "high": -2.0}},
    }
    values = {
        **MADE,
        "data": "d test",
        "run": "r",
        "candidates": 100,
        "queries": 50,
        "recall_queries": 5000,
        "threads": 1,
    }
    values |= {"reranker": measured, "versions": {"torch": "2.13.0", "onnxruntime": "1.32.0"}}
    lines = tables.table_of(values, "speed").splitlines()
    assert lines[2] == "| candidates encoded before | **13 ms** | 30 ms | 61 ms |"
    assert "| scoring 100 candidates | 12.6 ms | 12.6 ms | 12.6 ms |" in lines
    assert "medians of 50 queries, 1 thread; " in lines[-1]
    assert "in onnxruntime: 3e-07. a machine; torch 2.13.0;" in lines[-1]
    lines = tables.table_of(values, "int8").splitlines()
    assert lines[2] == "| `v·t`, the first stage | 20.0 | 40.0 | 50.0 |  |  |"
    assert lines[3] == "| float32 | 21.0 | 41.0 | 51.0 |  | 3.0 MB |"
    assert lines[4] == "| text in int8 | 20.0 | 40.0 | 50.0 | -3.0 [-4.0, -2.0] | 3.0 MB |"
    assert "5,000 sentences, each over its 100 best pictures" in lines[-1]


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_pages_show_what_the_results_files_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- results " in text
    assert tables.with_tables(text) == text


@pytest.mark.parametrize("data", ["flickr8k", "flickr8k-photos", "scenes"])
def test_every_stored_run_of_a_row_is_in_its_results_file(data: str) -> None:
    values = json.loads((tables.RESULTS / f"quality-{data}.json").read_text(encoding="utf-8"))
    shown = {(each["model"], seed) for each in (*values["rows"], *values["ablation"]) for seed in each["seeds"]}
    stored = [path.stem.rsplit("-seed", 1) for path in (tables.RESULTS / "outcomes" / data).glob("*-seed*.json")]
    rows = {entry.name for entry in (*MODELS, *ABLATION)}  # others are runs of benchmarks.noise
    missing = sorted({(name, int(seed)) for name, seed in stored if name in rows} - shown)
    assert stored
    assert not missing, "run: python -m benchmarks.race --tables-only, with the data and recipes of the file"


def test_every_results_file_names_a_script_that_exists() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted(tables.RESULTS.glob("*.json"))]
    scripts = {name for text in texts for name in re.findall(r"python -m benchmarks\.(\w+)", text)}
    assert "race" in scripts
    folder = Path(tables.__file__).parent
    assert {name for name in scripts if not (folder / f"{name}.py").is_file()} == set()


def test_the_demo_that_the_readme_shows_keeps_its_promises() -> None:
    report = json.loads((tables.RESULTS / "demo-scenes.json").read_text(encoding="utf-8"))
    fused = report["scores"]["fused"]
    assert report["images"] == 500
    assert fused["image_to_text"]["r1"] >= 50
    assert fused["text_to_image"]["r1"] >= 50
    assert report["binding"]["fused"] >= report["binding"]["pooled"] + 0.1
    assert max(report["pointing"].values()) >= 0.7


def test_the_speed_table_has_a_row_a_network_and_says_where_it_comes_from() -> None:
    row = {
        "name": "tshsr",
        "dtype": "float32",
        "pairs_per_s": 6500.4,
        "pairs_per_s_spread": [6000.0, 7000.0],
        "reference_pairs_per_s": 2000.0,
        "reference_pairs_per_s_spread": [1900.0, 2100.0],
        "ratio": 3.251,
        "macs_per_pair": 10.61e6,
        "reference_macs_per_pair": 25.5e6,
        "gemm_gflops": 187.6,
        "gemm_fraction": 0.694,
        "peak_bytes": None,
        "reference_peak_bytes": 90 * 2**20,
        "max_difference": 1.19e-7,
    }
    work = {"images": 100, "captions": 50, "regions": 36, "dim": 1024, "width": 256, "repeats": 5}
    rates = {"float32": 190.2, "bfloat16": 800.0}
    values = {**MADE, "gemm_gflops": 190.2, "gemm_gflops_by_dtype": rates, "workload": work, "rows": [row]}
    lines = tables.table_of(values).splitlines()
    assert lines[2] == (
        "| tshsr | float32 | 6,500 (6,000 … 7,000) | 2,000 (1,900 … 2,100) | **3.25** "
        "| 10.6 / 25.5 | 69% of 188 | ? / 90 MiB | 1e-07 |"
    )
    assert lines[-1].startswith("100 images x 50 captions of real lengths, 36 regions, D 1024, m 256, medians of 5;")
    assert lines[-1].endswith("a machine; torch 2.13.0; commit 0123456789ab; `do it`.")


def test_the_training_table_compares_candidates_with_all_pairs() -> None:
    step = {
        "recipe": "r",
        "batch": 128,
        "candidates": 8,
        "seconds": {"candidates": 2.9, "all_pairs": 13.1},
        "ratio": 4.52,
        "peak_bytes": {"candidates": 2**31, "all_pairs": 3 * 2**30},
    }
    kind = {"mean": 587.12, "deviation": 0.3}
    quality = {"data": "scenes", "train_images": 800, "seeds": [0, 1, 2], "candidates": kind, "all_pairs": kind}
    once = {**quality, "seeds": [0], "all_pairs": {"mean": 590.0, "deviation": None}}
    lines = tables.table_of({**MADE, "steps": [step], "quality": [quality, once]}).splitlines()
    assert lines[2] == "| `r`, batch 128 | 8 | 2.90 | 13.10 | **4.5** | 2.0 GiB / 3.0 GiB |"
    assert lines[-4] == "| scenes, 800 training images | 587.1 ± 0.3 | 587.1 ± 0.3 | 3 |"
    assert lines[-3] == "| scenes, 800 training images | 587.1 ± 0.3 | 590.0 | 1 |"


def test_the_text_table_compares_frozen_text_with_the_gru() -> None:
    seconds = {"frozen": 0.4, "gru": 0.52}
    step = {"recipe": "r", "batch": 128, "width": 384, "seconds": seconds, "ratio": 0.77, "ratio_spread": [0.7, 0.81]}
    lines = tables.table_of({**MADE, "text_steps": [step]}).splitlines()
    assert lines[2] == "| `r`, batch 128 | 384 | 0.40 | 0.52 | **0.77** (0.70 … 0.81) |"


def test_the_memory_table_is_a_sentence_with_the_peak() -> None:
    sizes = {"images": 5000, "captions": 25_000, "score_names": 7, "bytes_of_matrices": 3_500_000_000}
    values = {**MADE, **sizes, "byte_budget": 2**30, "peak_bytes": int(2.34 * 2**30), "bytes_before": 2**29}
    assert tables.table_of(values) == (
        "5,000 images x 25,000 captions, 7 scores of every pair (3.3 GiB, in files): peak memory **2.3 GiB**, of which "
        "at most 1.0 GiB may be temporaries. a machine; torch 2.13.0; commit 0123456789ab; `do it`."
    )


def test_the_search_sentence_has_the_probed_parts_of_the_index() -> None:
    values = {
        "images": 100_000,
        "regions": [10, 36],
        "dim": 128,
        "build_seconds": 14.2,
        "ann_seconds": 2.1,
        "bytes_with_ann": 0.69 * 2**30,
        "candidates": 100,
        "probes": 16,
        "parts": 24,
        "milliseconds": {"approximate": {"p50": 50.7, "p95": 59.1}, "exact": {"p50": 47.3, "p95": 60.4}},
        "agreement": 0.97,
        "queries": 100,
    }
    text = tables.table_of({**MADE, **values})
    assert "the 100 best candidates of an exact first stage takes **47 ms** (p95 60 ms)" in text
    assert "by 16 of the 24 partitions of the ANN index, chosen by recall, 51 ms (p95 59 ms)" in text
    assert "with the same ten best in 97.0% of 100 queries" in text


def test_the_two_stage_sentence_has_the_worst_loss_of_each_split() -> None:
    stage = {
        "k_images": 100,
        "k_captions": 40,
        "reasoned_pairs": 204_199,
        "all_pairs": 5_000_000,
        "ceiling_image_to_text": 97.5,
        "ceiling_text_to_image": 82.04,
        "lost": {"dev": [0.0, 0.0, 0.0, 0.0, -0.06, -0.02], "test": [0.0, 0.1, 0.1, -0.02, 0.0, 0.08]},
    }
    text = tables.table_of({**REPORT, "rerank": stage})
    assert "scoring 204,199 of 5,000,000 pairs (24.5 times fewer; 100 captions per image, 40 images per" in text
    assert "the worst recall loses 0.00 points on dev, 0.10 points on test against all pairs." in text
    assert "97.5 % of the images, 82.0 % of captions." in text
    assert " s; choosing K takes all pairs of dev once (from then on `--rerank 100,40`)." in text
    text = tables.table_of({**REPORT, "rerank": {**stage, "all_pairs_seconds": 188.2}})
    assert " s where all pairs take 188 s; choosing K takes" in text


POPULATION = {"pairs": 100, "matches": 25, "error": 0.5, "brier": 0.25, "log_loss": 1.0, "bins": []}
NOTHING = {"queries": 10, "highest": 0.2, "nothing": {"0.1": 0.5, "0.5": 1.0}, "right": None}


def test_a_calibration_is_shown_before_and_after_and_by_size() -> None:
    populations = dict.fromkeys(("first", "shown", "candidates"), POPULATION)
    after = {name: {**each, "error": 0.01} for name, each in populations.items()}
    values = {
        **MADE,
        "calibration": {"split": "dev", "pictures": 1000},
        "test": "test",
        "pictures": 500,
        "before": populations,
        "after": after,
        "sizes": {"50": [0.1, 0.02]},
        "refusals": {"captions of test": NOTHING},
    }
    text = tables.table_of(values)
    assert "| the ten shown results | 100 | 25.0% | 0.5000 | **0.0100** | 0.2500 | 0.2500 | 1.0000 | 1.0000 |" in text
    assert "50 pictures 0.020 (without: 0.100)" in text
    assert "| captions of test | 10 | 0.200 | 50% |" in text, "levels above 0.3 are left out"
    assert "Fitted on dev (1,000 pictures), measured on test (500 pictures). a machine; torch 2.13.0" in text


def test_rerankers_are_shown_with_gains_and_growth() -> None:
    side, gain = [10.0, 20.0, 30.0], {"mean": 1.0, "low": -1.0, "high": 3.0}
    pooled = {"score": "v·t", "depth": None, "image_to_text": side, "text_to_image": side, "rsum": 120.0}
    pooled |= {"gain": None, "over_maxsim": None, "eccv": None, "milliseconds": 0.1}
    fused = {**pooled, "score": "fused", "depth": 10, "gain": gain, "over_maxsim": gain, "milliseconds": None}
    growth = [{"pictures": 100, "depth": 10, "gain_r1": 0.5, "gain_rsum": 1.25, "milliseconds": 7.4}]
    values = {**MADE, "model": "m", "split": "test", "pictures": 100, "threads": 1}
    text = tables.table_of({**values, "first_stage": {"rows": [pooled, fused], "growth": growth}})
    assert "| v·t | all | 10.0 | 10.0 | 120.0 |  |  | 0.1 |" in text
    assert "| fused | 10 | 10.0 | 10.0 | 120.0 | +1.0 [-1.0, +3.0] | +1.0 [-1.0, +3.0] |  |" in text
    assert "| 10 | +1.2 in 7 ms |" in text


def test_composition_is_shown_by_kind() -> None:
    scores = {name: {"cases": 4, "text": share} for name, share in (("pooled", 0.5), ("maxsim", 0.75), ("fused", 1.0))}
    over = {"pooled": {"mean": 0.5, "low": 0.25, "high": 0.75}}
    text = tables.table_of({**MADE, "composition": {"kinds": {"swap_att": scores}, "overall": scores, "over": over}})
    assert "| swap_att | 4 | 50.0% | 75.0% | 100.0% |" in text
    assert "The fused score minus, in points: v·t +50.0 [+25.0, +75.0]. a machine" in text
