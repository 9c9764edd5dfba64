"""Noisy correspondence: synthetic wrong training pairs, and per-caption weights against wrong pairs.

A wrong pair scores like a random one, and every batch contains many random pairs: the z-score of a pair's `v·t` against
in-batch negatives separates the two kinds, as networks learn right pairs before they memorise wrong ones. A mixture of
two normal distributions, fitted to these z-scores, yields the probability that a pair is clean (DivideMix, Li et al.,
ICLR 2020; NCR, Huang et al., NeurIPS 2021). Differences from both: docs/paper.md, 24 and 25.
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
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tshsr.config.run import RunConfig, TrainingConfig
from tshsr.data.dataset import Split
from tshsr.data.npy import NpyFile
from tshsr.errors import DataError
from tshsr.models.base import Matcher
from tshsr.scoring.all_pairs import evaluation_mode
from tshsr.scoring.processes import Processes
from tshsr.training.batching import Reader, TrainingBatch, prefetch
from tshsr.training.objective import positives

NOISE_STREAM = 0x6E6F697365
"""Last word of the noise generator's seed: makes its draws independent of the epoch orders of the same run."""
GROUP_SIZE = 512
"""Approximate number of captions whose z-scores are computed against each other; the captions of an image are in
one group."""
EM_ITERATIONS = 200
"""Iterations of expectation-maximisation, more than convergence takes."""
ZSCORE_DECAY = 0.5
"""Weight of earlier epochs in the running mean of the z-scores; it delays the effect of memorised wrong pairs."""
MIN_DEVIATION = 1e-3
"""Lower bound of a component's deviation; smaller differences between scores are rounding."""


def with_noise(train: Split, config: TrainingConfig) -> Split:
    """The split with the wrong pairs of `training.noise` or `training.noise_index`; unchanged without either.

    Raises:
        DataError: Where the index file can't be used.
    """
    if config.noise_index:
        return replace(train, image_of_caption=read_noise_index(Path(config.noise_index), train))
    if config.noise:
        return replace(train, image_of_caption=permute_images(train.image_of_caption, config.noise, config.seed))
    return train


def permute_images(image_of_caption: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Permute the images of a random share of the captions among themselves, as NCR does.

    The number of captions is rounded down. The permutation need not be a derangement: a caption may be assigned its own
    image again (images have several captions): of all captions about 1 + (captions per image - 1) `share` do. Every
    image keeps its number of captions.

    Args:
        image_of_caption: int64, for each caption the number of its image.
        share: 0 to 1.
    """
    generator = np.random.default_rng([seed, 0, 0, 0, NOISE_STREAM])
    chosen = generator.permutation(len(image_of_caption))[: int(share * len(image_of_caption))]
    noisy = image_of_caption.copy()
    noisy[chosen] = generator.permutation(image_of_caption[chosen])
    return noisy


def read_noise_index(path: Path, train: Split) -> np.ndarray:
    """The image of each caption by a published index file.

    The files of NCR (and of BiCro, RCL and others) hold one number for each caption: its image. Files with one number
    for each image are read too: image `index[i]` replaces image i for all captions of i. Where a split has as many
    captions as images, the file is read as one number for each caption.

    Args:
        path: A .npy file with one axis of whole numbers; pickled objects are never loaded.
        train: The clean split.

    Raises:
        DataError: Where the file can't be read, is of another length, or names an image that does not exist.
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


@dataclass(frozen=True)
class Mixture:
    """Two normal distributions over match z-scores: wrong pairs first, right pairs second.

    Attributes:
        shares: Sum to 1.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    shares: tuple[float, float]

    def clean_probability(self, zscores: Float[np.ndarray, " captions"]) -> Float[np.ndarray, " captions"]:
        """Posterior probability that each pair is right (Bayes' rule), made monotone in the z-score.

        In the far tails the wider component always has the higher density, which would reject the best pairs (or accept
        the worst): beyond its extremum the posterior is held constant.
        """
        (wrong, right), (wide, narrow) = self.means, (each**2 for each in self.deviations)
        if wide != narrow:  # the extremum is a maximum if the first component is the wider one, else a minimum
            turn = (right * wide - wrong * narrow) / (wide - narrow)
            zscores = np.minimum(zscores, turn) if wide > narrow else np.maximum(zscores, turn)
        probability: np.ndarray = responsibilities(zscores, self)[1]
        return probability


def match_zscore(
    images: Float[Tensor, "images dim"],
    captions: Float[Tensor, "captions dim"],
    image_of_caption: Int[Tensor, " captions"],
) -> Float[Tensor, " captions"]:
    """z-score of each pair against in-batch negatives, by its image and by its sibling captions (docs/paper.md, 24).

        image      y_c = ½ z( v_i·t_c; v_i'·t_c )  +  ½ z( v_i·t_c; v_i·t_c' )
        siblings   s_c = ½ z( o_c·t_c; o_i'·t_c )  +  ½ z( o_c·t_c; o_c·t_c' )
        o_c = l2( Σ relu(y_d) t_d )   over the captions d ≠ c of c's image i        o_i: over all captions of image i

    with z(x; negatives) = (x − mean) / deviation, over other images i' and captions c' of other images. The result is
    (y + s) / 2, with mean 0 over random pairs for every network.

    Args:
        images: v of the images of a group.
        captions: t of all captions of these images.
        image_of_caption: For each caption the row of its image.

    Returns:
        y alone where no sibling has a positive weight; 0 in a group of one image.
    """
    by_image = _symmetric_zscore(images[image_of_caption], images, captions, image_of_caption)
    weighted = by_image.clamp_min(0)[:, None] * captions
    sums = torch.zeros_like(images).index_add(0, image_of_caption, weighted)
    siblings = sums[image_of_caption] - weighted
    by_siblings = _symmetric_zscore(normalize(siblings, dim=-1), normalize(sums, dim=-1), captions, image_of_caption)
    only_caption = torch.bincount(image_of_caption)[image_of_caption] == 1
    # Subtracting the only weighted caption from the sum leaves rounding errors.
    no_sibling = only_caption | (siblings.norm(dim=-1) <= 1e-6)
    return torch.where(no_sibling, by_image, (by_image + by_siblings) / 2)


def _symmetric_zscore(
    targets: Float[Tensor, "captions dim"],
    images: Float[Tensor, "images dim"],
    captions: Float[Tensor, "captions dim"],
    image_of_caption: Int[Tensor, " captions"],
) -> Float[Tensor, " captions"]:
    """Mean of the z-scores of target·caption among the other images and among the captions of other images."""
    positive = (targets * captions).sum(dim=-1)
    other_images = ~positives(image_of_caption, len(images)).T
    sides = ((captions @ images.T, other_images), (targets @ captions.T, other_images[:, image_of_caption]))
    return torch.stack([_zscore(positive, scores, negative) for scores, negative in sides]).mean(dim=0)


def _zscore(positive: Tensor, scores: Tensor, negative: Tensor) -> Tensor:
    """(positive - mean) / deviation over each row's negatives; 0 without negatives."""
    count = negative.sum(dim=1).clamp_min(1)
    mean = (scores * negative).sum(dim=1) / count
    deviation = (((scores - mean[:, None]) ** 2 * negative).sum(dim=1) / count).sqrt()
    return torch.where(deviation > MIN_DEVIATION, (positive - mean) / deviation.clamp_min(MIN_DEVIATION), 0)


def fit_mixture(zscores: Float[np.ndarray, " captions"]) -> Mixture | None:
    """Fit the mixture by expectation-maximisation (Dempster et al. 1977).

    The mean of the wrong component is bounded by half the mean of the right one: it would be 0 if no wrong pair were
    memorised. Without the bound, both components would fit clean data.

    Returns:
        None where right pairs score no higher than random ones, as with an untrained network.
    """
    low, high = np.quantile(zscores, (0.25, 0.75)).tolist()
    deviation = max(float(zscores.std()), MIN_DEVIATION)
    mixture = Mixture((min(low, high / 2), high), (deviation, deviation), (0.5, 0.5))
    for _ in range(EM_ITERATIONS):
        if mixture.means[1] <= 0:
            return None
        mixture = _maximised(zscores, responsibilities(zscores, mixture))
    return mixture


def _maximised(zscores: np.ndarray, shares: np.ndarray) -> Mixture:
    """M step: the most likely mixture, given the responsibilities."""
    mass = np.maximum(shares.sum(axis=1), 1e-12)
    means = shares @ zscores / mass
    means[0] = min(means[0], means[1] / 2)
    squares = (shares * (zscores - means[:, None]) ** 2).sum(axis=1) / mass
    deviations = np.maximum(np.sqrt(squares), MIN_DEVIATION)
    return Mixture(*(tuple(each.tolist()) for each in (means, deviations, mass / mass.sum())))


def responsibilities(
    zscores: Float[np.ndarray, " captions"], mixture: Mixture
) -> Float[np.ndarray, "components captions"]:
    """E step: posterior probability of the wrong and of the right component; every column sums to 1."""
    means, deviations, shares = (
        np.array(each)[:, None] for each in (mixture.means, mixture.deviations, mixture.shares)
    )
    logs = np.log(shares) - np.log(deviations) - ((zscores - means) / deviations) ** 2 / 2
    likelihoods: np.ndarray = np.exp(logs - logs.max(axis=0))
    likelihoods /= likelihoods.sum(axis=0)
    return likelihoods


def clean_probabilities(zscores: Float[Tensor, " captions"]) -> Float[Tensor, " captions"]:
    """Probability that each pair is right, by a mixture fitted to all z-scores; 1 where none can be fitted."""
    values = zscores.double().numpy()
    mixture = fit_mixture(values)
    return torch.ones_like(zscores) if mixture is None else torch.from_numpy(mixture.clean_probability(values)).float()


class NoisyPairWeights:
    """Weight of every training pair: the probability that it is clean, updated before each epoch after the warm-up.

    Args:
        config: Warm-up and seed.

    Attributes:
        zscores: Exponential moving mean of the match z-scores over the epochs; None before the first update. The
            only state needed to resume.
    """

    def __init__(self, config: RunConfig, reader: Reader) -> None:
        self.config, self.reader = config, reader
        self.zscores: Tensor | None = None
        self._weights = torch.ones(len(reader.split.captions))

    def restore(self, zscores: Tensor | None) -> None:
        """Continue from saved z-scores; None keeps the weights."""
        if zscores is not None:
            self.zscores, self._weights = zscores, clean_probabilities(zscores)

    def of(self, captions: np.ndarray) -> Float[Tensor, " captions"]:
        """The weights of captions by index."""
        return self._weights[torch.from_numpy(captions)]

    def update(self, matcher: Matcher, processes: Processes, epoch: int) -> None:
        """Compute all z-scores before an epoch (0-based); no-op during the warm-up.

        Args:
            processes: Those that share the groups; the z-scores do not depend on their number.
        """
        if epoch < self.config.loss.warmup_epochs:
            return
        found = torch.zeros(len(self._weights), device=processes.device)
        # Around the thread that reads: in training from pixels it runs the vision network, and restores its mode.
        batches = prefetch(self.reader.read(group) for group in self._groups(processes, epoch))
        with evaluation_mode(matcher, None), closing(batches):
            for batch in batches:
                on_device = batch.to(processes.device)
                found[torch.from_numpy(batch.numbers).to(found.device)] = batch_zscores(matcher, on_device)
        now = processes.sum(found).cpu()  # each process has the z-scores of its groups, and 0 elsewhere
        self.restore(now if self.zscores is None else torch.lerp(now, self.zscores, ZSCORE_DECAY))

    def _groups(self, processes: Processes, epoch: int) -> Iterator[np.ndarray]:
        """This process's groups of captions."""
        image_of_caption = self.reader.split.image_of_caption
        count = math.ceil(len(image_of_caption) / GROUP_SIZE)
        groups = image_groups(image_of_caption, count, seed=[self.config.training.seed, epoch])
        return islice(groups, processes.index, None, processes.count)


def image_groups(image_of_caption: np.ndarray, count: int, *, seed: Sequence[int]) -> Iterator[np.ndarray]:
    """Split all captions into at most `count` groups of random images; yields caption indices."""
    images = np.unique(image_of_caption)
    group_of_image = np.zeros(images[-1] + 1, np.int64)
    for number, members in enumerate(np.array_split(np.random.default_rng(seed).permutation(images), count)):
        group_of_image[members] = number
    group = group_of_image[image_of_caption]
    parts = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group, minlength=count))[:-1])
    yield from (part for part in parts if len(part))


@torch.no_grad()
def batch_zscores(matcher: Matcher, batch: TrainingBatch) -> Float[Tensor, " captions"]:
    """Match z-scores of a batch by v·t; runs only the encoders, the cheap part of a step."""
    images, captions = matcher.encode_pictures(batch.images).pooled, matcher.encode_captions(batch.captions).pooled
    return match_zscore(images.float(), captions.float(), batch.image_of_caption)
