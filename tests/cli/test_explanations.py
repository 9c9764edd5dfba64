"""`tshsr evaluate --explanations`: figures in the report and on the screen, and what cannot be measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import refused, tshsr
from tshsr.cli.explanations import interval, with_pairs
from tshsr.metrics.report import AreaDifference, read_report


@pytest.fixture
def start(scenes: Path, run: Path) -> tuple[str | Path, ...]:
    return ("evaluate", run, "--data", scenes, "--device", "cpu")


def test_the_report_and_the_screen_tell_how_true_explanations_are(start: tuple, tmp_path: Path) -> None:
    said = tshsr(*start, "--explanations", "4", "--json", tmp_path / "report.json")
    assert said.code == 0, said.err
    figures = read_report(tmp_path / "report.json").explanations
    assert figures is not None
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


def test_a_difference_is_shown_with_its_interval() -> None:
    assert interval(AreaDifference("relevance", "random", -0.2, -0.25, 0.1)) == "-0.200 [-0.250, +0.100]"
    assert interval(AreaDifference("relevance", "random", -0.2, None, None)) == "-0.200"


def test_without_the_option_nothing_is_measured(start: tuple) -> None:
    assert "explanations" not in tshsr(*start, "--json", "-").json()


def test_without_a_number_all_images_up_to_500_are_measured(start: tuple) -> None:
    assert tshsr(*start, "--explanations", "--json", "-").json()["explanations"]["pairs"] == 10


def test_the_number_may_be_left_out_before_anything() -> None:
    assert with_pairs(["--explanations", "RUN"]) == ["--explanations", "500", "RUN"]
    assert with_pairs(["RUN", "--explanations"]) == ["RUN", "--explanations", "500"]
    assert with_pairs(["--explanations", "--quiet"]) == ["--explanations", "500", "--quiet"]
    assert with_pairs(["--explanations", "7", "RUN"]) == ["--explanations", "7", "RUN"]
    assert with_pairs(["--explanations=7"]) == ["--explanations=7"]


def test_what_cannot_be_measured_is_refused(start: tuple, scenes: Path, run: Path, tmp_path: Path) -> None:
    sentence = "--explanations takes the number of pairs to measure, at least 1; got -3."
    assert sentence in refused(*start, "--explanations", "-3")
    several = refused("evaluate", run, run, "--data", scenes, "--explanations", "4")
    assert "--explanations measures one run, 2 were named; measure them one by one." in several
    np.save(tmp_path / "scores.npy", np.eye(2, dtype=np.float32))
    matrix = refused("evaluate", "--scores", tmp_path / "scores.npy", "--captions", scenes, "--explanations")
    assert "--explanations is about how pairs are scored, and a matrix is scored already; leave it out." in matrix
