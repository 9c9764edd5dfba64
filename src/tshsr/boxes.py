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


THINNEST = 0.004
"""Boxes of less than this part of the picture's width or height are no regions."""


def corners(centred: np.ndarray) -> np.ndarray:
    """Centre x, centre y, width, height -> x1, y1, x2, y2: n x 4."""
    half = centred[:, 2:] / 2
    return np.concatenate([centred[:, :2] - half, centred[:, :2] + half], axis=1)


def best_distinct(boxes: np.ndarray, scores: np.ndarray, *, overlap: float, most: int) -> np.ndarray:
    """Non-maximum suppression whatever the class: numbers of the kept boxes, the best first.

    Args:
        boxes: n x 4.
        scores: n; equal ones keep their order.
        overlap: A box is left out where its intersection over union with a better one is larger.
        most: How many are kept at most.
    """
    there = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= THINNEST
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable")[: 20 * most].tolist():
        if len(kept) == most:
            break
        if there[number] and not (intersection_over_union(boxes[[number]], boxes[kept]) > overlap).any():
            kept.append(number)
    return np.array(kept, np.int64)


def cell_boxes(cells: int) -> np.ndarray:
    """The boxes of cells x cells equal cells, row by row: float32, cells² x 4."""
    edges = np.linspace(0, 1, cells + 1)
    y, x = (axis.reshape(-1) for axis in np.mgrid[:cells, :cells])
    return np.stack([edges[x], edges[y], edges[x + 1], edges[y + 1]], axis=1).astype(np.float32)


def pool_inside(features: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The mean of a map inside each box; what lies partly inside counts by that part.

        pooled_b = sum_yx area(cell_yx ∩ box_b) features_yx / sum_yx area(cell_yx ∩ box_b)

    Args:
        features: y x x x features, over the whole picture.
        boxes: n x 4, none of them empty.

    Returns:
        float32, n x features.
    """
    height, width, _ = features.shape
    rows, columns = _shares(boxes[:, 1], boxes[:, 3], height), _shares(boxes[:, 0], boxes[:, 2], width)
    pooled = np.einsum("by,bx,yxf->bf", rows, columns, features, optimize=True)
    return np.asarray(pooled, np.float32)


def _shares(low: np.ndarray, high: np.ndarray, cells: int) -> np.ndarray:
    """How each interval is shared out among equal cells of 0 to 1: n x cells, rows sum to 1."""
    edges = np.linspace(0, 1, cells + 1)
    inside = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    inside = np.maximum(inside, 0)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))
