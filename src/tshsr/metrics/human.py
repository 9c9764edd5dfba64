"""Correlation of scores with human ratings: Kendall's tau-c and Spearman's rho, with bootstrap intervals over images.

Axes: resamples | judgements (one rating of one image with one caption).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.config.strict import STRICT
from tshsr.errors import DataError, InputError, parse_json
from tshsr.metrics.bootstrap import bootstrap_counts

CHUNK = 1 << 21
"""Judgement weights per block: bounds the temporary memory."""
FEW = 64
"""Number of distinct ratings up to which `ordered_by_level` is the faster way to count pairs."""


@dataclass(frozen=True)
class Groups:
    """Judgements sorted by score, with the ranges of equal scores.

    Attributes:
        order: Permutation that sorts the judgements by score.
        start: For each sorted judgement, the start of the range with its score.
        end: The end of that range.
        level: For each sorted judgement, the index of its rating among the distinct ratings.
    """

    order: np.ndarray
    start: np.ndarray
    end: np.ndarray
    level: np.ndarray
    levels: int

    @classmethod
    def of(cls, scores: np.ndarray, ratings: np.ndarray) -> Groups:
        """Sort judgements."""
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        values, level = np.unique(ratings, return_inverse=True)
        start, end = np.searchsorted(ranked, ranked, "left"), np.searchsorted(ranked, ranked, "right")
        return cls(order, start, end, level[order], len(values))


def correlations(weights: np.ndarray, groups: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Tau-c and rho of weighted judgements; NaN where all drawn scores or ratings are equal.

        tau_c = 2 m (C - D) / (n^2 (m - 1)),   m the smaller number of distinct values of the two
        rho   = the correlation of average ranks

    C counts concordant pairs of judgements, D discordant ones.

    Args:
        weights: Multiplicities, resamples x judgements, in the order of `groups`.

    Returns:
        Tau-c and rho, one value each per resample.
    """
    counted = np.zeros((len(weights), groups.levels))
    np.add.at(counted.T, groups.level, weights.T)
    total = weights.sum(axis=1)
    ordered = ordered_by_level(weights, groups) if groups.levels <= FEW else ordered_by_pair(weights, groups)
    cumulative = before_each(weights)
    at_score = cumulative[:, groups.end] - cumulative[:, groups.start]
    firsts = groups.start == np.arange(len(groups.start))
    kinds = np.minimum((at_score[:, firsts] > 0).sum(axis=1), (counted > 0).sum(axis=1))
    below = before_each(counted)[:, :-1]
    rank_of_score = cumulative[:, groups.start] + (at_score + 1) / 2
    rank_of_rating = (below + (counted + 1) / 2)[:, groups.level]
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = 2 * kinds * ordered / (total**2 * (kinds - 1.0))
        centre = (total[:, None] + 1) / 2
        first, second = rank_of_score - centre, rank_of_rating - centre
        rho = (weights * first * second).sum(axis=1) / np.sqrt(
            (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
        )
    return np.where(kinds > 1, tau, np.nan), rho


def ordered_by_level(weights: np.ndarray, groups: Groups) -> np.ndarray:
    """C - D of each resample, by one pass per distinct rating: O(ratings x judgements)."""
    found = np.zeros(len(weights))
    for level in range(groups.levels):
        (here,) = np.nonzero(groups.level == level)
        sign = np.sign(level - groups.level)
        before = before_each(weights * sign)[:, groups.start[here]]  # lower scores: lower minus higher ratings
        found += (weights[:, here] * before).sum(axis=1)
    return found


def ordered_by_pair(weights: np.ndarray, groups: Groups) -> np.ndarray:
    """C - D of each resample by matrix products, independent of the number of distinct ratings.

    C - D = 1/2 sum_ij w_i w_j sign(score_i - score_j) sign(rating_i - rating_j),   w the multiplicities
    """
    step, found = max(1, CHUNK // weights.shape[1]), np.zeros(len(weights))
    for first in range(0, weights.shape[1], step):
        block = slice(first, first + step)
        signs = np.sign(groups.start[block, None] - groups.start) * np.sign(groups.level[block, None] - groups.level)
        found += (weights[:, block] * (weights @ signs.T.astype(np.float64))).sum(axis=1)
    return found / 2


def before_each(values: np.ndarray) -> np.ndarray:
    """Exclusive cumulative sums along the last axis, with the total at the end."""
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


COLUMNS = ("image", "caption", "rating")
LEAST_IMAGES = 20
"""Minimum number of rated images for an interval."""
MOST_DEGENERATE = 0.05
"""Largest share of resamples without a correlation for an interval; above it the others are a biased sample."""


@dataclass(frozen=True)
class Correlation:
    """A correlation in -1..1, with its 95 % interval over images; None below `LEAST_IMAGES`."""

    __pydantic_config__ = STRICT

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of a score with human ratings.

    Attributes:
        images: Number of rated images; these are resampled.
        tau_c: Kendall's tau-c (Stuart 1953).
        spearman: Spearman's rho, of average ranks.
    """

    __pydantic_config__ = STRICT

    judgements: int
    images: int
    tau_c: Correlation
    spearman: Correlation


@dataclass(frozen=True)
class Judgements:
    """Human ratings.

    Attributes:
        rows: The image of each rating, as a row of the scores.
        columns: Its caption, as a column.
        ratings: Floats; higher is better.
    """

    rows: np.ndarray
    columns: np.ndarray
    ratings: np.ndarray


def read_judgements(path: Path, images: Mapping[str, int], captions: Mapping[str, int]) -> Judgements:
    """Read ratings: CSV (or tab-separated) with the columns image, caption, rating, or JSON lines with these keys.

    Args:
        path: The file; a header line with the names of the columns is optional.
        images: Row by image id.
        captions: Column by caption id.

    Raises:
        DataError: Names the first unreadable line, or the first with an unknown image or caption.
    """
    found: list[tuple[int, int, float]] = []
    for number, (image, caption, rating) in entries(path):
        if image not in images or caption not in captions:
            if not found and image not in images and caption not in captions and is_header(path, rating):
                raise DataError(
                    f"{path}, line {number}: the header names {image!r}, {caption!r} and {rating!r}; expected the "
                    f"names {', '.join(COLUMNS)}, or no header."
                )
            what, name, ids = ("image", image, images) if image not in images else ("caption", caption, captions)
            raise DataError(
                f"{path}, line {number}: {what} {name!r} is not among the {len(ids)} that are scored; expected ids "
                f"such as {next(iter(ids), 'none')!r}."
            )
        try:
            found.append((images[image], captions[caption], float(rating)))
        except ValueError:
            raise DataError(f"{path}, line {number}: the rating is {rating!r}; expected a number.") from None
    if not found:
        raise DataError(f"{path} holds no ratings; expected lines of image, caption and rating.")
    rows, columns, ratings = zip(*found, strict=True)
    if not np.isfinite(ratings).all():
        raise DataError(f"{path}: a rating is not a finite number; leave such lines out.")
    return Judgements(np.array(rows), np.array(columns), np.array(ratings))


def is_header(path: Path, rating: str) -> bool:
    """Whether a first line with unknown image and caption is a header."""
    try:
        float(rating)
    except ValueError:
        return path.suffix != ".jsonl"
    return False


def entries(path: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """Line numbers from 1, with image, caption and rating as text.

    Raises:
        DataError: Where the file cannot be read, or a line has other than three columns.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); expected ratings by people.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); convert it first.") from None
    if path.suffix == ".jsonl":
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, from_json(path, number, line)
        return
    order: Sequence[int] = (0, 1, 2)
    delimiter = "\t" if "\t" in next(filter(str.strip, lines), "") else ","
    reader, first = csv.reader(lines, delimiter=delimiter), True
    for words in stripped_rows(path, reader):
        if not any(words):
            continue
        if first and set(COLUMNS) <= set(words):
            order = [words.index(name) for name in COLUMNS]
        elif len(words) < max(3, max(order) + 1) or (len(words) > 3 and order == (0, 1, 2)):
            raise DataError(
                f"{path}, line {reader.line_num} has {len(words)} columns; expected image, caption and rating."
            )
        else:
            yield reader.line_num, (words[order[0]], words[order[1]], words[order[2]])
        first = False


def stripped_rows(path: Path, reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Rows of a table, without spaces around values.

    Raises:
        DataError: Where the rules of CSV are broken, as by a value of more than 131,072 characters.
    """
    try:
        for values in reader:
            yield [value.strip() for value in values]
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}); expected lines of image, caption and rating.") from None


def from_json(path: Path, number: int, line: str) -> tuple[str, str, str]:
    """One judgement of a file of JSON lines.

    Raises:
        DataError: Where the line is no such object.
    """
    try:
        values = parse_json(line)
        image, caption, rating = (str(values[name]) for name in COLUMNS)
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f'{path}, line {number} is no judgement; expected {{"image": ..., "caption": ..., "rating": ...}}.'
        ) from None
    return image, caption, rating


def agreement(
    scores: np.ndarray, judgements: Judgements, *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Agreement:
    """Correlate scores with ratings.

    Args:
        scores: Floats, images x captions; only rated pairs are read.
        resamples: Number of resamples of images with all their judgements.
        confidence: Confidence level of the intervals.

    Raises:
        InputError: Where a rated score is not finite, or all scores or ratings are equal or of one image.
    """
    check_judgements(judgements)
    judged = np.asarray(scores[judgements.rows, judgements.columns], dtype=np.float64)
    (bad,) = np.nonzero(~np.isfinite(judged))
    if len(bad):
        row, column = judgements.rows[bad[0]], judgements.columns[bad[0]]
        raise InputError(
            f"the score of image {row} (row) and caption {column} (column), counted from 0, is {judged[bad[0]]}; every "
            "score must be a finite number. Fix the model that produced it."
        )
    if len(np.unique(judged)) < 2:
        raise InputError("all judged scores are alike, so there is nothing to correlate.")
    groups = Groups.of(judged, judgements.ratings)
    names, image = np.unique(judgements.rows, return_inverse=True)
    image = image[groups.order]
    tau, rho = correlations(np.ones((1, len(judged))), groups)
    drawn = []
    generator = np.random.default_rng(seed)
    for counts in bootstrap_counts(len(names), 1, resamples, generator):
        step = max(1, CHUNK // len(judged))
        drawn += [correlations(counts[at : at + step][:, image], groups) for at in range(0, len(counts), step)]
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    figures = [
        Correlation(float(value[0]), *interval(np.concatenate(several), len(names), tails))
        for value, several in zip((tau, rho), zip(*drawn, strict=True), strict=True)
    ]
    return Agreement(len(judged), len(names), *figures)


def interval(drawn: np.ndarray, images: int, tails: tuple[float, float]) -> tuple[float, float] | tuple[None, None]:
    """Quantiles of the resamples that have a correlation; None where images or such resamples are too few.

    A resample with equal scores or equal ratings has no correlation (NaN).
    """
    if images < LEAST_IMAGES or np.isnan(drawn).mean() > MOST_DEGENERATE:
        return None, None
    low, high = np.nanquantile(drawn, tails)
    return float(low), float(high)


def check_judgements(judgements: Judgements) -> None:
    """Reject ratings without a correlation, before hours of scoring.

    Raises:
        InputError: Where all ratings are equal or of one image.
    """
    if len(np.unique(judgements.ratings)) < 2:
        raise InputError("all judged ratings are alike, so there is nothing to correlate.")
    if len(np.unique(judgements.rows)) < 2:
        raise InputError("all judgements are of one image, and images are resampled for the intervals; rate several.")
