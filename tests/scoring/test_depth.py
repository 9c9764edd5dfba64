"""The choice of the depth of a two-stage search on a validation split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ranked import noisy
from tshsr.metrics.recall import score_metrics
from tshsr.scoring import depth as module
from tshsr.scoring.candidates import Depth, Shares, candidate_rounds, candidates_first, lost
from tshsr.scoring.depth import BUDGET, CHOICES, best_choice, choose_depth


def reasoned_about(fused: np.ndarray, pooled: np.ndarray, k_images: int, k_captions: int) -> np.ndarray:
    """The candidate pairs of a search with that depth."""
    *_, wanted = candidate_rounds(fused, pooled, Depth(k_images, k_captions))
    return wanted


def moved_by(
    fused: np.ndarray, pooled: np.ndarray, owners: np.ndarray, choices: tuple[int, ...], shares: Shares
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs, and queries that miss and that gain, for every pair of choices."""
    size = len(choices) + 1
    of_images, of_captions = (module.choice_index(pooled, axis, choices, shares) for axis in (1, 0))
    place = size * of_images.astype(np.uint16) + of_captions
    pairs = module.within(np.bincount(place.ravel(), minlength=size**2).reshape(1, size, size))[0]
    return pairs, *module.moved_by_depth(fused, place, owners, size)


def by_trying_all(
    fused: np.ndarray, pooled: np.ndarray, owners: np.ndarray, choices: tuple[int, ...]
) -> dict[tuple[int, int], tuple[int, tuple[float, ...]]]:
    """Pairs and points lost for every depth, each in a search of its own."""
    full = score_metrics(fused, owners)
    found = {}
    for k_images, k_captions in itertools.product(choices, choices):
        scored = reasoned_about(fused, pooled, k_images, k_captions)
        points = lost(full, score_metrics(candidates_first(fused, pooled, scored), owners))
        found[k_images, k_captions] = int(scored.sum()), points
    return found


@settings(max_examples=15, deadline=None)
@given(images=st.integers(11, 70), each=st.integers(1, 3), noise=st.floats(0, 3), seed=st.integers(0, 99))
def test_every_depth_is_measured_as_if_it_were_searched(images: int, each: int, noise: float, seed: int) -> None:
    fused, pooled, owners = noisy(images, each, noise=noise, seed=seed)
    choices = (20, 24, 31, 60)
    pairs, missed, gained = moved_by(fused, pooled, owners, choices, Shares.by_best(fused, pooled))
    queries = np.repeat(fused.shape, 3)
    for (k_images, k_captions), (count, points) in by_trying_all(fused, pooled, owners, choices).items():
        a, b = choices.index(k_images), choices.index(k_captions)
        assert pairs[a, b] == count
        np.testing.assert_allclose(100 * (missed - gained)[:, a, b] / queries, points, atol=1e-9)


def test_queries_that_miss_and_that_gain_are_counted_apart() -> None:
    """The caption of image 0 is no candidate; nor is the item ahead of caption 1 of image 1."""
    pooled = np.array([[0.1, 0.2, 0.9], [0.8, 0.9, 0.3], [0.7, 0.3, 0.8]], np.float32)
    fused = np.array([[0.9, 0.8, 0.1], [0.1, 0.5, 0.2], [0.2, 0.1, 0.9]], np.float32)
    _, missed, gained = moved_by(fused, pooled, np.arange(3), (1,), Shares.equal(pooled.shape, 1))
    assert missed[:, 0, 0].tolist() == [1, 1, 1, 1, 1, 1], "image 0 and its caption, at every rank"
    assert gained[:, 0, 0].tolist() == [0, 0, 0, 1, 0, 0], "caption 1, before which image 0 stood"


def test_choosing_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    given_scores = noisy(50, 3, noise=1.5)
    whole = choose_depth(*given_scores, tolerance=4.0)
    monkeypatch.setattr(module, "BLOCK", 500)
    assert choose_depth(*given_scores, tolerance=4.0) == whole


def test_the_chosen_depth_loses_the_reported_points() -> None:
    fused, pooled, owners = noisy(200, 3, noise=0.5)
    depth, points = choose_depth(fused, pooled, owners, tolerance=1.0)
    *_, scored = candidate_rounds(fused, pooled, depth)
    expected = lost(score_metrics(fused, owners), score_metrics(candidates_first(fused, pooled, scored), owners))
    np.testing.assert_allclose(points, expected, atol=1e-9)
    assert max(points) <= 1.0
    assert scored.sum() < fused.size / 4


def test_a_choice_within_the_tolerance_by_one_caption_is_passed_over_where_a_margin_is_cheap() -> None:
    fused, pooled, owners = noisy(600, 2, noise=0.15)
    depth, points = choose_depth(fused, pooled, owners)
    assert (depth, points) == (Depth(CHOICES[0], CHOICES[2]), (0.0,) * 6)
    assert reasoned_about(fused, pooled, depth.k_images, depth.k_captions).sum() <= BUDGET * fused.size
    fewer = reasoned_about(fused, pooled, CHOICES[0], CHOICES[1])
    worst = max(lost(score_metrics(fused, owners), score_metrics(candidates_first(fused, pooled, fewer), owners)))
    assert worst == pytest.approx(100 / len(owners)), "one caption of 1200: 0.08 points of 0.1"


def test_a_constructed_case_takes_the_candidates_that_it_needs() -> None:
    """By v·t twelve wrong captions, and twelve wrong images, rank ahead of the right one; by the network none does."""
    count = 60
    offset = (np.arange(count)[None, :] - np.arange(count)[:, None]) % count
    pooled = np.random.default_rng(0).random((count, count)).astype(np.float32) / 2
    pooled[offset == 0] = 0.8
    for ahead in range(1, 13):
        pooled[offset == ahead] = 0.9 + ahead / 1000
    fused, owners = (offset == 0).astype(np.float32), np.arange(count)
    depth, points = choose_depth(fused, pooled, owners, choices=(20, 26, 40))
    assert (depth, points) == (Depth(k_images=20, k_captions=26), (0.0,) * 6), "half of 26 hold all that stand before"
    assert choose_depth(fused, pooled, owners, choices=(20, 22)) == (Depth(60, 60), (0.0,) * 6)


def test_with_a_random_first_stage_all_pairs_are_taken() -> None:
    fused, pooled, owners = noisy(300, 1, noise=0)
    dice = np.random.default_rng(5)
    assert choose_depth(fused, -pooled, owners, choices=(10, 20)) == (Depth(300, 300), (0.0,) * 6)
    depth, _ = choose_depth(fused, dice.random(pooled.shape).astype(np.float32), owners, choices=(10, 20, 295))
    assert depth.k_images >= 295


def test_small_data_is_searched_whole() -> None:
    fused, pooled, owners = noisy(6, 2, noise=3)
    depth, points = choose_depth(fused, pooled, owners)
    assert reasoned_about(fused, pooled, depth.k_images, depth.k_captions).all()
    assert points == (0.0,) * 6


PAIRS = np.array([[100, 150, 300], [104, 155, 305], [150, 200, 350]])
"""Pairs by three choices for images (rows) and for captions."""


def test_the_fewest_pairs_with_a_margin_are_taken_where_the_budget_holds_them() -> None:
    risk = np.array([[[0.2, 0.08, 0.0], [0.15, 0.0, 0.0], [0.1, 0.0, 0.0]], np.zeros((3, 3))])
    assert best_choice(PAIRS, np.zeros((3, 3)), risk, 0.1, budget=200) == (0, 1), "150 pairs, as (2, 0), and less risk"
    assert best_choice(PAIRS, np.zeros((3, 3)), risk - 0.05, 0.1, budget=200) == (1, 0), "104 pairs do"


def test_without_a_margin_the_least_risk_within_the_budget_is_taken() -> None:
    loss = np.array([[0.3, 0.1, 0.0], [0.2, 0.1, 0.0], [0.2, 0.2, 0.0]])
    risk = np.array([[[0.4, 0.3, 0.0], [0.4, 0.2, 0.0], [0.1, 0.1, 0.0]], np.zeros((3, 3))]) + 0.15
    assert best_choice(PAIRS, loss, risk, 0.1, budget=200) == (1, 1), "(2, 1) has less risk, but loses too much here"


def test_a_risk_that_no_choice_avoids_does_not_hide_others() -> None:
    risk = np.array([np.full((3, 3), 0.3), [[0.2, 0.1, 0.0], [0.2, 0.05, 0.0], [0.2, 0.1, 0.0]]])
    assert best_choice(PAIRS, np.zeros((3, 3)), risk, 0.1, budget=200) == (1, 1), "of one worst risk everywhere"


def test_beyond_the_budget_the_fewest_pairs_that_lose_little_are_taken() -> None:
    loss = np.array([[0.3, 0.1, 0.0], [0.2, 0.1, 0.0], [0.2, 0.0, 0.0]])
    assert best_choice(PAIRS, loss, loss[None] + 1, 0.1, budget=90) == (0, 1)
    assert best_choice(PAIRS, loss + 0.2, loss[None] + 1, 0.1, budget=90) is None


def test_beyond_the_budget_a_depth_within_the_tolerance_by_chance_is_passed_over() -> None:
    loss = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    assert best_choice(PAIRS, loss, loss[None] + 1, 0.1, budget=90) == (0, 1), (
        "a deeper choice for images alone loses 0.3"
    )


def test_the_risk_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, pooled, owners = noisy(40, 3, noise=2)
    choices, seen = (2, 4, 8), []
    monkeypatch.setattr(module, "best_choice", lambda *given: seen.append(given))
    choose_depth(fused, pooled, owners, choices=choices)
    ((_, _, risk, _, _),) = seen
    _, missed, gained = moved_by(fused, pooled, owners, choices, Shares.by_best(fused, pooled))
    for recall, image, caption in itertools.product(range(6), range(3), range(3)):
        away, back = (float(each[recall, image, caption]) for each in (missed, gained))
        queries = 40 if recall < 3 else 120
        expected = 100 * (max(0.0, away - back) + 2 * (2 * (away + back)) ** 0.5) / queries
        assert risk[recall, image, caption] == pytest.approx(expected)
    assert (missed + gained).any()
