"""MaxSim, late interaction over the tokens of an encoding: the baseline without a network on top.

    captions search images   1/W sum_w max_r cos(region_r, word_w)
    images search captions   1/R sum_r max_w cos(region_r, word_w)

The tokens of the query look for their best tokens in an item (ColBERT, Khattab and Zaharia, SIGIR 2020; regions and
words: FILIP, Yao et al., ICLR 2022). ColBERT sums; the mean ranks the items of a query alike.

Axes: pairs (leading axes, broadcast) | images | captions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.models.attention import mean_of_best, similarities
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import CACHE_TILE, CaptionBlocks, encode_image_blocks, evaluation_mode, image_batches
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions


def maxsim(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "*pairs"]:
    """For captions as queries: the mean over words of the highest cosine with a region; leading axes broadcast.

    Padding is invisible: changing a masked region or word changes no score.
    """
    return mean_of_best(similarities(captions.items, images.items), captions.mask, images.mask)


def maxsim_of_regions(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "*pairs"]:
    """For images as queries: the mean over regions of the highest cosine with a word; leading axes broadcast."""
    return mean_of_best(similarities(images.items, captions.items), images.mask, captions.mask)


def maxsim_all(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions"]:
    """`maxsim` of every image with every caption, in tiles of `CACHE_TILE` bytes."""
    return torch.cat([maxsim(*tile) for tile in tiles(images, captions)], dim=1)


def tiles(images: ItemEncoding, captions: ItemEncoding) -> Sequence[tuple[ItemEncoding, ItemEncoding]]:
    """All images with some captions at a time, broadcastable."""
    cost = images.items.element_size() * len(images) * images.mask.shape[-1] * captions.mask.shape[-1]
    wide = max(1, CACHE_TILE // cost)
    starts = range(0, len(captions), wide)
    return [(images.unsqueeze(1), captions[start : start + wide].unsqueeze(0)) for start in starts]


@torch.inference_mode()
def score_maxsim(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, options: ScoringOptions = DEFAULT_OPTIONS
) -> tuple[np.ndarray, np.ndarray]:
    """MaxSim of all pairs of a split over the network's tokens.

    Returns:
        float32, images x captions: for images as queries, and for captions as queries.
    """
    shape = len(split.regions), len(split.captions)
    by_regions, by_words, done = np.empty(shape, np.float32), np.empty(shape, np.float32), 0
    with evaluation_mode(matcher, options.device) as device:
        blocks = encode_image_blocks(matcher, image_batches(split), device)
        for columns, block in CaptionBlocks(matcher, tokenizer.encode(split.captions), device):
            for score, matrix in ((maxsim_of_regions, by_regions), (maxsim, by_words)):
                parts = [torch.cat([score(*tile) for tile in tiles(images, block)], dim=1) for images in blocks]
                matrix[:, columns] = torch.cat(parts).float().cpu().numpy()
            done += len(columns) * shape[0]
            options.progress(done, shape[0] * shape[1])
    return by_regions, by_words
