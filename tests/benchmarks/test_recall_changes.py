"""benchmarks.recall_changes: changes of recalls with intervals."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recall_changes import change_of_recalls


def test_the_change_is_that_of_the_sum_of_recalls() -> None:
    right = np.array([7, 7, 3, 3])
    plain, ranks = np.array([1, 2, 12, 4]), np.array([2, 2, 6, np.inf])
    found = change_of_recalls(ranks, plain, right)
    # R@1 25 -> 0, R@5 75 -> 50, R@10 75 -> 75
    assert found["change"] == pytest.approx(-50.0)
    assert found["low"] <= found["change"] <= found["high"]


def test_captions_of_one_picture_are_drawn_together() -> None:
    plain = np.ones(20)
    ranks = np.where(np.arange(20) < 10, 1.0, 20.0)
    together = change_of_recalls(ranks, plain, np.arange(20) // 10)
    apart = change_of_recalls(ranks, plain, np.arange(20))
    assert (together["low"], together["high"]) == (-300.0, 0.0)
    assert -300 < apart["low"] < apart["high"] < 0
    assert change_of_recalls(plain, plain, np.arange(20)) == {"change": 0.0, "low": 0.0, "high": 0.0}


def test_a_change_of_every_caption_is_that_of_every_resample_whatever_the_number_of_captions() -> None:
    found = change_of_recalls(np.ones(100), np.full(100, 2), np.repeat(np.arange(20), [1, 9] * 10))
    assert found == {"change": 100.0, "low": 100.0, "high": 100.0}
