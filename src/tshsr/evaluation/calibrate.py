"""Fit probabilities on the searches of one split, and measure them on those of another (docs/metrics.md).

Axes: captions (queries) | candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.dataset import Split
from tshsr.errors import InputError
from tshsr.evaluation.run import Scorer
from tshsr.metrics.calibration import CalibrationFigures, calibration_figures
from tshsr.scoring.calibration import Calibration, Link, fit_link
from tshsr.scoring.candidate_lists import CandidateLists, candidate_lists
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions

SHOWN = 10
"""Results that a search shows."""
SHARES = (0.1, 0.2, 0.5, 1.0)
"""Parts of a collection on which probabilities are measured."""
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Values of --min-probability that are measured."""


@dataclass(frozen=True)
class Refusals:
    """Queries without a result at each minimum probability.

    Attributes:
        queries: Number of queries.
        highest: Mean over queries of the highest probability.
        nothing: By minimum probability, the share of queries with no result, 0..1.
        right: By minimum probability, the share of queries whose own picture is among the results; None for captions
            of other collections, which have none.
    """

    queries: int
    highest: float
    nothing: Mapping[float, float]
    right: Mapping[float, float] | None = None


@dataclass(frozen=True)
class CalibrationReport:
    """Measurements of a calibration on one split.

    Attributes:
        before: By population of results (first, shown, candidates): of the scores themselves, limited to 0..1.
        after: The same of the probabilities.
        sizes: As of `measure_sizes`.
        refusals: By name of the queries.
    """

    before: Mapping[str, CalibrationFigures]
    after: Mapping[str, CalibrationFigures]
    sizes: Mapping[int, tuple[float, float]]
    refusals: Mapping[str, Refusals]


def check_pictures(*splits: Split) -> None:
    """Refuse splits on which no calibration can be fitted or measured.

    Raises:
        InputError: For a split of fewer than two pictures.
    """
    for split in splits:
        if len(split.regions) < 2:
            raise InputError(
                f"{split.data}, split {split.name} has one picture; a calibration needs wrong results, too."
            )


def search_split(
    retriever: Scorer, split: Split, candidates: int, options: ScoringOptions = DEFAULT_OPTIONS
) -> CandidateLists:
    """Search the pictures of a split with its own captions."""
    return candidate_lists(retriever.matcher, retriever.tokenizer, split, split.captions, candidates, options)


def fit_calibration(lists: CandidateLists, split: Split, weights: str, *, probabilities: bool) -> Calibration:
    """Fit the probability of a match on all results of all searches.

    Args:
        lists: Results of `search_split`.
        weights: Digest of the network's weights.
        probabilities: Whether the scores are probabilities (`Matcher.has_probabilities`), for beta calibration;
            others, such as cosines, have Platt's method, even where those of the fit lie in 0..1.

    Raises:
        InputError: Where the split has fewer than two pictures, no caption finds its picture, or every result matches.
    """
    if lists.pictures < 2:
        raise InputError(f"{split.data}, split {split.name} has one picture; a calibration needs wrong results, too.")
    link: Link = "beta" if probabilities else "platt"
    low, high, intercept = fit_link(lists.scores, lists.matches(split.image_of_caption), link)
    return Calibration(
        link=link,
        low=low,
        high=high,
        intercept=intercept,
        pictures=lists.pictures,
        candidates=lists.scores.shape[1],
        data=split.data,
        split=split.name,
        weights=weights,
    )


def measure_calibration(
    calibration: Calibration,
    retriever: Scorer,
    split: Split,
    others: Mapping[str, Sequence[str]],
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> CalibrationReport:
    """Measure the first result, the results shown, and all candidates of every search; and queries without a result.

    Args:
        split: Pictures and captions that fitted neither the network nor the calibration.
        others: Captions of other collections, by name.

    Raises:
        InputError: Where the split has fewer than two pictures.
    """
    check_pictures(split)
    owner, count = split.image_of_caption, calibration.candidates
    lists = search_split(retriever, split, count, options)
    populations = {"first": lists.first(1), "shown": lists.first(SHOWN), "candidates": lists}
    before, after = {}, {}
    for name, part in populations.items():
        matches = part.matches(owner)
        before[name] = calibration_figures(part.scores.clip(0, 1), matches)
        after[name] = calibration_figures(probabilities_of(calibration, part), matches)
    refusals = {
        f"captions of {split.name}": measure_refusals(calibration, lists, owner),
        "the same, their picture removed": measure_refusals(calibration, without_own(lists, owner)),
    }
    for name, captions in others.items():
        found = candidate_lists(retriever.matcher, retriever.tokenizer, split, captions, count, options)
        refusals[name] = measure_refusals(calibration, found)
    return CalibrationReport(before, after, measure_sizes(calibration, lists, owner), refusals)


def probabilities_of(calibration: Calibration, lists: CandidateLists) -> np.ndarray:
    """The probability of each result, in a collection of this size."""
    return calibration.probability(torch.from_numpy(lists.scores), pictures=lists.pictures).numpy()


def measure_refusals(
    calibration: Calibration, lists: CandidateLists, image_of_caption: np.ndarray | None = None
) -> Refusals:
    """How often a search says that nothing matches.

    Args:
        image_of_caption: Picture of each query; None for captions of other collections.
    """
    probabilities = probabilities_of(calibration, lists)
    best = probabilities.max(axis=1)
    right = None
    if image_of_caption is not None:
        own = np.where(lists.matches(image_of_caption), probabilities, -1.0).max(axis=1)
        right = {least: float((own >= least).mean()) for least in THRESHOLDS}
    nothing = {least: float((best < least).mean()) for least in THRESHOLDS}
    return Refusals(len(best), float(best.mean()), nothing, right)


def measure_sizes(
    calibration: Calibration, lists: CandidateLists, image_of_caption: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Calibration error of shown results in random parts of the collection, which have fewer wrong pictures.

    Only captions of pictures of the part are queries. Their results are those of the full lists that are in the part.

    Returns:
        By number of pictures, the error with the prior of the fit, and with that of the part.
    """
    order, found = np.random.default_rng(0).permutation(lists.pictures), {}
    for share in SHARES:
        size = max(2, round(lists.pictures * share))
        inside = np.isin(np.arange(lists.pictures), order[:size])
        kept = inside[lists.images] & inside[image_of_caption][:, None]
        kept &= kept.cumsum(axis=1) <= SHOWN
        if kept.any():
            scores, matches = torch.from_numpy(lists.scores[kept]), lists.matches(image_of_caption)[kept]
            errors = [
                calibration_figures(calibration.probability(scores, pictures=pictures).numpy(), matches).error
                for pictures in (None, size)
            ]
            found[size] = errors[0], errors[1]
    return found


def without_own(lists: CandidateLists, image_of_caption: np.ndarray) -> CandidateLists:
    """The searches after the picture of each query has left the collection: the best wrong results.

    Lists in which it is no candidate lose their last result, so that all have the same length.
    """
    right = lists.matches(image_of_caption)
    right[~right.any(axis=1), -1] = True
    shape = (len(lists.scores), lists.scores.shape[1] - 1)
    return CandidateLists(lists.images[~right].reshape(shape), lists.scores[~right].reshape(shape), lists.pictures - 1)


def other_captions(lines: Sequence[str]) -> list[str]:
    """Captions of a file of another collection: its lines with a word, each once."""
    return list(dict.fromkeys(line.strip() for line in lines if any(letter.isalnum() for letter in line)))
