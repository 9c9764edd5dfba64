"""`tshsr evaluate --rerank`: searches in two stages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.command_line import REPORT, TINY, refused, tshsr
from tests.support.data_files import random_regions, write_precomp
from tshsr.evaluation import run as evaluation
from tshsr.metrics.report import read_report


def test_two_stages_score_the_candidates_and_report_the_recall_lost(start: tuple, tmp_path: Path) -> None:
    said = tshsr(*start, "--rerank", "4,2", "--rerank-check", "--json", tmp_path / "report.json")
    assert said.code == 0, said.err
    report = read_report(tmp_path / "report.json")
    assert report.rerank is not None
    assert (report.rerank.k_images, report.rerank.k_captions, report.rerank.all_pairs) == (4, 2, 500)
    assert 100 <= report.rerank.reasoned_pairs <= 10 * 4.5 + 50 * 2.5, "4 and 2 on average, rounded up"
    assert set(report.scores) == {"fused", "pooled"}
    assert list(report.rerank.lost) == ["test"]
    assert "two stages: v·t finds 4 captions for an image and 2 images for a caption on average; " in said.out
    assert f"{report.rerank.reasoned_pairs} of 500 pairs were scored by the network" in said.out
    assert "recall lost against all pairs of test: image to text R@1" in said.out
    assert [line.partition(" in ")[0] for line in said.err.splitlines()] == [
        f"reasoning: {report.rerank.reasoned_pairs} pairs",
        "comparing with all: 500 pairs",
    ]


def test_the_recall_lost_is_the_difference_of_two_reports(start: tuple) -> None:
    short = tshsr(*start, "--rerank", "2", "--rerank-check", "--json", "-").json()
    full = tshsr(*start, "--json", "-").json()
    sides = ("image_to_text", "text_to_image")
    recalls = [
        [values["scores"]["fused"][side][f"r{k}"] for side in sides for k in (1, 5, 10)] for values in (full, short)
    ]
    np.testing.assert_allclose(short["rerank"]["lost"]["test"], np.subtract(*recalls), atol=1e-9)
    assert short["rerank"]["all_pairs_seconds"] > 0
    assert set(short) == REPORT | {"seconds", "pointing", "binding", "binding_by_kind", "rerank"}


def test_auto_chooses_on_dev_and_its_numbers_repeat_the_result(start: tuple) -> None:
    said = tshsr(*start, "--rerank", "auto", "--json", "-")
    auto = said.json()
    assert auto["rerank"]["chosen_on"] == "dev"
    assert auto["rerank"]["lost"] == {"dev": [0.0] * 6}
    assert said.err.splitlines()[0].startswith("choosing K on dev: 180 pairs in")
    depth = f"{auto['rerank']['k_images']},{auto['rerank']['k_captions']}"
    again = tshsr(*start, "--rerank", depth, "--json", "-").json()
    assert again["scores"] == auto["scores"]
    assert again["rerank"]["chosen_on"] is None
    assert again["rerank"]["reasoned_pairs"] == auto["rerank"]["reasoned_pairs"]


def test_two_stages_save_their_scores_in_the_order_of_the_report(start: tuple, scenes: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "scores.npy"
    values = tshsr(*start, "--rerank", "3", "--save-scores", matrix, "--json", "-").json()
    again = tshsr("metrics", matrix, "--captions", scenes, "--json", "-").json()
    assert again["scores"]["fused"] == values["scores"]["fused"]


def test_the_protocol_is_that_of_two_stages_too(start: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "FOLD", 2)  # ten images are COCO's 5,000
    protocols = [
        tshsr(*start, "--rerank", "4", *more, "--json", "-").json()["protocol"]
        for more in ((), ("--protocol", "flickr"))
    ]
    assert protocols == ["coco-5k", "flickr"]


def test_a_two_stage_search_keeps_what_all_pairs_were_scored_for(start: tuple, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert tshsr(*start, "--rerank", "auto", "--rerank-check", "--scores-folder", kept).code == 0
    assert {path.name for path in kept.iterdir()} == {"choosing", "comparing"}
    assert np.load(kept / "choosing" / "fused.npy").shape == (6, 30)
    assert np.load(kept / "comparing" / "fused.npy").shape == (10, 50)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--rerank", "0"), "0 candidates were asked for; expected at least 1, or auto."),
        (("--rerank", "-2"), "-2 candidates were asked for; expected at least 1, or auto."),
        (
            ("--rerank", "many"),
            "--rerank is 'many'; expected a number of candidates such as 40, two such as 100,40 (of an image, of a "
            "caption), or auto.",
        ),
        (("--rerank-check",), "--rerank-check measures what --rerank loses; give --rerank K or --rerank auto with it."),
        (
            ("--rerank", "5", "--protocol", "coco-1k"),
            "--rerank takes its candidates from all images, coco-1k ranks 1000 at a time; use another protocol, or "
            "leave --rerank out.",
        ),
        (
            ("--rerank", "5", "--judgements", "ratings.csv"),
            "--judgements needs the score of every rated pair, and --rerank scores few; leave --rerank out.",
        ),
        (
            ("--rerank", "5", "--scores-folder", "kept"),
            "--scores-folder keeps the scores of all pairs, and --rerank K scores few; keep them with --save-scores, "
            "or give --rerank-check too.",
        ),
        (
            ("--rerank", "5", "--kernel", "triton"),
            "--kernel triton scores all pairs by kernels, --rerank 5 by the network's modules; leave one of them out.",
        ),
        (
            ("--dtype", "tf32", "--kernel", "triton"),
            "--kernel triton scores all pairs by kernels, --dtype tf32 by the network's modules; leave one of them "
            "out.",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused(start: tuple, more: tuple[str, ...], sentence: str) -> None:
    assert refused(*start, *more) == f"tshsr: {sentence}"


def test_several_runs_are_not_searched(start: tuple, run: Path) -> None:
    assert refused("evaluate", run, *start[1:], "--rerank", "5") == (
        "tshsr: --rerank searches with one run, 2 were named; evaluate them one by one, or the ensemble without "
        "--rerank."
    )


def test_auto_without_a_dev_split_and_a_method_without_a_second_stage_are_refused(tmp_path: Path) -> None:
    for seed, split in enumerate(("train", "dev", "test")):
        write_precomp(tmp_path / "scan", split, random_regions(4, seed=seed))
    flat = (
        *TINY[:4],
        "--model.encoder.no-boxes",
        "--training.epochs",
        "1",
        "--training.batch",
        "4",
        "--training.minimum-count",
        "1",
    )
    said = tshsr(
        "train", "vse-scenes", "--data", tmp_path / "scan", "--out", tmp_path / "vse", *flat, "--device", "cpu"
    )
    assert said.code == 0, said.err
    start = ("evaluate", tmp_path / "vse", "--data", tmp_path / "scan", "--device", "cpu", "--rerank")
    assert "tshsr: vse has the scores fused, pooled: a two-stage search needs v·t" in refused(*start, "3")
    for path in (tmp_path / "scan").glob("dev_*"):
        path.unlink()
    assert refused(*start, "auto").startswith("tshsr: --rerank auto chooses K on dev: ")
    assert refused(*start, "auto").endswith(
        "has no split 'dev'; it has test, train. Give K instead, as in --rerank 40."
    )
