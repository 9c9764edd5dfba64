"""Order and reading of training batches; the order is a pure function of seed, epoch and step."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tshsr.data.batches import CaptionBatch, ImageBatch, PixelBatch
from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer
from tshsr.errors import DataError, InputError, SettingsError
from tshsr.scoring.processes import ALONE, Processes

Item = TypeVar("Item")


@dataclass(frozen=True)
class Order:
    """Division of an epoch into steps, and of a step into batches; it does not depend on the number of processes.

    Sizes differ by one at most.

    Attributes:
        batch: Maximum captions of a batch, over all processes.
    """

    captions: int
    batch: int
    accumulate: int
    seed: int

    def __post_init__(self) -> None:
        batches = self.steps_per_epoch * self.accumulate
        if self.captions // batches < 2:
            raise SettingsError(
                f"{self.captions} training captions in batches of {self.batch} (accumulate {self.accumulate}) leave a "
                "batch with fewer than two captions, and a caption needs another one as a negative; set another "
                "training.batch or training.accumulate."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps per epoch."""
        return math.ceil(self.captions / (self.batch * self.accumulate))

    def steps(self, epoch: int, *, first: int = 0) -> Iterator[list[np.ndarray]]:
        """For each step of an epoch the caption numbers of its batches.

        Args:
            epoch: 0-based.
            first: First step of the iteration, 0-based.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.captions)
        for step in np.array_split(order, self.steps_per_epoch)[first:]:
            yield np.array_split(step, self.accumulate)


def derived_seed(*numbers: int) -> int:
    """Derive a 63-bit seed from several numbers (the run's seed, a step, a batch, a process)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class TrainingBatch:
    """Captions and their images, each image once.

    Attributes:
        images: The images, or one process's share of them.
        captions: The captions, or one process's share of them.
        image_of_caption: For each caption of the whole batch the row of its image.
        numbers: Indices of all captions of the batch in the split; always on the CPU.
        total_images: Number of images of the whole batch.
    """

    images: ImageBatch | PixelBatch
    captions: CaptionBatch
    image_of_caption: Int[Tensor, " captions"]
    numbers: np.ndarray
    total_images: int

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""
        images, captions = self.images.to(device), self.captions.to(device)
        return TrainingBatch(images, captions, self.image_of_caption.to(device), self.numbers, self.total_images)


class Reader:
    """Reader of batches of a split; captions are tokenised once, regions are read from disk for each batch.

    Raises:
        DataError: Where a caption has no word.
    """

    def __init__(self, split: Split, tokenizer: CaptionTokenizer) -> None:
        self.split = split
        try:
            self.tokens = tokenizer.encode(split.captions)
        except InputError as error:
            raise DataError(f"{split.data}, split {split.name}, counting from caption 0: {error}") from None

    def images_of(self, captions: np.ndarray, processes: Processes = ALONE) -> np.ndarray:
        """The images of the batch of these captions, each once; of several processes this one's share."""
        images = np.unique(self.split.image_of_caption[captions])
        return images[processes.share(len(images)).rows]

    def read(
        self,
        captions: np.ndarray,
        read_images: Callable[[np.ndarray], ImageBatch | PixelBatch] | None = None,
        processes: Processes = ALONE,
    ) -> TrainingBatch:
        """Read the batch of these captions.

        Args:
            read_images: Reads `images_of` the captions; None: the split's regions.
            processes: Those that share the batch: this one's share of the images and of the captions is read.
        """
        images, local = np.unique(self.split.image_of_caption[captions], return_inverse=True)
        own = images[processes.share(len(images)).rows]
        batch = self.split.regions.read(own) if read_images is None else read_images(own)
        tokens = self.tokens.read(captions[processes.share(len(captions)).rows])
        return TrainingBatch(batch, tokens, torch.from_numpy(local), captions, len(images))


def prefetch(items: Iterator[Item]) -> Generator[Item]:
    """Prefetch: a thread prepares the next item while the caller works on the current one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
