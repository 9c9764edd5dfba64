"""Boxes as x1, y1, x2, y2, in any unit: how far they overlap."""

from __future__ import annotations

import numpy as np


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of every box of `first` (n x 4) with every box of `second` (m x 4): n x m.

        area(a ∩ b) / (area(a) + area(b) - area(a ∩ b)),

    and 0 for boxes without an area.
    """
    shared = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    common = np.maximum(shared, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    shares: np.ndarray = common / np.where(union > 0, union, 1)
    return shares
