"""The figures of a run that are compared, and what the queries of each image add to them (docs/metrics.md).

Axes: images | captions | means (figures that are a mean over queries).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tshsr.metrics.multi_positive import query_figures, sorted_places
from tshsr.metrics.ranks import QueryRanks

CUTOFFS = (1, 5, 10)
IMAGE_TO_TEXT, TEXT_TO_IMAGE = "image to text", "text to image"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: As reports call it, with its direction: `image_to_text_r1`.
        title: As people call it, without its direction.
        direction: Which side is the query; empty of rSum.
        lowest: No value is below it.
        highest: None is above it.
        decimals: As many are shown.
        higher_is_better: False of ranks.
    """

    name: str
    title: str
    direction: str
    lowest: float = 0.0
    highest: float = 100.0
    decimals: int = 1
    higher_is_better: bool = True

    @property
    def by_captions(self) -> bool:
        """Whether its queries are captions; else they are images."""
        return self.direction == TEXT_TO_IMAGE

    @property
    def scale(self) -> float:
        """What a mean over queries is times: shares are in percent."""
        return 100.0 if self.highest == 100 else 1.0

    @property
    def full_title(self) -> str:
        """With its direction, and what a reader must not take for the reverse."""
        return f"{self.direction} {self.title}{' (lower is better)' * (not self.higher_is_better)}".strip()


def both(name: str, title: str, **more: Any) -> tuple[Figure, Figure]:
    """A figure in both directions."""
    return (
        Figure(f"image_to_text_{name}", title, IMAGE_TO_TEXT, **more),
        Figure(f"text_to_image_{name}", title, TEXT_TO_IMAGE, **more),
    )


OF_RANKS: dict[str, Any] = {"lowest": 1.0, "highest": math.inf, "higher_is_better": False}
RECALLS = tuple(each for side in zip(*(both(f"r{k}", f"R@{k}") for k in CUTOFFS), strict=True) for each in side)
RSUM = Figure("rsum", "rSum", "", highest=600.0)
MEDIAN_RANKS = both("medr", "median rank", **OF_RANKS)
MEAN_RANKS = both("meanr", "mean rank", **OF_RANKS)
RECIPROCAL_RANKS = both("mrr", "MRR", highest=1.0, decimals=3)
SEVERAL = {
    "map_at_r": "mAP@R",
    "r_precision": "R-Precision",
    **{f"true_r{k}": f"true recall@{k}" for k in CUTOFFS},
    **{f"all_r{k}": f"all found@{k}" for k in CUTOFFS[1:]},
}
"""Figures of several right answers, by their names in `RankingMetrics`; a caption has one, and these would be R@K."""
SEVERAL_RIGHT = tuple(Figure(f"image_to_text_{name}", title, IMAGE_TO_TEXT) for name, title in SEVERAL.items())
OTHERS = sorted((*MEDIAN_RANKS, *MEAN_RANKS, *RECIPROCAL_RANKS, *SEVERAL_RIGHT), key=lambda figure: figure.by_captions)
FIGURES = (*RECALLS, RSUM, *OTHERS)
"""All that are compared, in the order in which they are shown."""


def means_of(runs: Sequence[QueryRanks]) -> tuple[Figure, ...]:
    """The means over queries that can be told for all of these runs; older reports keep no places of captions."""
    several = SEVERAL_RIGHT if all(run.caption_places is not None for run in runs) else ()
    return (*RECALLS, *MEAN_RANKS, *RECIPROCAL_RANKS, *several)


def image_values(ranks: QueryRanks) -> np.ndarray:
    """What the queries of each image add up to, by the means of this run: images x means, shares in 0..1."""
    owner, images = ranks.image_of_caption, len(ranks.image_to_text)

    def added(of_captions: np.ndarray) -> np.ndarray:
        return np.bincount(owner, weights=of_captions, minlength=images)

    columns = [
        *(ranks.image_to_text <= k for k in CUTOFFS),
        *(added(ranks.text_to_image <= k) for k in CUTOFFS),
        *(ranks.image_to_text, added(ranks.text_to_image)),
        *(1 / ranks.image_to_text, added(1 / ranks.text_to_image)),
    ]
    if ranks.caption_places is not None:
        of_images = query_figures(sorted_places(ranks.caption_places, owner))
        columns += [of_images[name] for name in SEVERAL]
    return np.stack(columns, axis=1).astype(np.float64)
