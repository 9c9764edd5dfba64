"""Scoring in 16 bits, with a guard that says what it costs in accuracy and whether it is faster at all.

Axes: images | captions.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.config import STRICT
from tshsr.metrics import score_metrics
from tshsr.models import ItemEncoding, Matcher, Scores

LOG = logging.getLogger(__name__)
REPEATS = 3


@dataclass(frozen=True)
class Guard:
    """What a lower precision did to a sample, measured before it was used.

    Attributes:
        dtype: The precision, such as bfloat16.
        used: Whether it was used: not where it was no faster.
        max_difference: Largest change of a fused score.
        rank_agreement: Queries of both directions whose best answer stayed the same, in percent.
        recall_change: Largest change of a recall on the sample, in points.
        speedup: Pairs a second against float32.
    """

    __pydantic_config__ = STRICT

    dtype: str
    used: bool
    max_difference: float
    rank_agreement: float
    recall_change: float
    speedup: float


def lowered(matcher: Matcher, dtype: torch.dtype | None) -> Matcher:
    """The network in another precision: a copy, or itself where that is its own."""
    if dtype in (None, next(matcher.parameters()).dtype):
        return matcher
    return copy.deepcopy(matcher).to(dtype)


@torch.inference_mode()
def measure(
    matcher: Matcher,
    images: ItemEncoding,
    captions: ItemEncoding,
    image_of_caption: np.ndarray,
    dtype: torch.dtype,
) -> Guard:
    """Score a sample in both precisions.

    Args:
        matcher: The network.
        images: A sample of images, each with a caption in the sample.
        captions: Their captions.
        image_of_caption: For each caption of the sample the row of its image.
        dtype: The lower precision.
    """
    low, left, right = lowered(matcher, dtype), images.at(dtype), captions.at(dtype)
    exact, plain_seconds = timed(lambda: matcher.score_all(images, captions))
    rough, seconds = timed(lambda: low.score_all(left, right))
    a, b = (scores["fused"].float().cpu().numpy() for scores in (exact, rough))
    same = np.concatenate([a.argmax(axis=axis) == b.argmax(axis=axis) for axis in (0, 1)])
    one, other = (score_metrics(scores, image_of_caption) for scores in (a, b))
    recalls = [
        [side.r1, side.r5, side.r10]
        for metrics in (one, other)
        for side in (metrics.image_to_text, metrics.text_to_image)
    ]
    change = float(np.abs(np.subtract(recalls[:2], recalls[2:])).max())
    guard = Guard(
        dtype=str(dtype).removeprefix("torch."),
        used=seconds < plain_seconds,
        max_difference=float(np.abs(a - b).max()),
        rank_agreement=100.0 * float(same.mean()),
        recall_change=change,
        speedup=plain_seconds / seconds,
    )
    if not guard.used:
        LOG.warning("%s is not faster here (%.2f times float32): scoring in float32", guard.dtype, guard.speedup)
    return guard


def timed(score: Callable[[], Scores]) -> tuple[Scores, float]:
    """The scores, and the least time that they took."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        scores = score()
        scores["fused"].sum().item()  # waits for a GPU
        best = min(best, time.perf_counter() - start)
    return scores, best
