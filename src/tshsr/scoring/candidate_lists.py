"""The results of searches: for every caption its candidate pictures by v·t, scored by the network.

Axes: captions (queries) | candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import Budget, CaptionBlocks, encode_image_blocks, evaluation_mode, image_batches
from tshsr.scoring.candidates import top_indices
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.rerank import PairScorer


@dataclass(frozen=True, eq=False)
class CandidateLists:
    """One list of results per caption, best first by the fused score.

    Attributes:
        images: int64, captions x candidates: rows of the pictures.
        scores: float32, their fused scores.
        pictures: Pictures of the searched collection.
    """

    images: np.ndarray
    scores: np.ndarray
    pictures: int

    def matches(self, image_of_caption: np.ndarray) -> np.ndarray:
        """Whether each result is the picture of its caption."""
        found: np.ndarray = self.images == image_of_caption[:, None]
        return found

    def first(self, count: int) -> CandidateLists:
        """The best `count` results of each list."""
        return CandidateLists(self.images[:, :count], self.scores[:, :count], self.pictures)


@torch.inference_mode()
def candidate_lists(
    matcher: Matcher,
    tokenizer: CaptionTokenizer,
    split: Split,
    captions: Sequence[str],
    count: int,
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> CandidateLists:
    """Search the pictures of a split with every caption, as `tshsr search` does.

    Args:
        split: The collection; its own captions are not used.
        captions: The queries.
        count: Candidates of each query by v·t; at most all pictures.
        options: Memory, device and progress of scoring.

    Raises:
        InputError: Where there is no caption.
    """
    with evaluation_mode(matcher, options.device) as device:
        images = encode_image_blocks(matcher, image_batches(split), device)
        blocks = CaptionBlocks(matcher, tokenizer.encode(captions), device, options.byte_budget)
        return search_encoded(matcher, images, blocks, count, options)


@torch.inference_mode()
def search_encoded(
    matcher: Matcher, images: Sequence[ItemEncoding], captions: CaptionBlocks, count: int, options: ScoringOptions
) -> CandidateLists:
    """`candidate_lists` of encoded pictures, in blocks; the network is in evaluation mode.

    Args:
        images: Encoded blocks of consecutive pictures.
        captions: The queries.
    """
    pooled = np.empty((sum(map(len, images)), len(captions.tokens)), np.float32)
    for columns, block in captions:
        pooled[:, columns] = torch.cat([part.pooled @ block.pooled.T for part in images]).float().cpu().numpy()
    best = top_indices(pooled, 0, count)
    wanted = np.zeros(pooled.shape, bool)
    np.put_along_axis(wanted, best, values=True, axis=0)
    fused = np.full_like(pooled, -np.inf)
    scorer = PairScorer(matcher, images, captions, fused, Budget(options.byte_budget))
    scorer.score(wanted, 0, int(wanted.sum()), options.progress)
    scores = np.take_along_axis(fused, best, axis=0)
    order = np.argsort(-scores, axis=0, kind="stable")
    return CandidateLists(
        np.take_along_axis(best, order, axis=0).T, np.take_along_axis(scores, order, axis=0).T, len(pooled)
    )
