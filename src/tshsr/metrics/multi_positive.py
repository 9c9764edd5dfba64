"""Rankings with several right answers: how many of them are found, and how early; beside R@K, which wants one.

Axes: queries | answers. A right answer's place counts from 1; wrong answers with an equal score go ahead of it
(docs/metrics.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from math import fsum
from statistics import fmean

import numpy as np

from tshsr.config.models import STRICT
from tshsr.errors import InputError
from tshsr.metrics.recall import BLOCK, cut


@dataclass(frozen=True)
class RankingMetrics:
    """One direction of retrieval, where a query has R right answers; in percent, but `mrr`.

    Attributes:
        r1: Queries with a right answer at place 1.
        r5: Queries with a right answer among the first five.
        r10: Queries with a right answer among the first ten.
        mrr: Mean reciprocal rank, in 0..1: mean of 1 / place of the first right answer.
        map_at_r: mean over queries of 1/R sum_{k <= R} precision@k [the k-th answer is right].
        r_precision: Right ones among the first R answers: mean over queries of their share.
        true_r1: Right answers found at place 1, as a share of the query's R: mean over queries.
        true_r5: The same among the first five.
        true_r10: The same among the first ten.
        all_r5: Queries all of whose right answers are among the first five.
        all_r10: The same among the first ten.
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
    """Both directions.

    Attributes:
        image_to_text: The image is the query.
        text_to_image: The caption is the query.
    """

    __pydantic_config__ = STRICT

    image_to_text: RankingMetrics
    text_to_image: RankingMetrics


@dataclass(frozen=True)
class Places:
    """Where the right answers of each query stand.

    Attributes:
        place: int64, from 1: one query's right answers after the other's, each query's from its best to its worst.
        rights: int64, right answers of each query; at least one.
    """

    place: np.ndarray
    rights: np.ndarray


def rankings(scores: np.ndarray, image_of_caption: np.ndarray, *, folds: int = 1) -> Rankings:
    """How an image's captions, and a caption's image, are ranked.

    Args:
        scores: Floats, images x captions; may be memory-mapped.
        image_of_caption: For each caption the row of its image.
        folds: Rank inside each of so many folds of consecutive images, and take the mean over folds.

    Raises:
        InputError: Where shapes do not fit, a score is not finite, an image has no caption, or folds are uneven.
    """
    several = []
    for columns, part, owner in cut(scores, image_of_caption, folds):
        pairs = (owner, np.arange(len(columns)))
        several.append(Rankings(ranked(part, *pairs), ranked(part.T, *pairs[::-1])))
    return mean_rankings(several)


def ranked(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> RankingMetrics:
    """The figures of one direction.

    Args:
        scores: queries x answers, finite; a query without a right answer is not counted.
        queries: The query of each right pair.
        answers: Its right answer; no pair stands there twice.
    """
    return ranking_metrics(right_places(scores, queries, answers))


def right_places(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> Places:
    """Where each query's right answers stand; arguments as in `pair_places`."""
    return sorted_places(pair_places(scores, queries, answers), queries)


def sorted_places(place: np.ndarray, queries: np.ndarray) -> Places:
    """The places of right pairs, in any order, by query and from the best to the worst."""
    _, rights = np.unique(queries, return_counts=True)
    return Places(place[np.lexsort((place, queries))], rights)


def pair_places(scores: np.ndarray, queries: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """The place of each right answer in the ranking of its query.

        place_k = k + #{ wrong a : s_qa >= s_qk },   k = 1.. the right answers of q, best first

    Args:
        scores: queries x answers, finite; may be memory-mapped.
        queries: The query of each right pair.
        answers: Its right answer; -1 for one that is not among the scored: it is never found.

    Returns:
        int64, one a pair; right answers with equal scores take their places as they come.
    """
    own = np.where(answers < 0, -np.inf, scores[queries, answers])
    order = np.lexsort((-own, queries))
    own, asked = own[order], queries[order]
    names, starts, rights = np.unique(asked, return_index=True, return_counts=True)
    place, rows = np.empty(len(own), dtype=np.int64), max(1, BLOCK // scores.shape[1])
    for first in range(0, len(names), rows):
        several = names[first : first + rows]
        whole = several[-1] - several[0] + 1 == len(several)  # then a view, which is read faster than chosen rows
        block = np.sort(scores[several[0] : several[-1] + 1] if whole else scores[several], axis=1)
        for row, start, count in zip(block, starts[first:], rights[first:], strict=False):
            mine = own[start : start + count]
            as_good = len(row) - np.searchsorted(row, mine, "left")  # right ones among them
            right_as_good = count - np.searchsorted(mine[::-1], mine, "left")
            place[start : start + count] = as_good - right_as_good + np.arange(1, count + 1)
    place[np.isneginf(own)] = np.iinfo(np.int64).max
    found = np.empty_like(place)
    found[order] = place
    return found


def ranking_metrics(places: Places) -> RankingMetrics:
    """The figures, each a mean over queries.

    Raises:
        InputError: Where there is no query.
    """
    if not len(places.rights):
        raise InputError("expected at least one query with a right answer; got none.")
    figures = query_figures(places).items()
    means = {name: (1.0 if name == "mrr" else 100.0) * fsum(values) / len(values) for name, values in figures}
    return RankingMetrics(**means)


def query_figures(places: Places) -> dict[str, np.ndarray]:
    """What each query adds to the means, by the names of `RankingMetrics`: float64, one a query, in 0..1."""
    rights, ends = places.rights, np.cumsum(places.rights)
    starts = ends - rights
    first, last = places.place[starts], places.place[ends - 1]
    number = np.arange(len(places.place)) - np.repeat(starts, rights) + 1
    inside = places.place <= np.repeat(rights, rights)

    def share(found: np.ndarray) -> np.ndarray:
        shares: np.ndarray = np.add.reduceat(found.astype(np.float64), starts) / rights
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
    """The mean over folds of every figure."""
    sides = ([fold.image_to_text for fold in folds], [fold.text_to_image for fold in folds])
    return Rankings(*(RankingMetrics(*map(fmean, zip(*map(astuple, side), strict=True))) for side in sides))
