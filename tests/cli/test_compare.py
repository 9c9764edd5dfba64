"""`tshsr compare`: figures, verdict and tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import full_disk, refused, tshsr
from tests.support.compared import ranks
from tests.support.scan_logs import SCAN
from tshsr.metrics.bootstrap import FIGURES, SEVERAL, SEVERAL_RIGHT
from tshsr.metrics.comparison import compare
from tshsr.metrics.comparison_tables import comparison_rows, escaped, latex_table, procedure, verdict
from tshsr.metrics.ranks import QueryRanks
from tshsr.metrics.report import read_report

CONTRACT = {"metric", "difference", "low", "high", "p", "unit", "resamples"}


def test_two_reports_are_compared_as_the_contract_promises(rivals: Path) -> None:
    values = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", "-").json()
    assert set(values) >= CONTRACT
    assert (values["metric"], values["unit"], values["resamples"]) == ("rsum", "images", 10_000)
    found = compare(ranks(rivals, "a0"), ranks(rivals, "b0"))
    assert (values["difference"], values["low"], values["high"]) == (found.rsum.mean, found.rsum.low, found.rsum.high)
    assert values["difference"] > values["low"] > 0
    assert values["different"] is True
    assert values["verdict"].startswith("Run A scores higher than run B: rSum ")
    assert list(values["figures"]) == [figure.name for figure in FIGURES]
    reports = [json.loads((rivals / f"{name}.json").read_text())["scores"]["fused"] for name in ("a0", "b0")]
    assert values["difference"] == pytest.approx(reports[0]["rsum"] - reports[1]["rsum"])
    assert values["figures"]["text_to_image_r5"]["b"]["mean"] == pytest.approx(reports[1]["text_to_image"]["r5"])


def test_every_figure_of_a_report_is_compared(rivals: Path) -> None:
    values = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", "-").json()["figures"]
    for side, name in (("a", "a0"), ("b", "b0")):
        report = json.loads((rivals / f"{name}.json").read_text())
        for direction in ("image_to_text", "text_to_image"):
            figures = report["rankings"]["fused"][direction] | report["scores"]["fused"][direction]
            for figure, value in figures.items():
                if direction == "text_to_image" and figure in SEVERAL:
                    continue  # with one right answer it is a recall
                estimate = values[f"{direction}_{figure}"][side]
                assert estimate["mean"] == pytest.approx(value)
                assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    lower = {name for name, figure in values.items() if not figure["higher_is_better"]}
    assert lower == {f"{side}_{name}" for side in ("image_to_text", "text_to_image") for name in ("medr", "meanr")}
    assert {name for name, figure in values.items() if figure["difference"]["p"] is None} == {
        "image_to_text_medr",
        "text_to_image_medr",
    }


def test_reports_without_places_of_captions_are_compared_by_all_other_figures(rivals: Path) -> None:
    values = json.loads((rivals / "b0.json").read_text())
    del values["ranks"]["fused"]["caption_places"]
    (rivals / "older.json").write_text(json.dumps(values))
    whole = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", "-").json()["figures"]
    said = tshsr("compare", rivals / "a0.json", rivals / "older.json", "--json", "-")
    assert said.json()["figures"] == {
        name: figure for name, figure in whole.items() if name not in {each.name for each in SEVERAL_RIGHT}
    }
    assert (
        "older.json has the rank of every query but not of every caption, so mAP@R, R-Precision, true "
        "recall and all found are left out; write it again with tshsr evaluate ... --json FILE to compare them."
    ) in said.err
    assert tshsr("compare", rivals / "a0.json", rivals / "b0.json").err == ""


def test_matrices_and_reports_give_the_same_answer(rivals: Path) -> None:
    reports = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", "-").json()
    more = ("--captions", rivals / "captions.txt", "--json", "-")
    matrices = tshsr("compare", rivals / "a0.npy", rivals / "b0.npy", *more).json()
    mixed = tshsr("compare", rivals / "a0.npy", rivals / "b0.json", *more).json()
    names = CONTRACT | {"figures", "verdict"}
    assert {name: reports[name] for name in names} == {name: matrices[name] for name in names}
    assert mixed["figures"] == reports["figures"]


def test_several_runs_a_side_are_resampled_over_seeds_too(rivals: Path) -> None:
    a, b = (f"{rivals}/{side}0.json,{rivals}/{side}1.json" for side in "ab")
    said = tshsr("compare", a, b, "--json", rivals / "out.json")
    values = json.loads((rivals / "out.json").read_text())
    assert (len(values["a"]), len(values["b"])) == (2, 2)
    assert values["seed_deviation"] >= 0
    assert values["difference"] == pytest.approx(
        compare(ranks(rivals, "a0", "a1"), ranks(rivals, "b0", "b1")).rsum.mean
    )
    assert "over 2 and 2 runs, the deviation between seeds" in said.out
    one = tshsr("compare", rivals / "a0.json", rivals / "b0.json")
    assert "A and B are one run each, so this says nothing about other seeds of them." in one.out


def test_runs_of_equal_seeds_are_paired(rivals: Path) -> None:
    a, b = (f"{rivals}/{side}0.json,{rivals}/{side}1.json" for side in "ab")
    said = tshsr("compare", a, b, "--paired", "--json", rivals / "out.json")
    values = json.loads((rivals / "out.json").read_text())
    expected = compare(ranks(rivals, "a0", "a1"), ranks(rivals, "b0", "b1"), pairs=True)
    assert values["paired"]
    assert (values["low"], values["high"]) == pytest.approx((expected.rsum.low, expected.rsum.high))
    assert "over 2 and 2 runs, paired by their order, the deviation of their differences (" in said.out
    sentence = refused("compare", a, rivals / "b0.json", "--paired")
    assert "A has 2 runs and B 1; expected equal numbers above 1 to pair them, in the same order of seeds" in sentence


def test_a_difference_of_two_single_runs_is_called_one_of_runs(rivals: Path) -> None:
    clause = "; this is about two single runs, and not about other seeds of them."
    single = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", "-").json()
    assert single["different"]
    assert single["verdict"].endswith(clause)
    several = compare(ranks(rivals, "a0", "a1"), ranks(rivals, "b0"), resamples=400)
    sure = replace(several.rsum, low=several.rsum.mean - 1, high=several.rsum.mean + 1, p=0.001)
    several = replace(several, differences={**several.differences, "rsum": sure})
    assert several.different()
    assert verdict(several).startswith("A is better than B: rSum")
    assert "single runs" not in verdict(several)


def test_an_interval_is_named_with_all_its_decimals(rivals: Path) -> None:
    said = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--confidence", "0.995", "--table", "markdown")
    assert "A - B [99.5% interval]" in said.out
    assert "(99.5% interval)" in said.err


def test_reports_are_compared_by_any_score_that_they_have(
    scenes: Path, run: Path, rivals: Path, tmp_path: Path
) -> None:
    page = tmp_path / "run.json"
    said = tshsr("evaluate", run, "--data", scenes, "--device", "cpu", "--json", page)
    assert said.code == 0, said.err
    report = read_report(page)
    assert report.ranks is not None
    assert set(report.ranks) == set(report.scores) >= {"fused", "pooled", "level_0"}
    values = tshsr("compare", page, page, "--score", "pooled", "--json", "-").json()
    assert values["figures"]["rsum"]["a"]["mean"] == pytest.approx(report.scores["pooled"].rsum)
    assert report.scores["pooled"].rsum != report.scores["fused"].rsum
    assert f"{page} has no score 'best'; it has {', '.join(report.scores)}. Name one of them with --score." in refused(
        "compare", page, page, "--score", "best"
    )


def test_a_disk_that_is_full_at_the_end_does_not_cost_the_table(rivals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tshsr.cli.screen.write_text", full_disk)
    said = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--json", rivals / "c.json")
    assert said.code == 2
    assert "Run A scores higher than run B: rSum" in said.out
    (rivals / "log.txt").write_text(SCAN)
    said = tshsr("audit-log", rivals / "log.txt", "--json", rivals / "c.json")
    assert (said.code, said.err) == (2, "tshsr: Cannot write c.json: the disk is full.\n")
    assert "lines with figures that can be checked are wrong." in said.out


def test_the_screen_shows_every_figure_and_a_verdict(rivals: Path) -> None:
    said = tshsr("compare", rivals / "a0.json", rivals / "b0.json")
    assert said.code == 0
    for name in ("image to text R@1", "text to image R@10", "rSum", "  median rank", "  MRR", "  true recall@10"):
        assert f"{name} " in said.out
    lines = [line.rstrip() for line in said.out.splitlines()]
    assert lines.index("image to text") < lines.index("text to image"), "two groups under rSum"
    assert "Lower median and mean ranks are better; medians have no p value." in lines
    assert "Run A scores higher than run B: rSum" in said.out
    assert "40 images, each with its captions, were resampled 10,000 times, the same ones for A and B" in said.out
    said = tshsr("compare", rivals / "b0.json", rivals / "a0.json")
    assert "Run B scores higher than run A: rSum" in said.out


def test_equal_recalls_are_not_called_equal_answers() -> None:
    """No rank is among the first ten: the six recalls are 0 on both sides, and the mean ranks differ."""
    owner = np.arange(50)
    near, far = (QueryRanks(owner + first, owner + first, owner) for first in (11, 61))
    found = compare([near], [far], resamples=400)
    assert verdict(found).startswith("A and B have the same rSum in every resample: rSum 0.0 against 0.0")
    assert found.differences["text_to_image_meanr"].high < 0


def test_what_is_not_shown_comes_with_the_power_to_show_it(rivals: Path) -> None:
    said = tshsr("compare", rivals / "a0.json", rivals / "a1.json")
    assert "No difference between A and B is shown: rSum" in said.out
    assert " points would be found in 80 % of such comparisons, one of 1 point in " in said.out
    said = tshsr("compare", rivals / "a0.json", rivals / "a0.npy", "--captions", rivals / "captions.txt")
    assert "A and B have the same rSum in every resample: rSum" in said.out


def test_tables_for_papers(rivals: Path) -> None:
    said = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--table", "markdown")
    lines = said.out.splitlines()
    assert lines[0] == "|  | A | B | A - B [95% interval] | p |"
    assert len(lines) == 2 + len(FIGURES)
    assert all(line.count("|") == 6 for line in lines)
    assert "Run A scores higher than run B" in said.err
    said = tshsr("compare", rivals / "a0.json", rivals / "b0.json", "--table", "latex")
    assert said.out.splitlines()[1:3] == [r"\begin{tabular}{lrrrr}", r"\toprule"]
    assert r"[95\% interval]" in said.out
    found = compare(ranks(rivals, "a0"), ranks(rivals, "b0"))
    assert comparison_rows(found)[6][0] == "rSum"
    lines = latex_table(found, "a_0", "b").splitlines()
    assert sum(line.endswith(r"\\") for line in lines) == 1 + len(FIGURES)
    assert [number for number, line in enumerate(lines) if line == r"\midrule"] == [4, 12], "under header and rSum"
    assert lines[13].startswith("image to text median rank (lower is better) & $1.0 [1.0, 1.0]$ & ")
    assert lines[13].endswith(r"$ &  \\"), "a median has no p, and LaTeX no empty formula"
    assert procedure(found) in latex_table(found, "a_0", "b").splitlines()[0]
    assert escaped("a_0 & 5 % \\") == r"a\_0 \& 5 \% \textbackslash{}"


def test_the_same_seed_gives_the_same_json(rivals: Path) -> None:
    calls = [
        tshsr(
            "compare", rivals / "a0.json", rivals / "b0.json", "--seed", seed, "--resamples", "500", "--json", "-"
        ).out
        for seed in ("1", "1", "2")
    ]
    assert calls[0] == calls[1] != calls[2]


def test_a_run_can_be_compared_by_its_reports(scenes: Path, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "run.json"
    said = tshsr(
        "evaluate", run, "--data", scenes, "--device", "cpu", "--json", page, "--save-scores", tmp_path / "r.npy"
    )
    assert said.code == 0, said.err
    values = tshsr("compare", page, tmp_path / "r.npy", "--captions", scenes, "--json", "-").json()
    assert (values["difference"], values["images"], values["captions"]) == (0, 10, 50)
