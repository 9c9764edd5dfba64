"""`tshsr metrics` and `tshsr audit-log`: ranks, human ratings, denser annotation, logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import refused, tshsr
from tests.support.compared import OWNERS, ranks, scored
from tests.support.scan_logs import SCAN
from tshsr.data.layouts import open_split
from tshsr.metrics.report import read_report


def names(scenes: Path) -> list[tuple[str, int]]:
    """Each caption of the test split with the name of its image."""
    split = open_split(str(scenes), "test")
    return [(split.image_ids[row], column) for column, row in enumerate(split.image_of_caption)]


def test_a_log_is_audited(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(SCAN)
    said = tshsr("audit-log", tmp_path / "log.txt")
    assert said.code == 0
    assert "six times the mean of the image-to-text recalls" in said.out
    assert "3 of 30 lines with figures that can be checked are wrong." in said.out
    values = tshsr("audit-log", tmp_path / "log.txt", "--json", "-").json()
    assert values["wrong"] == 3
    (tmp_path / "log.txt").write_text("\n".join(SCAN.splitlines()[9:]))  # the log's head is lost
    said = tshsr("audit-log", tmp_path / "log.txt")
    assert "Image to text: cannot be checked, only 3 of 5 folds are in the log" in said.err
    assert "3 of 18 lines with figures that can be checked are wrong." in said.out
    (tmp_path / "log.txt").write_text("rsum: 500.0")
    said = tshsr("audit-log", tmp_path / "log.txt")
    assert "line 1, rsum: cannot be checked, the lines that it follows from are missing" in said.err


def test_judgements_are_correlated_for_matrices_and_runs(rivals: Path, scenes: Path, run: Path) -> None:
    lines = [f"{image},{column},{(3 * column + image) % 4 + (OWNERS[column] == image)}" for image in range(40)
             for column in range(0, 200, 17)]  # fmt: skip
    (rivals / "ratings.csv").write_text("\n".join(["image,caption,rating", *lines]))
    said = tshsr("metrics", *scored(rivals, "a0"), "--judgements", rivals / "ratings.csv", "--json", rivals / "r.json")
    assert said.code == 0, said.err
    found = read_report(rivals / "r.json").judgements
    assert found is not None
    assert (found.judgements, found.images) == (480, 40)
    assert found.tau_c.low is not None
    assert found.tau_c.high is not None
    assert found.tau_c.low < found.tau_c.value < found.tau_c.high
    assert f"480 judgements of 40 images: Kendall tau-c {found.tau_c.value:.3f} [" in said.out
    (rivals / "few.csv").write_text("\n".join(f"{image},{column},{column % 3}" for image, column in names(scenes)))
    said = tshsr("evaluate", run, "--data", scenes, "--device", "cpu", "--judgements", rivals / "few.csv")
    assert "50 judgements of 10 images" in said.out
    assert "(no interval: too few images, at least 20 must be rated)" in said.out
    few = ("--judgements", rivals / "two.csv", "--json", rivals / "two.json")
    (rivals / "two.csv").write_text("\n".join(f"{image},0,{int(image < 2)}" for image in range(40)))
    assert (
        "no interval: in too many resamples of images all scores or all ratings are alike"
        in tshsr("metrics", *scored(rivals, "a0"), *few).out
    )
    found = read_report(rivals / "two.json").judgements
    assert found is not None
    assert (found.tau_c.low, found.tau_c.high) == (None, None)
    assert "is not among the 40 that are scored" in refused(
        "metrics", *scored(rivals, "a0"), "--judgements", rivals / "few.csv"
    )


def test_denser_annotation_needs_cocos_ids_and_images(rivals: Path) -> None:
    assert "--pmrp finds captions by COCO's ids; give --coco-ids FILE with it." in refused(
        "metrics", *scored(rivals, "a0"), "--pmrp", rivals
    )
    pytest.importorskip("eccv_caption", reason="the extra eccv is not installed")
    (rivals / "ids.txt").write_text("\n".join(map(str, range(200))))
    said = refused("metrics", *scored(rivals, "a0"), "--coco-ids", rivals / "ids.txt")
    assert "the annotation is of all 25000 captions of COCO's 5,000 test images, five each; there are 200 ids" in said


def test_a_report_keeps_its_ranks_and_rankings(rivals: Path) -> None:
    report = read_report(rivals / "a0.json")
    assert report.ranks == {"fused": ranks(rivals, "a0")[0]}
    (rivals / "again.json").write_text(report.to_json())
    assert read_report(rivals / "again.json") == report
    said = tshsr("metrics", *scored(rivals, "a0"))
    fused = report.scores["fused"]
    assert f"fused, image to text: median rank {fused.image_to_text.medr:.1f}, mean rank " in said.out
    assert f"{fused.image_to_text.meanr:.1f}; text to image: median rank {fused.text_to_image.medr:.1f}" in said.out
    assert "fused, image to text: of an image's captions " in said.out
    assert f"MRR {report.rankings['fused'].image_to_text.mrr:.3f}" in said.out
