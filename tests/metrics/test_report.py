"""The JSON of a report: names, strict validation, errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tshsr.errors import DataError
from tshsr.metrics.human import Agreement, Correlation
from tshsr.metrics.multi_positive import rankings
from tshsr.metrics.ranks import query_ranks
from tshsr.metrics.recall import RetrievalMetrics, ScoreMetrics
from tshsr.metrics.report import (
    HEADER,
    Area,
    AreaDifference,
    Curve,
    ExplanationFigures,
    Faithfulness,
    Report,
    read_report,
)

FUSED = ScoreMetrics(RetrievalMetrics(50.0, 75.0, 87.5, 1.0, 3.25), RetrievalMetrics(25.0, 50.0, 62.5, 4.5, 8.125))
POOLED = ScoreMetrics(RetrievalMetrics(0.0, 0.0, 12.5, 20.0, 21.0), RetrievalMetrics(0.0, 1.25, 2.0, 30.0, 31.0))
REPORT = Report(
    data="scenes",
    split="test",
    protocol="flickr",
    images=8,
    captions=40,
    models=("a", "b"),
    scores={"fused": FUSED, "pooled": POOLED},
    hardware="one machine",
    commit="abc",
    seconds=1.5,
)


def written(tmp_path, **changes) -> Path:
    """A file of a report with some values of the JSON replaced; None removes the name."""
    values = json.loads(REPORT.to_json()) | changes
    path = tmp_path / "report.json"
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
    return path


def test_the_json_is_version_1_with_exactly_the_documented_names():
    assert json.loads(REPORT.to_json()) == {
        "version": 1,
        "data": "scenes",
        "split": "test",
        "protocol": "flickr",
        "images": 8,
        "captions": 40,
        "models": ["a", "b"],
        "scores": {
            "fused": {
                "image_to_text": {"r1": 50.0, "r5": 75.0, "r10": 87.5, "medr": 1.0, "meanr": 3.25},
                "text_to_image": {"r1": 25.0, "r5": 50.0, "r10": 62.5, "medr": 4.5, "meanr": 8.125},
                "rsum": 350.0,
            },
            "pooled": {
                "image_to_text": {"r1": 0.0, "r5": 0.0, "r10": 12.5, "medr": 20.0, "meanr": 21.0},
                "text_to_image": {"r1": 0.0, "r5": 1.25, "r10": 2.0, "medr": 30.0, "meanr": 31.0},
                "rsum": 15.75,
            },
        },
        "hardware": "one machine",
        "commit": "abc",
        "seconds": 1.5,
    }


def test_blocks_of_the_demo_and_of_folds_appear_only_when_given():
    full = replace(
        REPORT, pointing={"word_stream": 0.75}, binding={"fused": 0.9}, protocol="coco-1k", folds={"fused": (POOLED,)}
    )
    values = json.loads(full.to_json())
    assert values["pointing"] == {"word_stream": 0.75}
    assert values["binding"] == {"fused": 0.9}
    assert values["folds"]["fused"][0]["rsum"] == 15.75
    assert {"pointing", "binding", "folds"}.isdisjoint(json.loads(REPORT.to_json()))


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        replace(REPORT, pointing={"word_stream": 0.75}, binding={"fused": 0.9}),
        replace(REPORT, protocol="coco-1k", folds={"fused": (FUSED, POOLED), "pooled": (POOLED, POOLED)}),
    ],
)
def test_a_written_report_reads_back_equal(tmp_path, report):
    report.write(tmp_path / "new" / "report.json")
    assert read_report(tmp_path / "new" / "report.json") == report


def test_writing_leaves_nothing_but_the_report(tmp_path):
    (tmp_path / "report.json").write_text("old")
    REPORT.write(tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    REPORT.write(tmp_path / "report.json")
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(REPORT, seconds=float("nan")).write(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == REPORT
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_is_no_folder_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"report\.json"):
        REPORT.write(tmp_path / "file" / "report.json")


def test_the_table_has_one_row_a_score():
    assert REPORT.table() == [
        ("fused", "50.0", "75.0", "87.5", "25.0", "50.0", "62.5", "350.0"),
        ("pooled", "0.0", "0.0", "12.5", "0.0", "1.2", "2.0", "15.8"),
    ]
    assert len(HEADER) == 8
    assert HEADER[:2] == ("score", "image to text R@1")


def test_a_missing_report_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.json cannot be read \(No such file or directory\); expected a report"):
        read_report(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", r"report\.json is not valid JSON \(Expecting property name"),
        (b"\xff\xfe", r"report\.json is not valid JSON \('utf-8' codec"),
        (b'{"version": NaN}', r"is not valid JSON \(NaN is no number\)"),
        (b"[]", "is a report of version None; expected 1"),
        (b"{}", "is a report of version None; expected 1"),
        (b'{"version": 2}', "is a report of version 2; expected 1. Write it with this tshsr"),
        (b'{"version": 1}', "data: Field required"),
        (b'{"version": 1, "scores": 3, "folds": {"fused": 4}}', "data: Field required"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, content, sentence):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_report(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hardware": None}, "hardware: Field required"),
        ({"rsum": 3}, "rsum: Unexpected keyword argument; got 3"),
        ({"images": "8"}, "images: Input should be a valid integer; got '8'"),
        ({"protocol": "coco"}, "protocol: Input should be 'flickr', 'coco-1k' or 'coco-5k'; got 'coco'"),
        ({"scores": {"fused": {"rsum": 1}}}, r"scores\.fused\.image_to_text: Field required"),
    ],
)
def test_values_that_do_not_fit_are_named(tmp_path, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        read_report(written(tmp_path, **changes))


def test_an_unknown_figure_is_named(tmp_path):
    values = json.loads(REPORT.to_json())
    values["scores"]["fused"]["image_to_text"]["r20"] = 90.0
    with pytest.raises(DataError, match=r"scores\.fused\.image_to_text\.r20: Unexpected keyword argument"):
        read_report(written(tmp_path, scores=values["scores"]))


@pytest.mark.parametrize("rsum", [351.0, None, "350"])
def test_an_rsum_that_does_not_add_up_is_refused(tmp_path, rsum):
    values = json.loads(REPORT.to_json())
    values["scores"]["fused"]["rsum"] = rsum
    with pytest.raises(DataError, match=f"rsum of fused is {rsum}, but its six recalls add up to 350;"):
        read_report(written(tmp_path, scores=values["scores"]))


def test_an_rsum_of_a_fold_that_does_not_add_up_is_refused(tmp_path):
    folded = json.loads(replace(REPORT, folds={"pooled": (POOLED, POOLED)}).to_json())["folds"]
    folded["pooled"][1]["rsum"] = 16
    with pytest.raises(DataError, match=r"rsum of pooled \(a fold\) is 16, but its six recalls add up to 15\.75"):
        read_report(written(tmp_path, folds=folded))


def test_ranks_rankings_annotations_and_judgements_are_kept_and_read_back(tmp_path):
    owners = np.repeat(np.arange(8), 5)
    scores = np.random.default_rng(0).random((8, 40))
    side = rankings(scores, owners)
    report = replace(
        REPORT,
        rankings={"fused": side},
        annotations={"eccv": side, "cxc": side},
        judgements=Agreement(20, 8, Correlation(0.5, 0.4, 0.6), Correlation(0.3, 0.1, 0.5)),
        ranks={"fused": query_ranks(scores, owners, folds=2)},
    )
    report.write(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    text = (tmp_path / "report.json").read_text()
    values = json.loads(text)
    assert f'"image_of_caption":{owners.tolist()}'.replace(" ", "") in text, "without a space a number"
    assert values["ranks"]["fused"]["image_of_caption"] == owners.tolist()
    assert values["rankings"]["fused"]["text_to_image"]["mrr"] == side.text_to_image.mrr
    assert values["judgements"]["tau_c"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert sum("image_of_caption" in line for line in text.splitlines()) == 1, "thousands of ranks are one line"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"text_to_image": [1, 2.5]}, "ranks.fused.text_to_image: Value error, expected a list of whole numbers"),
        (
            {"text_to_image": [1]},
            "its ranks do not fit: expected ranks of at least one image and one for each of the 2",
        ),
        ({"image_to_text": [0]}, "its ranks do not fit: a rank is below 1"),
        ({"more": [1]}, "ranks.fused.more"),
        ({"caption_places": [1, "2"]}, "ranks.fused.caption_places: Value error, expected a list of whole numbers"),
        ({"caption_places": [2, 3]}, "its ranks do not fit: the captions of image 0 need distinct positions"),
    ],
)
def test_ranks_that_do_not_fit_are_refused(tmp_path, changes, sentence):
    block = {"image_to_text": [1], "text_to_image": [1, 2], "image_of_caption": [0, 0], "folds": 1}
    assert read_report(written(tmp_path, ranks={"fused": block})).ranks is not None
    with pytest.raises(DataError) as refusal:
        read_report(written(tmp_path, ranks={"fused": block | changes}))
    assert sentence in str(refusal.value)


def test_figures_of_explanations_read_back_equal(tmp_path):
    areas = {"relevance": Area(0.4, 0.3, 0.5), "random": Area(0.9, 0.8, 1.0)}
    curve = Curve(areas, (AreaDifference("relevance", "random", -0.5, -0.6, -0.4),))
    side = Faithfulness(curve, Curve(areas, ()))
    traced = ExplanationFigures(
        pairs=3,
        score="fused",
        full_score=0.7,
        regions=side,
        words=side,
        level_shares={"word_stream": {"level_0": 0.25, "pooled": 0.75}},
        agreement=0.5,
        agreement_by_chance=0.25,
        pointing={"word_stream": 0.5},
        pointing_by_attention={"word_stream": 0.25},
        pointing_by_chance=0.125,
        pointing_words=8,
        seconds=1.5,
    )
    for figures in (traced, ExplanationFigures(3, "fused", 0.7, side, side, {})):
        report = replace(REPORT, explanations=figures)
        report.write(tmp_path / "report.json")
        assert read_report(tmp_path / "report.json") == report
    values = json.loads(replace(REPORT, explanations=traced).to_json())["explanations"]
    assert values["words"]["deletion"]["differences"] == [
        {"a": "relevance", "b": "random", "mean": -0.5, "low": -0.6, "high": -0.4}
    ]
    assert "explanations" not in json.loads(REPORT.to_json())
