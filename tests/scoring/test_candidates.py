"""Which pairs a two-stage search reasons about."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.ranked import noisy
from tshsr.errors import SettingsError
from tshsr.metrics.recall import score_metrics
from tshsr.scoring import candidates as module
from tshsr.scoring.candidates import (
    FIRST,
    Depth,
    Shares,
    candidate_rounds,
    candidates,
    candidates_first,
    recall_ceiling,
)


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


@pytest.mark.parametrize(("k_images", "k_captions", "reported"), [(0, 3, 0), (3, -2, -2)])
def test_less_than_one_candidate_is_refused(k_images: int, k_captions: int, reported: int) -> None:
    with pytest.raises(SettingsError, match=f"{reported} candidates were asked for; expected at least 1, or auto."):
        Depth(k_images, k_captions)


def test_a_depth_grows_with_what_is_ranked_and_never_shrinks() -> None:
    depth = Depth(k_images=100, k_captions=40)
    assert depth.scaled((1000, 5000), (1000, 5000)) == depth
    assert depth.scaled((1000, 5000), (5000, 25_000)) == Depth(500, 200)
    assert depth.scaled((1000, 5000), (1014, 5070)) == Depth(102, 41)
    assert depth.scaled((1000, 5000), (100, 500)) == depth
    assert depth.scaled((1000, 5000), (2000, 15_000)) == Depth(300, 80), "captions per image, images per caption"


def test_other_pairs_rank_below_the_candidates_by_the_first_stage() -> None:
    fused, pooled, _ = noisy(12, 5, noise=2)
    scored = candidates(pooled, Depth(6, 2))
    scores = candidates_first(fused, pooled, scored)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores[scored], fused[scored])
    for lines, marks, first in ((scores, scored, pooled), (scores.T, scored.T, pooled.T)):
        for line, mark, order in zip(lines, marks, first, strict=True):
            assert line[~mark].max() < line[mark].min()
            np.testing.assert_array_equal(np.argsort(line[~mark]), np.argsort(order[~mark]))


def test_the_ceiling_counts_queries_with_a_relevant_candidate() -> None:
    owners = np.array([0, 0, 1, 2, 2])
    scored = np.zeros((3, 5), dtype=bool)
    scored[0, [1, 2]] = True  # a caption of image 0, and one of image 1
    scored[1, [0]] = True  # a wrong one
    scored[2, [3, 4]] = True  # both right
    assert recall_ceiling(scored, owners) == (pytest.approx(200 / 3), 60.0)


def test_no_recall_exceeds_the_ceiling() -> None:
    fused, pooled, owners = noisy(60, 2, noise=4)
    scored = candidates(pooled, Depth(10, 10))
    metrics = score_metrics(candidates_first(fused, pooled, scored), owners)
    of_images, of_captions = recall_ceiling(scored, owners)
    assert metrics.image_to_text.r10 <= of_images < 100
    assert metrics.text_to_image.r10 <= of_captions < 100


def plain_shares(fused: np.ndarray, pooled: np.ndarray, few: int) -> list[float]:
    """By counting: for each row the fraction of rows with a higher best score among their `few` best by v·t."""
    best = []
    for scores, first in zip(fused.tolist(), pooled.tolist(), strict=True):
        order = sorted(range(len(first)), key=lambda place: -first[place])
        best.append(max(scores[place] for place in order[:few]))
    return [0.5 + (sum(other > own for other in best) + 0.5) / len(best) for own in best]


def plain_rounds(fused: np.ndarray, pooled: np.ndarray, depth: Depth) -> np.ndarray:
    """The pairs of both rounds, query by query."""
    wanted = np.zeros(pooled.shape, dtype=bool)
    for scores, first, marks, k in (
        (fused, pooled, wanted, depth.k_images),
        (fused.T, pooled.T, wanted.T, depth.k_captions),
    ):
        shares = plain_shares(scores, first, min(FIRST, math.ceil(k / 2)))
        for line, mark, share in zip(first, marks, shares, strict=True):
            count = len(line) if k >= len(line) else sum(place / share < k for place in range(len(line)))
            mark[np.argsort(-line)[:count]] = True
    return wanted


@example(images=30, each=2, k=(5, 3), noise=2.0, seed=0)  # half of an odd K is rounded up
@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(2, 30), each=st.integers(1, 3), k=st.tuples(st.integers(1, 60), st.integers(1, 30)),
    noise=st.floats(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_both_rounds_are_what_counting_query_by_query_gives(
    images: int, each: int, k: tuple[int, int], noise: float, seed: int
) -> None:
    fused, pooled, _ = noisy(images, each, noise=noise, seed=seed)
    depth = Depth(*k)
    half, wanted = candidate_rounds(fused, pooled, depth)
    np.testing.assert_array_equal(wanted, plain_rounds(fused, pooled, depth))
    assert wanted[half].all(), "what was scored about once stays"


def test_the_first_round_needs_no_scores() -> None:
    fused, pooled, _ = noisy(30, 2, noise=1)
    begun = candidate_rounds(np.full_like(fused, np.nan), pooled, Depth(8, 6))
    np.testing.assert_array_equal(next(begun), candidates(pooled, Depth(4, 3)))


def test_the_second_round_reads_only_scores_of_the_first_round() -> None:
    fused, pooled, _ = noisy(30, 2, noise=1)
    for depth in (Depth(1, 1), Depth(8, 6), Depth(40, 25)):
        half, wanted = candidate_rounds(fused, pooled, depth)
        *_, again = candidate_rounds(np.where(half, fused, np.float32(-np.inf)), pooled, depth)
        np.testing.assert_array_equal(again, wanted)


def test_a_query_with_low_scores_gets_three_times_as_many_candidates() -> None:
    pooled = np.arange(300, 0, -1, dtype=np.float32) - np.arange(100, dtype=np.float32)[:, None] / 1000
    fused = np.repeat(np.linspace(1, 0, 100, dtype=np.float32), 300).reshape(100, 300)
    shares = Shares.by_best(fused, pooled)
    np.testing.assert_allclose(shares.images, np.linspace(0.505, 1.495, 100))
    assert (shares.images.mean(), shares.captions.mean()) == (pytest.approx(1), pytest.approx(1))
    counts = candidates(pooled, Depth(60, 1), Shares(shares.images, np.ones(300))).sum(axis=1)[
        1:
    ]  # all captions' best is image 0
    assert (counts[0], counts[-1]) == (31, 90)
    assert counts.mean() == pytest.approx(60.5, abs=0.5), "K on average, rounded up"


def test_a_depth_of_all_items_takes_all_pairs() -> None:
    fused, pooled, _ = noisy(12, 2, noise=1)
    for depth in (Depth(24, 1), Depth(1, 12), Depth(999, 999)):
        *_, wanted = candidate_rounds(fused, pooled, depth)
        assert wanted.all()


def test_shares_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    fused, pooled, _ = noisy(20, 3, noise=1)
    *_, whole = candidate_rounds(fused, pooled, Depth(9, 6))
    monkeypatch.setattr(module, "BLOCK", 100)
    *_, again = candidate_rounds(fused, pooled, Depth(9, 6))
    np.testing.assert_array_equal(again, whole)
