"""Which training pairs to believe: a mixture over how well each caption stands beside its image, among random pairs.

A wrong pair (noisy correspondence) is a random pair: `v·t` knows what those look like, since every batch is full of
them. The other captions of an image are a second witness. Networks learn right pairs before they memorise wrong ones,
so that after a warm-up the two kinds come apart (DivideMix, Li et al., ICLR 2020; NCR, Huang et al., NeurIPS 2021).
What differs from theirs: docs/paper.md, 24 and 25.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tshsr.config.run import RunConfig, TrainingConfig
from tshsr.data.dataset import Split
from tshsr.data.npy import NpyFile
from tshsr.errors import DataError
from tshsr.models.base import Matcher
from tshsr.training.batching import Reader, TrainingBatch, ahead
from tshsr.training.objective import positives

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


AT_ONCE = 512
"""Captions, about, that are compared with each other, with the other captions of their images among them."""
ROUNDS = 200
"""Of the fit; it has long settled by then."""
REMEMBERED = 0.5
"""Share of its former standing in a caption's standing: what a network memorised later does not count as much."""
LEAST_DEVIATION = 1e-3
"""A component narrower than this would be a single pair, and scores that differ less are equal but for rounding."""


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions of standing: that of wrong pairs and that of right ones.

    Attributes:
        means: Of the wrong, then of the right pairs.
        deviations: Likewise.
        shares: Likewise; they add up to 1.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    shares: tuple[float, float]

    def right(self, standings: Float[np.ndarray, " captions"]) -> Float[np.ndarray, " captions"]:
        """The probability that a pair is right, by its standing (Bayes' rule).

        Far out the wider component always wins, which would call the best pairs wrong (or the worst ones right):
        beyond its turning point the probability stays what it is there, so that it never falls with the standing.
        """
        (wrong, right), (wide, narrow) = self.means, (each**2 for each in self.deviations)
        if wide != narrow:  # or the other way round: then the turning point is the lowest, not the highest
            turn = (right * wide - wrong * narrow) / (wide - narrow)
            standings = np.minimum(standings, turn) if wide > narrow else np.maximum(standings, turn)
        probability: np.ndarray = responsibilities(standings, self)[1]
        return probability


def standing(
    images: Float[Tensor, "images dim"],
    captions: Float[Tensor, "captions dim"],
    image_of_caption: Int[Tensor, " captions"],
) -> Float[Tensor, " captions"]:
    """How far a caption stands above random ones, in their deviations, before two witnesses (docs/paper.md, 24).

        its image      y_c = ½ above( v_i·t_c; v_i'·t_c )  +  ½ above( v_i·t_c; v_i·t_c' )
        its siblings   z_c = ½ above( o_c·t_c; o_i'·t_c )  +  ½ above( o_c·t_c; o_c·t_c' )
        o_c = l2( Σ relu(y_d) t_d )   over the captions d ≠ c of c's image i        o_i: over all of them

    with above(x; others) = (x − mean) / deviation, over other images i' and captions c' of other images. The standing
    is the mean of y and z. Of a random pair it is 0 on average, whatever the network.

    Args:
        images: v of the images of a group.
        captions: t of all captions of these images.
        image_of_caption: For each caption the row of its image.

    Returns:
        The standings; y alone where no sibling speaks, 0 in a group of one image.
    """
    seen = _above(images[image_of_caption], images, captions, image_of_caption)
    spoken = seen.clamp_min(0)[:, None] * captions
    together = torch.zeros_like(images).index_add(0, image_of_caption, spoken)
    others = normalize(together[image_of_caption] - spoken, dim=-1)
    heard = _above(others, normalize(together, dim=-1), captions, image_of_caption)
    alone = torch.bincount(image_of_caption)[image_of_caption] == 1
    # The only caption that speaks for an image leaves rounding errors behind when it is taken out.
    silent = alone | ((together[image_of_caption] - spoken).norm(dim=-1) <= 1e-6)
    return torch.where(silent, seen, (seen + heard) / 2)


def _above(
    own: Float[Tensor, "captions dim"],
    images: Float[Tensor, "images dim"],
    captions: Float[Tensor, "captions dim"],
    image_of_caption: Int[Tensor, " captions"],
) -> Float[Tensor, " captions"]:
    """The standing of each caption beside what stands for its own image, among other images and other captions."""
    positive = (own * captions).sum(dim=-1)
    other_images = ~positives(image_of_caption, len(images)).T
    sides = ((captions @ images.T, other_images), (own @ captions.T, other_images[:, image_of_caption]))
    return torch.stack([_deviations(positive, scores, negative) for scores, negative in sides]).mean(dim=0)


def _deviations(positive: Tensor, scores: Tensor, negative: Tensor) -> Tensor:
    """Distance of each row's positive from the mean of its negatives, in their deviations; 0 where they have none."""
    count = negative.sum(dim=1).clamp_min(1)
    mean = (scores * negative).sum(dim=1) / count
    deviation = (((scores - mean[:, None]) ** 2 * negative).sum(dim=1) / count).sqrt()
    return torch.where(deviation > LEAST_DEVIATION, (positive - mean) / deviation.clamp_min(LEAST_DEVIATION), 0)


def fit_mixture(standings: Float[np.ndarray, " captions"]) -> Mixture | None:
    """Fit the mixture by expectation and maximisation (Dempster et al. 1977).

    The wrong component is held at no more than half the mean of the right one: a wrong pair would stand at 0, if the
    network had not begun to memorise it. Without this hold, two components would share clean data evenly.

    Returns:
        The mixture; None where the network tells nothing yet, as right pairs stand no higher than random ones.
    """
    low, high = np.quantile(standings, (0.25, 0.75)).tolist()
    deviation = max(float(standings.std()), LEAST_DEVIATION)
    mixture = Mixture((min(low, high / 2), high), (deviation, deviation), (0.5, 0.5))
    for _ in range(ROUNDS):
        if mixture.means[1] <= 0:
            return None
        mixture = _maximised(standings, responsibilities(standings, mixture))
    return mixture


def _maximised(standings: np.ndarray, shares: np.ndarray) -> Mixture:
    """The mixture that explains the standings best, given how much of each belongs to which component."""
    mass = np.maximum(shares.sum(axis=1), 1e-12)
    means = shares @ standings / mass
    means[0] = min(means[0], means[1] / 2)
    squares = (shares * (standings - means[:, None]) ** 2).sum(axis=1) / mass
    deviations = np.maximum(np.sqrt(squares), LEAST_DEVIATION)
    return Mixture(*(tuple(each.tolist()) for each in (means, deviations, mass / mass.sum())))


def responsibilities(
    standings: Float[np.ndarray, " captions"], mixture: Mixture
) -> Float[np.ndarray, "components captions"]:
    """How much of each standing belongs to the wrong and to the right component; every column adds up to 1."""
    means, deviations, shares = (
        np.array(each)[:, None] for each in (mixture.means, mixture.deviations, mixture.shares)
    )
    logs = np.log(shares) - np.log(deviations) - ((standings - means) / deviations) ** 2 / 2
    likelihoods: np.ndarray = np.exp(logs - logs.max(axis=0))
    likelihoods /= likelihoods.sum(axis=0)
    return likelihoods


def trust_of(standings: Float[Tensor, " captions"]) -> Float[Tensor, " captions"]:
    """The weight of every caption: the probability that its pair is right. Where nothing can be told, all are 1."""
    values = standings.double().numpy()
    mixture = fit_mixture(values)
    return torch.ones_like(standings) if mixture is None else torch.from_numpy(mixture.right(values)).float()


class Believer:
    """Measures how every training pair stands, after the warm-up before each epoch, and weighs the captions by it.

    Args:
        config: Warm-up and seed.
        reader: Reads the training captions.

    Attributes:
        standings: Mean over the epochs so far, the last one counting most; None before the first time. A run that is
            to be resumed must keep them, and nothing else of this.
    """

    def __init__(self, config: RunConfig, reader: Reader) -> None:
        self.config, self.reader = config, reader
        self.standings: Tensor | None = None
        self._trust = torch.ones(len(reader.split.captions))

    def take(self, standings: Tensor | None) -> None:
        """Go on from standings measured earlier."""
        if standings is not None:
            self.standings, self._trust = standings, trust_of(standings)

    def trust(self, captions: np.ndarray) -> Float[Tensor, " captions"]:
        """The weights of these captions."""
        return self._trust[torch.from_numpy(captions)]

    def measure(self, matcher: Matcher, accelerator: Accelerator, epoch: int) -> None:
        """Measure anew before an epoch (from 0), unless it is one of the warm-up."""
        if epoch < self.config.loss.warmup_epochs:
            return
        found = torch.zeros(len(self._trust), device=accelerator.device)
        with closing(ahead(self.reader.read(group) for group in self._groups(accelerator, epoch))) as batches:
            for batch in batches:
                here = batch.to(accelerator.device)
                found[torch.from_numpy(batch.numbers).to(found.device)] = measured(matcher, here)
        # Each process has measured its share, and has 0 for the others'.
        now = accelerator.reduce(found, reduction="sum").cpu()
        self.take(now if self.standings is None else torch.lerp(now, self.standings, REMEMBERED))

    def _groups(self, accelerator: Accelerator, epoch: int) -> Iterator[np.ndarray]:
        """This process's share of the captions, in groups of whole images."""
        owners, processes = self.reader.split.image_of_caption, accelerator.num_processes
        count = processes * math.ceil(len(owners) / (AT_ONCE * processes))
        return islice(
            groups(owners, count, seed=[self.config.training.seed, epoch]), accelerator.process_index, None, processes
        )


def groups(image_of_caption: np.ndarray, count: int, *, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """The numbers of all captions in so many groups; those of one image stay together, which images meet is random."""
    images = np.unique(image_of_caption)
    group_of_image = np.zeros(images[-1] + 1, np.int64)
    for number, some in enumerate(np.array_split(np.random.default_rng(seed).permutation(images), count)):
        group_of_image[some] = number
    group = group_of_image[image_of_caption]
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=count))[:-1])
    yield from (part for part in parts if len(part))


@torch.no_grad()
def measured(matcher: Matcher, batch: TrainingBatch) -> Float[Tensor, " captions"]:
    """The standings of a batch by v·t of the network without dropout; only its encoders work, the least of a step."""
    training = matcher.training
    matcher.eval()
    images, captions = matcher.encode_images(batch.images).pooled, matcher.encode_captions(batch.captions).pooled
    matcher.train(training)
    return standing(images.float(), captions.float(), batch.image_of_caption)
