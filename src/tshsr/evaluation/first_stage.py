"""Rerankers on the candidates of a first stage, in one table: v·t, MaxSim over the same tokens, the network, others.

A search takes the best `depth` items of a query by v·t and ranks them by another score; the other items follow by v·t.

Axes: images (rows) | captions (columns).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.errors import InputError, SettingsError
from tshsr.evaluation.run import Scorer
from tshsr.metrics import coco
from tshsr.metrics.comparison import compare_rsum
from tshsr.metrics.ranks import QueryRanks, metrics_by_fold, query_ranks
from tshsr.metrics.recall import finite_blocks
from tshsr.models.base import ItemEncoding, join_encodings
from tshsr.scoring.all_pairs import CaptionBlocks, encode_image_blocks, evaluation_mode, image_batches, score_encoded
from tshsr.scoring.candidates import blocks_across, top_indices
from tshsr.scoring.maxsim import maxsim_all, score_maxsim
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.rerank import score_split_rescored
from tshsr.system import Begin, begin_no_progress

POOLED, MAXSIM, FUSED = "v·t", "MaxSim", "fused"
DEPTHS = (10, 50, 100, 500)
"""Candidates a query."""
PARTS = (0.1, 0.25, 0.5, 1.0)
"""Sizes of the collection, as parts of the split."""
Sides = tuple[np.ndarray, np.ndarray]
"""Scores for images as queries, and for captions as queries; images x captions."""
RESAMPLES = 2000
"""Resamples of the images for an interval."""
TIMED, WARM = 15, 2
"""Queries that are timed, one by one, and untimed ones before them."""


@dataclass(frozen=True)
class Gain:
    """Difference in rSum against another row, with its 95 % interval over images."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class RerankRow:
    """A score on the candidates of v·t, or on all pairs.

    Attributes:
        depth: Candidates a query; None: all items.
        image_to_text, text_to_image: R@1, R@5 and R@10.
        gain: Against v·t.
        over_maxsim: Against MaxSim of all pairs, for the other scores.
        eccv: mAP@R by ECCV Caption, image to text and text to image, where there is annotation.
        milliseconds: Median time of a caption's search, without encoding the caption; None for imported scores.
    """

    score: str
    depth: int | None
    image_to_text: tuple[float, ...]
    text_to_image: tuple[float, ...]
    rsum: float
    gain: Gain | None = None
    over_maxsim: Gain | None = None
    eccv: tuple[float, float] | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Growth:
    """The network on the candidates of v·t in a part of the collection.

    Attributes:
        pictures: Size of the part.
        gain_r1: R@1 of text to image above that of v·t in the same part, in points.
        gain_rsum: The same for rSum.
        milliseconds: Median time of a caption's search.
    """

    pictures: int
    depth: int | None
    gain_r1: float
    gain_rsum: float
    milliseconds: float


@dataclass(frozen=True)
class FirstStageTable:
    """All rows, and how gain and cost grow with the depth and with the collection."""

    rows: tuple[RerankRow, ...]
    growth: tuple[Growth, ...]


@dataclass(frozen=True)
class Matrices:
    """Scores of all pairs.

    Attributes:
        pooled: v·t, the first stage.
        second: Scores of rerankers by name, for images and for captions as queries, which differ for `MAXSIM` alone;
            `FUSED` is the network's.
        owner: For each caption the row of its image.
    """

    pooled: np.ndarray
    second: Mapping[str, Sides]
    owner: np.ndarray

    def part(self, images: np.ndarray) -> Matrices:
        """The scores of some images and their captions."""
        number = np.full(len(self.pooled), -1, np.int64)
        number[images] = np.arange(len(images))
        columns = np.flatnonzero(number[self.owner] >= 0)
        cut = np.ix_(images, columns)
        second = {name: (np.asarray(one)[cut], np.asarray(two)[cut]) for name, (one, two) in self.second.items()}
        return Matrices(np.asarray(self.pooled)[cut], second, number[self.owner[columns]])


def reranked(first: np.ndarray, second: np.ndarray, depth: int | None, axis: int) -> np.ndarray:
    """The second score of the `depth` best items of each query by the first; the others below them, by the first.

    Args:
        axis: 0: captions search images; 1: images search captions.
    """
    if depth is None or depth >= first.shape[axis]:
        return second
    chosen = np.zeros(first.shape, bool)
    for lines in blocks_across(first.shape, axis):
        np.put_along_axis(chosen[lines], top_indices(first[lines], axis, depth), values=True, axis=axis)
    # float64: far below, where the second score is large, float32 would tie scores of the first.
    ranked: np.ndarray = np.subtract(first, float(first.max()) - float(second[chosen].min()) + 1, dtype=np.float64)
    np.copyto(ranked, second, where=chosen)
    return ranked


def reranked_ranks(first: np.ndarray, second: Sides, owner: np.ndarray, depth: int | None) -> QueryRanks:
    """Ranks of both directions; each query has its own candidates.

    Raises:
        InputError: Where a score is not finite, or an image has no caption.
    """
    images = query_ranks(reranked(first, second[0], depth, 1), owner)
    captions = images
    if depth is not None or second[1] is not second[0]:
        captions = query_ranks(reranked(first, second[1], depth, 0), owner)
    return QueryRanks(
        images.image_to_text, captions.text_to_image, images.image_of_caption, caption_places=images.caption_places
    )


def check_depths(depths: Sequence[int]) -> None:
    """Reject depths below 1.

    Raises:
        SettingsError: Where there is one, or no depth.
    """
    if not depths or min(depths) < 1:
        raise SettingsError(f"--depths is {' '.join(map(str, depths))}; expected numbers of candidates such as 10 100.")


def compare_first_stages(
    retriever: Scorer,
    split: Split,
    *,
    depths: Sequence[int] = DEPTHS,
    others: Mapping[str, np.ndarray] | None = None,
    caption_ids: np.ndarray | None = None,
    options: ScoringOptions = DEFAULT_OPTIONS,
    begin: Begin = begin_no_progress,
) -> FirstStageTable:
    """Score all pairs once, and derive every row from them; searches are timed on a sample of captions.

    Args:
        depths: Candidates a query.
        others: Scores of other rerankers by name, images x captions.
        caption_ids: COCO's id of each caption, for mAP@R by ECCV Caption.

    Raises:
        SettingsError: Where a depth is below 1.
        InputError: Where other scores have another shape, or are not finite.
    """
    check_depths(depths)
    for name, matrix in (others or {}).items():
        if matrix.shape != (len(split.regions), len(split.captions)):
            raise InputError(
                f"{name} has shape {matrix.shape}; expected {len(split.regions)} images x "
                f"{len(split.captions)} captions."
            )
        try:
            for _ in finite_blocks(matrix):
                pass
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    matcher, tokenizer = retriever.matcher, retriever.tokenizer
    scoring = ScoringOptions(options.byte_budget, options.device, progress=begin("scoring", "pairs"))
    scores = score_split_rescored(matcher, tokenizer, split, scoring)
    late = ScoringOptions(options.byte_budget, options.device, progress=begin("MaxSim", "pairs"))
    second = {MAXSIM: score_maxsim(matcher, tokenizer, split, late)}
    for name, matrix in {FUSED: scores["fused"], **(others or {})}.items():
        second[name] = (matrix, matrix)
    matrices = Matrices(scores["pooled"], second, split.image_of_caption)
    clock = SearchClock.of(retriever, split, options)
    rows = table_rows(matrices, sorted(set(depths)), caption_ids, clock)
    return FirstStageTable(rows, growth_rows(matrices, sorted(set(depths)), clock))


def table_rows(
    matrices: Matrices, depths: Sequence[int], caption_ids: np.ndarray | None, clock: SearchClock
) -> tuple[RerankRow, ...]:
    """v·t, then every reranker at every depth below the size of the collection, and on all pairs."""
    base = reranked_ranks(matrices.pooled, (matrices.pooled, matrices.pooled), matrices.owner, None)
    late = reranked_ranks(matrices.pooled, matrices.second[MAXSIM], matrices.owner, None)
    rows = [row_of(matrices, POOLED, None, None, caption_ids, base, late, clock)]
    for name in matrices.second:
        for depth in (*(each for each in depths if each < len(matrices.pooled)), None):
            rows.append(row_of(matrices, name, depth, base, caption_ids, None, late, clock))
    return tuple(rows)


def row_of(
    matrices: Matrices,
    name: str,
    depth: int | None,
    base: QueryRanks | None,
    caption_ids: np.ndarray | None,
    ranks: QueryRanks | None,
    late: QueryRanks,
    clock: SearchClock,
) -> RerankRow:
    """One row: recalls, gains with intervals, ECCV mAP@R, time."""
    second = (matrices.pooled, matrices.pooled) if name == POOLED else matrices.second[name]
    found = ranks or reranked_ranks(matrices.pooled, second, matrices.owner, depth)
    (metrics,) = metrics_by_fold(found)
    return RerankRow(
        score=name,
        depth=depth,
        image_to_text=metrics.recalls[:3],
        text_to_image=metrics.recalls[3:],
        rsum=metrics.rsum,
        gain=None if base is None else gain_over(found, base),
        over_maxsim=None if name in (POOLED, MAXSIM) else gain_over(found, late),
        eccv=None if caption_ids is None else eccv_of(matrices, second, depth, caption_ids),
        milliseconds=clock.milliseconds(name, depth, len(matrices.pooled)),
    )


def gain_over(ranks: QueryRanks, base: QueryRanks) -> Gain:
    """The difference in rSum, with its interval."""
    difference = compare_rsum([ranks], [base], resamples=RESAMPLES)
    return Gain(difference.mean, difference.low, difference.high)


def eccv_of(matrices: Matrices, second: Sides, depth: int | None, caption_ids: np.ndarray) -> tuple[float, float]:
    """mAP@R by ECCV Caption: images search captions, captions search images."""
    images, captions = (
        coco.annotated_rankings(reranked(matrices.pooled, side, depth, axis), matrices.owner, caption_ids)["eccv"]
        for side, axis in zip(second, (1, 0), strict=True)
    )
    return images.image_to_text.map_at_r, captions.text_to_image.map_at_r


def growth_rows(matrices: Matrices, depths: Sequence[int], clock: SearchClock) -> tuple[Growth, ...]:
    """The network at every depth in nested random parts of the collection."""
    order, rows = np.random.default_rng(0).permutation(len(matrices.pooled)), []
    for share in PARTS:
        size = max(2, round(share * len(order)))
        part = matrices.part(np.sort(order[:size]))
        (base,) = metrics_by_fold(reranked_ranks(part.pooled, (part.pooled, part.pooled), part.owner, None))
        for depth in (*(each for each in depths if each < size), None):
            (found,) = metrics_by_fold(reranked_ranks(part.pooled, part.second[FUSED], part.owner, depth))
            gain = found.text_to_image.r1 - base.text_to_image.r1
            milliseconds = clock.milliseconds(FUSED, depth, size)
            rows.append(Growth(size, depth, gain, found.rsum - base.rsum, milliseconds or 0.0))
    return tuple(rows)


@dataclass(frozen=True)
class SearchClock:
    """Times searches of single captions among encoded pictures, as an index holds them.

    Attributes:
        images: Encoded pictures of the collection.
        captions: Encoded queries; encoding is not timed, since every row needs the same vectors.
    """

    retriever: Scorer
    images: ItemEncoding
    captions: ItemEncoding

    @classmethod
    @torch.inference_mode()
    def of(cls, retriever: Scorer, split: Split, options: ScoringOptions) -> SearchClock:
        """Encode the pictures, and evenly spaced captions."""
        matcher = retriever.matcher
        spread = np.linspace(0, len(split.captions) - 1, min(TIMED + WARM, len(split.captions))).astype(int)
        with evaluation_mode(matcher, options.device) as device:
            images = join_encodings(encode_image_blocks(matcher, image_batches(split), device))
            tokens = retriever.tokenizer.encode([split.captions[number] for number in spread])
            captions = join_encodings([block for _, block in CaptionBlocks(matcher, tokens, device)])
        return cls(retriever, images, captions)

    def milliseconds(self, name: str, depth: int | None, pictures: int) -> float | None:
        """Median time of a search: v·t of the first `pictures`, the best `depth`, their scores, the best ten of them.

        Returns:
            None for scores of another program.
        """
        rerankers: dict[str, Callable[[ItemEncoding, ItemEncoding], Tensor]] = {MAXSIM: maxsim_all, FUSED: self._fused}
        if name != POOLED and name not in rerankers:
            return None
        images, seconds = self.images[:pictures], []
        for number in range(len(self.captions)):
            query = self.captions[number : number + 1].trimmed()
            start = time.perf_counter()
            self._search(images, query, rerankers.get(name), depth)
            seconds.append(time.perf_counter() - start)
        return 1000 * statistics.median(seconds[WARM:] or seconds)

    @torch.inference_mode()
    def _search(
        self,
        images: ItemEncoding,
        query: ItemEncoding,
        reranker: Callable[[ItemEncoding, ItemEncoding], Tensor] | None,
        depth: int | None,
    ) -> list[int]:
        """Rows of the best ten pictures."""
        first = images.pooled @ query.pooled[0]
        if reranker is None:
            best: list[int] = first.topk(min(10, len(first))).indices.tolist()
            return best
        rows = torch.arange(len(first), device=first.device) if depth is None else first.topk(depth).indices
        scores = reranker(images[rows], query)[:, 0]
        chosen: list[int] = rows[scores.topk(min(10, len(scores))).indices].tolist()
        return chosen

    def _fused(self, images: ItemEncoding, captions: ItemEncoding) -> Tensor:
        return score_encoded(self.retriever.matcher, images, captions)["fused"]
