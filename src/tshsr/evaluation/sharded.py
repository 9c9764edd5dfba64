"""All pairs of a split in shards, each a block of captions with every image, by the workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer, CaptionTokens, by_length
from tshsr.engines.work import Engine
from tshsr.models.base import Matcher
from tshsr.scoring.all_pairs import Budget, blocks, encode_image_blocks, evaluation_mode, image_batches, score_columns
from tshsr.scoring.options import ScoringOptions
from tshsr.scoring.storage import MatricesInFiles, MatricesInMemory


@dataclass(frozen=True)
class ColumnScoring:
    """Prepares a worker: encodes the images on its best device, once.

    Attributes:
        tokens: Of all captions.
        byte_budget: Of a tile.
    """

    matcher: Matcher
    split: Split
    tokens: CaptionTokens
    byte_budget: int

    def __call__(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """The function of one shard: column numbers -> by score name, images x columns."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        matcher, budget = self.matcher.to(device), Budget(self.byte_budget)
        with torch.inference_mode():
            images = encode_image_blocks(matcher, image_batches(self.split), device)

        @torch.inference_mode()
        def score(columns: np.ndarray) -> dict[str, np.ndarray]:
            captions = matcher.encode_captions(self.tokens.read(columns).to(device))
            return score_columns(matcher, images, captions, budget)

        return score


def score_split_sharded(
    engine: Engine, matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, options: ScoringOptions
) -> Mapping[str, np.ndarray]:
    """Score every image of a split with every caption, in the precision of the network.

    With shards of `all_pairs.ENCODE_BLOCK` captions, the default, blocks and scores are those of `score_split`.

    Args:
        matcher: On the CPU, from where it is sent to the workers.
        options: Its device, dtype and kernel are unused: each worker takes its best device.

    Raises:
        DataError: Where the features cannot be read, or the engine fails.
    """
    tokens = tokenizer.encode(split.captions)
    shards = list(blocks(by_length(tokens), engine.shard))
    shape = len(split.regions), len(tokens)
    result = MatricesInMemory(shape) if options.folder is None else MatricesInFiles(shape, options.folder)
    done = 0
    with evaluation_mode(matcher, "cpu"):
        work = ColumnScoring(matcher, split, tokens, options.byte_budget)
        for number, scores in engine.run(work, shards):
            for name, columns in scores.items():
                result.write(name, shards[number], columns)
            done += shape[0] * len(shards[number])
            options.progress(done, shape[0] * shape[1])
    return result.finish()
