"""The choice of the best candidates by their scores, their first stage and their probabilities.

Axes: candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.errors import InputError, SettingsError
from tshsr.explain.word_boxes import WordBoxes


@dataclass(frozen=True)
class Ranked:
    """A candidate in its place.

    Attributes:
        index: Its place in the list of candidates, from 0.
        id: Its id, its file, or its place where it has neither; for a picture query the sentence.
        score: Fused score of the network with the query.
        probability: That query and candidate belong together, 0..1; None where the model has no calibration.
        relevance: The number that orders the results: the score, or with `weight` its mean with the first stage.
        first_stage: The score that was given with it.
        words: Content words with their boxes in the picture.
    """

    index: int
    id: str
    score: float
    probability: float | None
    relevance: float
    first_stage: float | None = None
    words: tuple[WordBoxes, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which candidates are returned, in which order.

    Attributes:
        k: Number of results.
        first_stage: Score of each candidate in the search that found it.
        weight: Of the first stage in the order, 0..1.
        min_probability: Candidates below it are left out.
    """

    k: int
    first_stage: tuple[float, ...] | None = None
    weight: float = 0.0
    min_probability: float = 0.0

    def check(self, model: str, *, calibrated: bool) -> None:
        """Refuse options that can't be used.

        Raises:
            SettingsError: Where one can't; the message names it.
        """
        if self.k < 1:
            raise SettingsError(f"k is {self.k}; expected at least 1 result.")
        if not 0 <= self.weight <= 1:
            raise SettingsError(f"weight is {self.weight}; expected a number from 0 (the network alone) to 1.")
        if self.weight and self.first_stage is None:
            raise SettingsError(f"weight is {self.weight}, and there are no scores of a first stage; give first_stage.")
        if not 0 <= self.min_probability <= 1:
            raise SettingsError(f"the minimum probability is {self.min_probability}; expected a number in 0..1.")
        if self.min_probability and not calibrated:
            raise SettingsError(
                f"{model} has no calibration, so that its results have scores and no probabilities; make one with "
                "tshsr calibrate RUN --data DIR."
            )

    def best(self, scores: Float[Tensor, " candidates"], probabilities: Sequence[float] | None = None) -> list[Ranked]:
        """The k best candidates, without ids and words.

        Args:
            probabilities: Those of the scores; None where the model has no calibration.

        Raises:
            InputError: Where the first stage has another number of scores, or one is not finite.
        """
        relevance = self.relevance(scores)
        order = torch.sort(relevance, descending=True, stable=True).indices.tolist()
        kept = [row for row in order if probabilities is None or probabilities[row] >= self.min_probability]
        return [
            Ranked(
                index=row,
                id=str(row),
                score=float(scores[row]),
                probability=None if probabilities is None else probabilities[row],
                relevance=float(relevance[row]),
                first_stage=None if self.first_stage is None else self.first_stage[row],
            )
            for row in kept[: self.k]
        ]

    def relevance(self, scores: Float[Tensor, " candidates"]) -> Float[Tensor, " candidates"]:
        """(1 - w) z(score) + w z(first stage); the score where w is 0.

        Raises:
            InputError: Where the first stage has another number of scores, or one is not finite.
        """
        if self.first_stage is None:
            return scores
        given = torch.tensor(self.first_stage, dtype=torch.float64)
        if len(given) != len(scores) or not bool(given.isfinite().all()):
            raise InputError(
                f"first_stage has {len(given)} scores for {len(scores)} candidates; expected one finite number each."
            )
        if not self.weight:
            return scores
        return (1 - self.weight) * standardised(scores.double()) + self.weight * standardised(given)


def standardised(scores: Float[Tensor, " candidates"]) -> Float[Tensor, " candidates"]:
    """Z = (s - mean) / standard deviation over the candidates; zeros where all are equal."""
    centred = scores - scores.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if deviation > 0 else torch.zeros_like(centred)
