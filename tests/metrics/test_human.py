"""Correlation with human ratings: equal to scipy, coverage of intervals over images, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tshsr.errors import DataError, InputError
from tshsr.metrics import human as judgements
from tshsr.metrics import human as rank_correlations
from tshsr.metrics.human import (
    Groups,
    Judgements,
    agreement,
    correlations,
    interval,
    ordered_by_level,
    ordered_by_pair,
    read_judgements,
)

stats = pytest.importorskip("scipy.stats", reason="scipy, which these figures are compared with, is not installed")
IMAGES = {"a.jpg": 0, "b.jpg": 1}
CAPTIONS = {"a.jpg#0": 0, "a.jpg#1": 1, "b.jpg#0": 2}


def drawn(seed: int, *, judged: int = 90, levels: int = 4, ties: bool = False) -> tuple[np.ndarray, Judgements]:
    """A matrix, and noisy ratings of some of its pairs, three per image."""
    random = np.random.default_rng(seed)
    ratings = random.integers(0, levels, size=judged).astype(float)
    rows, columns = np.arange(judged) // 3, random.permutation(judged)
    scores = random.normal(size=(judged // 3, judged))
    scores[rows, columns] += 0.4 * ratings
    return (np.round(2 * scores) if ties else scores), Judgements(rows, columns, ratings)


@pytest.mark.parametrize(("levels", "ties"), [(2, False), (4, False), (4, True), (60, True)])
def test_tau_c_and_spearman_are_those_of_scipy(levels: int, ties: bool) -> None:
    for seed in range(5):
        scores, judged = drawn(seed, levels=levels, ties=ties)
        found, pairs = agreement(scores, judged, resamples=50), scores[judged.rows, judged.columns]
        assert found.tau_c.value == pytest.approx(stats.kendalltau(pairs, judged.ratings, variant="c").statistic)
        assert found.spearman.value == pytest.approx(stats.spearmanr(pairs, judged.ratings).statistic)
        assert (found.judgements, found.images) == (90, 30)


def test_a_judgement_that_is_drawn_twice_counts_as_two() -> None:
    scores, judged = drawn(1, ties=True)
    pairs = scores[judged.rows, judged.columns]
    groups = Groups.of(pairs, judged.ratings)
    times = np.random.default_rng(0).integers(0, 4, size=(6, 90))
    tau, rho = correlations(times[:, groups.order].astype(float), groups)
    for row, count in enumerate(times):
        x, y = np.repeat(pairs, count), np.repeat(judged.ratings, count)
        assert tau[row] == pytest.approx(stats.kendalltau(x, y, variant="c").statistic)
        assert rho[row] == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_hand_made_tau_c() -> None:
    # Three pairs; two in order, one against it; m = 3: 2 * 3 * (2 - 1) / (9 * 2).
    judged = Judgements(np.array([0, 0, 1]), np.arange(3), np.array([1.0, 2.0, 3.0]))
    scores = np.array([[0.1, 0.5, 0.0], [0.0, 0.0, 0.3]])
    assert agreement(scores, judged).tau_c.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("ties", [False, True])
def test_pairs_are_counted_alike_by_rating_and_by_products(ties: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, judged = drawn(4, levels=70, ties=ties)
    groups = Groups.of(scores[judged.rows, judged.columns], judged.ratings)
    weights = np.random.default_rng(0).integers(0, 4, size=(7, 90)).astype(float)
    by_level = ordered_by_level(weights, groups)
    assert len(set(by_level)) > 1
    np.testing.assert_array_equal(ordered_by_pair(weights, groups), by_level)
    monkeypatch.setattr(rank_correlations, "CHUNK", 90 * 8)  # eight judgements at once
    np.testing.assert_array_equal(ordered_by_pair(weights, groups), by_level)


def test_many_different_ratings_are_as_fast_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, judged = drawn(5, levels=10_000)
    assert len(np.unique(judged.ratings)) > rank_correlations.FEW
    expected = agreement(scores, judged, resamples=40)
    monkeypatch.setattr(rank_correlations, "ordered_by_level", None)  # one pass for each of them takes hours
    assert agreement(scores, judged, resamples=40) == expected
    pairs = scores[judged.rows, judged.columns]
    assert expected.tau_c.value == pytest.approx(stats.kendalltau(pairs, judged.ratings, variant="c").statistic)


def test_judgements_of_one_image_have_no_interval_and_are_refused() -> None:
    judged = Judgements(np.full(3, 4), np.arange(3), np.array([1.0, 2.0, 3.0]))
    sentence = "all judgements are of one image, and images are resampled for the intervals; rate several."
    with pytest.raises(InputError) as refusal:
        agreement(np.random.default_rng(0).random((5, 3)), judged)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(("images", "rare", "has"), [(19, 8, False), (20, 8, True), (40, 2, False), (40, 8, True)])
def test_few_images_or_many_resamples_without_a_correlation_give_no_interval(images: int, rare: int, has: bool) -> None:
    # Two of 40 ratings differ from the rest: 13 % of the resamples draw neither, and have no correlation.
    ratings = np.where(np.arange(images) < rare, 2.0, 1.0)
    scores = np.random.default_rng(0).random((images, images))
    found = agreement(scores, Judgements(np.arange(images), np.arange(images), ratings), resamples=1000)
    for correlation in (found.tau_c, found.spearman):
        assert np.isfinite(correlation.value)
        assert (correlation.low is not None, correlation.high is not None) == (has, has)


def test_a_few_resamples_without_a_correlation_are_left_out_of_the_interval() -> None:
    drawn = np.concatenate([np.linspace(-1, 1, 961), np.full(40, np.nan)])
    assert interval(drawn, 20, (0.025, 0.975)) == pytest.approx((-0.95, 0.95))
    assert interval(np.append(drawn, np.full(20, np.nan)), 20, (0.025, 0.975)) == (None, None)


def test_perfect_agreement_is_1_and_reversed_ratings_are_minus_1() -> None:
    ratings = np.repeat([1.0, 2.0, 3.0], 4)
    judged = Judgements(np.arange(12), np.arange(12), ratings)
    for sign in (1, -1):
        found = agreement(sign * np.diag(ratings), judged, resamples=100)
        assert (found.tau_c.value, found.spearman.value) == (pytest.approx(sign), pytest.approx(sign))


def test_intervals_are_over_images_and_cover() -> None:
    random, covered = np.random.default_rng(3), []
    for _ in range(200):
        image = np.repeat(random.normal(size=60), 3)  # equal ratings per image: 60 independent ones, not 180
        ratings = np.round(image + 0.3 * random.normal(size=180))
        scores = np.zeros((60, 180))
        rows, columns = np.arange(180) // 3, np.arange(180)
        scores[rows, columns] = np.repeat(random.normal(size=60), 3)
        found = agreement(scores, Judgements(rows, columns, ratings), resamples=200, seed=int(random.integers(1 << 30)))
        assert found.spearman.low is not None
        assert found.spearman.high is not None
        covered.append(found.spearman.low <= 0 <= found.spearman.high)
    assert 0.89 <= np.mean(covered) <= 0.985, "over single judgements it would be three in four"


def test_the_size_of_a_piece_is_invisible(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = agreement(*drawn(2), resamples=40)
    monkeypatch.setattr(judgements, "CHUNK", 1)
    monkeypatch.setattr(rank_correlations, "CHUNK", 1)
    assert agreement(*drawn(2), resamples=40) == whole


def test_only_judged_scores_must_be_finite() -> None:
    scores, judged = drawn(2)
    scores[0, judged.columns[30]] = np.nan  # image 0 was not judged with that caption
    agreement(scores, judged, resamples=40)
    scores[judged.rows[4], judged.columns[4]] = np.inf
    with pytest.raises(InputError, match=rf"image 1 \(row\) and caption {judged.columns[4]} \(column\).* is inf"):
        agreement(scores, judged, resamples=40)


@pytest.mark.parametrize("what", ["scores", "ratings"])
def test_equal_scores_or_ratings_are_refused(what: str) -> None:
    scores, judged = drawn(1)
    if what == "scores":
        scores[:] = 1
    else:
        judged.ratings[:] = 2
    with pytest.raises(InputError, match=f"all judged {what} are alike, so there is nothing to correlate"):
        agreement(scores, judged)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("j.csv", "image,caption,rating\na.jpg,a.jpg#1,3\nb.jpg,a.jpg#0,1.5\n"),
        ("j.csv", "a.jpg,a.jpg#1,3\nb.jpg,a.jpg#0,1.5\n"),
        ("j.csv", "rater,rating,caption,image\nx,3,a.jpg#1,a.jpg\ny,1.5,a.jpg#0,b.jpg\n"),
        ("j.csv", "\n\nimage,caption,rating\n\na.jpg,a.jpg#1,3\n  \nb.jpg,a.jpg#0,1.5\n\n"),
        ("j.csv", "\ufeffa.jpg,a.jpg#1,3\nb.jpg,a.jpg#0,1.5\n"),
        ("j.csv", "\ufeffimage,caption,rating\na.jpg,a.jpg#1,3\n,,\nb.jpg,a.jpg#0,1.5\n"),
        ("j.csv", 'image,note,caption,rating\na.jpg,"two\n\nlines",a.jpg#1,3\nb.jpg,,a.jpg#0,1.5\n'),
        ("j.txt", "\na.jpg\ta.jpg#1\t3\nb.jpg\ta.jpg#0\t1.5\n"),
        (
            "j.jsonl",
            '\ufeff{"image": "a.jpg", "caption": "a.jpg#1", "rating": 3}\n\n'
            '{"image": "b.jpg", "caption": "a.jpg#0", "rating": 1.5, "note": "one \u2028 line"}\n\n',
        ),
        ("j.txt", "a.jpg\ta.jpg#1\t3\nb.jpg\ta.jpg#0\t1.5\n"),
        (
            "j.jsonl",
            '{"image": "a.jpg", "caption": "a.jpg#1", "rating": 3}\n'
            '{"rating": 1.5, "image": "b.jpg", "caption": "a.jpg#0"}',
        ),
    ],
)
def test_files_of_ratings_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_judgements(tmp_path / name, IMAGES, CAPTIONS)
    assert (found.rows.tolist(), found.columns.tolist(), found.ratings.tolist()) == ([0, 1], [1, 0], [3.0, 1.5])


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("j.csv", "c.jpg,a.jpg#1,3\n", "line 1: image 'c.jpg' is not among the 2 that are scored; expected ids such"),
        ("j.csv", "a.jpg,a.jpg#0,3\na.jpg,a.jpg#9,3\n", "line 2: caption 'a.jpg#9' is not among the 3 that are scored"),
        (
            "j.csv",
            "\nimage_id,caption_id,score\na.jpg,a.jpg#0,3\n",
            "line 2: the header names 'image_id', 'caption_id' and 'score'; expected the names image, caption, rating, "
            "or no header.",
        ),
        ("j.csv", "a.jpg,a.jpg#0,3\nx,y,z\n", "line 2: image 'x' is not among the 2 that are scored"),
        ("j.jsonl", '{"image": "x", "caption": "y", "rating": "z"}', "line 1: image 'x' is not among the 2"),
        ("j.csv", "a.jpg,a.jpg#0,good\n", "line 1: the rating is 'good'; expected a number"),
        ("j.csv", "a.jpg,a.jpg#0,nan\n", "a rating is not a finite number; leave such lines out"),
        ("j.csv", "a.jpg,a.jpg#0\n", "line 1 has 2 columns; expected image, caption and rating"),
        ("j.csv", "a.jpg,a.jpg#0,1,2,3\n", "line 1 has 5 columns"),
        ("j.csv", "", "holds no ratings"),
        ("j.jsonl", '{"image": "a.jpg"}', 'line 1 is no judgement; expected {"image": ..., "caption": ..., "rating"'),
        ("j.jsonl", "nonsense", "line 1 is no judgement"),
        ("j.csv", "\n\na.jpg,a.jpg#0\n", "line 3 has 2 columns; expected image, caption and rating"),
        ("j.jsonl", "\n\nnonsense", "line 3 is no judgement"),
        ("none.csv", None, "none.csv cannot be read (No such file or directory); expected ratings by people."),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refusal:
        read_judgements(tmp_path / name, IMAGES, CAPTIONS)
    assert sentence in str(refusal.value)
