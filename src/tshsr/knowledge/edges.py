"""Edges between concepts: co-occurrence in captions, and path similarity in WordNet.

Axes: concepts (rows, columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

SCALE, SHIFT = 5.0, 0.02
"""Base s and shift u of `rescaled`."""
THRESHOLD = 0.3
"""Smallest rescaled probability of an edge; with SCALE and SHIFT, P_ij of 0.168."""
PATH_THRESHOLD = 0.25
"""Smallest path similarity of an edge: at most three steps, as between siblings of one parent and one step more."""


def co_occurrences(captions: Iterable[Sequence[int]], concepts: int) -> np.ndarray:
    """c_ij: number of captions with both concepts; on the diagonal n_i, that with concept i.

    Args:
        captions: For each caption its concepts, each once.

    Returns:
        int64, concepts x concepts.
    """
    counts = np.zeros((concepts, concepts), np.int64)
    for found in captions:
        numbers = np.asarray(found, np.int64)
        counts[numbers[:, None], numbers[None, :]] += 1
    return counts


def conditional(counts: np.ndarray) -> np.ndarray:
    """P_ij = c_ij / n_i: share of the captions with concept i that have concept j too; 0 on the diagonal.

    Args:
        counts: c, with n on the diagonal.
    """
    shares = counts / np.maximum(np.diag(counts), 1)[:, None]
    np.fill_diagonal(shares, 0.0)
    return shares


def rescaled(shares: np.ndarray) -> np.ndarray:
    """B_ij = s^(P_ij - u) - s^(-u): 0 where P is 0, and steeper for large P (after CVSE, Wang et al. 2020)."""
    values: np.ndarray = np.power(SCALE, shares - SHIFT) - np.power(SCALE, -SHIFT)
    return values


def binarised(values: np.ndarray, threshold: float) -> np.ndarray:
    """1 where a value reaches the threshold in either direction, else 0; 0 on the diagonal."""
    reached = values >= threshold
    edges = (reached | reached.T).astype(np.float32)
    np.fill_diagonal(edges, 0.0)
    return edges


def normalised(edges: np.ndarray) -> np.ndarray:
    """D^(-1/2) (G + I) D^(-1/2) with D_ii = sum_j (G + I)_ij (Kipf and Welling 2017).

    Args:
        edges: G, symmetric, 0 on the diagonal.
    """
    with_loops = edges + np.eye(len(edges), dtype=edges.dtype)
    factors = 1 / np.sqrt(with_loops.sum(axis=1))
    scaled: np.ndarray = (factors[:, None] * with_loops * factors[None, :]).astype(np.float32)
    return scaled


def co_occurrence_edges(counts: np.ndarray) -> np.ndarray:
    """G of captions: `binarised` `rescaled` `conditional` counts."""
    return binarised(rescaled(conditional(counts)), THRESHOLD)
