"""Boxes x1, y1, x2, y2, in any unit: overlap, non-maximum suppression, grids and pooling."""

from __future__ import annotations

import numpy as np

MIN_SIDE = 0.004
"""Smallest width and height of a region, as a fraction of the picture's."""


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of every box of `first` (n x 4) with every box of `second` (m x 4): n x m.

        area(a ∩ b) / (area(a) + area(b) - area(a ∩ b)),

    and 0 for boxes without an area.
    """
    sides = np.minimum(first[:, None, 2:], second[None, :, 2:]) - np.maximum(first[:, None, :2], second[None, :, :2])
    intersection = np.maximum(sides, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - intersection
    overlaps: np.ndarray = intersection / np.where(union > 0, union, 1)
    return overlaps


def centre_to_corners(boxes: np.ndarray) -> np.ndarray:
    """Centre x, centre y, width, height -> x1, y1, x2, y2: n x 4."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def non_maximum_suppression(boxes: np.ndarray, scores: np.ndarray, *, overlap: float, most: int) -> np.ndarray:
    """Class-agnostic non-maximum suppression: row numbers of the kept boxes, best first.

    Args:
        boxes: n x 4.
        scores: n; equal ones keep their order.
        overlap: A box is dropped where its intersection over union with a better one is larger.
        most: Largest number of boxes kept.
    """
    large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= MIN_SIDE
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable")[: 20 * most].tolist():
        if len(kept) == most:
            break
        if large[number] and not (intersection_over_union(boxes[[number]], boxes[kept]) > overlap).any():
            kept.append(number)
    return np.array(kept, np.int64)


def grid_boxes(cells: int) -> np.ndarray:
    """The boxes of cells x cells equal cells, row by row: float32, cells² x 4."""
    edges = np.linspace(0, 1, cells + 1)
    y, x = (axis.reshape(-1) for axis in np.mgrid[:cells, :cells])
    return np.stack([edges[x], edges[y], edges[x + 1], edges[y + 1]], axis=1).astype(np.float32)


def pool_boxes(features: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The mean of a feature map inside each box, cells weighted by their area in the box.

        pooled_b = sum_yx area(cell_yx ∩ box_b) features_yx / sum_yx area(cell_yx ∩ box_b)

    Args:
        features: Height x width x features, over the whole picture.
        boxes: n x 4, as fractions of the picture, none of them empty.

    Returns:
        float32, n x features.
    """
    height, width, _ = features.shape
    pooled = np.einsum("byx,yxf->bf", cell_weights(boxes, height, width), features, optimize=True)
    return np.asarray(pooled, np.float32)


def cell_weights(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area of each cell of a map in each box, as a share of the box: n x height x width."""
    rows, columns = (
        interval_weights(boxes[:, 1], boxes[:, 3], height),
        interval_weights(boxes[:, 0], boxes[:, 2], width),
    )
    return np.asarray(rows[:, :, None] * columns[:, None, :])


def interval_weights(low: np.ndarray, high: np.ndarray, cells: int) -> np.ndarray:
    """The fraction of each interval in each of the equal cells of 0 to 1: n x cells, rows sum to 1."""
    edges = np.linspace(0, 1, cells + 1)
    inside = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    inside = np.maximum(inside, 0)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True))
