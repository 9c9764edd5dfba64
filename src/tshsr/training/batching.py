"""Order and reading of training batches; the order is a pure function of seed, epoch, step and process."""

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

Item = TypeVar("Item")


@dataclass(frozen=True)
class Order:
    """Division of an epoch into steps, of a step into batches, and of a batch into one shard per process.

    Sizes differ by one at most.

    Attributes:
        batch: Maximum captions of a batch, over all processes.
        processes: Processes that share each batch.
    """

    captions: int
    batch: int
    accumulate: int
    processes: int
    seed: int

    def __post_init__(self) -> None:
        shards = self.steps_per_epoch * self.accumulate * self.processes
        if self.captions // shards < 2:
            raise SettingsError(
                f"{self.captions} training captions in batches of {self.batch} (accumulate {self.accumulate}, "
                f"{self.processes} processes) leave a batch with fewer than two captions, and a caption needs another "
                "one as a negative; set another training.batch or training.accumulate."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps per epoch."""
        return math.ceil(self.captions / (self.batch * self.accumulate))

    def steps(self, epoch: int, process: int, *, first: int = 0) -> Iterator[list[np.ndarray]]:
        """For each step of an epoch the caption numbers of this process's batches.

        Args:
            epoch: 0-based.
            first: First step of the iteration, 0-based.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(self.captions)
        for step in np.array_split(order, self.steps_per_epoch)[first:]:
            batches = np.array_split(step, self.accumulate)
            yield [np.array_split(batch, self.processes)[process] for batch in batches]


def derived_seed(*numbers: int) -> int:
    """Derive a 63-bit seed from several numbers (the run's seed, a step, a batch, a process)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class TrainingBatch:
    """Captions and their images, each image once.

    Attributes:
        image_of_caption: For each caption the row of its image.
        numbers: Indices of the captions in the split; always on the CPU.
    """

    images: ImageBatch | PixelBatch
    captions: CaptionBatch
    image_of_caption: Int[Tensor, " captions"]
    numbers: np.ndarray

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""
        images, captions = self.images.to(device), self.captions.to(device)
        return TrainingBatch(images, captions, self.image_of_caption.to(device), self.numbers)


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

    def images_of(self, captions: np.ndarray) -> np.ndarray:
        """The images of the batch of these captions, each once."""
        return np.unique(self.split.image_of_caption[captions])

    def read(
        self, captions: np.ndarray, read_images: Callable[[np.ndarray], ImageBatch | PixelBatch] | None = None
    ) -> TrainingBatch:
        """Read the batch of these captions.

        Args:
            read_images: Reads `images_of` the captions; None: the split's regions.
        """
        images, local = np.unique(self.split.image_of_caption[captions], return_inverse=True)
        batch = self.split.regions.read(images) if read_images is None else read_images(images)
        return TrainingBatch(batch, self.tokens.read(captions), torch.from_numpy(local), captions)


def prefetch(items: Iterator[Item]) -> Generator[Item]:
    """Prefetch: a thread prepares the next item while the caller works on the current one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item
