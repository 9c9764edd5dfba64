"""Deletion and insertion curves: hand-made cases, plain loops, and intervals that hold what they should."""

from __future__ import annotations

import numpy as np
import pytest

from tshsr.errors import InputError
from tshsr.explain.curves import LEAST_PAIRS, STEPS, area, compare_areas, ranks_of, remaining_masks, removed_per_point
from tshsr.metrics.report import Area, AreaDifference


def width(of: Area | AreaDifference) -> float:
    """Of an interval, which must be there."""
    assert of.low is not None
    assert of.high is not None
    return of.high - of.low


def fresh_generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_few_items_go_one_by_one_and_many_in_twelve_steps() -> None:
    assert removed_per_point(1).tolist() == [0]
    assert removed_per_point(2).tolist() == [0, 1]
    assert removed_per_point(6).tolist() == [0, 1, 2, 3, 4, 5]
    assert removed_per_point(36).tolist() == [0, 3, 6, 9, 12, 15, 18, 20, 23, 26, 29, 32, 35]
    assert len(removed_per_point(1000)) == STEPS + 1


def test_the_most_relevant_item_goes_first_and_comes_first() -> None:
    deletion, insertion = remaining_masks(ranks_of(np.array([0.2, 0.9, -0.5]), fresh_generator()))
    assert deletion.tolist() == [[True, True, True], [True, False, True], [False, False, True]]
    assert insertion.tolist() == [[True, True, True], [True, True, False], [False, True, False]]


def test_a_curve_ends_with_one_item_and_never_with_none() -> None:
    for items in (1, 2, 5, 13, 14, 40):
        for curve in remaining_masks(ranks_of(fresh_generator().random(items), fresh_generator())):
            assert curve.sum(axis=1).tolist() == (items - removed_per_point(items)).tolist()
            assert curve[-1].sum() == 1


def test_equal_items_stand_in_random_order() -> None:
    generator = fresh_generator()
    first = [int(ranks_of(np.array([1.0, 1.0, 0.0]), generator).argmin()) for _ in range(200)]
    assert set(first) == {0, 1}
    assert 60 < sum(first) < 140


def test_the_area_of_a_straight_fall_is_the_half_and_of_a_constant_score_the_score() -> None:
    for items in (2, 5, 14, 36):
        falling = 1 - removed_per_point(items) / (items - 1)
        assert area(falling, items) == pytest.approx(0.5)
        assert area(np.full(len(falling), 0.3), items) == pytest.approx(0.3)


def test_the_area_equals_a_loop_over_trapezoids() -> None:
    items = 20
    scores, gone = fresh_generator().random(STEPS + 1), removed_per_point(items)
    expected = sum(
        (gone[j + 1] - gone[j]) / (items - 1) * (scores[j] + scores[j + 1]) / 2 for j in range(len(scores) - 1)
    )
    assert area(scores, items) == pytest.approx(expected)


def test_of_a_single_item_nothing_can_be_taken_away() -> None:
    assert area(np.array([0.7]), 1) == 0.7


def test_areas_are_normalised_by_the_sum_of_full_scores() -> None:
    full = np.tile([1.0, 3.0], LEAST_PAIRS // 2)
    curve = compare_areas({"a": np.full(LEAST_PAIRS, 0.5), "b": full}, full, resamples=100)
    assert curve.areas["a"].mean == pytest.approx(0.25)
    assert (curve.areas["b"].mean, curve.areas["b"].low, curve.areas["b"].high) == pytest.approx((1, 1, 1))
    (difference,) = curve.differences
    assert (difference.a, difference.b) == ("a", "b")
    assert difference.mean == pytest.approx(-0.75)


def test_few_pairs_have_no_intervals() -> None:
    areas = {"a": fresh_generator().random(LEAST_PAIRS), "b": fresh_generator(1).random(LEAST_PAIRS)}
    enough = compare_areas(areas, np.ones(LEAST_PAIRS), resamples=100)
    few = compare_areas({name: of[1:] for name, of in areas.items()}, np.ones(LEAST_PAIRS - 1), resamples=100)
    for curve, has in ((enough, True), (few, False)):
        for each in (*curve.areas.values(), *curve.differences):
            assert np.isfinite(each.mean)
            assert (each.low is not None, each.high is not None) == (has, has)


def test_scores_below_zero_are_normalised_by_their_size() -> None:
    curve = compare_areas({"a": np.array([-0.5, 0.5])}, np.array([-1.0, 1.0]), resamples=100)
    assert curve.areas["a"].mean == 0
    assert curve.differences == ()


def test_an_interval_is_paired_and_narrower_than_those_of_the_areas() -> None:
    generator = fresh_generator()
    full = np.ones(300)
    hardness = generator.normal(0.5, 0.2, 300)  # common to both rankings
    curve = compare_areas({"a": hardness, "b": hardness + 0.02 + generator.normal(0, 0.01, 300)}, full)
    (difference,) = curve.differences
    assert width(difference) < 0.2 * width(curve.areas["a"])
    assert difference.high is not None
    assert difference.high < 0


def test_intervals_of_no_difference_hold_zero_in_95_of_100_cases() -> None:
    generator, holds = fresh_generator(), 0
    for _ in range(300):
        areas = {name: generator.normal(0.5, 0.2, 80) for name in ("a", "b")}
        (difference,) = compare_areas(areas, generator.uniform(0.5, 1, 80), resamples=400).differences
        assert difference.low is not None
        assert difference.high is not None
        holds += difference.low <= 0 <= difference.high
    assert 0.90 <= holds / 300 <= 0.985


def test_the_same_seed_gives_the_same_intervals() -> None:
    areas, full = {"a": fresh_generator().random(30), "b": fresh_generator(1).random(30)}, np.ones(30)
    assert compare_areas(areas, full, seed=3) == compare_areas(areas, full, seed=3)
    assert compare_areas(areas, full, seed=3) != compare_areas(areas, full, seed=4)


@pytest.mark.parametrize("full", [np.zeros(3), np.array([1.0, np.nan, 1.0])])
def test_scores_that_are_all_zero_or_not_finite_are_refused(full: np.ndarray) -> None:
    with pytest.raises(InputError, match="need finite scores that are not all zero; this network gives all pairs"):
        compare_areas({"a": np.ones(3)}, full)
