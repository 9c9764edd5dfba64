"""The report page: well-formed, all figures are on it, relevant results are marked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.scripted import image, real, write_split
from tests.support.whole_page import EVIL, assert_whole
from tshsr.errors import InputError
from tshsr.explain.attribution import explain_pair
from tshsr.metrics.recall import RetrievalMetrics, ScoreMetrics, image_to_text_ranks, text_to_image_ranks
from tshsr.metrics.report import Report
from tshsr.pages.charts import Chart, Curve, nice_ticks, plot, training_charts
from tshsr.pages.document import render_macro
from tshsr.pages.report import (
    ReportPage,
    WordMaps,
    first_examples,
    recall_rows,
    render_report,
    search_captions,
    search_pictures,
)
from tshsr.training.log import Journal

CAPTIONS = ["a red square", EVIL, "a red circle", "a blue circle", "a star", "two rings"]
IMAGES = [0, 0, 1, 1, 2, 2]
NAMES = ["one.png", 'tw"o.png', "three.png"]
SCORES = np.array(
    [[0.9, 0.8, 0.1, 0.3, 0.0, 0.6], [0.2, 0.1, 0.7, 0.3, 0.5, 0.4], [0.3, 0.9, 0.2, 0.4, 0.1, 0.5]], dtype=np.float32
)


def metrics(r1: float, rest: float = 90.0) -> ScoreMetrics:
    side = RetrievalMetrics(r1=r1, r5=rest, r10=rest, medr=1.0, meanr=2.0)
    return ScoreMetrics(image_to_text=side, text_to_image=side)


def report(**values: object) -> Report:
    facts: dict[str, object] = {
        "data": "scenes",
        "split": "test",
        "protocol": "flickr",
        "images": 3,
        "captions": 6,
        "models": ("tshsr",),
        "scores": {"level_0": metrics(40.0), "pooled": metrics(30.04), "fused": metrics(61.5)},
        "hardware": "a machine <with> 2 cores",
        "commit": "0123abc",
        "seconds": 12.34,
    }
    return Report(**(facts | values))


@pytest.fixture
def page(tmp_path: Path) -> ReportPage:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    explanations = [explain_pair(real(CAPTIONS), image(4), caption) for caption in (CAPTIONS[0], EVIL)]
    return ReportPage(
        title="Scenes & <figures>",
        report=report(pointing={"word_stream": 0.75, "region_stream": 0.5}, binding={"fused": 0.9}),
        facts={"Seed": "17", "Training": "40 images"},
        charts=(Chart("Loss", "epoch", (Curve("loss", ((0, 1.0), (1, 0.5))),)),),
        pointing_chance=0.25,
        pictures={
            name: Image.new("RGB", (40, 30), colour) for name, colour in zip(NAMES, ("red", "tan", "navy"), strict=True)
        },
        text_to_image=tuple(search_pictures(SCORES, split, n, names=NAMES, k=2) for n in range(6)),
        image_to_text=tuple(search_captions(SCORES, split, n, names=NAMES, k=2) for n in range(3)),
        maps=tuple(WordMaps(NAMES[n], explanations[n], {1: (0, 2), 2: ()}) for n in range(2)),
    )


def line_chart(chart: Chart) -> str:
    return render_macro("chart.html.jinja", "figure", chart, plot(chart))


def test_a_report_is_well_formed_safe_and_small(page: ReportPage) -> None:
    text = render_report(page)
    parsed = assert_whole(text)
    assert "<script>alert" not in text
    assert len(text) < 6_000_000
    assert len(parsed.of("image")) == 3  # each picture once, however often it is shown
    assert len(parsed.of("article", "explanation")) == 2


def test_a_report_states_the_run_and_the_method(page: ReportPage) -> None:
    text = "".join(assert_whole(render_report(page)).text)
    for fact in ("Seed", "17", "40 images", "12.3 s", "a machine <with> 2 cores", "0123abc", "3 images, 6 captions"):
        assert fact in text
    assert "our own instantiation" in text
    assert "75.0 %" in text
    assert "accuracy of random guesses, 25.0 %" in text


def test_a_report_of_figures_alone_has_no_empty_parts() -> None:
    parsed = assert_whole(render_report(ReportPage("Figures", report())))
    headings = re.findall(r"<h2>(.*?)</h2>", render_report(ReportPage("Figures", report())))
    assert headings == ["Results on test"]
    assert parsed.of("article") == []


def test_the_best_of_each_column_is_bold_and_fused_comes_first() -> None:
    recalls = recall_rows({"level_0": metrics(40.0), "pooled": metrics(61.5, 80.0), "fused": metrics(61.46)})
    table = render_macro("results.html.jinja", "recall_table", recalls)
    rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</th>(.*?)</tr>', table, re.DOTALL)
    assert [name for name, _ in rows] == ["Both streams, fused", "Pooled vectors, v·t", "Level 0"]
    bold = [re.findall(r"<b>([\d.]+)</b>", cells) for _, cells in rows]
    assert bold[0] == ["61.5", "90.0", "90.0", "61.5", "90.0", "90.0", "482.9"]
    assert bold[1] == ["61.5", "61.5"]  # reads the same, so it is as bold
    assert bold[2] == ["90.0"] * 4


def test_searches_list_the_best_results_and_rank_like_the_metrics(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    by_caption = [search_pictures(SCORES, split, n, names=NAMES, k=2) for n in range(6)]
    by_image = [search_captions(SCORES, split, n, names=NAMES, k=2) for n in range(3)]
    assert [search.rank for search in by_caption] == text_to_image_ranks(SCORES, split.image_of_caption).tolist()
    assert [search.rank for search in by_image] == image_to_text_ranks(SCORES, split.image_of_caption).tolist()
    assert [(hit.item, hit.right) for hit in by_caption[0].hits] == [("one.png", True), ("three.png", False)]
    assert [(hit.item, hit.right) for hit in by_image[2].hits] == [(EVIL, False), ("two rings", True)]
    assert by_image[2].answer.item == "two rings"


def test_among_equal_scores_the_relevant_result_is_last(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    search = search_pictures(np.zeros((3, 6), dtype=np.float32), split, 0, names=NAMES, k=3)
    assert [hit.right for hit in search.hits] == [False, False, True]
    assert search.rank == 3


def test_a_relevant_result_beyond_the_first_k_is_shown_with_its_rank(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    search = search_pictures(SCORES, split, 4, names=NAMES, k=1)
    assert [(rank, hit.item) for rank, hit in search.shown()] == [(1, 'tw"o.png'), (2, "three.png")]
    found = search_pictures(SCORES, split, 0, names=NAMES, k=1)
    assert found.shown() == [(1, found.answer)]


def test_an_image_without_captions_has_no_relevant_result(tmp_path: Path) -> None:
    split = write_split(tmp_path, ["a", "b"], [0, 2])
    with pytest.raises(InputError, match=r"nothing is relevant to 'tw\"o.png'"):
        search_captions(SCORES[:, :2], split, 1, names=NAMES)


def test_galleries_mark_the_right_ones(page: ReportPage) -> None:
    text = render_report(page)
    assert text.count("✓ The right picture is at rank 1") == sum(search.rank == 1 for search in page.text_to_image)
    assert text.count("✗ The right picture is at rank 2") == sum(search.rank == 2 for search in page.text_to_image)
    parsed = assert_whole(text)
    right = [hit for search in (*page.text_to_image, *page.image_to_text) for _, hit in search.shown() if hit.right]
    assert len(parsed.of("li", "is-right")) == len(right)


def test_maps_mark_correct_pointing_where_the_truth_is_known(page: ReportPage) -> None:
    cards = render_report(page).split('<div class="cards">')[1:]
    for card, maps in zip(cards, page.maps, strict=True):
        verdicts = re.findall(r'<span>\d+ %(?: <span class="(right|wrong)">.</span>)?</span></figcaption>', card)
        expected = []
        for stream in maps.explanation.streams.values():
            row = stream.word_regions[1]
            expected.append("right" if row.index(max(row)) in (0, 2) else "wrong")
        assert verdicts == [*expected, "", ""]  # word 1 has a truth, word 2 has none


def test_examples_are_the_first_ones_without_selection() -> None:
    assert first_examples(np.array([4, 1, 1, 2, 1, 9]), found=2, missed=2) == [1, 2, 0, 3]
    assert first_examples(np.array([1, 1]), found=5, missed=3) == [0, 1]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 480, [0, 100, 200, 300, 400, 500]),
        (0.0, 0.0, None),
        (-3, 7, [-4, -2, 0, 2, 4, 6, 8]),
    ],
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float, ticks: list[float] | None) -> None:
    found = nice_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(set(found)) == len(found) >= 2
    if ticks is not None:
        assert found == pytest.approx(ticks)


def test_a_chart_stays_in_its_frame_and_omits_points_that_are_not_finite() -> None:
    points = ((0.0, 1.5), (1.0, float("nan")), (2.0, 0.25), (3.0, float("inf")), (4.0, 0.5))
    drawing = line_chart(Chart("Loss", "epoch", (Curve("loss", points), Curve("a<b", ((0.0, 1.0),)))))
    path = re.search(r'<path d="M(.*?)"', drawing)
    assert path is not None
    places = [tuple(map(float, place.split())) for place in path[1].split("L")]
    assert len(places) == 3
    assert all(0 <= x <= 400 and 0 <= y <= 230 for x, y in places)
    assert places[1][1] > places[2][1] > places[0][1]  # smaller values lie lower
    assert drawing.count("<circle") == 1
    assert "A&lt;b" in drawing


def test_a_runs_log_becomes_its_charts(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0, {})
    for step, loss in ((1, 2.0), (2, 1.0)):
        values = {"loss": loss, "pooled": loss / 4, "spread": 0.1 * step, "learning_rate": 1e-4}
        journal.step(1, step, values, epoch_ends=True, seconds=step)
    journal.epoch(1, 2, report(), best=True, seconds=2.5)
    journal.close()
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses, dev, spread = training_charts(log)
    assert losses.curves == (Curve("loss", ((1, 2.0), (2, 1.0))), Curve("pooled", ((1, 0.5), (2, 0.25))))
    assert [curve.name for curve in dev.curves] == ["fused", "pooled"]
    assert dev.curves[0].points == ((1, pytest.approx(2 * (61.5 + 180))),)
    assert spread.curves == (Curve("spread", ((1, 0.1), (2, 0.2))),)


def test_ticks_of_large_numbers_are_written_out() -> None:
    drawing = line_chart(Chart("Loss", "step", (Curve("loss", ((0, 1.0), (47_000, 0.5))),)))
    ticks = re.findall(r'text-anchor="middle">(.*?)<', drawing)
    assert ticks == ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]


def test_a_chart_without_points_says_so() -> None:
    assert "Nothing was logged" in line_chart(Chart("Loss", "epoch", (Curve("loss", ()),)))
