"""MaxSim, late interaction over the tokens of an encoding: the baseline without a network on top.

    MaxSim(image, caption) = 1/W sum_w max_r cos(region_r, word_w)

ColBERT (Khattab and Zaharia, SIGIR 2020) sums over the words of a query; the mean, as in FILIP (Yao et al., ICLR 2022),
ranks pictures alike and makes captions of different lengths comparable.

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
from tshsr.models.attention import similarities
from tshsr.models.base import ItemEncoding, Matcher
from tshsr.scoring.all_pairs import CACHE_TILE, CaptionBlocks, encode_image_blocks, evaluation_mode, image_batches
from tshsr.scoring.options import DEFAULT_OPTIONS, ScoringOptions


def maxsim(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "*pairs"]:
    """The mean over real words of the highest cosine with a real region; leading axes broadcast.

    Padding is invisible: changing a masked region or word changes no score.
    """
    found = similarities(images.items, captions.items)  # pairs x regions x words
    found = found.masked_fill(~images.mask[..., :, None], -torch.inf).amax(dim=-2)
    words = captions.mask.to(found.dtype)
    return (found.masked_fill(~captions.mask, 0.0) * words).sum(dim=-1) / words.sum(dim=-1)


def maxsim_all(images: ItemEncoding, captions: ItemEncoding) -> Float[Tensor, "images captions"]:
    """Every image with every caption, in tiles of `CACHE_TILE` bytes."""
    cost = images.items.element_size() * len(images) * images.mask.shape[-1] * captions.mask.shape[-1]
    wide = max(1, CACHE_TILE // cost)
    parts = [
        maxsim(images.unsqueeze(1), captions[start : start + wide].unsqueeze(0))
        for start in range(0, len(captions), wide)
    ]
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def score_maxsim(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, options: ScoringOptions = DEFAULT_OPTIONS
) -> np.ndarray:
    """MaxSim of every image with every caption of a split over the network's tokens; float32, images x captions."""
    shape = len(split.regions), len(split.captions)
    scores, done = np.empty(shape, np.float32), 0
    with evaluation_mode(matcher, options.device) as device:
        blocks: Sequence[ItemEncoding] = encode_image_blocks(matcher, image_batches(split), device)
        for columns, block in CaptionBlocks(matcher, tokenizer.encode(split.captions), device):
            parts = [maxsim_all(images, block) for images in blocks]
            scores[:, columns] = torch.cat(parts).float().cpu().numpy()
            done += len(columns) * shape[0]
            options.progress(done, shape[0] * shape[1])
    return scores
