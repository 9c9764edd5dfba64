"""Simulated scores of two stages, and ranking figures by plain loops."""

from __future__ import annotations

import numpy as np

from tshsr.metrics.multi_positive import RankingMetrics


def noisy(images: int, each: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fused scores, v·t that follows them with more noise, and the owner of each caption, in no order."""
    dice = np.random.default_rng(seed)
    owners = dice.permutation(np.repeat(np.arange(images), each))
    truth = np.zeros((images, len(owners)))
    truth[owners, np.arange(len(owners))] = 3
    fused = truth + dice.normal(size=truth.shape)
    pooled = fused + noise * dice.normal(size=truth.shape)
    return fused.astype(np.float32), pooled.astype(np.float32), owners


def looped(scores: np.ndarray, right: dict[int, list[int]]) -> dict[str, float]:
    """The figures by plain loops over a sorted list; wrong answers stand before right ones that score the same."""
    kept: dict[str, list[float]] = {name: [] for name in RankingMetrics.__dataclass_fields__}
    for query, answers in right.items():
        row = scores[query]
        order = sorted(range(len(row)), key=lambda answer: (-row[answer], answer in answers))
        hits = [answer in answers for answer in order]
        count = len(answers)
        for k in (1, 5, 10):
            kept[f"r{k}"].append(100.0 * any(hits[:k]))
            kept[f"true_r{k}"].append(100.0 * sum(hits[:k]) / count)
        for k in (5, 10):
            kept[f"all_r{k}"].append(100.0 * (sum(hits[:k]) == count))
        kept["mrr"].append(1 / (1 + hits.index(True)))
        kept["r_precision"].append(100.0 * sum(hits[:count]) / count)
        precisions = [sum(hits[: k + 1]) / (k + 1) for k in range(count) if hits[k]]
        kept["map_at_r"].append(100.0 * sum(precisions) / count)
    return {name: float(np.mean(values)) for name, values in kept.items()}
