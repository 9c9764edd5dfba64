"""Which pairs a two-stage search reasons about, and how the numbers of candidates are chosen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tshsr import candidates as module
from tshsr.candidates import CHOICES, SHARE, Depth, best_place, candidates, ceiling, choose_depth, lost, merged
from tshsr.errors import SettingsError
from tshsr.metrics import score_metrics


def noisy(images: int, each: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fused scores, v·t that follows them with more noise, and the owner of each caption, in no order."""
    dice = np.random.default_rng(seed)
    owners = dice.permutation(np.repeat(np.arange(images), each))
    truth = np.zeros((images, len(owners)))
    truth[owners, np.arange(len(owners))] = 3
    fused = truth + dice.normal(size=truth.shape)
    pooled = fused + noise * dice.normal(size=truth.shape)
    return fused.astype(np.float32), pooled.astype(np.float32), owners


def test_candidates_are_the_best_of_their_image_or_of_their_caption() -> None:
    pooled = np.array([[0.9, 0.8, 0.1, 0.2], [0.3, 0.7, 0.6, 0.5], [0.2, 0.1, 0.5, 0.4]], np.float32)
    of_images = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    of_captions = [[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]
    expected = np.array(of_images, bool) | np.array(of_captions, bool)
    np.testing.assert_array_equal(candidates(pooled, Depth(1, 1)), expected)
    deeper = candidates(pooled, Depth(2, 1))
    np.testing.assert_array_equal(deeper, expected | np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]], bool))
    assert candidates(pooled, Depth(9, 1)).all(), "more candidates than there are captions are all of them"


def test_candidates_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pooled, _ = noisy(20, 3, noise=1)
    whole = candidates(pooled, Depth(7, 2))
    monkeypatch.setattr(module, "BLOCK", 100)
    np.testing.assert_array_equal(candidates(pooled, Depth(7, 2)), whole)


@pytest.mark.parametrize(("k_images", "k_captions", "told"), [(0, 3, 0), (3, -2, -2)])
def test_less_than_one_candidate_is_refused(k_images: int, k_captions: int, told: int) -> None:
    with pytest.raises(SettingsError, match=f"{told} candidates were asked for; expected at least 1, or auto."):
        Depth(k_images, k_captions)


def test_a_depth_grows_with_what_is_ranked_and_never_shrinks() -> None:
    depth = Depth(k_images=100, k_captions=40)
    assert depth.scaled((1000, 5000), (1000, 5000)) == depth
    assert depth.scaled((1000, 5000), (5000, 25_000)) == Depth(500, 200)
    assert depth.scaled((1000, 5000), (1014, 5070)) == Depth(102, 41)
    assert depth.scaled((1000, 5000), (100, 500)) == depth


def test_what_was_not_reasoned_about_stays_below_in_the_order_of_the_first_stage() -> None:
    fused, pooled, _ = noisy(12, 5, noise=2)
    reasoned = candidates(pooled, Depth(6, 2))
    scores = merged(fused, pooled, reasoned)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores[reasoned], fused[reasoned])
    for lines, marks, first in ((scores, reasoned, pooled), (scores.T, reasoned.T, pooled.T)):
        for line, mark, order in zip(lines, marks, first, strict=True):
            assert line[~mark].max() < line[mark].min()
            np.testing.assert_array_equal(np.argsort(line[~mark]), np.argsort(order[~mark]))


def test_the_ceiling_counts_queries_with_a_right_answer_among_their_candidates() -> None:
    owners = np.array([0, 0, 1, 2, 2])
    reasoned = np.zeros((3, 5), dtype=bool)
    reasoned[0, [1, 2]] = True  # a caption of image 0, and one of image 1
    reasoned[1, [0]] = True  # a wrong one
    reasoned[2, [3, 4]] = True  # both right
    assert ceiling(reasoned, owners) == (pytest.approx(200 / 3), 60.0)


def test_no_recall_exceeds_the_ceiling() -> None:
    fused, pooled, owners = noisy(60, 2, noise=4)
    reasoned = candidates(pooled, Depth(10, 10))
    metrics = score_metrics(merged(fused, pooled, reasoned), owners)
    of_images, of_captions = ceiling(reasoned, owners)
    assert metrics.image_to_text.r10 <= of_images < 100
    assert metrics.text_to_image.r10 <= of_captions < 100


def by_trying_all(
    fused: np.ndarray, pooled: np.ndarray, owners: np.ndarray, choices: tuple[int, ...]
) -> dict[tuple[int, int], tuple[int, tuple[float, ...]]]:
    """Pairs and points lost of every depth, each searched by itself."""
    full = score_metrics(fused, owners)
    found = {}
    for k_images, k_captions in itertools.product(choices, choices):
        reasoned = candidates(pooled, Depth(k_images, k_captions))
        points = lost(full, score_metrics(merged(fused, pooled, reasoned), owners))
        found[k_images, k_captions] = int(reasoned.sum()), points
    return found


@settings(max_examples=15, deadline=None)
@given(images=st.integers(11, 40), each=st.integers(1, 3), noise=st.floats(0, 3), seed=st.integers(0, 99))
def test_every_depth_is_measured_as_if_it_were_searched(images: int, each: int, noise: float, seed: int) -> None:
    fused, pooled, owners = noisy(images, each, noise=noise, seed=seed)
    choices = (10, 12, 17, 30)
    size = len(choices) + 1
    place = size * module.places(pooled, 1, choices).astype(np.uint16) + module.places(pooled, 0, choices)
    missed, gained = module.moved_by_depth(fused, place, owners, size)
    pairs = module.within(np.bincount(place.ravel(), minlength=size**2).reshape(1, size, size))[0]
    queries = np.repeat(fused.shape, 3)
    for (k_images, k_captions), (count, points) in by_trying_all(fused, pooled, owners, choices).items():
        a, b = choices.index(k_images), choices.index(k_captions)
        assert pairs[a, b] == count
        np.testing.assert_allclose(100 * (missed - gained)[:, a, b] / queries, points, atol=1e-9)


def test_queries_that_miss_and_that_gain_are_counted_apart() -> None:
    """Image 0 loses its caption, which is no candidate; what stood before caption 1 of image 1 is none either."""
    pooled = np.array([[0.1, 0.2, 0.9], [0.8, 0.9, 0.3], [0.7, 0.3, 0.8]], np.float32)
    fused = np.array([[0.9, 0.8, 0.1], [0.1, 0.5, 0.2], [0.2, 0.1, 0.9]], np.float32)
    place = 2 * module.places(pooled, 1, (1,)).astype(np.uint16) + module.places(pooled, 0, (1,))
    missed, gained = module.moved_by_depth(fused, place, np.arange(3), 2)
    assert missed[:, 0, 0].tolist() == [1, 1, 1, 1, 1, 1], "image 0 and its caption, at every rank"
    assert gained[:, 0, 0].tolist() == [0, 0, 0, 1, 0, 0], "caption 1, before which image 0 stood"


def test_choosing_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    given_scores = noisy(50, 3, noise=1.5)
    whole = choose_depth(*given_scores, tolerance=4.0)
    monkeypatch.setattr(module, "BLOCK", 500)
    assert choose_depth(*given_scores, tolerance=4.0) == whole


def test_the_chosen_depth_loses_what_it_says() -> None:
    fused, pooled, owners = noisy(200, 3, noise=0.5)
    depth, points = choose_depth(fused, pooled, owners, tolerance=1.0)
    reasoned = candidates(pooled, depth)
    expected = lost(score_metrics(fused, owners), score_metrics(merged(fused, pooled, reasoned), owners))
    np.testing.assert_allclose(points, expected, atol=1e-9)
    assert max(points) <= 1.0
    assert reasoned.sum() < fused.size / 4


def test_a_choice_within_the_tolerance_by_one_caption_is_passed_over_where_a_margin_is_cheap() -> None:
    fused, pooled, owners = noisy(600, 2, noise=0.05)
    depth, points = choose_depth(fused, pooled, owners)
    assert (depth, points) == (Depth(CHOICES[0], CHOICES[4]), (0.0,) * 6)
    assert candidates(pooled, depth).sum() <= SHARE * fused.size
    fewer = candidates(pooled, Depth(CHOICES[0], CHOICES[3]))
    worst = max(lost(score_metrics(fused, owners), score_metrics(merged(fused, pooled, fewer), owners)))
    assert worst == pytest.approx(100 / len(owners)), "one caption of 1200: 0.08 points of 0.1"


def test_a_constructed_case_takes_the_candidates_that_it_needs() -> None:
    """Twelve wrong captions, and as many wrong images, stand before the right one by v·t; the network knows better."""
    count = 60
    offset = (np.arange(count)[None, :] - np.arange(count)[:, None]) % count
    pooled = np.random.default_rng(0).random((count, count)).astype(np.float32) / 2
    pooled[offset == 0] = 0.8
    for ahead in range(1, 13):
        pooled[offset == ahead] = 0.9 + ahead / 1000
    fused, owners = (offset == 0).astype(np.float32), np.arange(count)
    depth, points = choose_depth(fused, pooled, owners, choices=(10, 15, 20))
    assert (depth, points) == (Depth(k_images=10, k_captions=15), (0.0,) * 6), "15 on one side find every right answer"
    assert candidates(pooled, depth).sum() == 15 * count
    assert choose_depth(fused, pooled, owners, choices=(10, 12)) == (Depth(60, 60), (0.0,) * 6)


def test_where_the_first_stage_says_nothing_all_pairs_are_taken() -> None:
    fused, pooled, owners = noisy(300, 1, noise=0)
    dice = np.random.default_rng(5)
    assert choose_depth(fused, -pooled, owners, choices=(10, 20)) == (Depth(300, 300), (0.0,) * 6)
    depth, _ = choose_depth(fused, dice.random(pooled.shape).astype(np.float32), owners, choices=(10, 20, 295))
    assert depth.k_images >= 295


def test_small_data_is_searched_whole() -> None:
    fused, pooled, owners = noisy(6, 2, noise=3)
    depth, points = choose_depth(fused, pooled, owners)
    assert candidates(pooled, depth).all()
    assert points == (0.0,) * 6


PAIRS = np.array([[100, 150, 300], [104, 155, 305], [150, 200, 350]])
"""Pairs by three choices for images (rows) and for captions."""


def test_the_fewest_pairs_with_a_margin_are_taken_where_the_budget_holds_them() -> None:
    risk = np.array([[0.2, 0.08, 0.0], [0.15, 0.0, 0.0], [0.1, 0.0, 0.0]])
    assert best_place(PAIRS, np.zeros((3, 3)), risk, 0.1, budget=200) == (0, 1), "150 pairs, as (2, 0), and less risk"
    assert best_place(PAIRS, np.zeros((3, 3)), risk - 0.05, 0.1, budget=200) == (1, 0), "104 pairs do"


def test_where_no_margin_is_to_be_had_the_least_risk_within_the_budget_is_taken() -> None:
    loss = np.array([[0.3, 0.1, 0.0], [0.2, 0.1, 0.0], [0.2, 0.2, 0.0]])
    risk = np.array([[0.4, 0.3, 0.0], [0.4, 0.2, 0.0], [0.1, 0.1, 0.0]]) + 0.15
    assert best_place(PAIRS, loss, risk, 0.1, budget=200) == (1, 1), "(2, 1) has less risk, but loses too much here"


def test_beyond_the_budget_the_fewest_pairs_that_lose_little_are_taken() -> None:
    loss = np.array([[0.3, 0.1, 0.0], [0.2, 0.1, 0.0], [0.2, 0.0, 0.0]])
    assert best_place(PAIRS, loss, loss + 1, 0.1, budget=90) == (0, 1)
    assert best_place(PAIRS, loss + 0.2, loss + 1, 0.1, budget=90) is None


def test_beyond_the_budget_a_depth_that_is_only_lucky_is_passed_over() -> None:
    loss = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.3, 0.0, 0.0]])
    assert best_place(PAIRS, loss, loss + 1, 0.1, budget=90) == (0, 1), "a deeper choice for images alone loses 0.3"
