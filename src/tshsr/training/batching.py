"""Order and reading of training batches; the order is a pure function of seed, epoch, step and process."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tshsr.data.batches import CaptionBatch, ImageBatch, PixelBatch, pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError, InputError, SettingsError

Item = TypeVar("Item")

ENCODE_AT_ONCE = 4096
"""Captions tokenised per call: bounds the memory of the tokenizer's output objects."""


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

    def __init__(self, split: Split, tokenizer: Tokenizer) -> None:
        self.split = split
        rows = _encode(split, tokenizer)
        self.starts = np.cumsum([0, *(len(row) for row in rows)])
        self.tokens = np.concatenate(rows)

    def captions(self) -> Iterator[list[int]]:
        """Token ids of every caption."""
        for start, stop in pairwise(self.starts.tolist()):
            yield self.tokens[start:stop].tolist()

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
        rows = [self.tokens[self.starts[i] : self.starts[i + 1]].tolist() for i in captions]
        return TrainingBatch(batch, pad_sequences(rows), torch.from_numpy(local), captions)


def prefetch(items: Iterator[Item]) -> Generator[Item]:
    """Prefetch: a thread prepares the next item while the caller works on the current one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


def _encode(split: Split, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Token ids of every caption, as int32."""
    rows: list[np.ndarray] = []
    for start in range(0, len(split.captions), ENCODE_AT_ONCE):
        try:
            encoded = tokenizer.encode(split.captions[start : start + ENCODE_AT_ONCE])
        except InputError as error:
            raise DataError(f"{split.data}, split {split.name}, counting from caption {start}: {error}") from None
        rows += [np.array(row, np.int32) for row in encoded]
    return rows
