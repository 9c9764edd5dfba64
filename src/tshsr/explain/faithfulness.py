"""Faithfulness of explanations: does the score fall when the items that they rank highest are removed?

Axes: pairs (an image with one of its captions) | regions | words | items (regions or words). docs/metrics.md defines
every figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tshsr.data.dataset import Split
from tshsr.data.truth import Truth
from tshsr.errors import SettingsError
from tshsr.explain.attribution import attention_maps, mean_relevance
from tshsr.explain.curves import area, compare_areas, ranks_of, remaining_masks
from tshsr.explain.perturbation import Pairs
from tshsr.explain.pointing_game import pointing_accuracy, pointing_chance
from tshsr.metrics.report import Curve, ExplanationFigures, Faithfulness
from tshsr.models.base import StreamTrace
from tshsr.retriever import Retriever
from tshsr.system import Progress, no_progress

SCORE = "fused"
PAIRS = 500
CHUNK = 50
"""Pairs that are rescored together."""
RANDOM_ORDERS = 3
"""Number of orders in the mean area of the random ranking."""
RELEVANCE, ATTENTION, LEFT_OUT, RANDOM = RANKINGS = ("relevance", "attention", "leave_one_out", "random")
"""The explanation under test, then its baselines."""
SIDES, CURVES = ("regions", "words"), ("deletion", "insertion")

Score = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Scores of variants of pairs; see `Pairs.with_regions`."""
Values = list[np.ndarray]
"""For each pair the relevance of each item."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measurements of a chunk of pairs; every array has one row per pair.

    Attributes:
        full: Scores of the complete pairs.
        areas: By side (regions, words), curve (deletion, insertion) and ranking.
        levels: `level_shares` by stream.
        agreement: See `agreement`; None without two streams.
    """

    full: np.ndarray
    areas: Mapping[tuple[str, str, str], np.ndarray]
    levels: Mapping[str, Mapping[str, np.ndarray]]
    agreement: np.ndarray | None


def measure_explanations(
    retriever: Retriever,
    split: Split,
    *,
    pairs: int = PAIRS,
    truth: Truth | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> ExplanationFigures:
    """Measure the explanations of a network: faithfulness, agreement, shares of levels, and pointing.

    Args:
        retriever: The network and its tokenizer.
        pairs: Number of pairs; at most one caption per image, so that pairs are independent.
        truth: The true regions of words, where known.
        seed: Seed of the choice of pairs, the random orders and the resampling.
        progress: Called with (pairs done, pairs in total).

    Raises:
        SettingsError: Where `pairs` is below 1.
        InputError: Where all scores are zero, or one is not finite.
        DataError: Where the truth does not fit the split.
    """
    start = time.perf_counter()
    captions = choose_pairs(split, pairs, seed)
    generator = np.random.default_rng(seed)
    parts = []
    for first in range(0, len(captions), CHUNK):
        parts.append(measure(Pairs.read(retriever, split, captions[first : first + CHUNK], score=SCORE), generator))
        progress(min(first + CHUNK, len(captions)), len(captions))
    pointing = {} if truth is None else pointing_figures(retriever, split, truth, captions)
    return replace(summarise(parts, seed), **pointing, seconds=time.perf_counter() - start)


def choose_pairs(split: Split, pairs: int, seed: int) -> np.ndarray:
    """Random captions of `pairs` different images, or of all images where there are fewer.

    Raises:
        SettingsError: Where `pairs` is below 1.
    """
    if pairs < 1:
        raise SettingsError(f"explanations are measured on {pairs} pairs; expected at least 1.")
    order = np.random.default_rng(seed).permutation(len(split.captions))
    _, first = np.unique(split.image_of_caption[order], return_index=True)
    return np.sort(order[np.sort(first)[:pairs]])


def measure(pairs: Pairs, generator: np.random.Generator) -> Measured:
    """Trace the pairs, rank their items, and rescore the pairs with items removed."""
    traces = pairs.retriever.trace(pairs.images, pairs.texts)
    rankings = traced_rankings(pairs, traces)
    areas: dict[tuple[str, str, str], np.ndarray] = {}
    numbers = range(len(pairs))
    sides = {"regions": (pairs.with_regions, pairs.regions_of), "words": (pairs.with_words, pairs.words_of)}
    for side, (score, items) in sides.items():
        sizes = [len(items(pair)) for pair in numbers]
        full, left_out = leave_one_out(score, sizes)
        at_random = [[generator.random(size) for size in sizes] for _ in range(RANDOM_ORDERS)]
        named = {**rankings.get(side, {}), LEFT_OUT: left_out}
        found = areas_of(score, [*named.values(), *at_random], generator)
        for number, curve in enumerate(CURVES):
            areas |= {(side, curve, name): found[:, row, number] for row, name in enumerate(named)}
            areas[side, curve, RANDOM] = found[:, len(named) :, number].mean(axis=1)
    levels = {name: level_shares(trace) for name, trace in traces.items()}
    return Measured(full, areas, levels, agreement(pairs, traces, generator))


def traced_rankings(pairs: Pairs, traces: Mapping[str, StreamTrace]) -> dict[str, dict[str, Values]]:
    """By side and ranking: the relevance of the explanation, and attention summed over the queries.

    Attention ranks the context items of a stream alone: regions in the word stream, words in the region stream.
    """
    if not traces:
        return {}
    relevance = mean_relevance(traces, pairs.texts.mask, pairs.images.mask)
    found = {
        "regions": {RELEVANCE: of_items(relevance.sum(dim=1), pairs.regions_of)},
        "words": {RELEVANCE: of_items(relevance.sum(dim=2), pairs.words_of)},
    }
    context_of = {
        "word_stream": ("regions", pairs.texts.mask, pairs.regions_of),
        "region_stream": ("words", pairs.images.mask, pairs.words_of),
    }
    for name, trace in traces.items():
        side, queries, items = context_of[name]
        found[side][ATTENTION] = of_items((trace.attention * queries[..., None]).sum(dim=1), items)
    return found


def of_items(values: torch.Tensor, items: Callable[[int], np.ndarray]) -> Values:
    """The values of the real items of each pair."""
    rows = values.double().cpu().numpy()
    return [row[items(pair)] for pair, row in enumerate(rows)]


def leave_one_out(score: Score, sizes: Sequence[int]) -> tuple[np.ndarray, Values]:
    """Full score of each pair, and its decrease without each item; 0 for a single item, which stays."""
    remaining = []
    for size in sizes:
        single = ~np.eye(size, dtype=np.bool_) if size > 1 else np.ones((1, 1), np.bool_)
        remaining.append(np.concatenate([np.ones((1, size), np.bool_), single]))
    scores = score(remaining)
    return np.array([row[0] for row in scores]), [row[0] - row[1:] for row in scores]


def areas_of(score: Score, rankings: Sequence[Values], generator: np.random.Generator) -> np.ndarray:
    """Areas under both curves: pairs x rankings x (deletion, insertion)."""
    remaining = [
        np.concatenate([mask for values in of_pair for mask in remaining_masks(ranks_of(values, generator))])
        for of_pair in zip(*rankings, strict=True)
    ]
    found = []
    for masks, scores in zip(remaining, score(remaining), strict=True):
        curves = scores.reshape(len(rankings), len(CURVES), -1)
        found.append([[area(curve, masks.shape[1]) for curve in both] for both in curves])
    return np.array(found)


def level_shares(trace: StreamTrace) -> dict[str, np.ndarray]:
    """|contribution| of each level, and of v·t as `pooled`, divided by their sum."""
    parts = {f"level_{level}": row for level, row in enumerate(trace.contributions.abs().unbind(dim=-1))}
    if trace.pooled_terms is not None or trace.pooled_whole is not None:
        parts["pooled"] = trace.pooled.abs()
    whole = torch.stack(list(parts.values())).sum(dim=0).clamp_min(torch.finfo(trace.pooled.dtype).tiny)
    return {name: (part / whole).double().cpu().numpy() for name, part in parts.items()}


def agreement(pairs: Pairs, traces: Mapping[str, StreamTrace], generator: np.random.Generator) -> np.ndarray | None:
    """Overlap of the maps of both streams, and by chance (regions of one map shuffled): pairs x 2.

    agreement = mean_w sum_r min( a_wr, b_wr ),   a, b: `explain.attention_maps`, distributions over regions

    The maps are those of attention alone, as the term of v·t in `word_maps` is common to both streams.
    """
    if len(traces) < len(SIDES):
        return None
    first, second = (
        attention_maps(name, trace, pairs.texts.mask, pairs.images.mask).double().cpu().numpy()
        for name, trace in traces.items()
    )
    found = []
    for pair in range(len(pairs)):
        words, regions = pairs.words_of(pair), pairs.regions_of(pair)
        of_pair = [maps[pair][np.ix_(words, regions)] for maps in (first, second)]
        shuffled = of_pair[1][:, generator.permutation(len(regions))]
        found.append([np.minimum(of_pair[0], other).sum(axis=1).mean() for other in (of_pair[1], shuffled)])
    return np.array(found)


def pointing_figures(retriever: Retriever, split: Split, truth: Truth, captions: np.ndarray) -> dict[str, Any]:
    """Pointing figures of the chosen captions, by name of the report's field; empty without a word or traces.

    Raises:
        DataError: Where the truth does not fit the split.
    """
    chosen = set(captions.tolist())
    words = tuple(
        with_nodes(of, retriever.tokenizer.nodes_of_words(split.captions[number])) if of and number in chosen else {}
        for number, of in enumerate(truth.regions_of_word)
    )
    truth = replace(truth, regions_of_word=words)
    accuracy = pointing_accuracy(retriever, split, truth) if any(words) else {}
    if not accuracy:
        return {}
    return {
        "pointing": accuracy,
        "pointing_by_attention": pointing_accuracy(retriever, split, truth, attention=True),
        "pointing_by_chance": pointing_chance(split, truth),
        "pointing_words": sum(map(len, words)),
    }


def with_nodes(of_word: Mapping[int, tuple[int, ...]], nodes: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The true regions of a caption's words, without those of words that have no node, as in a cut caption."""
    return {word: true for word, true in of_word.items() if not 0 <= word < len(nodes) or nodes[word] >= 0}


def summarise(parts: Sequence[Measured], seed: int) -> ExplanationFigures:
    """Summarise all pairs, without pointing."""
    full = np.concatenate([part.full for part in parts])

    def curve_of(side: str, curve: str) -> Curve:
        names = [name for name in RANKINGS if (side, curve, name) in parts[0].areas]
        areas = {name: np.concatenate([part.areas[side, curve, name] for part in parts]) for name in names}
        return compare_areas(areas, full, seed=seed)

    regions, words = (Faithfulness(*(curve_of(side, curve) for curve in CURVES)) for side in SIDES)
    agreements = [part.agreement for part in parts if part.agreement is not None]
    common = np.concatenate(agreements).mean(axis=0).tolist() if agreements else (None, None)
    shares = {
        stream: {name: float(np.concatenate([part.levels[stream][name] for part in parts]).mean()) for name in levels}
        for stream, levels in parts[0].levels.items()
    }
    return ExplanationFigures(
        pairs=len(full),
        score=SCORE,
        full_score=float(full.mean()),
        regions=regions,
        words=words,
        level_shares=shares,
        agreement=common[0],
        agreement_by_chance=common[1],
    )
