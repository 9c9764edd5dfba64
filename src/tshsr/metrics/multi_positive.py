"""Metrics of rankings with several relevant items per query, in addition to R@K, which considers only the best one.

Axes: queries | answers (ranked items). Positions start at 1; irrelevant items with an equal score rank ahead
(docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import fsum
from statistics import fmean

import numpy as np

from tshsr.config.strict import STRICT
from tshsr.errors import InputError
from tshsr.metrics.recall import BLOCK, cut


@dataclass(frozen=True)
class RankingMetrics:
    """One direction of retrieval, where a query has R relevant items; in percent, except `mrr`.

    Attributes:
        r1, r5, r10: Queries with a relevant item among the first K.
        mrr: Mean reciprocal rank in 0..1: mean of 1 / position of the first relevant item.
        map_at_r: Mean over queries of 1/R sum_{k <= R} precision@k [the k-th item is relevant] (mAP@R).
        r_precision: Mean over queries of the share of relevant items among the first R.
        true_r1, true_r5, true_r10: Mean over queries of the share of its R relevant items among the first K (recall).
        all_r5, all_r10: Queries with all relevant items among the first K.
    """

    __pydantic_config__ = STRICT

    r1: float
    r5: float
    r10: float
    mrr: float
    map_at_r: float
    r_precision: float
    true_r1: float
    true_r5: float
    true_r10: float
    all_r5: float
    all_r10: float


@dataclass(frozen=True)
class Rankings:
    """Both directions; the query is the image in `image_to_text`, the caption in `text_to_image`."""

    __pydantic_config__ = STRICT

    image_to_text: RankingMetrics
    text_to_image: RankingMetrics


@dataclass(frozen=True)
class Places:
    """Positions of the relevant items of each query.

    Attributes:
        place: int64, from 1, grouped by query, ascending within a query.
        relevant: int64, number of relevant items per query, at least one.
    """

    place: np.ndarray
    relevant: np.ndarray


def rankings(scores: np.ndarray, image_of_caption: np.ndarray, *, folds: int = 1) -> Rankings:
    """Metrics of the ranked captions of each image, and of the ranked image of each caption.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.
        folds: Number of folds of consecutive images; the mean over folds is returned.

    Raises:
        InputError: Where shapes do not fit, a score is not finite, an image has no caption, or folds are of
            unequal size.
    """
    several = []
    for columns, part, owner in cut(scores, image_of_caption, folds):
        pairs = (owner, np.arange(len(columns)))
        several.append(Rankings(ranked(part, *pairs), ranked(part.T, *pairs[::-1])))
    return mean_rankings(several)


def ranked(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> RankingMetrics:
    """The metrics of one direction.

    Args:
        scores: queries x answers, finite; queries without a relevant item are not counted.
        queries: The query of each relevant pair.
        answers: The relevant item of each pair; no pair is repeated.
    """
    return ranking_metrics(relevant_places(scores, queries, answers))


def relevant_places(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> Places:
    """Positions of the relevant items; arguments as of `pair_places`."""
    return sorted_places(pair_places(scores, queries, answers), queries)


def sorted_places(place: np.ndarray, queries: np.ndarray) -> Places:
    """Positions of relevant pairs in any order, sorted by query and position."""
    _, relevant = np.unique(queries, return_counts=True)
    return Places(place[np.lexsort((place, queries))], relevant)


def pair_places(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The position of each relevant item in the ranking of its query.

        place_k = k + #{ irrelevant a : s_qa >= s_qk },   k = 1.. the relevant items of q, best first

    Args:
        scores: queries x answers, finite; may be memory-mapped.
        queries: The query of each relevant pair.
        answers: The relevant item of each pair; -1: not scored, so never found.

    Returns:
        int64, one per pair; relevant items with equal scores are ordered arbitrarily.
    """
    positive = np.where(answers < 0, -np.inf, scores[queries, answers])
    order = np.lexsort((-positive, queries))
    positive, query = positive[order], queries[order]
    distinct, starts, relevant = np.unique(query, return_index=True, return_counts=True)
    place, rows = np.empty(len(positive), dtype=np.int64), max(1, BLOCK // scores.shape[1])
    for first in range(0, len(distinct), rows):
        several = distinct[first : first + rows]
        contiguous = several[-1] - several[0] + 1 == len(several)  # a view is faster than indexed rows
        block = np.sort(scores[several[0] : several[-1] + 1] if contiguous else scores[several], axis=1)
        for row, start, count in zip(block, starts[first:], relevant[first:], strict=False):
            positives = positive[start : start + count]
            as_good = len(row) - np.searchsorted(row, positives, "left")  # includes relevant ones
            relevant_as_good = count - np.searchsorted(positives[::-1], positives, "left")
            place[start : start + count] = as_good - relevant_as_good + np.arange(1, count + 1)
    place[np.isneginf(positive)] = np.iinfo(np.int64).max
    found = np.empty_like(place)
    found[order] = place
    return found


def ranking_metrics(places: Places) -> RankingMetrics:
    """The metrics, each a mean over queries.

    Raises:
        InputError: Where there is no query.
    """
    if not len(places.relevant):
        raise InputError("expected at least one query with a relevant item; got none.")
    figures = query_figures(places).items()
    means = {name: (1.0 if name == "mrr" else 100.0) * fsum(values) / len(values) for name, values in figures}
    return RankingMetrics(**means)


def query_figures(places: Places) -> dict[str, np.ndarray]:
    """The value of each query, by the names of `RankingMetrics`: float64, one per query, in 0..1."""
    relevant, ends = places.relevant, np.cumsum(places.relevant)
    starts = ends - relevant
    first, last = places.place[starts], places.place[ends - 1]
    number = np.arange(len(places.place)) - np.repeat(starts, relevant) + 1
    inside = places.place <= np.repeat(relevant, relevant)

    def share(found: np.ndarray) -> np.ndarray:
        shares: np.ndarray = np.add.reduceat(found.astype(np.float64), starts) / relevant
        return shares

    return {
        **{f"r{k}": (first <= k).astype(np.float64) for k in (1, 5, 10)},
        "mrr": 1 / first,
        "map_at_r": share(inside * number / places.place),
        "r_precision": share(inside),
        **{f"true_r{k}": share(places.place <= k) for k in (1, 5, 10)},
        **{f"all_r{k}": (last <= k).astype(np.float64) for k in (5, 10)},
    }


def mean_rankings(folds: Sequence[Rankings]) -> Rankings:
    """The mean over folds of every metric."""
    sides = ([fold.image_to_text for fold in folds], [fold.text_to_image for fold in folds])
    return Rankings(*(RankingMetrics(*map(fmean, zip(*map(astuple, side), strict=True))) for side in sides))
