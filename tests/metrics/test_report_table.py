"""Lines of a report on the screen about a lower precision and a two-stage search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tshsr.cli.options import read_depth
from tshsr.cli.tables import lost_points, precision_line, rerank_lines
from tshsr.errors import SettingsError
from tshsr.metrics.report import PrecisionCheck, Rerank
from tshsr.scoring.candidates import Depth

CHECK = PrecisionCheck("bfloat16", True, 100, 500, 0.00312, 99.333, 0.2, 1.618)
RERANK = Rerank(
    k_images=100,
    k_captions=40,
    reasoned_pairs=204_199,
    all_pairs=5_000_000,
    ceiling_image_to_text=97.5,
    ceiling_text_to_image=82.04,
)


def test_a_lower_precision_is_reported_in_one_line() -> None:
    assert precision_line("first", CHECK) == (
        "bfloat16 (first): used. On 100 images and 500 captions it is 1.62 times as fast as float32, changes scores by "
        "up to 0.003 and recalls by up to 0.20 points; 99.3 % of the best answers agree."
    )


@pytest.mark.parametrize(
    ("speedup", "why"), [(0.8, "not used, it is no faster here"), (1.4, "not used, recalls change too much")]
)
def test_the_reason_why_it_was_not_used_is_reported(speedup: float, why: str) -> None:
    assert f"bfloat16 (first): {why}. On" in precision_line("first", replace(CHECK, used=False, speedup=speedup))


def test_a_two_stage_search_reports_candidates_and_upper_bounds() -> None:
    assert list(rerank_lines(RERANK)) == [
        "two stages: v·t finds 100 captions for an image and 40 images for a caption on average; 204,199 of "
        "5,000,000 pairs were scored by the network, 24.5 times fewer.",
        "a right answer is among the candidates for 97.5 % of the images and 82.0 % of the captions: no recall can be "
        "higher.",
    ]


def test_recall_lost_is_reported_by_split() -> None:
    points = {"dev": (0.0, 0.1, 0.0, 0.02, 0.0, 0.08), "test": (-0.1, 0.0, -1e-14, 0.0, 0.3, 0.0)}
    lines = list(rerank_lines(replace(RERANK, chosen_on="dev", lost=points, all_pairs_seconds=200.0)))
    assert lines[0].startswith("two stages (chosen on dev): v·t finds 100 captions")
    assert lines[2:] == [
        "recall lost against all pairs of dev: image to text R@1 0.00, R@5 0.10, R@10 0.00; "
        "text to image R@1 0.02, R@5 0.00, R@10 0.08 points.",
        "recall lost against all pairs of test: image to text R@1 -0.10, R@5 0.00, R@10 0.00; "
        "text to image R@1 0.00, R@5 0.30, R@10 0.00 points (below 0: gained).",
        "scoring all pairs took 3 min 20 s.",
    ]


def test_rounding_is_no_gain() -> None:
    assert lost_points((-1e-14,) * 6).endswith("R@10 0.00 points")


@pytest.mark.parametrize(
    ("text", "depth"), [("40", Depth(40, 40)), ("100,40", Depth(100, 40)), (" 7 ", Depth(7, 7)), ("auto", None)]
)
def test_numbers_of_candidates_are_read(text: str, depth: Depth | None) -> None:
    assert read_depth(text) == depth


@pytest.mark.parametrize("text", ["", "x", "4.5", "1,2,3", "40,", "Auto"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_depth(text)
    assert str(caught.value) == (
        f"--rerank is {text!r}; expected a number of candidates such as 40, two such as 100,40 (of an image, of a "
        "caption), or auto."
    )


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-3", -3), ("5,0", 0)])
def test_less_than_one_candidate_is_refused(text: str, number: int) -> None:
    with pytest.raises(SettingsError, match=f"^{number} candidates were asked for; expected at least 1, or auto.$"):
        read_depth(text)
