"""Mean and median ranks, MRR and metrics of several relevant items in a comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.populations import population
from tshsr.metrics.bootstrap import FIGURES
from tshsr.metrics.comparison import compare
from tshsr.metrics.ranks import QueryRanks

Value = Callable[[np.ndarray], np.ndarray]


@pytest.mark.parametrize(("figure", "value"), [("meanr", lambda rank: rank), ("mrr", lambda rank: 1 / rank)])
def test_the_permutation_test_of_ranks_is_exact_where_all_swaps_can_be_counted(figure: str, value: Value) -> None:
    owners, random = np.repeat(np.arange(7), 2), np.random.default_rng(3)
    a, b = (QueryRanks(random.integers(1, most, 7), random.integers(1, most, 14), owners) for most in (9, 20))
    each = (value(a.text_to_image) - value(b.text_to_image)).reshape(7, 2).sum(axis=1) / 14
    swaps = 2 * ((np.arange(128)[:, None] >> np.arange(7)) & 1) - 1
    exact = np.mean(np.abs(swaps @ each) >= abs(each.sum()) - 1e-9)
    assert 0.01 < exact < 0.6
    difference = compare([a], [b], resamples=20_000).differences[f"text_to_image_{figure}"]
    assert difference.mean == pytest.approx(each.sum())
    assert difference.p == pytest.approx(exact, abs=0.015)


def test_a_median_is_called_different_by_its_interval_alone() -> None:
    owners, random = np.arange(60), np.random.default_rng(4)
    a, b, c = (QueryRanks(*random.integers(low, low + 9, size=(2, 60)), owners) for low in (1, 20, 20))
    found = compare([a], [b], resamples=400)
    difference = found.differences["text_to_image_medr"]
    assert difference.mean == np.median(a.text_to_image) - np.median(b.text_to_image)
    assert difference.low <= difference.mean <= difference.high < 0
    assert difference.p is None
    assert found.different("text_to_image_medr")
    assert not compare([b], [c], resamples=400).different("image_to_text_medr")


def test_a_better_run_has_lower_ranks_and_higher_figures_of_all_else() -> None:
    random = np.random.default_rng(19)
    found = compare(*population(random, 300, (1, 1), better=1.0), resamples=400)
    for figure in FIGURES:
        difference = found.differences[figure.name].mean
        assert (difference > 0) == figure.higher_is_better, figure
