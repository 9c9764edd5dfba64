"""Noisy correspondence: training pairs that are wrong, drawn or read from a published index file.

A network that learns from captions of the web meets pairs that do not belong together. Robustness against them is
measured by making wrong pairs on purpose (NCR, Huang et al., NeurIPS 2021; BiCro and RCL follow it): in the training
split alone, dev and test stay clean.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tshsr.config.run import TrainingConfig
from tshsr.data.dataset import Split
from tshsr.data.npy import NpyFile
from tshsr.errors import DataError

STREAM = 0x6E6F697365
"""Sets these draws apart from all others of the same seed: five numbers, where the order of an epoch takes two."""


def with_noise(train: Split, config: TrainingConfig) -> Split:
    """The split with the wrong pairs that the settings ask for; as it is where they ask for none.

    Raises:
        DataError: Where the index file can't be used.
    """
    if config.noise_index:
        return replace(train, image_of_caption=read_index(Path(config.noise_index), train))
    if config.noise:
        return replace(train, image_of_caption=shuffled(train.image_of_caption, config.noise, config.seed))
    return train


def shuffled(image_of_caption: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Permute the images of a random share of the captions among themselves, as NCR does.

    The share is rounded down to whole captions. The permutation is any, no derangement: a caption may get its own image
    back (or another copy of it, as images have several captions), so that slightly fewer pairs than the share are
    wrong, by about `share / images`. Every image keeps its number of captions.

    Args:
        image_of_caption: int64, for each caption the number of its image.
        share: From 0 to 1.
        seed: The run's seed; the same one gives the same pairs.
    """
    dice = np.random.default_rng([seed, 0, 0, 0, STREAM])
    chosen = dice.permutation(len(image_of_caption))[: int(share * len(image_of_caption))]
    noisy = image_of_caption.copy()
    noisy[chosen] = dice.permutation(image_of_caption[chosen])
    return noisy


def read_index(path: Path, train: Split) -> np.ndarray:
    """For each caption the image that a published index file gives it.

    NCR's files (and those of BiCro, RCL and others) hold a number for every caption: its image. Files with a number for
    every image are read too: all captions of image i get image `index[i]`. Where a split has as many captions as
    images, the numbers are those of captions.

    Args:
        path: A .npy file with one axis of whole numbers; pickled objects are never loaded.
        train: The clean split.

    Raises:
        DataError: Where the file can't be read, is of another length, or names an image that is not there.
    """
    index = NpyFile.open(path, axes=1, kinds="iu").read_all()
    captions, images = len(train.captions), len(train.regions)
    if len(index) not in (captions, images):
        raise DataError(
            f"{path} has {len(index)} numbers; expected one for each of the {captions} training captions (its image), "
            f"or one for each of the {images} training images. Is it of another data set?"
        )
    outside = np.flatnonzero((index < 0) | (index >= images))
    if len(outside):
        raise DataError(
            f"{path}: number {outside[0]} (counting from 0) is {index[outside[0]]}; there are training images 0 to "
            f"{images - 1}. Is it of another data set?"
        )
    numbers = index.astype(np.int64)
    return numbers if len(numbers) == captions else numbers[train.image_of_caption]
