"""Power where the error is estimated from few runs: equal to the noncentral t distribution, and to simulations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.support.populations import compared, small
from tshsr.metrics.comparison import compare, detectable, freedom_of, mean_error, power_at


@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.0, 7.3, 300.0])
@pytest.mark.parametrize("difference", [0.0, 0.5, 2.0, 4.0])
def test_it_is_the_noncentral_t(freedom: float, difference: float) -> None:
    reach = stats.t.ppf(0.975, freedom)
    shift = difference * mean_error(freedom)
    expected = stats.nct.sf(reach, freedom, shift) + stats.nct.cdf(-reach, freedom, shift)
    assert power_at(3 * difference, 3 * reach, 3.0, freedom) == pytest.approx(expected, abs=1e-8)


def test_it_is_the_share_of_simulated_comparisons() -> None:
    random, freedom = np.random.default_rng(5), 3.0
    errors = np.sqrt(random.chisquare(freedom, 400_000) / freedom)
    found = np.abs(random.standard_normal(400_000) + 2.5 * mean_error(freedom)) > 2.0 * errors
    assert power_at(2.5, 2.0, 1.0, freedom) == pytest.approx(found.mean(), abs=0.004)


def test_a_difference_far_beyond_the_interval_is_always_found() -> None:
    for freedom in (1.0, 2.0, 4.0, None):
        assert power_at(1000.0, 2.0, 1.0, freedom) == pytest.approx(1.0, abs=1e-6)
        assert detectable(1.0, 1.0, freedom, 0.1) >= 0.0
        assert detectable(0.01, 1.0, freedom, 0.5) == 0.0, "an interval that excludes zero in most cases anyway"


def test_a_known_error_gives_the_normal_distribution() -> None:
    assert power_at(0.0, 1.96, 1.0, None) == pytest.approx(0.05, abs=1e-4)
    assert power_at(1.0, 1.96, 1.0, 1e4) == pytest.approx(power_at(1.0, 1.96, 1.0, None), abs=1e-3)
    assert detectable(1.96, 1.0, None, 0.8) == pytest.approx(1.96 + 0.8416, abs=1e-3)


@pytest.mark.parametrize("freedom", [1.0, 2.6, 40.0])
def test_the_detectable_difference_has_the_requested_power(freedom: float) -> None:
    least = detectable(8.0, 3.0, freedom, 0.8)
    assert power_at(least, 8.0, 3.0, freedom) == pytest.approx(0.8, abs=1e-6)


def test_without_any_error_everything_is_found() -> None:
    assert (power_at(0.1, 0.0, 0.0, None), power_at(0.0, 0.0, 0.0, None)) == (1.0, 0.0)
    assert detectable(0.0, 0.0, None, 0.8) == 0.0


def test_only_the_part_of_the_seeds_is_estimated() -> None:
    assert freedom_of(2.0, 2.0, 4) == 4
    assert freedom_of(np.sqrt(2.0), 1.0, 4) == pytest.approx(16)
    assert freedom_of(2.0, 0.0, 4) is None
    assert freedom_of(0.0, 0.0, 4) is None


@pytest.mark.parametrize("runs", [(2, 2), (3, 3)])
def test_no_difference_at_all_is_found_in_about_5_of_100_cases(runs: tuple[int, int]) -> None:
    random = np.random.default_rng(21)
    stated = [compared(random, 100, runs, seeds=0.3).rsum.power(0.0) for _ in range(30)]
    assert 0.025 < np.mean(stated) < 0.075


def test_several_seeds_find_a_planted_difference_as_often_as_stated() -> None:
    random = np.random.default_rng(22)
    found = [compared(random, 100, (3, 3), seeds=0.15, better=0.4) for _ in range(150)]
    true = np.mean([each.rsum.mean for each in found])
    stated = np.mean([each.rsum.power(true) for each in found])
    assert 0.5 < stated < 0.85
    assert np.mean([each.different() for each in found]) == pytest.approx(stated, abs=0.1)


def test_single_runs_have_no_degrees_of_freedom() -> None:
    found = compare([small(1)], [small(2)], resamples=400)
    assert {difference.freedom for difference in found.differences.values()} == {None}
