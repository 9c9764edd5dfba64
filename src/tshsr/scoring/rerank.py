"""Two-stage scoring: v·t selects candidates, and the network scores only those, in two rounds (`candidates.py`).

`PairScorer` also rescores the best results of bfloat16 scoring in the network's own precision.

Axes: images | captions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import (
    Budget,
    CaptionBlocks,
    CaptionLengths,
    encode_image_blocks,
    evaluation_mode,
    image_batches,
    is_out_of_memory,
    readers,
    score_blocks,
    tile_bytes,
)
from tshsr.scoring.candidates import Depth, candidate_rounds, candidates, candidates_first
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.precision import cast_matcher
from tshsr.scoring.storage import exchange_columns, writable
from tshsr.system import Progress, no_progress

RESCORED_PER_QUERY = 16
"""Best results of each query that are rescored after bfloat16 scoring; R@10 requires ten."""


@dataclass(frozen=True)
class TwoStageScores:
    """Scores of a two-stage search over a split.

    Attributes:
        scores: `fused` and `pooled`, float32, images x captions. Outside the candidates `fused` is v·t, shifted
            below every candidate's score: candidates rank first, all others follow by v·t.
        scored: Mask of the candidates, the pairs that the network scored.
    """

    scores: dict[str, np.ndarray]
    scored: np.ndarray


@torch.inference_mode()
def score_two_stage(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, depth: Depth, options: ScoringOptions = DEFAULT_OPTIONS
) -> TwoStageScores:
    """Rank all pairs of a split by v·t, and score the candidates of every image and of every caption.

    Args:
        matcher: A network with a pooled score.
        depth: Mean number of candidates per query.
        options: `dtype` is the precision of the second stage; the matrices are in memory. Of several processes each
            scores its captions, and all have the result; their folder is for the exchange.
    """
    with evaluation_mode(matcher, options.device) as device:
        scorer = cast_matcher(matcher, options.dtype)
        images, captions = encode_split(matcher, tokenizer, split, device, options)
        pooled = np.empty((len(split.regions), len(split.captions)), np.float32)
        for columns, block in captions:
            products = [part.pooled @ block.pooled.T for part in images]
            pooled[:, columns] = torch.cat(products).float().cpu().numpy()
        exchange(pooled, "pooled", captions, options)
        fused, scored = np.full_like(pooled, -np.inf), np.zeros(pooled.shape, dtype=bool)
        second_stage = PairScorer(scorer, images, captions, fused, Budget(options.byte_budget))
        for wanted in candidate_rounds(fused, pooled, depth):
            done = captions.count(scored)
            # The first round scores about half of the pairs.
            total = captions.count(wanted) * (1 if done else 2)
            second_stage.score(wanted & ~scored, done, total, options.progress)
            exchange(fused, "fused", captions, options)
            scored |= wanted
        if scorer is not matcher:
            rescorer = PairScorer(matcher, images, captions, fused, Budget(options.byte_budget))
            rescorer.rescore_best(candidates_first(fused, pooled, scored), among=scored)
            exchange(fused, "fused", captions, options)
    return TwoStageScores({"fused": candidates_first(fused, pooled, scored), "pooled": pooled}, scored)


@torch.inference_mode()
def score_split_rescored(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, options: ScoringOptions = DEFAULT_OPTIONS
) -> Mapping[str, np.ndarray]:
    """`score_split`; after a lower precision, the best results get their fused scores in the network's own precision.

    bfloat16 moves a score by about a thousandth, which reorders only the best results of a query:
    `RESCORED_PER_QUERY` per image and per caption, 2 % of the pairs of 1,000 images with five captions each.
    Both passes share one encoding of the images, and of the captions that fit the byte budget.
    """
    with evaluation_mode(matcher, options.device) as device:
        scorer = cast_matcher(matcher, options.dtype)
        images, captions = encode_split(matcher, tokenizer, split, device, options, twice=scorer is not matcher)
        scores = score_blocks(scorer, images, captions, options)
        if scorer is not matcher:
            rescore(
                PairScorer(matcher, images, captions, writable(scores, "fused"), Budget(options.byte_budget)), options
            )
    return scores


def rescore(scorer: PairScorer, options: ScoringOptions) -> None:
    """Rescore the best pairs of a matrix, in memory or in its file."""
    if options.processes.count == 1:
        scorer.rescore_best(scorer.fused)
        return
    shared = replace(scorer, fused=np.array(scorer.fused))  # processes that write one map would need one machine
    shared.rescore_best(scorer.fused)
    exchange(shared.fused, "rescored", scorer.captions, options)
    if options.processes.is_main:
        scorer.fused[:] = shared.fused
    options.processes.wait()


def exchange(matrix: np.ndarray, name: str, captions: CaptionBlocks, options: ScoringOptions) -> None:
    """Fill a matrix with the scores of the captions of other processes, through files; no-op for a single process."""
    if options.processes.count > 1 and options.folder is not None:
        exchange_columns(matrix, name, captions.own_columns(), options.folder, options.processes)


def encode_split(
    matcher: Matcher,
    tokenizer: CaptionTokenizer,
    split: Split,
    device: torch.device,
    options: ScoringOptions,
    *,
    twice: bool = True,
) -> tuple[list[ItemEncoding], CaptionBlocks]:
    """Encoded blocks of a split's images, and its captions; `twice`: cached for a second pass."""
    cache_bytes = options.byte_budget if twice else 0
    tokens, sharing = tokenizer.encode(split.captions), readers(matcher, options.processes)
    captions = CaptionBlocks(matcher, tokens, device, cache_bytes, options.processes)
    return encode_image_blocks(matcher, image_batches(split, sharing), device, sharing), captions


@dataclass(frozen=True)
class PairScorer:
    """Scores listed pairs and writes their fused scores into a matrix.

    Attributes:
        scorer: The network, in the precision of scoring.
        images: Encoded blocks of consecutive images, in the precision of encoding.
        captions: Encoded blocks of captions.
        fused: Output, images x captions.
    """

    scorer: Matcher
    images: Sequence[ItemEncoding]
    captions: CaptionBlocks
    fused: np.ndarray
    budget: Budget

    def rescore_best(self, scores: np.ndarray, among: np.ndarray | None = None) -> None:
        """Score the `RESCORED_PER_QUERY` best pairs of every image and caption by `scores`, within the mask `among`."""
        best = candidates(scores, Depth(RESCORED_PER_QUERY, RESCORED_PER_QUERY))
        wanted = best if among is None else best & among
        self.score(wanted, 0, self.captions.count(wanted), no_progress)

    def score(self, wanted: np.ndarray, done: int, total: int, progress: Progress) -> None:
        """Score the pairs of a mask; `done` of `total` pairs were scored before."""
        dtype = next(self.scorer.parameters()).dtype
        for columns, block in self.captions:
            lengths, block, first = CaptionLengths.of(block), block.at(dtype), 0
            for part in self.images:
                local_columns, rows = wanted[first : first + len(part), columns].T.nonzero()  # by caption, so by length
                if len(rows):
                    scores = score_listed(
                        self.scorer, part.at(dtype), block, lengths, (rows, local_columns), self.budget
                    )
                    self.fused[first + rows, columns[local_columns]] = scores.cpu().numpy()
                done, first = done + len(rows), first + len(part)
            progress(done, total)


def score_listed(
    matcher: Matcher,
    images: ItemEncoding,
    captions: ItemEncoding,
    lengths: CaptionLengths,
    pairs: tuple[np.ndarray, np.ndarray],
    budget: Budget,
) -> Float[Tensor, " pairs"]:
    """The fused scores of listed pairs in tiles, smaller after failed allocations; no synchronisation with a GPU.

    Args:
        matcher: The network, in the precision of the encodings.
        pairs: Rows of `images` and rows of `captions`, one entry per pair.
    """
    device = images.mask.device
    rows, columns = (torch.from_numpy(side).to(device) for side in pairs)
    words = np.array(lengths.words)[pairs[1]]
    found = torch.empty(len(rows), device=device)
    gathered = images.bytes_per_row() + captions.bytes_per_row()
    cost = matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1]) + gathered
    done = 0
    while done < len(rows):
        tile = slice(done, done + max(1, tile_bytes(images, cost, budget) // cost))
        try:
            longest = int(words[tile].max())
            right = captions[columns[tile]].cut(longest, padded=lengths.holes or int(words[tile].min()) < longest)
            scores = matcher.score_pairs(images[rows[tile]], right)["fused"]
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            many = len(words[tile])
            if not is_out_of_memory(error) or many == 1:
                raise
            budget.lower(cost * (many // 2), error)
        else:
            found[tile] = scores
            done += len(scores)
    return found
