"""All-pairs scoring: exact, tiled in both axes, bounded in memory.

Captions are sorted by length and split into blocks, so that padding is rare; a tile is a block of images times a block
of captions, as large as the byte budget allows. The size of tiles affects results by float rounding only.

Axes: images | captions.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.tokens import CaptionTokenizer, CaptionTokens, by_length
from tshsr.errors import InputError, SettingsError
from tshsr.models.base import ItemEncoding, Matcher, Scores
from tshsr.scoring.fused import with_kernel
from tshsr.scoring.options import BYTE_BUDGET, DEFAULT_OPTIONS, ScoringOptions
from tshsr.scoring.precision import cast_matcher
from tshsr.scoring.processes import ALONE, Processes
from tshsr.scoring.storage import MatricesInFiles, MatricesInMemory, MatricesInParts

LOG = logging.getLogger(__name__)


ENCODE_BLOCK = 256
"""Images or captions per encoding batch; encoding is a small part of the work."""

PADDING = 1.05
"""Largest ratio of token positions to tokens in a tile."""

CACHE_TILE = 2**26
"""Largest tile on a CPU, in bytes; larger ones exceed its caches (measurements: docs/log.md)."""


@dataclass
class Budget:
    """Bound on the temporaries of a tile, in bytes; lowered after failed allocations.

    Attributes:
        fitting: The bound after allocation failures.
    """

    bytes: int
    fitting: int = sys.maxsize

    def lower(self, bound: int, error: BaseException) -> None:
        """Bound all further tiles."""
        self.fitting = min(self.fitting, bound)
        LOG.warning("memory ran out (%s); continuing with tiles of %d bytes", type(error).__name__, self.fitting)


@dataclass(frozen=True)
class CaptionLengths:
    """Lengths of the captions of a block; computed once per block, as reading them synchronises with a GPU.

    Attributes:
        words: For each caption the position of its last token, 1-based.
        holes: Whether a caption has padding before its last token; never with the tokenizer's output.
    """

    words: list[int]
    holes: bool

    @classmethod
    def of(cls, captions: ItemEncoding) -> CaptionLengths:
        """From the mask of an encoding."""
        positions = torch.arange(1, captions.mask.shape[-1] + 1, device=captions.mask.device)
        ends, real = (captions.mask * positions).amax(dim=1), captions.mask.sum(dim=1)
        *words, holes = torch.cat([ends, (ends - real).sum()[None]]).tolist()
        return cls(words, holes > 0)


def score_split(
    matcher: Matcher, tokenizer: CaptionTokenizer, split: Split, options: ScoringOptions = DEFAULT_OPTIONS
) -> Mapping[str, np.ndarray]:
    """Score every image of a split with every caption.

    The training mode of the network is restored afterwards.

    Returns:
        By score name a float32 matrix, images x captions.
    """
    batches = image_batches(split, readers(matcher, options.processes))
    return score_all_pairs(matcher, batches, tokenizer.encode(split.captions), options)


@torch.inference_mode()
def score_all_pairs(
    matcher: Matcher,
    images: Iterable[ImageBatch | None],
    captions: CaptionTokens,
    options: ScoringOptions = DEFAULT_OPTIONS,
) -> Mapping[str, np.ndarray]:
    """Score every image with every caption; see `score_split`."""
    with evaluation_mode(matcher, options.device) as device:
        caption_blocks = CaptionBlocks(matcher, captions, device, processes=options.processes)
        image_blocks = encode_image_blocks(matcher, images, device, readers(matcher, options.processes))
        return score_blocks(cast_matcher(matcher, options.dtype), image_blocks, caption_blocks, options)


def score_blocks(
    scorer: Matcher, images: Sequence[ItemEncoding], captions: CaptionBlocks, options: ScoringOptions
) -> Mapping[str, np.ndarray]:
    """All pairs of encoded blocks, in the precision of `scorer`; of several processes each scores its captions."""
    dtype = next(scorer.parameters()).dtype
    fewest = min((part.mask.shape[-1] for part in images), default=1)
    scorer = with_kernel(scorer, options.kernel, captions.device, fewest)
    shape, own = (sum(map(len, images)), len(captions.tokens)), captions.own_columns()
    result: MatricesInMemory | MatricesInFiles | MatricesInParts
    if options.folder is None:
        result = MatricesInMemory(shape)
    elif options.processes.count == 1:
        result = MatricesInFiles(shape, options.folder)
    else:
        result = MatricesInParts(shape, options.folder, own, options.processes)
    budget, done = Budget(options.byte_budget), 0
    for columns, block in captions:

        def tell(rows: int, width: int = len(columns), before: int = done) -> None:
            options.progress(before + rows * width, shape[0] * len(own))

        for name, scores in score_columns(scorer, images, block.at(dtype), budget, tell).items():
            result.write(name, columns, scores)
        done += shape[0] * len(columns)
    return result.finish()


def score_columns(
    scorer: Matcher,
    images: Sequence[ItemEncoding],
    block: ItemEncoding,
    budget: Budget,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[str, np.ndarray]:
    """All images with a block of captions: by score name float32, images x captions of the block.

    Args:
        block: In the precision of the scorer.
        tell: Called with the number of images done.
    """
    parts, lengths, done = [], CaptionLengths.of(block), 0
    for part in images:
        # Cast per block: a full copy would double the memory of the images, and casts cost little next to scoring.
        parts.append(score_block(scorer, part.at(block.items.dtype), block, lengths, budget))
        done += len(part)
        tell(done)
    # By caption on the device already, as matrices are written: a transposition on the host costs more.
    by_caption = {name: torch.cat([part[name].T for part in parts], dim=1) for name in parts[0]}
    return {name: scores.float().cpu().numpy().T for name, scores in by_caption.items()}


def readers(matcher: Matcher, processes: Processes) -> Processes:
    """The processes that share the reading of images: all, where each picture is decoded; else each reads all."""
    return processes if matcher.vision is not None else ALONE


def image_batches(split: Split, processes: Processes = ALONE) -> Iterator[ImageBatch | None]:
    """The images of a split, `ENCODE_BLOCK` at a time; of several processes each reads every n-th block.

    Returns:
        None for a block that another process reads.
    """
    for number, rows in enumerate(blocks(np.arange(len(split.regions)), ENCODE_BLOCK)):
        yield split.regions.read(rows) if number % processes.count == processes.index else None


def encode_image_blocks(
    matcher: Matcher, images: Iterable[ImageBatch | None], device: torch.device, processes: Processes = ALONE
) -> list[ItemEncoding]:
    """Encode batches of images, one block each.

    Args:
        images: None for a block that another process encodes.
        processes: Those that share the blocks; every process has all of them at the end.

    Raises:
        ProcessError: Where another process was lost.
    """
    encoded = [None if batch is None else matcher.encode_images(batch.to(device)) for batch in images]
    for number, block in enumerate(encoded):
        owner = number % processes.count
        if processes.count > 1:
            found = processes.from_main(None if block is None else block.to("cpu"), of=owner)
            encoded[number] = block if found is None or owner == processes.index else found.to(device)
    return [block for block in encoded if block is not None]


class CaptionBlocks:
    """Captions in blocks of similar length, encoded lazily during iteration.

    The blocks are the same for every number of processes, so that the scores are; each process has every n-th one.

    Args:
        cache_bytes: Bound on the encodings cached for further iterations; other blocks are encoded again.
        processes: Those that share the blocks.

    Raises:
        InputError: Where there is no caption.
    """

    def __init__(
        self,
        matcher: Matcher,
        tokens: CaptionTokens,
        device: torch.device,
        cache_bytes: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        if not len(tokens):
            raise InputError("there are no captions to score; give at least one.")
        self.matcher, self.tokens, self.device = matcher, tokens, device
        self.bytes_left = cache_bytes
        self.columns = list(blocks(by_length(tokens), ENCODE_BLOCK))[processes.index :: processes.count]
        self.cache: dict[int, ItemEncoding] = {}

    def own_columns(self) -> np.ndarray:
        """The captions of this process, block by block."""
        return np.concatenate([np.zeros(0, np.int64), *self.columns])

    def count(self, mask: np.ndarray) -> int:
        """Number of marked pairs with the captions of this process."""
        return int(np.count_nonzero(mask, axis=0)[self.own_columns()].sum())

    def __iter__(self) -> Iterator[tuple[np.ndarray, ItemEncoding]]:
        """The column numbers and the encoding of each block."""
        for number, columns in enumerate(self.columns):
            yield columns, self.cache[number] if number in self.cache else self._encode(number, columns)

    def _encode(self, number: int, columns: np.ndarray) -> ItemEncoding:
        encoding = self.matcher.encode_captions(self.tokens.read(columns).to(self.device))
        size = encoding.bytes_per_row() * len(encoding)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.cache[number] = encoding
        return encoding


class evaluation_mode:  # noqa: N801 (a context manager: with evaluation_mode(matcher, device) as device)
    """Context with a network in evaluation mode on a device; the mode is restored at the end, also after an error."""

    def __init__(self, matcher: Matcher, device: torch.device | str | None) -> None:
        self.matcher, self.training = matcher, matcher.training
        self.device = next(matcher.parameters()).device if device is None else torch.device(device)

    def __enter__(self) -> torch.device:
        """Returns the device."""
        with torch.inference_mode(mode=False):  # weights that are moved in inference mode cannot be trained
            self.matcher.eval().to(self.device)
        return self.device

    def __exit__(self, *error: object) -> None:
        """Restore the mode."""
        self.matcher.train(self.training)


@torch.inference_mode()
def score_encoded(
    matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, *, byte_budget: int = BYTE_BUDGET
) -> Scores:
    """Score all pairs of two encodings in tiles, on their device and in the current mode of the network."""
    return score_block(matcher, images, captions, CaptionLengths.of(captions), Budget(byte_budget))


def score_block(
    matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, lengths: CaptionLengths, budget: Budget
) -> Scores:
    """All pairs of two blocks, in tiles; the scores stay on their device, without synchronisation with a GPU."""
    result: Scores = {}
    words, left = lengths.words, 0
    while left < len(captions):
        cost = matcher.bytes_per_pair(images.mask.shape[-1], words[left])
        wide = tile_shape(cost, len(images), len(captions) - left, tile_bytes(images, cost, budget))[1]
        wide = similar_lengths(words[left : left + wide])
        tile_words = words[left : left + wide]
        part = captions[left : left + wide].cut(
            max(tile_words), padded=lengths.holes or min(tile_words) < max(tile_words)
        )
        cost = matcher.bytes_per_pair(images.mask.shape[-1], part.mask.shape[-1])
        tall = max(1, min(len(images), tile_bytes(images, cost, budget) // (cost * wide)))
        for top in range(0, len(images), tall):
            for name, scores in score_tile(matcher, images[top : top + tall], part, budget).items():
                matrix = result.setdefault(name, scores.new_empty(len(images), len(captions)))
                matrix[top : top + scores.shape[0], left : left + scores.shape[1]] = scores
        left += wide
    return result


def similar_lengths(lengths: Sequence[int]) -> int:
    """Size of the longest prefix of these caption lengths whose padding is within `PADDING`."""
    longest = words = 0
    for count, length in enumerate(lengths):
        longest, words = max(longest, length), words + length
        if longest * (count + 1) > PADDING * words:
            return count
    return len(lengths)


def score_tile(matcher: Matcher, images: ItemEncoding, captions: ItemEncoding, budget: Budget) -> Scores:
    """All pairs at once; after a failed allocation, recursively in halves."""
    try:
        return matcher.score_all(images, captions)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        pairs = len(images) * len(captions)
        if not is_out_of_memory(error) or pairs == 1:
            raise
        cost = matcher.bytes_per_pair(images.mask.shape[-1], captions.mask.shape[-1])
        budget.lower(cost * (pairs // 2), error)
    axis = int(len(captions) > len(images))
    middle = (len(captions) if axis else len(images)) // 2
    halves = [
        score_tile(matcher, *((images, captions[part]) if axis else (images[part], captions)), budget)
        for part in (slice(middle), slice(middle, None))
    ]
    return {name: torch.cat([half[name] for half in halves], dim=axis) for name in halves[0]}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; torch on a CPU raises a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def tile_bytes(images: ItemEncoding, cost: int, budget: Budget) -> int:
    """Bytes of a tile: the budget (on a CPU at most `CACHE_TILE`), or the lower bound after a failed allocation."""
    size = min(budget.bytes, max(CACHE_TILE, cost)) if images.mask.device.type == "cpu" else budget.bytes
    return min(size, max(budget.fitting, cost))


def tile_shape(bytes_per_pair: int, images: int, captions: int, byte_budget: int) -> tuple[int, int]:
    """Images and captions of a tile: about square, within the budget and the block.

    Raises:
        SettingsError: Where the budget is below the cost of a pair.
    """
    if byte_budget < bytes_per_pair:
        raise SettingsError(
            f"the byte budget is {byte_budget}; scoring one pair takes about {bytes_per_pair} bytes. Raise the budget."
        )
    pairs = byte_budget // bytes_per_pair
    tall = min(images, max(1, math.isqrt(pairs)))
    return tall, min(captions, max(1, pairs // tall))


def blocks(items: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive slices of an array."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
