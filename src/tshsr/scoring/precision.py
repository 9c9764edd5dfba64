"""Scoring in bfloat16, used only if a sample shows that it is faster and accurate.

Axes: images | captions.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch

from tshsr.metrics.recall import score_metrics
from tshsr.metrics.report import PrecisionCheck
from tshsr.models.base import Matcher, Scores

LOG = logging.getLogger(__name__)
PRODUCT_SIZE, PRODUCT_REPEATS = 256, 5
"""Size of the matrices in `product_speed`, and number of products: a few milliseconds, or 0.2 s on a processor without
bfloat16 instructions, where products take a hundred times as long as in float32."""
MIN_PRODUCT_SPEED = 0.5
"""Minimum speed of matrix products relative to float32 at which a precision may make scoring faster."""
REPEATS = 2
"""Times a sample is scored in each precision, alternating; the best time counts, so the first is a warm-up."""


def cast_matcher(matcher: Matcher, dtype: torch.dtype | None) -> Matcher:
    """A copy of the network in another precision; the network itself if `dtype` is its own or None.

    Scalar parameters (such as the weight of v·t) keep their precision: they cost nothing, and rounding one of them
    would shift every score.
    """
    if dtype in (None, next(matcher.parameters()).dtype):
        return matcher
    low = copy.deepcopy(matcher).to(dtype)
    for rounded, exact in zip(low.parameters(), matcher.parameters(), strict=True):
        if not exact.dim():
            rounded.data = exact.data.clone()
    return low


def usable_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype | None:
    """The precision; None, with a warning in the log, where its matrix products are too slow on the device."""
    reason = None if dtype is None else skip_reason(dtype, device)
    if reason is not None:
        LOG.warning(reason)
        return None
    return dtype


def skip_reason(dtype: torch.dtype, device: torch.device) -> str | None:
    """Reason why a precision is not used: slow matrix products on the device; None for a usable one."""
    speed = product_speed(dtype, device)
    if speed >= MIN_PRODUCT_SPEED:
        return None
    return (
        f"{str(dtype).removeprefix('torch.')} is skipped: its matrix products take {1 / speed:.0f} times as long as "
        f"those of float32 on this {device.type}, which has no instructions for it; use float32."
    )


@cache
@torch.inference_mode()
def product_speed(dtype: torch.dtype, device: torch.device) -> float:
    """Speed of matrix products relative to float32, measured: the best of PRODUCT_REPEATS alternating products."""
    size = (PRODUCT_SIZE, PRODUCT_SIZE)
    matrices = {kind: torch.ones(size, dtype=kind, device=device) for kind in dict.fromkeys((torch.float32, dtype))}
    seconds = dict.fromkeys(matrices, float("inf"))
    for _ in range(PRODUCT_REPEATS):
        for kind, matrix in matrices.items():
            start = time.perf_counter()
            (matrix @ matrix)[0, 0].item()  # waits for a GPU
            seconds[kind] = min(seconds[kind], time.perf_counter() - start)
    return seconds[torch.float32] / seconds[dtype]


@torch.inference_mode()
def compare_precisions(
    exact: Callable[[], Scores], rough: Callable[[], Scores], image_of_caption: np.ndarray, dtype: torch.dtype
) -> PrecisionCheck:
    """Score a sample in both precisions and compare.

    Args:
        exact: Scores the sample in the network's own precision.
        rough: Scores the sample in the lower precision.
        image_of_caption: For each caption of the sample the row of its image; every image has a caption.
    """
    (scores, plain_seconds), (low, seconds) = alternate(exact, rough)
    a, b = (each["fused"].float().cpu().numpy() for each in (scores, low))
    same = np.concatenate([a.argmax(axis=axis) == b.argmax(axis=axis) for axis in (0, 1)])
    one, other = (score_metrics(each, image_of_caption).recalls for each in (a, b))
    moved, speedup = np.abs(np.subtract(one, other)), plain_seconds / seconds
    return PrecisionCheck(
        dtype=str(dtype).removeprefix("torch."),
        used=speedup > 1 and bool((moved <= allowed_change(*a.shape)).all()),
        images=a.shape[0],
        captions=a.shape[1],
        max_difference=float(np.abs(a - b).max()),
        rank_agreement=100.0 * float(same.mean()),
        recall_change=float(moved.max()),
        speedup=speedup,
    )


def allowed_change(images: int, captions: int) -> np.ndarray:
    """Largest change of each recall of a sample, in points: one query, as ties are broken by chance."""
    return np.repeat([100.0 / images, 100.0 / captions], 3) + 1e-9


def alternate(*scorers: Callable[[], Scores]) -> list[tuple[Scores, float]]:
    """The scores of each scorer, and its shortest time in seconds."""
    found: list[tuple[Scores, float]] = [({}, float("inf"))] * len(scorers)
    for _ in range(REPEATS):
        for number, score in enumerate(scorers):
            start = time.perf_counter()
            scores = score()
            scores["fused"].sum().item()  # waits for a GPU
            found[number] = scores, min(found[number][1], time.perf_counter() - start)
    return found
