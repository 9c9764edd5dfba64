"""What scoring a pair costs: multiply-adds, counted, and pairs a second, one network after the other in one process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from benchmarks.outcomes import Task
from tshsr.bench.speed import multiply_adds_of
from tshsr.data.batches import pad_sequences
from tshsr.data.layouts import open_split
from tshsr.retriever import Retriever
from tshsr.scoring.all_pairs import by_length, score_encoded
from tshsr.system import keep_freed_memory

IMAGES, REPEATS = 100, 5


@dataclass(frozen=True)
class Cost:
    """Of one pair, encoding apart.

    Attributes:
        macs_per_pair: Multiply-adds of the matrix products.
        pairs_per_s: On this machine, median of some repeats.
    """

    macs_per_pair: float
    pairs_per_s: float

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        rate = 1 / (1 / self.pairs_per_s + 1 / other.pairs_per_s)
        return Cost(self.macs_per_pair + other.macs_per_pair, rate)


@torch.inference_mode()
def cost_of(task: Task, known: Cost | None) -> Cost | None:
    """The cost of a network: scores the first test images with all their captions.

    The rate that is known stays, which may be of a quieter hour, unless the network now takes other multiply-adds.

    Args:
        task: Whose network.
        known: Its cost as it was measured before, if it was.

    Returns:
        The cost; without weights, what is known.
    """
    if not (task.folder / "best").exists():
        return known
    keep_freed_memory()
    retriever, test = Retriever.from_pretrained(task.folder), open_split(task.place, "test")
    (columns,) = np.nonzero(test.image_of_caption < IMAGES)
    tokens = retriever.tokenizer.encode([test.captions[column] for column in columns])
    images = retriever.encode_images(test, indices=range(IMAGES))
    captions = retriever.matcher.encode_captions(pad_sequences([tokens[place] for place in by_length(tokens)]))
    pairs = len(images) * len(captions)
    macs = multiply_adds_of(lambda: score_encoded(retriever.matcher, images, captions)) / pairs
    if known is not None and known.macs_per_pair == macs:
        return known
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        score_encoded(retriever.matcher, images, captions)
        seconds.append(time.perf_counter() - start)
    return Cost(macs, pairs / median(seconds))
