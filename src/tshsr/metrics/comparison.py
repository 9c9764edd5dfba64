"""Comparison of two methods: paired bootstrap over images, with intervals for every metric (docs/metrics.md).

Axes: resamples | runs (training seeds of a side) | images | figures (metrics, in the order of `Sample.figures`).

Every query is ranked once, among all items. Then images are resampled together with their captions, which are not
independent of each other. Both sides have the same images in every resample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tshsr.errors import InputError, SettingsError
from tshsr.metrics.bootstrap import (
    RSUM,
    Figure,
    SeedEffect,
    bootstrap_counts,
    contributions,
    figures,
    sample_of,
    seed_effect,
    swapped_differences,
)
from tshsr.metrics.ranks import QueryRanks

POWER = 0.8
"""Power that defines the detectable difference."""


@dataclass(frozen=True)
class Estimate:
    """A metric of one side: the mean over its runs, with an interval, in the unit of the metric (percent, ranks)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A minus B in one metric, in its unit: percentage points, ranks (negative: A is better), 0..1 (MRR).

    Attributes:
        low, high: Its interval.
        p: Two-sided p-value of the permutation test that swaps the sides image by image. None for a median, which is
            no sum of contributions of images.
        standard_error: Over samples of images, and of seeds where there are several.
        freedom: Degrees of freedom of the standard error; None where seeds do not contribute, as with single runs.
    """

    mean: float
    low: float
    high: float
    p: float | None
    standard_error: float
    freedom: float | None

    @property
    def detectable(self) -> float:
        """The smallest true difference with a power of 80 %."""
        return detectable((self.high - self.low) / 2, self.standard_error, self.freedom, POWER)

    def power(self, difference: float) -> float:
        """Power: probability that the interval excludes zero at a true difference in points; in 0..1."""
        return power_at(difference, (self.high - self.low) / 2, self.standard_error, self.freedom)


@dataclass(frozen=True)
class Comparison:
    """A against B.

    Attributes:
        a: Metrics of A by the names of `bootstrap.FIGURES`; without those of several relevant items where a run has
            no positions of captions (an older report).
        differences: A minus B.
        folds: Folds of the protocol; images are resampled inside their fold.
        runs_a, runs_b: Number of training runs (seeds).
        seed_deviation: Standard deviation of the rSum of a run due to its seed, without the part due to the sample of
            images; where runs are paired, of the difference of a pair. None where both sides are single runs.
        pairs: Whether run n of A was paired with run n of B.
        confidence: Confidence level of the intervals.
        models_a, models_b: Models of each run; more than one is an ensemble. Set by the caller; unknown from ranks.
    """

    a: Mapping[str, Estimate]
    b: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    images: int
    captions: int
    folds: int
    runs_a: int
    runs_b: int
    seed_deviation: float | None
    resamples: int
    confidence: float
    models_a: int = 1
    models_b: int = 1
    pairs: bool = False

    @property
    def rsum(self) -> Difference:
        """The difference in rSum."""
        return self.differences[RSUM.name]

    def different(self, figure: str = RSUM.name) -> bool:
        """Whether A and B differ: the interval excludes zero, and the permutation test (not for medians) agrees."""
        difference = self.differences[figure]
        found = difference.p is None or difference.p < 1 - self.confidence
        return found and not difference.low <= 0 <= difference.high


def compare_rsum(
    ranks_a: Sequence[QueryRanks],
    ranks_b: Sequence[QueryRanks],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    pairs: bool = False,
) -> Difference:
    """The difference in rSum of two methods, A minus B, with its 95 % interval.

    Args:
        ranks_a: One entry per run (training seed) of A, all on the same images and captions.
        pairs: As of `compare`.

    Raises:
        InputError: As `compare` does.
        SettingsError: As `compare` does.
    """
    return compare(ranks_a, ranks_b, resamples=resamples, seed=seed, pairs=pairs).rsum


def compare(
    ranks_a: Sequence[QueryRanks],
    ranks_b: Sequence[QueryRanks],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    pairs: bool = False,
) -> Comparison:
    """Compare two methods on the same images.

        D*  = mean_runs figure_A(images*) - mean_runs figure_B(images*) + sigma sqrt(1/runs_A + 1/runs_B) t*
        D*  = mean_n (figure_A,n(images*) - figure_B,n(images*)) + sigma sqrt(1/runs) t*          where runs are paired

    images* are drawn with replacement, the same for all runs; sigma is the deviation between seeds, of a run or of the
    difference of a pair (`seed_deviations`), t* Student's t with runs_A + runs_B - 2, or runs - 1, degrees of freedom.
    The interval is the central part of D*. With one run per side there is no sigma, and the result holds for these two
    runs only.

    Args:
        ranks_a: One entry per run of A.
        ranks_b: One entry per run of B.
        confidence: Confidence level of the intervals.
        pairs: Whether run n of A and run n of B share what a seed decides (initial weights, order of the batches), so
            that the variation between seeds is that of their difference.

    Raises:
        InputError: Where a side has no run or a duplicate, images, captions or folds differ between runs, or runs
            cannot be paired.
        SettingsError: Where there are too few resamples for the interval, or the seed is negative.
    """
    check_resamples(resamples, confidence)
    if seed < 0:
        raise SettingsError(f"seed is {seed}; expected 0 or more.")
    first = check_runs(ranks_a, ranks_b, pairs=pairs)
    generator, images = np.random.default_rng(seed), len(first.image_to_text)
    sample = sample_of((*ranks_a, *ranks_b))
    (observed,) = figures(np.ones((1, images)), sample)
    drawn = np.concatenate(
        [figures(counts, sample) for counts in bootstrap_counts(images, first.folds, resamples, generator)]
    )
    sizes = (len(ranks_a), len(ranks_b))
    runs = seed_effect(observed, drawn, sizes, generator)
    between = seed_effect(observed, drawn, sizes, generator, pairs=True) if pairs else runs
    swapped = swapped_differences(contributions(sample), sizes, resamples, generator)
    resampled = Resampled(sample.figures, observed, drawn, swapped, runs, between, confidence)
    return Comparison(
        a=resampled.estimates(slice(0, sizes[0])),
        b=resampled.estimates(slice(sizes[0], sum(sizes))),
        differences=resampled.differences(sizes[0]),
        images=images,
        captions=len(first.image_of_caption),
        folds=first.folds,
        runs_a=sizes[0],
        runs_b=sizes[1],
        seed_deviation=float(between.deviation[sample.figures.index(RSUM)]) if between.freedom else None,
        resamples=resamples,
        confidence=confidence,
        pairs=pairs,
    )


@dataclass(frozen=True)
class Resampled:
    """The resampled metrics of a comparison.

    Attributes:
        figures: The metrics on the axis of figures.
        observed: Metrics of the runs on the original images: runs x figures.
        drawn: On resampled images: resamples x runs x figures.
        swapped: Differences of the permutation test: resamples x figures without medians, which are last.
        runs: Effect of seeds on a run.
        between: Effect of seeds on the difference: `runs`, or that on the difference of a pair.
        confidence: Confidence level of the intervals.
    """

    figures: tuple[Figure, ...]
    observed: np.ndarray
    drawn: np.ndarray
    swapped: np.ndarray
    runs: SeedEffect
    between: SeedEffect
    confidence: float

    def estimates(self, side: slice) -> dict[str, Estimate]:
        """The metrics of one side."""
        runs = self.observed[side]
        values = self.drawn[:, side].mean(axis=1) + self.runs.on_mean(1 / len(runs))
        ends = [np.array([getattr(figure, end) for figure in self.figures]) for end in ("lowest", "highest")]
        low, high = self._interval(np.clip(values, *ends))
        columns = zip(self.figures, runs.mean(axis=0), low, high, strict=True)
        return {figure.name: Estimate(*map(float, each)) for figure, *each in columns}

    def differences(self, runs_a: int) -> dict[str, Difference]:
        """A minus B."""
        mean = self.observed[:runs_a].mean(axis=0) - self.observed[runs_a:].mean(axis=0)
        values = self.drawn[:, :runs_a].mean(axis=1) - self.drawn[:, runs_a:].mean(axis=1)
        of_seeds = self.between.on_difference()
        error = np.sqrt(values.var(axis=0) + self.between.error**2)
        low, high = self._interval(values + of_seeds)
        swaps = self.swapped.shape[1]
        by_chance = np.abs(self.swapped + of_seeds[:, :swaps]) >= np.abs(mean[:swaps]) - 1e-9
        p = ((1 + np.count_nonzero(by_chance, axis=0)) / (1 + len(self.swapped))).tolist()
        p += [None] * (len(mean) - swaps)
        parts = zip(error, self.between.error, strict=True)
        freedom = [freedom_of(float(total), float(part), self.between.freedom) for total, part in parts]
        columns = (mean.tolist(), low.tolist(), high.tolist(), p, error.tolist(), freedom)
        return {figure.name: Difference(*each) for figure, *each in zip(self.figures, *columns, strict=True)}

    def _interval(self, values: np.ndarray) -> np.ndarray:
        """The central interval of resampled values: 2 x figures."""
        tail = (1 - self.confidence) / 2
        interval: np.ndarray = np.quantile(values, (tail, 1 - tail), axis=0)
        return interval


def check_resamples(resamples: int, confidence: float) -> None:
    """Reject too few resamples: at least ten must lie beyond each end of the interval.

    Raises:
        SettingsError: States the required number.
    """
    least = 20 / (1 - confidence) if 0 < confidence < 1 else 0
    if not least or resamples < least - 1e-6:
        raise SettingsError(
            f"{resamples} resamples for an interval of {confidence:g}; expected a confidence between 0 and 1, and at "
            f"least {least or 400:.0f} resamples."
        )


def check_runs(ranks_a: Sequence[QueryRanks], ranks_b: Sequence[QueryRanks], *, pairs: bool) -> QueryRanks:
    """Check that all runs are comparable, and with `pairs` that they can be paired; returns the first.

    Raises:
        InputError: States the difference.
    """
    if isinstance(ranks_a, QueryRanks) or isinstance(ranks_b, QueryRanks):
        raise InputError("expected a list of runs for each side; got the ranks of a single one: put it into a list.")
    if not ranks_a or not ranks_b:
        raise InputError(f"expected at least one run per side; got {len(ranks_a)} of A and {len(ranks_b)} of B.")
    first = ranks_a[0]
    for ranks in (*ranks_a, *ranks_b):
        if ranks.folds != first.folds:
            raise InputError(
                f"one run was ranked in {first.folds} folds, another in {ranks.folds}; evaluate all by one protocol."
            )
        if not np.array_equal(ranks.image_of_caption, first.image_of_caption):
            raise InputError(
                f"the runs were not evaluated on the same captions: {len(first.image_of_caption)} of "
                f"{len(first.image_to_text)} images against {len(ranks.image_of_caption)} of "
                f"{len(ranks.image_to_text)}, or in another order; evaluate all runs on one split."
            )
    for name, side in (("A", ranks_a), ("B", ranks_b)):
        for (i, one), (j, other) in combinations(enumerate(side, 1), 2):
            if same_ranks(one, other):
                raise InputError(
                    f"runs {i} and {j} of {name} rank every query alike; expected other seeds, as a copy does not "
                    "count as a run: leave one of them out."
                )
    if pairs:
        check_pairs(len(ranks_a), len(ranks_b))
    return first


def check_pairs(runs_a: int, runs_b: int) -> None:
    """Check that the runs of both sides can be paired.

    Raises:
        InputError: States their numbers.
    """
    if runs_a != runs_b or runs_a == 1:
        raise InputError(
            f"A has {runs_a} run{'s' * (runs_a > 1)} and B {runs_b}; expected equal numbers above 1 to pair them, in "
            "the same order of seeds: name the runs of the seeds that both have, or compare without pairs."
        )


def same_ranks(one: QueryRanks, other: QueryRanks) -> bool:
    """Whether two runs rank every query alike; positions of captions, which older reports lack, are not compared."""
    return np.array_equal(one.image_to_text, other.image_to_text) and np.array_equal(
        one.text_to_image, other.text_to_image
    )


def freedom_of(error: float, of_seeds: float, freedom: int) -> float | None:
    """Degrees of freedom of a standard error, of which only the seeds' part is estimated from few runs.

        freedom error^4 / of_seeds^4        (Satterthwaite 1946)

    Returns:
        None where that part is below 1 % of the variance.
    """
    return freedom * (error / of_seeds) ** 4 if of_seeds > 0.1 * error else None


def power_at(difference: float, reach: float, error: float, freedom: float | None) -> float:
    """Power: probability that the interval of a comparison excludes zero.

        P( |z + d| > reach s ),   d = c difference      lengths in units of the error; z normal, freedom s^2 chi-squared

    (z + d)^2 / s^2 has a noncentral F distribution with 1 and `freedom` degrees of freedom and noncentrality d^2. An
    error estimated from few runs is too small on average, by the factor c = E s.

    Args:
        reach: Half the width of the interval.
        error: The estimated standard error of the difference.
        freedom: See `freedom_of`.
    """
    from scipy.special import ncfdtr, ndtr  # on first use: it takes 0.1 s to load

    if error == 0:
        return float(difference != 0)
    shift, end = difference / error, reach / error
    if freedom is None:
        return float(ndtr(shift - end) + ndtr(-shift - end))
    return float(1 - ncfdtr(1, freedom, (mean_error(freedom) * shift) ** 2, end**2))


def mean_error(freedom: float) -> float:
    """E s, freedom s^2 chi-squared: sqrt(2 / f) Γ((f + 1) / 2) / Γ(f / 2), below 1."""
    return math.sqrt(2 / freedom) * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))


def detectable(reach: float, error: float, freedom: float | None, power: float) -> float:
    """The smallest true difference with that power; arguments as of `power_at`."""
    from scipy.optimize import brentq  # on first use, as above

    def missing(difference: float) -> float:
        return power - power_at(difference, reach, error, freedom)

    if error == 0 or missing(0.0) <= 0:
        return 0.0
    high = reach + error
    while missing(high) > 0:
        high *= 2
    return float(brentq(missing, 0.0, high))
