"""Scoring in 16 bits, with a guard that says what it costs in accuracy and whether it is faster at all.

Axes: images | captions.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import numpy as np
import torch

from tshsr.metrics.recall import score_metrics
from tshsr.metrics.report import Guard
from tshsr.models.base import Matcher, Scores

REPEATS = 2
"""How often a sample is scored in each precision, in turns; the best time counts, so the first one may warm up."""


def lowered(matcher: Matcher, dtype: torch.dtype | None) -> Matcher:
    """The network in another precision: a copy, or itself where that is its own.

    Parameters that are one number (the weight of v·t, say) stay as they are: they cost nothing, and rounding one of
    them would shift every score.
    """
    if dtype in (None, next(matcher.parameters()).dtype):
        return matcher
    low = copy.deepcopy(matcher).to(dtype)
    for rounded, exact in zip(low.parameters(), matcher.parameters(), strict=True):
        if not exact.dim():
            rounded.data = exact.data.clone()
    return low


@torch.inference_mode()
def measure(
    exact: Callable[[], Scores], rough: Callable[[], Scores], image_of_caption: np.ndarray, dtype: torch.dtype
) -> Guard:
    """Score a sample in both precisions and compare.

    Args:
        exact: Scores the sample in the network's own precision.
        rough: Scores it in the lower one.
        image_of_caption: For each caption of the sample the row of its image; no image is without a caption.
        dtype: The lower precision.
    """
    (scores, plain_seconds), (low, seconds) = in_turns(exact, rough)
    a, b = (each["fused"].float().cpu().numpy() for each in (scores, low))
    same = np.concatenate([a.argmax(axis=axis) == b.argmax(axis=axis) for axis in (0, 1)])
    one, other = (score_metrics(each, image_of_caption).recalls for each in (a, b))
    moved, speedup = np.abs(np.subtract(one, other)), plain_seconds / seconds
    return Guard(
        dtype=str(dtype).removeprefix("torch."),
        used=speedup > 1 and bool((moved <= allowed(*a.shape)).all()),
        images=a.shape[0],
        captions=a.shape[1],
        max_difference=float(np.abs(a - b).max()),
        rank_agreement=100.0 * float(same.mean()),
        recall_change=float(moved.max()),
        speedup=speedup,
    )


def allowed(images: int, captions: int) -> np.ndarray:
    """How far each recall of a sample may move, in points: by one image, or one caption, which near a tie is chance."""
    return np.repeat([100.0 / images, 100.0 / captions], 3) + 1e-9


def in_turns(*scorers: Callable[[], Scores]) -> list[tuple[Scores, float]]:
    """The scores of each, and the least time that they took."""
    found: list[tuple[Scores, float]] = [({}, float("inf"))] * len(scorers)
    for _ in range(REPEATS):
        for number, score in enumerate(scorers):
            start = time.perf_counter()
            scores = score()
            scores["fused"].sum().item()  # waits for a GPU
            found[number] = scores, min(found[number][1], time.perf_counter() - start)
    return found
