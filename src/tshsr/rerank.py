"""Two-stage scoring: v·t finds candidates, the network reasons about those alone.

Axes: images | captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.batches import pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.tokens import Tokenizer
from tshsr.errors import SettingsError
from tshsr.metrics import ScoreMetrics, score_metrics
from tshsr.models import ItemEncoding, Matcher, join_encodings
from tshsr.scoring import BYTE_BUDGET, CACHE_TILE, ENCODE_BLOCK, Progress, blocks, by_length, ready

CHOICES = (5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 1000)
"""The K that `choose_k` tries."""

TOLERANCE = 0.1
"""Points that no recall may lose for `choose_k`."""


@dataclass(frozen=True)
class TwoStage:
    """Scores of a two-stage search over a whole split.

    Attributes:
        scores: `fused` and `pooled`, float32, images x captions. Where nothing was reasoned about, `fused` holds v·t
            lowered below every reasoned score: candidates come first, the others follow in the order of v·t.
        reasoned: Which pairs were reasoned about.
    """

    scores: dict[str, np.ndarray]
    reasoned: np.ndarray


def candidates(pooled: np.ndarray, k: int) -> np.ndarray:
    """The pairs among the K best of their image or of their caption by v·t, as a mask.

    Raises:
        SettingsError: Where K is below 1.
    """
    if k < 1:
        raise SettingsError(f"{k} candidates were asked for; expected at least 1, or auto.")
    chosen = np.zeros(pooled.shape, dtype=bool)
    for axis in (0, 1):
        few = min(k, pooled.shape[axis])
        best = torch.from_numpy(pooled).topk(few, dim=axis).indices.numpy()
        np.put_along_axis(chosen, best, values=True, axis=axis)
    return chosen


def merge(fused: np.ndarray, pooled: np.ndarray, reasoned: np.ndarray) -> np.ndarray:
    """Reasoned scores where there are any, below them v·t."""
    lowest = fused[reasoned].min()
    return np.where(reasoned, fused, pooled - (pooled.max() - lowest + 1)).astype(np.float32)


@torch.inference_mode()
def score_two_stage(
    matcher: Matcher,
    tokenizer: Tokenizer,
    split: Split,
    *,
    k: int,
    byte_budget: int = BYTE_BUDGET,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> TwoStage:
    """Rank all pairs of a split by v·t, and reason about the K best of every image and of every caption.

    Args:
        matcher: A network with a pooled score.
        tokenizer: The network's tokenizer.
        split: What to score.
        k: Candidates of a query.
        byte_budget: Bound on the temporaries, in bytes.
        device: Where to compute; None: where the network is.
        progress: Told after every block of captions.
    """
    tokens = tokenizer.encode(split.captions)
    order = by_length(tokens)
    with ready(matcher, device) as place:
        read = (split.regions.read(rows).to(place) for rows in blocks(np.arange(len(split.regions)), ENCODE_BLOCK))
        images = join_encodings([matcher.encode_images(batch) for batch in read])
        texts = [
            matcher.encode_captions(pad_sequences([tokens[i] for i in columns]).to(place))
            for columns in blocks(order, ENCODE_BLOCK)
        ]
        pooled = np.empty((len(images), len(tokens)), np.float32)
        pooled[:, order] = (images.pooled @ torch.cat([text.pooled for text in texts]).T).float().cpu().numpy()
        reasoned = candidates(pooled, k)
        fused = np.zeros_like(pooled)
        total, done = int(reasoned.sum()), 0
        for columns, text in zip(blocks(order, ENCODE_BLOCK), texts, strict=True):
            places, rows = reasoned[:, columns].T.nonzero()
            fused[rows, columns[places]] = score_pairs(matcher, images, text, rows, places, byte_budget)
            done += len(rows)
            if progress is not None:
                progress(done, total)
    return TwoStage({"fused": merge(fused, pooled, reasoned), "pooled": pooled}, reasoned)


def score_pairs(
    matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, rows: np.ndarray, columns: np.ndarray, budget: int
) -> np.ndarray:
    """The fused scores of the pairs (rows[i], columns[i]), some at a time."""
    regions, words = images.mask.shape[-1], captions.mask.shape[-1]
    gathered = (regions + words) * images.items.shape[-1] * images.items.element_size()
    cost = matcher.bytes_per_pair(regions, words) + 2 * gathered
    if images.mask.device.type == "cpu":
        budget = min(budget, CACHE_TILE)
    size, found = max(1, budget // cost), []
    for some, others in zip(blocks(rows, size), blocks(columns, size), strict=True):
        left, right = images[torch.from_numpy(some)], captions[torch.from_numpy(others)]
        found.append(matcher.score_pairs(left, right.trimmed())["fused"].float().cpu().numpy())
    return np.concatenate(found) if found else np.empty(0, np.float32)


def ceiling(reasoned: np.ndarray, image_of_caption: np.ndarray) -> tuple[float, float]:
    """Queries with a right answer among their candidates, in percent: the recall that no second stage can exceed.

    Returns:
        Of images (any of their captions), and of captions.
    """
    kept = reasoned[image_of_caption, np.arange(len(image_of_caption))]
    found = np.zeros(len(reasoned), dtype=bool)
    np.logical_or.at(found, image_of_caption, kept)
    return 100.0 * float(found.mean()), 100.0 * float(kept.mean())


def lost(full: ScoreMetrics, short: ScoreMetrics) -> tuple[float, ...]:
    """Points that R@1, R@5 and R@10 of image to text, then of text to image, lose by the short cut."""
    sides = ((full.image_to_text, short.image_to_text), (full.text_to_image, short.text_to_image))
    return tuple(
        a - b for one, other in sides for a, b in ((one.r1, other.r1), (one.r5, other.r5), (one.r10, other.r10))
    )


def choose_k(
    fused: np.ndarray, pooled: np.ndarray, image_of_caption: np.ndarray, choices: Sequence[int] = CHOICES
) -> tuple[int, tuple[float, ...]]:
    """The smallest K that loses no recall more than `TOLERANCE`, where all pairs are known (a dev split).

    Args:
        fused: Scores of all pairs.
        pooled: v·t of all pairs.
        image_of_caption: For each caption the row of its image.
        choices: The K to try, smallest first.

    Returns:
        K and the points lost, as `lost` orders them. K beyond all choices, and nothing lost, where none will do.
    """
    full = score_metrics(fused, image_of_caption)
    for k in choices:
        reasoned = candidates(pooled, k)
        points = lost(full, score_metrics(merge(fused, pooled, reasoned), image_of_caption))
        if max(points) <= TOLERANCE:
            return k, points
    return max(fused.shape), (0.0,) * 6
