"""Resampling of images, with all their captions and for all runs at once; the arithmetic under significance.py.

Axes: resamples | runs (training seeds, of both sides) | images | figures (R@1, R@5, R@10 of both directions, rSum).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tshsr.ranks import QueryRanks

CUTOFFS = np.array([1, 5, 10])
CHUNK = 1 << 22
"""Counts of drawn images held at once: bounds the temporary memory."""


def image_hits(ranks: QueryRanks) -> np.ndarray:
    """Queries of each image that were answered: images x (R@1, R@5, R@10 of the image, then of its captions)."""
    own = ranks.image_to_text[:, None] <= CUTOFFS
    texts = np.zeros(own.shape)
    np.add.at(texts, ranks.image_of_caption, ranks.text_to_image[:, None] <= CUTOFFS)
    return np.concatenate([own, texts], axis=1)


def draws(images: int, folds: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each image was drawn, with replacement and inside its fold: in pieces of resamples x images."""
    size, rows = images // folds, max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        several = min(rows, resamples - start)
        places = generator.integers(size, size=(several * folds, size)) + size * np.arange(several * folds)[:, None]
        yield np.bincount(places.ravel(), minlength=several * images).reshape(several, images).astype(np.float64)


def figures(counts: np.ndarray, hits: np.ndarray, captions: np.ndarray, folds: int) -> np.ndarray:
    """The figures of every run where each image stands so many times.

        R@K = mean_folds 100 * sum_i count_i hits_i / sum_i count_i queries_i,   rSum their sum

    Args:
        counts: resamples x images.
        hits: images x runs x 6.
        captions: Captions of each image.
        folds: Folds of consecutive images.

    Returns:
        resamples x runs x figures.
    """
    runs = hits.shape[1]
    cut = counts.reshape(len(counts), folds, -1).transpose(1, 0, 2)
    found = (cut @ hits.reshape(folds, -1, runs * 6)).reshape(folds, len(counts), runs, 2, 3)
    queries = np.stack([cut.sum(axis=2), (cut @ captions.reshape(folds, -1, 1))[..., 0]], axis=-1)
    recalls = (100 * found / queries[:, :, None, :, None]).mean(axis=0).reshape(len(counts), runs, 6)
    return np.concatenate([recalls, recalls.sum(axis=2, keepdims=True)], axis=2)


def contributions(hits: np.ndarray, captions: np.ndarray, folds: int) -> np.ndarray:
    """What each image adds to the figures of each run: images x runs x figures."""
    queries = np.stack([np.ones(len(hits)), captions], axis=1).reshape(folds, -1, 2).sum(axis=1, keepdims=True)
    weights = np.broadcast_to(100 / (folds * queries), (folds, len(hits) // folds, 2)).reshape(len(hits), 1, 2)
    recalls = hits * np.repeat(weights, 3, axis=2)
    return np.concatenate([recalls, recalls.sum(axis=2, keepdims=True)], axis=2)


def swapped_differences(
    shares: np.ndarray, sizes: tuple[int, int], resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """Differences where a coin for each image decides which side is A: resamples x figures."""
    difference = shares[:, : sizes[0]].mean(axis=1) - shares[:, sizes[0] :].mean(axis=1)
    rows, found = max(1, CHUNK // len(shares)), []
    for start in range(0, resamples, rows):
        coins = generator.integers(2, size=(min(rows, resamples - start), len(shares)), dtype=np.int8)
        found.append((2.0 * coins - 1) @ difference)
    return np.concatenate(found)


def seed_deviations(seen: np.ndarray, drawn: np.ndarray, sizes: tuple[int, int]) -> np.ndarray | None:
    """Deviation of each figure between the seeds of a side, without what the choice of images adds to it.

        sigma^2 = max(0, 2 s^2 - mean* s*^2),   s^2 the variance between runs inside a side, pooled over the sides

    On resampled images the variance between runs is s^2 plus what drawing images adds; that much of s^2 itself is due
    to the images too, and is already in the resampled difference.

    Returns:
        One for each figure; None where both sides are single runs.
    """
    freedom = sum(sizes) - 2
    if freedom == 0:
        return None
    sides = (slice(0, sizes[0]), slice(sizes[0], sum(sizes)))
    inside = [sum(np.var(values[:, side], axis=1) * size for side, size in zip(sides, sizes, strict=True)) / freedom
              for values in (seen[None], drawn)]  # fmt: skip
    deviations: np.ndarray = np.sqrt(np.maximum(0.0, 2 * inside[0][0] - inside[1].mean(axis=0)))
    return deviations
