"""Paired resampling: equal to plain loops, with intervals that cover, tests that keep their level, and stated power.

The simulations are seeded; their bounds are three standard deviations of the simulation itself, or wider.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.populations import compared, population, small
from tshsr.errors import InputError, SettingsError
from tshsr.metrics import bootstrap
from tshsr.metrics.bootstrap import (
    FIGURES,
    MEAN_RANKS,
    MEDIAN_RANKS,
    RECALLS,
    RSUM,
    SEVERAL_RIGHT,
    Figure,
    SeedEffect,
    seed_effect,
)
from tshsr.metrics.comparison import Comparison, Difference, Resampled, compare, compare_rsum
from tshsr.metrics.ranks import QueryRanks, query_ranks
from tshsr.metrics.recall import ScoreMetrics, retrieval_metrics

RECALLS_AND_SUM = tuple(figure.name for figure in (*RECALLS, RSUM))


def recalls(ranks: QueryRanks) -> list[float]:
    metrics = ScoreMetrics(retrieval_metrics(ranks.image_to_text), retrieval_metrics(ranks.text_to_image))
    return [*metrics.recalls, metrics.rsum]


@pytest.fixture
def without_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Median ranks, half of the work of a comparison, left out where a test reads rSum alone."""
    monkeypatch.setattr(bootstrap, "median_ranks", lambda drawn, run: np.ones((drawn.shape[1], 2)))


def test_figures_do_not_depend_on_medians(request: pytest.FixtureRequest) -> None:
    random = np.random.default_rng(19)
    a, b = population(random, 40, (2, 3), seeds=0.1)
    whole = compare(a, b, resamples=400)
    request.getfixturevalue("without_medians")
    part = compare(a, b, resamples=400)
    medians = {figure.name for figure in MEDIAN_RANKS}
    for name in whole.differences:
        assert (whole.differences[name] == part.differences[name]) is (name not in medians), name
        assert (whole.a[name] == part.a[name]) is (name not in medians), name
    assert whole.seed_deviation == part.seed_deviation


def test_the_figures_are_those_of_the_metrics() -> None:
    a, b = [small(1), small(2)], [small(3)]
    found = compare(a, b, resamples=400)
    mean_a, mean_b = np.mean([recalls(ranks) for ranks in a], axis=0), recalls(b[0])
    for number, name in enumerate(RECALLS_AND_SUM):
        assert found.a[name].mean == pytest.approx(mean_a[number])
        assert found.b[name].mean == pytest.approx(mean_b[number])
        assert found.differences[name].mean == pytest.approx(mean_a[number] - mean_b[number])
        assert found.a[name].low <= found.a[name].mean <= found.a[name].high
    assert (found.images, found.captions, found.runs_a, found.runs_b) == (12, 30, 2, 1)


def test_the_figures_in_folds_are_means_over_folds() -> None:
    owners = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 1 + np.arange(8) % 4))
    sides = [query_ranks(np.random.default_rng(seed).random((8, 20)), owners, folds=2) for seed in (1, 2)]
    found = compare(sides[:1], sides[1:], resamples=400)
    for side, estimates in zip(sides, (found.a, found.b), strict=True):
        rows = (slice(0, 4), slice(4, 8))
        texts = [side.text_to_image[owners // 4 == fold] for fold in (0, 1)]
        assert estimates["image_to_text_r5"].mean == pytest.approx(
            np.mean([100 * np.mean(side.image_to_text[each] <= 5) for each in rows])
        )
        assert estimates["text_to_image_r1"].mean == pytest.approx(np.mean([100 * np.mean(t <= 1) for t in texts]))


def test_the_permutation_test_is_exact_where_all_swaps_can_be_counted() -> None:
    owners = np.arange(6)
    a = QueryRanks(np.array([1, 1, 1, 1, 20, 1]), np.array([1, 1, 1, 20, 20, 1]), owners)
    b = QueryRanks(np.array([20, 20, 1, 20, 1, 20]), np.array([20, 1, 1, 20, 20, 20]), owners)
    each = (300 / 6) * ((a.image_to_text == 1) * 1 - (b.image_to_text == 1) * 1)
    each = each + (300 / 6) * ((a.text_to_image == 1) * 1 - (b.text_to_image == 1) * 1)
    swaps = 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1) - 1
    exact = np.mean(np.abs(swaps @ each) >= abs(each.sum()) - 1e-9)
    assert 0.05 < exact < 0.6
    assert compare([a], [b], resamples=20_000).rsum.p == pytest.approx(exact, abs=0.015)


def test_intervals_end_where_the_figures_end() -> None:
    owners, random = np.repeat(np.arange(30), 3), np.random.default_rng(0)
    sides = [
        [QueryRanks(*(np.where(random.random(n) < share, 20, 1) for n in (30, 90)), owners) for share in shares]
        for shares in ((0.0, 0.3), (1.0, 0.6))
    ]
    found = compare(*sides, resamples=400)
    expected = [figure for figure in FIGURES if figure not in SEVERAL_RIGHT]
    assert {figure.name for figure in expected} == set(found.a) == set(found.b) == set(found.differences)
    for figure in expected:
        a, b = found.a[figure.name], found.b[figure.name]
        assert figure.lowest <= min(a.low, b.low) <= max(a.high, b.high) <= figure.highest
    assert (found.a["rsum"].high, found.b["rsum"].low) == (600, 0)
    assert found.rsum.high - found.rsum.low > 600, "the difference is not cut: its power is read off its interval"


def test_a_copy_does_not_count_as_a_run() -> None:
    older = QueryRanks(*(getattr(small(1), name) for name in ("image_to_text", "text_to_image", "image_of_caption")))
    for copy in (small(1), older):
        with pytest.raises(InputError, match="runs 1 and 3 of B rank every query alike; expected other seeds"):
            compare([small(1)], [small(1), small(2), copy])


def test_a_side_against_itself_is_no_difference_at_all() -> None:
    difference = compare_rsum([small(1)], [small(1)], resamples=400)
    assert (difference.mean, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    assert difference.power(1) == 1


@pytest.mark.parametrize(
    ("low", "high", "p", "different"),
    [
        (0.1, 2.0, 0.04, True),
        (-2.0, -0.1, 0.04, True),
        (-0.1, 2.0, 0.04, False),
        (0.1, 2.0, 0.06, False),
        (0.0, 2.0, 0.04, False),
        (0.1, 2.0, None, True),
        (-0.1, 2.0, None, False),
    ],
)
def test_sides_differ_where_the_interval_and_the_permutation_test_agree(
    low: float, high: float, p: float | None, different: bool
) -> None:
    difference = Difference(1.0, low, high, p, standard_error=0.5, freedom=None)
    sides = {"a": {}, "b": {}, "images": 9, "captions": 9, "folds": 1, "runs_a": 1, "runs_b": 1}
    comparison = Comparison(
        **sides, differences={RSUM.name: difference}, seed_deviation=None, resamples=400, confidence=0.95
    )
    assert comparison.different() is different


def test_the_sides_swapped_give_the_negative() -> None:
    one, other = (
        compare([small(1)], [small(2)], resamples=1000).rsum,
        compare([small(2)], [small(1)], resamples=1000).rsum,
    )
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))


def test_the_same_seed_gives_the_same_answer() -> None:
    first, again, other = (compare_rsum([small(1)], [small(2)], resamples=400, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.mean == other.mean


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    wide = compare([small(1)], [small(2)], resamples=3000, confidence=0.99).rsum
    narrow = compare([small(1)], [small(2)], resamples=3000, confidence=0.8).rsum
    assert wide.low < narrow.low < narrow.high < wide.high


def test_intervals_over_images_cover_and_two_seeds_of_one_model_are_rarely_called_different() -> None:
    random = np.random.default_rng(11)
    found = [compared(random, 150, (1, 1), method=0.0) for _ in range(400)]
    covered = np.mean([each.rsum.low <= 0 <= each.rsum.high for each in found])
    assert 0.917 <= covered <= 0.983  # 0.95, and three deviations of 400 draws
    assert 0.917 <= 1 - np.mean([each.different() for each in found]) <= 0.985
    assert 0.017 <= np.mean([each.rsum.p < 0.05 for each in found]) <= 0.083
    for figure in FIGURES:  # figures of a few dozen hits are coarse, so their bounds are wider
        each = [one.differences[figure.name] for one in found]
        covered = np.mean([one.low <= 0 <= one.high for one in each])
        # The ranks here have a long tail, which makes a mean's interval short; medians move in steps: theirs is long.
        least, most = (0.86, 0.995) if figure in MEAN_RANKS else (0.9, 1.0 if figure in MEDIAN_RANKS else 0.995)
        assert least <= covered <= most, figure
        if figure not in MEDIAN_RANKS:
            assert np.mean([one.p is not None and one.p < 0.05 for one in each]) <= 0.085, figure


@pytest.mark.usefixtures("without_medians")
def test_own_intervals_cover_the_true_recall() -> None:
    random = np.random.default_rng(12)
    truth = np.mean([recalls(population(random, 2000, (1, 1))[0][0])[-1] for _ in range(30)])
    found = [compared(random, 150, (1, 1)).a["rsum"] for _ in range(300)]
    assert 0.91 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [0.0, 0.15])
@pytest.mark.usefixtures("without_medians")
def test_intervals_over_images_and_seeds_cover(seeds: float) -> None:
    random = np.random.default_rng(13)
    found = [compared(random, 100, (3, 3), seeds=seeds) for _ in range(300)]
    assert 0.91 <= np.mean([each.rsum.low <= 0 <= each.rsum.high for each in found]) <= 0.99


@pytest.mark.usefixtures("without_medians")
def test_over_images_alone_runs_with_unequal_seeds_would_be_called_different_too_often() -> None:
    random = np.random.default_rng(14)
    pairs = [population(random, 100, (3, 3), seeds=0.15) for _ in range(150)]
    alone = [compare([a[0]], [b[0]], resamples=400).different() for a, b in pairs]
    together = [compare(a, b, resamples=400).different() for a, b in pairs]
    assert np.mean(alone) > 0.15, "one run each: the runs do differ, and that is all that is said"
    assert np.mean(together) < 0.11


def near(random: np.random.Generator, gained: float, lost: float) -> tuple[list[QueryRanks], list[QueryRanks]]:
    """Two runs of 300 images that differ in some captions: found among the first ten by one of them only."""
    owners = np.repeat(np.arange(300), 20)
    base = random.choice([1, 7, 30], size=6000)
    better = base.copy()
    coin = random.random(6000)
    better[coin < gained] = 7
    worse = base.copy()
    worse[coin < gained] = 30
    better[coin > 1 - lost], worse[coin > 1 - lost] = 30, 7
    images = random.choice([1, 7, 30], size=300)
    return [QueryRanks(images, better, owners)], [QueryRanks(images, worse, owners)]


@pytest.mark.slow
@pytest.mark.usefixtures("without_medians")
def test_a_planted_difference_of_a_point_of_rsum_is_found_as_often_as_the_stated_power() -> None:
    # R@10 of text to image alone moves: 100 * (0.066 - 0.056) = 1 point.
    random = np.random.default_rng(15)
    found = [compare(*near(random, 0.066, 0.056), resamples=400) for _ in range(300)]
    assert np.mean([each.rsum.mean for each in found]) == pytest.approx(1.0, abs=0.1)
    stated = np.mean([each.rsum.power(1.0) for each in found])
    assert 0.5 < stated < 0.75
    assert np.mean([each.different() for each in found]) == pytest.approx(stated, abs=0.09)


@pytest.mark.slow
@pytest.mark.usefixtures("without_medians")
def test_the_detectable_difference_is_found_in_80_of_100_cases() -> None:
    random = np.random.default_rng(16)
    detectable = np.mean([compare(*near(random, 0.066, 0.056), resamples=400).rsum.detectable for _ in range(20)])
    assert 1.1 < detectable < 1.4
    gained = 0.061 + detectable / 200
    found = [compare(*near(random, gained, 0.122 - gained), resamples=400) for _ in range(300)]
    assert np.mean([each.rsum.mean for each in found]) == pytest.approx(detectable, abs=0.15)
    assert 0.72 <= np.mean([each.different() for each in found]) <= 0.88


@pytest.mark.usefixtures("without_medians")
def test_the_deviation_between_seeds_is_found_beyond_what_images_explain() -> None:
    random = np.random.default_rng(17)
    still = [compared(random, 200, (5, 5)).seed_deviation for _ in range(30)]
    moved = [compared(random, 200, (5, 5), seeds=0.3).seed_deviation for _ in range(30)]
    points = np.std(
        [np.mean([recalls(run)[-1] for run in population(random, 3000, (1, 1), seeds=0.3)[0]]) for _ in range(60)]
    )
    assert np.sqrt(np.mean(np.square(np.array(moved, float)))) == pytest.approx(points, rel=0.3)
    assert np.mean(np.array(still, float)) < 0.25 * points
    assert compared(random, 50, (1, 1)).seed_deviation is None


def test_paired_runs_are_those_of_a_plain_loop() -> None:
    random = np.random.default_rng(20)
    a, b = population(random, 60, (4, 4), seeds=0.2, common=0.5)
    found = compare(a, b, resamples=2000, pairs=True)
    differences = [recalls(one)[-1] - recalls(other)[-1] for one, other in zip(a, b, strict=True)]
    assert found.rsum.mean == pytest.approx(np.mean(differences))
    generator, on_resamples = np.random.default_rng(21), []
    for _ in range(300):
        images = generator.integers(60, size=60)
        drawn = [drawn_recalls(one, images) - drawn_recalls(other, images) for one, other in zip(a, b, strict=True)]
        on_resamples.append(np.var(drawn, ddof=1))
    expected = np.sqrt(max(0.0, 2 * np.var(differences, ddof=1) - np.mean(on_resamples)))
    assert found.seed_deviation == pytest.approx(expected, rel=0.1)
    apart = compare(a, b, resamples=2000)
    assert (found.a, found.b) == (apart.a, apart.b), "a side has its own variation"
    assert found.rsum.freedom is not None
    assert found.rsum.freedom >= 3


def test_other_seeds_are_in_the_intervals_of_both_sides_and_in_p() -> None:
    random = np.random.default_rng(30)
    observed, drawn, swapped = (random.normal(size=size) for size in ((5, 2), (400, 5, 2), (400, 1)))
    noise, deviation = random.standard_t(3, size=400), np.array([0.5, 2.0])
    seeds = SeedEffect(deviation, 3, noise, 1 / 2 + 1 / 3)
    named = tuple(Figure(name, name, "", lowest=-100.0) for name in ("one", "other"))
    found = Resampled(named, observed, drawn, swapped, seeds, seeds, 0.95)
    for side, runs in ((slice(0, 2), 2), (slice(2, 5), 3)):
        for number, estimate in enumerate(found.estimates(side).values()):
            values = drawn[:, side, number].mean(axis=1) + noise * deviation[number] / runs**0.5
            assert (estimate.low, estimate.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))))
    mean = observed[:2, 0].mean() - observed[2:, 0].mean()
    by_chance = np.abs(swapped[:, 0] + (5 / 6) ** 0.5 * noise * 0.5) >= abs(mean)
    one, other = found.differences(2).values()
    assert one.p == pytest.approx((1 + by_chance.sum()) / 401)
    assert other.p is None


def test_pairs_of_runs_leave_one_degree_of_freedom_less_than_there_are() -> None:
    random = np.random.default_rng(31)
    given = random.normal(size=(8, 2)), random.normal(size=(50, 8, 2)), (4, 4), random
    assert [seed_effect(*given, pairs=pairs).freedom for pairs in (True, False)] == [3, 6]


def drawn_recalls(ranks: QueryRanks, images: np.ndarray) -> float:
    """RSum on images with multiplicity, each with its captions."""
    captions = np.concatenate([np.flatnonzero(ranks.image_of_caption == image) for image in images])
    sides = (ranks.image_to_text[images], ranks.text_to_image[captions])
    return float(sum(100 * np.mean(side <= k) for side in sides for k in (1, 5, 10)))


@pytest.mark.usefixtures("without_medians")
def test_intervals_over_paired_seeds_cover_and_are_shorter_where_seeds_are_shared() -> None:
    random = np.random.default_rng(22)
    sides = [population(random, 100, (4, 4), seeds=0.15, common=0.3) for _ in range(120)]
    paired, apart = ([compare(*each, resamples=400, pairs=pairs).rsum for each in sides] for pairs in (True, False))
    assert np.mean([each.low <= 0 <= each.high for each in paired]) >= 0.89
    lengths = [np.mean([each.high - each.low for each in found]) for found in (paired, apart)]
    assert lengths[0] < 0.75 * lengths[1]


def test_runs_that_differ_by_the_images_alone_have_no_deviation_in_pairs() -> None:
    a = [small(seed) for seed in (1, 2, 3)]
    found = compare(a, a, resamples=400, pairs=True)
    assert (found.rsum.mean, found.rsum.low, found.rsum.high, found.seed_deviation) == (0, 0, 0, 0)


@pytest.mark.parametrize(("runs_a", "runs_b"), [(3, 2), (1, 1)])
def test_runs_that_cannot_be_paired_are_refused(runs_a: int, runs_b: int) -> None:
    sides = [[small(seed) for seed in range(runs)] for runs in (runs_a, runs_b)]
    with pytest.raises(
        InputError, match=f"A has {runs_a} runs? and B {runs_b}; expected equal numbers above 1 to pair"
    ):
        compare(*sides, resamples=400, pairs=True)


def test_coco_5k_size_is_compared() -> None:
    random = np.random.default_rng(18)
    owners = np.repeat(np.arange(5000), 5)
    runs = []
    for _ in range(2):
        places = np.cumsum(random.integers(1, 30, size=(5000, 5)), axis=1)
        runs.append(QueryRanks(places[:, 0], random.integers(1, 30, 25000), owners, caption_places=places.ravel()))
    assert compare(runs[:1], runs[1:], resamples=1000).rsum.standard_error > 0


@pytest.mark.parametrize(
    ("a", "b", "sentence"),
    [([], [1], "expected at least one run per side; got 0 of A and 1 of B"), ([1], [], "got 1 of A and 0 of B")],
)
def test_a_side_without_runs_is_refused(a: list[int], b: list[int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        compare([small(seed) for seed in a], [small(seed) for seed in b])


def test_a_run_outside_of_a_list_is_refused() -> None:
    with pytest.raises(InputError, match="expected a list of runs for each side; got the ranks of a single one: put"):
        compare_rsum(small(1), small(2))  # type: ignore[arg-type]


def test_runs_on_other_captions_or_in_other_folds_are_refused() -> None:
    with pytest.raises(InputError, match="not evaluated on the same captions: 30 of 12 images against 20 of 8"):
        compare([small(1)], [small(1, images=8)])
    run = small(1)
    folded = QueryRanks(run.image_to_text, run.text_to_image, run.image_of_caption, 2)
    with pytest.raises(InputError, match="one run was ranked in 1 folds, another in 2; evaluate all by one protocol"):
        compare([run], [folded])


@pytest.mark.parametrize(("resamples", "confidence"), [(399, 0.95), (1999, 0.99), (1000, 1.0), (1000, 0.0)])
def test_too_few_resamples_are_refused(resamples: int, confidence: float) -> None:
    with pytest.raises(SettingsError, match=rf"{resamples} resamples for an interval of {confidence:g}; expected"):
        compare([small(1)], [small(2)], resamples=resamples, confidence=confidence)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SettingsError, match="seed is -1; expected 0 or more"):
        compare([small(1)], [small(2)], seed=-1)
