"""Change of the recalls of text to image between two rankings of the same captions, with its interval over pictures."""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000


def change_of_recalls(ranks: np.ndarray, plain: np.ndarray, image_of_caption: np.ndarray) -> dict[str, float]:
    """The change of R@1 + R@5 + R@10 in points, and its 95 % interval: bootstrap over pictures.

    Args:
        ranks: 1-based rank of the right picture of each caption.
        plain: The same by the ranking to which it is compared.
        image_of_caption: The right picture of each caption, captions of one picture are drawn together.
    """
    sums = [np.sum([each <= k for k in (1, 5, 10)], axis=0) for each in (ranks, plain)]
    pictures = np.unique(image_of_caption, return_inverse=True)[1]
    changes = 100 * np.bincount(pictures, weights=sums[0] - sums[1])
    chosen = np.random.default_rng(0).integers(0, len(changes), (RESAMPLES, len(changes)))
    captions = np.bincount(pictures)
    drawn = changes[chosen].sum(axis=1) / captions[chosen].sum(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"change": float(changes.sum() / len(ranks)), "low": float(low), "high": float(high)}
