"""Ranks of simulated methods and runs, for comparisons."""

from __future__ import annotations

import numpy as np

from tshsr.metrics.comparison import Comparison, compare
from tshsr.metrics.ranks import QueryRanks, query_ranks


def population(
    random: np.random.Generator,
    images: int,
    runs: tuple[int, int],
    *,
    seeds: float = 0.0,
    common: float = 0.0,
    method: float = 0.5,
    better: float = 0.0,
) -> tuple[list[QueryRanks], list[QueryRanks]]:
    """Two methods that are equally good on average, on images of which some are harder for all.

    Args:
        random: Draws the images, what each method finds hard, and the runs.
        images: How many, with three captions each.
        runs: Of each method.
        seeds: Deviation between runs of a method.
        common: Deviation between seeds that run n of both methods shares.
        method: By how much methods find other images hard.
        better: By how much the first method is better, as `seeds` counts.
    """
    owners = np.repeat(np.arange(images), 3)
    image = random.normal(size=images)
    caption = 0.7 * image[owners] + 0.7 * random.normal(size=len(owners))
    shared = common * random.normal(size=max(runs))
    sides = []
    for several, gain in zip(runs, (better, 0.0), strict=True):
        hard = image + method * random.normal(size=images), caption + method * random.normal(size=len(owners))
        shifts = gain + shared[:several] + seeds * random.normal(size=several)
        sides.append([one_run(random, hard, owners, shift) for shift in shifts])
    return sides[0], sides[1]


def one_run(
    random: np.random.Generator, hard: tuple[np.ndarray, np.ndarray], owners: np.ndarray, shift: float
) -> QueryRanks:
    """A run's ranks: hardness with noise of its own; captions are as far from each other as their ranks."""
    drawn = [np.exp(1.2 * (values + random.normal(size=len(values)) - shift) + 1) for values in hard]
    images, texts = (np.maximum(1, np.ceil(values)).astype(np.int64) for values in drawn)
    places = images[:, None] + np.cumsum(texts.reshape(-1, 3), axis=1) - texts[::3, None]
    return QueryRanks(images, texts, owners, caption_places=places.ravel())


def compared(
    random: np.random.Generator, images: int, runs: tuple[int, int], *, pairs: bool = False, **more: float
) -> Comparison:
    """A comparison of two such methods."""
    sides = population(random, images, runs, **more)
    return compare(*sides, resamples=400, seed=int(random.integers(1 << 30)), pairs=pairs)


def small(seed: int, images: int = 12) -> QueryRanks:
    """Ranks by random scores of images with one to four captions, in no order."""
    owners = np.random.default_rng(5).permutation(np.repeat(np.arange(images), 1 + np.arange(images) % 4))
    scores = np.random.default_rng(seed).random((images, len(owners)))
    scores[owners, np.arange(len(owners))] += 0.2
    return query_ranks(scores, owners)
