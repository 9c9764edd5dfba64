"""`tshsr faithfulness`: figures on the screen, as JSON and in a report, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tshsr.cli.tables import interval
from tshsr.metrics.report import AreaDifference, read_report


@pytest.fixture
def data(scenes: Path) -> tuple[str | Path, ...]:
    return ("--data", scenes, "--device", "cpu")


@pytest.fixture
def begin(run: Path, data: tuple) -> tuple[str | Path, ...]:
    """A measurement of the run's explanations."""
    return ("faithfulness", run, *data)


def test_the_report_and_the_screen_show_how_faithful_explanations_are(
    begin: tuple, data: tuple, run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.json"
    assert tshsr("evaluate", run, *data, "--json", page).code == 0
    before = read_report(page)
    said = tshsr(*begin, "--pairs", "4", "--report", page)
    assert said.code == 0, said.err
    after = read_report(page)
    figures = after.explanations
    assert figures is not None
    assert (before.explanations, before.scores, before.ranks) == (None, after.scores, after.ranks)
    assert figures.pairs == 4
    assert set(figures.regions.deletion.areas) == {"relevance", "attention", "leave_one_out", "random"}
    assert set(figures.level_shares) == {"word_stream", "region_stream"}
    assert figures.pointing is not None
    area, (against_attention, *_) = figures.words.deletion.areas["relevance"], figures.words.deletion.differences
    assert "explanations of 4 pairs (fused, " in said.out
    (row,) = (line for line in said.out.splitlines() if line.startswith("relevance  "))
    assert f"{area.mean:.3f}" in row.split()
    (row,) = (line for line in said.out.splitlines() if line.startswith("relevance less attention"))
    assert f"{against_attention.mean:+.3f}" in row
    assert "[" not in row
    assert (against_attention.low, against_attention.high) == (None, None)
    assert "no intervals: 4 pairs are too few; measure at least 30." in said.out
    assert "share in the logit, word_stream: level_0 " in said.out
    assert "agreement of the streams' maps: " in said.out
    assert f"pointing, {figures.pointing_words} words of these pairs: word_stream " in said.out
    assert "explaining: 4 pairs in" in said.err


def test_the_json_holds_the_block_of_a_report(begin: tuple, data: tuple, run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.json"
    assert tshsr("evaluate", run, *data, "--json", page).code == 0
    values = tshsr(*begin, "--pairs", "4", "--report", page, "--json", "-").json()
    report = json.loads(page.read_text())
    assert set(values) == {"data", "split", "models", "explanations"}
    assert all(values[name] == report[name] for name in values)


def test_a_difference_is_shown_with_its_interval() -> None:
    assert interval(AreaDifference("relevance", "random", -0.2, -0.25, 0.1)) == "-0.200 [-0.250, +0.100]"
    assert interval(AreaDifference("relevance", "random", -0.2, None, None)) == "-0.200"


def test_an_evaluation_measures_no_explanations(start: tuple) -> None:
    assert "explanations" not in tshsr(*start, "--json", "-").json()


def test_without_a_number_all_images_up_to_500_are_measured(begin: tuple) -> None:
    assert tshsr(*begin, "--json", "-").json()["explanations"]["pairs"] == 10


def test_what_cannot_be_measured_is_refused(begin: tuple, run: Path, rivals: Path) -> None:
    assert refused(*begin, "--pairs", "-3") == "tshsr: --pairs is -3; expected at least 1."
    assert "is one argument too many" in refused(*begin[:2], run, *begin[2:])
    assert "a0.json is of a0.npy on captions.txt, split test; expected a report of small on scenes" in refused(
        *begin, "--report", rivals / "a0.json"
    )
    assert "none.json cannot be read" in refused(*begin, "--report", "none.json")
    assert "RUN and --data are missing; for example: tshsr faithfulness runs/first --data DIR." in refused(
        "faithfulness"
    )
