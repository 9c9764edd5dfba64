"""The share of the training captions that a run reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tshsr.config.run import TrainingConfig
from tshsr.data.dataset import Split

FEW_STREAM = 0x666577
"""Last word of the generator's seed: makes its draws independent of those of noise and of epoch orders."""


def with_captions_share(train: Split, config: TrainingConfig) -> Split:
    """The split with a random share of its captions, in their order, drawn from the seed; all images stay."""
    if config.captions_share == 1:
        return train
    count = len(train.captions)
    generator = np.random.default_rng([config.seed, 0, 0, 0, FEW_STREAM])
    kept = np.sort(generator.permutation(count)[: max(1, round(config.captions_share * count))])
    captions = tuple(train.captions[number] for number in kept)
    return replace(train, captions=captions, image_of_caption=train.image_of_caption[kept])
