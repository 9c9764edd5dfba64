"""Scores of pairs with regions or words removed.

The remaining items are encoded again, so that removed items leave no trace in pooled vectors or recurrent states. The
image encoder's own vector of the whole picture stays, as it is not made of regions; a text encoder's own vector is that
of the remaining words.

Axes: pairs | variants (of a pair) | regions | words (the removable ones: without start and end tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.models.base import ItemEncoding
from tshsr.retriever import Retriever

ROWS = 512
"""Variants that are encoded and scored together."""

Variant = tuple[int, np.ndarray]
"""Number of a pair, and the mask of its remaining items."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Images with one caption each, raw and encoded.

    Attributes:
        retriever: The network and its tokenizer.
        batch: The raw images.
    """

    retriever: Retriever
    batch: ImageBatch
    captions: list[str]
    images: ItemEncoding
    texts: ItemEncoding
    score: str

    @classmethod
    def read(cls, retriever: Retriever, split: Split, captions: np.ndarray, *, score: str) -> Pairs:
        """Read captions of a split, each with its image."""
        texts = [split.captions[int(caption)] for caption in captions]
        retriever.check_extractor(split.extractor)
        batch = split.regions.read(split.image_of_caption[captions]).to(retriever.device)
        images, encoded = retriever.encode_images(batch, parts=True), retriever.encode_captions(texts, parts=True)
        return cls(retriever, batch, texts, images, encoded, score)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.captions)

    def regions_of(self, pair: int) -> np.ndarray:
        """Indices of the real regions of an image."""
        return np.flatnonzero(self.batch.mask[pair].cpu().numpy())

    def words_of(self, pair: int) -> np.ndarray:
        """Indices of the removable words of a caption: all but start and end tokens."""
        ends = self.retriever.tokenizer.ends
        return np.arange(ends, int(self.texts.mask[pair].sum()) - ends)

    def with_regions(self, remaining: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores with only the regions in each mask.

        Args:
            remaining: For each pair a mask of variants x regions (in the order of `regions_of`), no row empty.

        Returns:
            For each pair one score per variant.
        """
        return score_variants(remaining, self._score_images)

    def with_words(self, remaining: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Scores with only the words in each mask.

        Args:
            remaining: For each pair a mask of variants x words (in the order of `words_of`), no row empty.

        Returns:
            For each pair one score per variant.
        """
        return score_variants(remaining, self._score_texts)

    @torch.inference_mode()
    def _score_images(self, variants: Sequence[Variant]) -> np.ndarray:
        """Scores of images with the regions of each variant."""
        rows = [self.regions_of(pair)[mask] for pair, mask in variants]
        longest = max(map(len, rows))
        places = torch.tensor(np.stack([np.pad(row, (0, longest - len(row))) for row in rows]))
        mask = torch.arange(longest) < torch.tensor([[len(row)] for row in rows])
        places, mask = places.to(self.batch.mask.device), mask.to(self.batch.mask.device)
        pairs = torch.tensor([pair for pair, _ in variants], device=mask.device)
        boxes = None if self.batch.boxes is None else self.batch.boxes[pairs[:, None], places]
        pooled = None if self.batch.pooled is None else self.batch.pooled[pairs]  # of the whole picture
        regions = self.batch.regions[pairs[:, None], places] * mask[..., None]
        pictures = ImageBatch.unchecked(regions, mask, boxes, pooled)
        matcher = self.retriever.matcher
        scores = matcher.score_listed(matcher.encode_images(pictures), self.texts[pairs])
        return scores[self.score].double().cpu().numpy()

    @torch.inference_mode()
    def _score_texts(self, variants: Sequence[Variant]) -> np.ndarray:
        """Scores of captions with the words of each variant."""
        tokenizer = self.retriever.tokenizer
        kept = [np.pad(mask, tokenizer.ends, constant_values=True) for _, mask in variants]
        tokens = tokenizer.encode_kept([self.captions[pair] for pair, _ in variants], kept)
        pairs = torch.tensor([pair for pair, _ in variants], device=self.batch.mask.device)
        matcher = self.retriever.matcher
        texts = matcher.encode_captions(tokens.read(np.arange(len(tokens))).to(pairs.device))
        return matcher.score_listed(self.images[pairs], texts)[self.score].double().cpu().numpy()


def score_variants(
    remaining: Sequence[np.ndarray], score: Callable[[Sequence[Variant]], np.ndarray]
) -> list[np.ndarray]:
    """Score the variants of all pairs: duplicates once, variants of similar length together (less padding)."""
    different = [np.unique(masks, axis=0, return_inverse=True) for masks in remaining]
    variants = [(pair, mask) for pair, (masks, _) in enumerate(different) for mask in masks]
    order = np.argsort([mask.sum() for _, mask in variants], kind="stable")
    scores = np.empty(len(variants))
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        scores[rows] = score([variants[row] for row in rows])
    ends = np.cumsum([len(masks) for masks, _ in different])
    parts = np.split(scores, ends[:-1])
    return [part[place.reshape(-1)] for part, (_, place) in zip(parts, different, strict=True)]
