"""Differences of two rows on slices of the captions, and between slices: paired bootstrap over images and seeds.

Axes: resamples | runs (of both sides) | images | slices | figures (the slices, then one contrast for each group).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.slices import Slice
from tshsr.metrics.bootstrap import CUTOFFS, bootstrap_counts, seed_effect
from tshsr.metrics.ranks import QueryRanks

CONFIDENCE = 0.95


def slice_figures(
    whole: Sequence[QueryRanks],
    part: Sequence[QueryRanks],
    slices: Sequence[Slice],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    pairs: bool = False,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sum of text-to-image R@1, R@5 and R@10 of the captions of each slice, whole minus part; and its contrasts.

        contrast of a group = difference on its last slice - difference on its first one

    Images are resampled with all their captions, the same for all runs, and the deviation between seeds is added as in
    `metrics.comparison.compare`.

    Args:
        whole, part: Runs of each side, on the same images and captions.
        pairs: Whether run n of each side has the same seed.

    Returns:
        For each slice `group`, `title`, `captions`, `whole` (points, mean over its runs), `mean`, `low` and `high` of
        the difference; for each group of several slices `group`, `first`, `last`, and the same of the contrast.
    """
    runs, sizes = (*whole, *part), (len(whole), len(part))
    ends = contrast_pairs(slices)
    hits, queries = hits_of(runs, slices)
    images = len(queries)

    def figures(counts: np.ndarray) -> np.ndarray:
        found = (counts @ hits.reshape(images, -1)).reshape(len(counts), len(runs), len(slices))
        # A resample without any caption of a slice has no recall; 0 on both sides is no difference.
        recalls = 100 * found / np.maximum(counts @ queries, 1)[:, None]
        contrasts = [recalls[..., last] - recalls[..., first] for first, last in ends]
        return np.concatenate([recalls, *(each[..., None] for each in contrasts)], axis=-1)

    generator = np.random.default_rng(seed)
    (observed,) = figures(np.ones((1, images)))
    drawn = np.concatenate([figures(counts) for counts in bootstrap_counts(images, 1, resamples, generator)])
    seeds = seed_effect(observed, drawn, sizes, generator, pairs=pairs)
    mean = observed[: sizes[0]].mean(axis=0) - observed[sizes[0] :].mean(axis=0)
    values = drawn[:, : sizes[0]].mean(axis=1) - drawn[:, sizes[0] :].mean(axis=1)
    values = values + seeds.on_difference()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, (tail, 1 - tail), axis=0)
    interval = [{"mean": float(m), "low": float(a), "high": float(b)} for m, a, b in zip(mean, low, high, strict=True)]
    return described(slices, ends, observed[: sizes[0]].mean(axis=0), interval)


def described(
    slices: Sequence[Slice], ends: Sequence[tuple[int, int]], whole: np.ndarray, interval: Sequence[dict[str, float]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Figures of slices, then of contrasts, with what they are of."""
    rows = [
        {
            "group": each.group,
            "title": each.title,
            "captions": int(each.captions.sum()),
            "whole": float(points),
            **found,
        }
        for each, points, found in zip(slices, whole, interval, strict=False)
    ]
    contrasts = [
        {"group": slices[first].group, "first": slices[first].title, "last": slices[last].title, **found}
        for (first, last), found in zip(ends, interval[len(slices) :], strict=True)
    ]
    return rows, contrasts


def contrast_pairs(slices: Sequence[Slice]) -> list[tuple[int, int]]:
    """Numbers of the first and the last slice of each group that has several."""
    groups: dict[str, list[int]] = {}
    for number, each in enumerate(slices):
        groups.setdefault(each.group, []).append(number)
    return [(numbers[0], numbers[-1]) for numbers in groups.values() if len(numbers) > 1]


def hits_of(runs: Sequence[QueryRanks], slices: Sequence[Slice]) -> tuple[np.ndarray, np.ndarray]:
    """By image the sum of its captions' hits at 1, 5 and 10, images x runs x slices, and captions, images x slices."""
    owner, images = runs[0].image_of_caption, len(runs[0].image_to_text)

    def added(of_captions: np.ndarray) -> np.ndarray:
        return np.bincount(owner, weights=of_captions, minlength=images)

    hits = [
        [added(sum((ranks.text_to_image <= k).astype(float) for k in CUTOFFS) * each.captions) for each in slices]
        for ranks in runs
    ]
    queries = np.stack([added(each.captions.astype(float)) for each in slices], axis=1)
    return np.moveaxis(np.array(hits), -1, 0), queries
