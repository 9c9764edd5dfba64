"""Logs in the formats of VSE++, SCAN and SGRAF, written by hand: wrong and correct lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.scan_logs import AR, ARI, I2T, RSUM, SCAN, T2I, folds, means, summary
from tshsr.errors import DataError
from tshsr.metrics.scan_logs import Finding, audit, read_log


def wrong(text: str) -> dict[str, Finding]:
    return {finding.label: finding for finding in audit(text).wrong}


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    head = "Loading captions such as 'a dog\u2028on a beach\x0c'\n"
    plain = [finding.line for finding in audit(SCAN).findings]
    assert [finding.line for finding in audit(head + SCAN).findings] == [line + 1 for line in plain]


def test_the_summary_of_scan_and_sgraf_is_wrong_in_three_lines() -> None:
    found = wrong(SCAN)
    assert set(found) == {"rsum", "Average i2t Recall", "Average t2i Recall"}
    assert found["rsum"].note == "six times the mean of the image-to-text recalls"
    assert found["rsum"].right == pytest.approx((RSUM,), abs=0.05)
    assert found["Average i2t Recall"].note == "the mean of the text-to-image recalls"
    assert found["Average i2t Recall"].right == pytest.approx((AR,))
    assert found["Average t2i Recall"].note == "the true rSum"
    assert found["Average t2i Recall"].right == pytest.approx((ARI,))
    assert found["rsum"].line == SCAN.splitlines().index(f"rsum: {6 * AR:.1f}") + 1
    assert all(finding.summary for finding in found.values())


def test_the_lines_of_folds_and_the_long_lines_of_the_mean_are_right() -> None:
    right = [finding for finding in audit(SCAN).findings if not finding.wrong]
    assert [finding.summary for finding in right] == [False] * 25 + [True] * 2
    assert all(finding.right is not None for finding in right)


@pytest.mark.parametrize("prefix", ["2021-06-24 20:23:26,306 ", "INFO:root:", "[2024/01/01 10:00:00] [eval] INFO: "])
def test_prefixes_of_a_logger_are_ignored(prefix: str) -> None:
    assert set(wrong("\n".join(prefix + line for line in SCAN.splitlines()))) == set(wrong(SCAN))


def test_a_corrected_summary_is_right() -> None:
    assert not audit("\n".join([*folds(), *summary(RSUM, AR, ARI)])).wrong


def test_a_summary_without_its_folds_is_checked_by_its_own_long_lines() -> None:
    found = wrong("\n".join(summary(6 * AR, ARI, RSUM)))
    assert set(found) == {"rsum", "Average i2t Recall", "Average t2i Recall"}
    assert found["rsum"].right == pytest.approx((RSUM,), abs=0.3)


def test_a_second_rsum_line_below_the_wrong_one_is_right() -> None:
    lines = summary(6 * AR, ARI, RSUM)
    lines.insert(3, f"rsum: {RSUM:.1f}")  # as some copies print it
    rsums = [finding for finding in audit("\n".join([*folds(), *lines])).findings if finding.label == "rsum"]
    assert [finding.wrong for finding in rsums] == [False] * 5 + [True, False]


def test_an_evaluation_without_folds_is_right_with_its_aggregates_before_the_long_lines() -> None:
    ar, ari = sum(I2T[0][:3]) / 3, sum(T2I[0][:3]) / 3
    text = (
        f"rsum: {3 * (ar + ari):.1f}\nAverage i2t Recall: {ar:.1f}\nImage to text: 79.0 96.0 98.5 1.0 2.0\n"
        f"Average t2i Recall: {ari:.1f}\nText to image: 63.0 90.0 95.5 1.0 5.0\n"
    )
    assert not audit(text).wrong
    assert len(audit(text + text).findings) == 10
    assert not audit(text + text).wrong
    assert wrong(text.replace("Average i2t Recall: 91.2", "Average i2t Recall: 82.8"))["Average i2t Recall"].note == (
        "the mean of the text-to-image recalls"
    )


def test_validation_lines_of_a_training_log_belong_to_the_lines_above_them() -> None:
    text = (
        "Image to text (R@1, R@5, R@10): 61.1, 84.2, 89.7\nText to image (R@1, R@5, R@10): 43.9, 72.6, 82.0\n"
        "Current rsum is 433.5\nEpoch: [1]\nImage to text: 62.0, 85.0, 90.0, 1.0, 5.1\n"
        "Text to image: 44.0, 73.0, 82.0, 2.0, 10.8\nCurrent rsum is 430.0\n"
    )
    found = wrong(text)
    assert list(found) == ["rsum"]
    assert (found["rsum"].line, found["rsum"].right, found["rsum"].note) == (7, (436.0,), "not recognised")


def test_only_the_last_five_evaluations_before_a_mean_are_its_folds() -> None:
    validation = "Image to text: 10.0, 20.0, 30.0, 9.0, 20.0\nText to image: 5.0, 10.0, 20.0, 30.0, 40.0\n"
    found = wrong(validation * 2 + SCAN)
    assert found == {label: replace(finding, line=finding.line + 4) for label, finding in wrong(SCAN).items()}


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("aggregates", [True, False])
def test_where_folds_are_missing_the_mean_is_judged_by_its_own_long_lines(kept: int, aggregates: bool) -> None:
    lines = folds(aggregates=aggregates)
    lines = lines[len(lines) * (len(I2T) - kept) // len(I2T) :]
    assert not audit("\n".join([*lines, *summary(RSUM, AR, ARI)])).wrong
    found = audit("\n".join([*lines, *summary(6 * AR, ARI, RSUM)]))
    assert [finding.label for finding in found.wrong] == ["rsum", "Average i2t Recall", "Average t2i Recall"]
    assert [finding.right for finding in found.wrong] == [pytest.approx((right,), abs=0.3) for right in (RSUM, AR, ARI)]
    missing = f"{f'only {kept}' if kept else 'none'} of 5 folds are in the log"
    long_lines = [finding for finding in found.findings if finding.summary and not finding.wrong]
    assert [(finding.right, finding.note) for finding in long_lines] == [(None, missing)] * 2


def test_without_its_folds_impossible_figures_of_a_mean_are_found() -> None:
    lines = summary(RSUM, AR, ARI)
    lines[4] = "Image to text: 101.0 102.0 103.0 1.0 2.2"
    assert wrong("\n".join(lines))["Image to text"].note == "a recall is no number between 0 and 100"


def test_a_mean_that_took_a_figure_of_the_other_direction_is_found() -> None:
    lines = summary(RSUM, AR, ARI)
    lines[4] = f"Image to text: 79.1 96.3 {means(T2I)[2]:.1f} 1.0 2.2"
    found = wrong("\n".join([*folds(), *lines]))
    assert list(found) == ["Image to text"]
    assert found["Image to text"].note == "figures of the other direction"
    assert found["Image to text"].right == pytest.approx(means(I2T))
    lines[4] = "Image to text: 79.1 97.3 98.8 1.0 2.2"
    assert wrong("\n".join([*folds(), *lines]))["Image to text"].note == "not the mean of the folds above"


def test_lines_with_recall_at_50_are_read_too() -> None:
    text = (
        "Image to text: 50.0, 60.0, 70.0, 90.0, 1.0, 5.0\nText to image: 40.0, 50.0, 60.0, 80.0, 2.0, 9.0\n"
        "rsum: 330.0 ar: 60.0 ari: 50.0\n"
    )
    assert not audit(text).wrong
    assert wrong(text.replace("rsum: 330.0", "rsum: 360.0"))["rsum"].right == (330.0,)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("Image to text: 101.0, 102.0, 103.0, 1.0, 1.0", "a recall is no number between 0 and 100"),
        ("Image to text: nan, nan, nan, nan, nan", "a recall is no number between 0 and 100"),
        ("Text to image: 50.0, 40.0, 60.0, 1.0, 2.0", "R@1 <= R@5 <= R@10 does not hold"),
        ("Text to image: 50.0, 60.0, 70.0, 0.0, 2.0", "a median rank below 1"),
    ],
)
def test_impossible_figures_are_found(line: str, note: str) -> None:
    (finding,) = audit(line).wrong
    assert (finding.note, finding.right) == (note, None)


def test_differences_within_rounding_are_accepted() -> None:
    text = "Image to text: 50.0, 60.0, 70.0\nText to image: 40.0, 50.0, 60.0\nrsum: {} ar: 60.0 ari: 50.0"
    assert not audit(text.format("330.3")).wrong
    assert audit(text.format("330.4")).wrong


def test_aggregates_of_missing_lines_are_not_called_wrong() -> None:
    (finding,) = audit("rsum: 510.0").findings
    assert (finding.wrong, finding.right, finding.note) == (False, None, "the lines that it follows from are missing")


def test_the_json_counts_the_wrong_lines() -> None:
    values = audit(SCAN).to_json()
    assert values["wrong"] == 3
    assert len(values["lines"]) == 30
    assert set(values["lines"][0]) == {"line", "label", "printed", "right", "wrong", "note", "summary"}


def test_a_file_without_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("Epoch 1\nloss 0.3\n")
    with pytest.raises(DataError, match=r"log\.txt holds no figures of an evaluation as SCAN, SGRAF and VSE\+\+ print"):
        read_log(tmp_path / "log.txt")
    with pytest.raises(DataError, match=r"none\.txt cannot be read .*; expected the log of an evaluation"):
        read_log(tmp_path / "none.txt")
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe" + SCAN.encode())
    assert len(read_log(tmp_path / "log.txt").wrong) == 3
