"""Bootstrap over images with all their captions, for all runs at once; `comparison` derives intervals.

Axes: resamples | runs (training seeds, of both sides) | images | captions | means (metrics that are a mean over
queries) | figures (the six recalls, rSum, the other means, then the median ranks of both directions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tshsr.metrics.multi_positive import query_figures, sorted_places
from tshsr.metrics.ranks import QueryRanks

CUTOFFS = (1, 5, 10)
IMAGE_TO_TEXT, TEXT_TO_IMAGE = "image to text", "text to image"


@dataclass(frozen=True)
class Figure:
    """A metric of one direction.

    Attributes:
        name: Name in JSON, with the direction: `image_to_text_r1`.
        title: Display name without the direction.
        direction: Direction of retrieval; empty for rSum.
        lowest, highest: Range of the values.
        decimals: Displayed decimals.
        higher_is_better: False for ranks.
    """

    name: str
    title: str
    direction: str
    lowest: float = 0.0
    highest: float = 100.0
    decimals: int = 1
    higher_is_better: bool = True

    @property
    def by_captions(self) -> bool:
        """Whether its queries are captions, not images."""
        return self.direction == TEXT_TO_IMAGE

    @property
    def scale(self) -> float:
        """Factor on a mean over queries: 100 for percentages."""
        return 100.0 if self.highest == 100 else 1.0

    @property
    def full_title(self) -> str:
        """Display name with the direction, and a note where lower is better."""
        return f"{self.direction} {self.title}{' (lower is better)' * (not self.higher_is_better)}".strip()


def both(name: str, title: str, **more: Any) -> tuple[Figure, Figure]:
    """A metric in both directions."""
    return (
        Figure(f"image_to_text_{name}", title, IMAGE_TO_TEXT, **more),
        Figure(f"text_to_image_{name}", title, TEXT_TO_IMAGE, **more),
    )


OF_RANKS: dict[str, Any] = {"lowest": 1.0, "highest": math.inf, "higher_is_better": False}
RECALLS = tuple(each for side in zip(*(both(f"r{k}", f"R@{k}") for k in CUTOFFS), strict=True) for each in side)
RSUM = Figure("rsum", "rSum", "", highest=600.0)
MEDIAN_RANKS = both("medr", "median rank", **OF_RANKS)
MEAN_RANKS = both("meanr", "mean rank", **OF_RANKS)
RECIPROCAL_RANKS = both("mrr", "MRR", highest=1.0, decimals=3)
SEVERAL = {
    "map_at_r": "mAP@R",
    "r_precision": "R-Precision",
    **{f"true_r{k}": f"true recall@{k}" for k in CUTOFFS},
    **{f"all_r{k}": f"all found@{k}" for k in CUTOFFS[1:]},
}
"""Metrics for several relevant items, by names in `RankingMetrics`; for captions, which have one, they equal R@K."""
SEVERAL_RIGHT = tuple(Figure(f"image_to_text_{name}", title, IMAGE_TO_TEXT) for name, title in SEVERAL.items())
OTHERS = sorted((*MEDIAN_RANKS, *MEAN_RANKS, *RECIPROCAL_RANKS, *SEVERAL_RIGHT), key=lambda figure: figure.by_captions)
FIGURES = (*RECALLS, RSUM, *OTHERS)
"""All compared metrics, in display order."""


def means_of(runs: Sequence[QueryRanks]) -> tuple[Figure, ...]:
    """The means over queries that are known for all of these runs; older reports lack positions of captions."""
    several = SEVERAL_RIGHT if all(run.caption_places is not None for run in runs) else ()
    return (*RECALLS, *MEAN_RANKS, *RECIPROCAL_RANKS, *several)


def image_values(ranks: QueryRanks) -> np.ndarray:
    """Sums over the queries of each image, for the means of this run: images x means, shares in 0..1."""
    owner, images = ranks.image_of_caption, len(ranks.image_to_text)

    def added(of_captions: np.ndarray) -> np.ndarray:
        return np.bincount(owner, weights=of_captions, minlength=images)

    columns = [
        *(ranks.image_to_text <= k for k in CUTOFFS),
        *(added(ranks.text_to_image <= k) for k in CUTOFFS),
        *(ranks.image_to_text, added(ranks.text_to_image)),
        *(1 / ranks.image_to_text, added(1 / ranks.text_to_image)),
    ]
    if ranks.caption_places is not None:
        of_images = query_figures(sorted_places(ranks.caption_places, owner))
        columns += [of_images[name] for name in SEVERAL]
    return np.stack(columns, axis=1).astype(np.float64)


CHUNK = 1 << 22
"""Image counts per block: bounds the temporary memory."""
REACH = 4
"""Distance below the middle, in standard deviations, at which the search for a resampled median starts; doubled until
the median is above."""


@dataclass(frozen=True)
class Sample:
    """The resampled images, with the sums of their queries for every run.

    Attributes:
        runs: Ranks on the same images, captions and folds.
        means: Metrics that are means over queries.
        values: Sums over the queries of an image: images x runs x means.
        queries: Number of queries per image and direction: images x 2.
    """

    runs: Sequence[QueryRanks]
    means: tuple[Figure, ...]
    values: np.ndarray
    queries: np.ndarray

    @property
    def folds(self) -> int:
        """Number of folds of consecutive images."""
        return self.runs[0].folds

    @property
    def sides(self) -> np.ndarray:
        """For each mean the side of its queries: 0 images, 1 captions."""
        return np.array([int(figure.by_captions) for figure in self.means])

    @property
    def scales(self) -> np.ndarray:
        """For each mean its factor, 100 for percentages."""
        return np.array([figure.scale for figure in self.means])

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The metrics on the axis of figures."""
        recalls = len(RECALLS)
        return (*self.means[:recalls], RSUM, *self.means[recalls:], *MEDIAN_RANKS)


def sample_of(runs: Sequence[QueryRanks]) -> Sample:
    """The sample of these runs, with the metrics common to all of them."""
    means, owner = means_of(runs), runs[0].image_of_caption
    captions = np.bincount(owner, minlength=len(runs[0].image_to_text))
    values = np.stack([image_values(run)[:, : len(means)] for run in runs], axis=1)
    return Sample(runs, means, values, np.stack([np.ones(len(captions)), captions], axis=1))


def bootstrap_counts(images: int, folds: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Counts of each image in resamples with replacement inside its fold, in blocks of resamples x images."""
    size, rows = images // folds, max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        several = min(rows, resamples - start)
        places = generator.integers(size, size=(several * folds, size)) + size * np.arange(several * folds)[:, None]
        yield np.bincount(places.ravel(), minlength=several * images).reshape(several, images).astype(np.float64)


def figures(counts: np.ndarray, sample: Sample) -> np.ndarray:
    """The metrics of every run on weighted images.

        mean = mean_folds sum_i count_i values_i / sum_i count_i queries_i,   rSum the sum of the six recalls

    Args:
        counts: Multiplicities of the images, resamples x images.

    Returns:
        resamples x runs x figures.
    """
    folds, (_, runs, means) = sample.folds, sample.values.shape
    cut = counts.reshape(len(counts), folds, -1).transpose(1, 0, 2)
    found = (cut @ sample.values.reshape(folds, -1, runs * means)).reshape(folds, len(counts), runs, means)
    queries = (cut @ sample.queries.reshape(folds, -1, 2))[..., sample.sides]
    values = (sample.scales * found / queries[:, :, None, :]).mean(axis=0)
    drawn = np.ascontiguousarray(counts.T)
    middles = np.stack([median_ranks(drawn, run) for run in sample.runs], axis=1)
    return np.concatenate([with_rsum(values), middles], axis=2)


def with_rsum(values: np.ndarray) -> np.ndarray:
    """Insert rSum after the six recalls on the last axis, the means."""
    recalls = len(RECALLS)
    rsum = values[..., :recalls].sum(axis=-1, keepdims=True)
    return np.concatenate([values[..., :recalls], rsum, values[..., recalls:]], axis=-1)


def median_ranks(drawn: np.ndarray, run: QueryRanks) -> np.ndarray:
    """The median rank of the images and of the captions of a run, each the mean over folds.

    Args:
        drawn: Multiplicities of the images, images x resamples.

    Returns:
        resamples x 2.
    """
    size = len(drawn) // run.folds
    sums = np.zeros((2, drawn.shape[1]))
    owners = (np.arange(len(drawn)), run.image_of_caption)
    for total, ranks, owner in zip(sums, (run.image_to_text, run.text_to_image), owners, strict=True):
        for fold in range(run.folds):
            inside = owner // size == fold
            total += medians(drawn[fold * size : (fold + 1) * size], ranks[inside], owner[inside] - fold * size)
    return sums.T / run.folds


def medians(drawn: np.ndarray, ranks: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Median over queries with the multiplicities of their images; of an even number, the mean of the two middle ones.

    The ranks are sorted once, then the multiplicities are accumulated query by query. A resampled median is near the
    middle of the sorted ranks, so queries far below it are accumulated in one step.

    Args:
        drawn: Multiplicities, images x resamples.

    Returns:
        One per resample.
    """
    images = len(drawn)
    order = np.argsort(ranks, kind="stable")
    owner, half = owner[order], np.bincount(owner, minlength=images) @ drawn / 2
    start, passed = len(ranks) // 2, half
    reach = math.ceil(REACH * len(ranks) / (2 * math.sqrt(images)))
    while (passed >= half).any():
        start, reach = max(0, start - reach), 2 * reach
        passed = np.bincount(owner[:start], minlength=images) @ drawn
    lower, upper = np.full((2, len(half)), start)
    for image in owner[start:]:
        passed += drawn[image]
        left = passed <= half
        lower += passed < half
        upper += left
        if not left.any():
            break
    ordered = ranks[order]
    found: np.ndarray = (ordered[lower] + ordered[upper]) / 2
    return found


def contributions(sample: Sample) -> np.ndarray:
    """Contribution of each image to the metrics of each run: images x runs x figures without medians (not sums)."""
    folds, images = sample.folds, len(sample.queries)
    queries = sample.queries.reshape(folds, -1, 2).sum(axis=1)[:, sample.sides]
    weights = np.repeat(sample.scales / (folds * queries), images // folds, axis=0)
    return with_rsum(sample.values * weights[:, None])


def swapped_differences(
    shares: np.ndarray, sizes: tuple[int, int], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Differences of a permutation test that swaps A and B per image at random: resamples x figures without medians."""
    difference = shares[:, : sizes[0]].mean(axis=1) - shares[:, sizes[0] :].mean(axis=1)
    rows, found = max(1, CHUNK // len(shares)), []
    for start in range(0, resamples, rows):
        coins = generator.integers(2, size=(min(rows, resamples - start), len(shares)), dtype=np.int8)
        found.append((2.0 * coins - 1) @ difference)
    return np.concatenate(found)


@dataclass(frozen=True)
class SeedEffect:
    """Random effect of other seeds on the metrics.

    Attributes:
        deviation: Standard deviation between seeds, one per metric; zeros where it is unknown.
        freedom: Degrees of freedom of that estimate; 0 where it is unknown.
        noise: Student's t, one per resample; zeros where the deviation is unknown.
        share: Variance of the difference of the sides' means, in units of that of a run or of a pair.
    """

    deviation: np.ndarray
    freedom: int
    noise: np.ndarray
    share: float

    @property
    def error(self) -> np.ndarray:
        """Standard error of the difference of the sides' means: one per metric."""
        error: np.ndarray = np.sqrt(self.share) * self.deviation
        return error

    def on_difference(self) -> np.ndarray:
        """Effect on the difference of the sides' means: resamples x metrics."""
        return self.on_mean(self.share)

    def on_mean(self, share: float) -> np.ndarray:
        """Effect on a mean of 1 / share runs: resamples x metrics."""
        added: np.ndarray = np.sqrt(share) * self.noise[:, None] * self.deviation
        return added


def seed_effect(
    observed: np.ndarray,
    drawn: np.ndarray,
    sizes: tuple[int, int],
    generator: np.random.Generator,
    *,
    pairs: bool = False,
) -> SeedEffect:
    """The effect of seeds, from the variation between the runs of each side, or between pairs of runs.

    Args:
        observed: Metrics of the runs on the original images, runs x metrics.
        drawn: On resampled images, resamples x runs x metrics.
        sizes: Number of runs of each side.
        generator: Draws the noise.
        pairs: Whether run n of each side has the same seed.
    """
    groups: Sequence[int] = sizes
    if pairs:
        observed, drawn, groups = paired(observed), paired(drawn), sizes[:1]
    deviation, freedom = seed_deviations(observed, drawn, groups), sum(groups) - len(groups)
    share = sum(1 / runs for runs in groups)
    if deviation is None:
        return SeedEffect(np.zeros(observed.shape[-1]), 0, np.zeros(len(drawn)), share)
    return SeedEffect(deviation, freedom, generator.standard_t(freedom, size=len(drawn)), share)


def paired(runs: np.ndarray) -> np.ndarray:
    """Differences of the runs of A and of B with equal seeds: ... x 2 seeds x metrics -> ... x seeds x metrics."""
    pairs = runs.shape[-2] // 2
    differences: np.ndarray = runs[..., :pairs, :] - runs[..., pairs:, :]
    return differences


def seed_deviations(observed: np.ndarray, drawn: np.ndarray, sizes: Sequence[int]) -> np.ndarray | None:
    """Standard deviation of each metric between the seeds of a side, without the part due to the sample of images.

        sigma^2 = max(0, 2 s^2 - mean* s*^2),   s^2 the variance between runs inside a side, pooled over the sides

    On resampled images the variance between runs is s^2 plus the variance due to the images. The same amount is
    contained in s^2, and is already part of the resampled difference.

    Returns:
        One per metric; None where all sides are single runs.
    """
    freedom = sum(sizes) - len(sizes)
    if freedom == 0:
        return None
    ends = np.cumsum(sizes)
    sides = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    inside = [sum(np.var(values[:, side], axis=1) * size for side, size in zip(sides, sizes, strict=True)) / freedom
              for values in (observed[None], drawn)]  # fmt: skip
    deviations: np.ndarray = np.sqrt(np.maximum(0.0, 2 * inside[0][0] - inside[1].mean(axis=0)))
    return deviations
