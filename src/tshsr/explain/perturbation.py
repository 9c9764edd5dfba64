"""Scores of pairs with regions or words removed.

The remaining items are encoded again, so that removed items leave no trace in pooled vectors or recurrent states.

Axes: pairs | variants (of a pair) | regions | words (the removable ones: without start and end tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tshsr.data.batches import ImageBatch, pad_sequences
from tshsr.data.dataset import Split
from tshsr.data.text import START
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
        tokens: Token numbers of each caption.
        ends: 1 where captions have start and end tokens, which are never removed; else 0.
    """

    retriever: Retriever
    batch: ImageBatch
    tokens: list[list[int]]
    ends: int
    images: ItemEncoding
    texts: ItemEncoding
    score: str

    @classmethod
    def read(cls, retriever: Retriever, split: Split, captions: np.ndarray, *, score: str) -> Pairs:
        """Read captions of a split, each with its image."""
        texts = [split.captions[int(caption)] for caption in captions]
        retriever.check_extractor(split.extractor)
        batch = split.regions.read(split.image_of_caption[captions]).to(retriever.device)
        tokenizer = retriever.tokenizer
        ends = int(tokenizer.words(texts[0])[0] == START)
        images, encoded = retriever.encode_images(batch), retriever.encode_captions(texts)
        return cls(retriever, batch, tokenizer.encode(texts), ends, images, encoded, score)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.tokens)

    def regions_of(self, pair: int) -> np.ndarray:
        """Indices of the real regions of an image."""
        return np.flatnonzero(self.batch.mask[pair].cpu().numpy())

    def words_of(self, pair: int) -> np.ndarray:
        """Indices of the removable tokens of a caption."""
        return np.arange(self.ends, len(self.tokens[pair]) - self.ends)

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
        rows = []
        for pair, mask in variants:
            tokens, end = self.tokens[pair], len(self.tokens[pair]) - self.ends
            words = [tokens[place] for place in self.words_of(pair)[mask]]
            rows.append([*tokens[: self.ends], *words, *tokens[end:]])
        pairs = torch.tensor([pair for pair, _ in variants], device=self.batch.mask.device)
        matcher = self.retriever.matcher
        texts = matcher.encode_captions(pad_sequences(rows).to(pairs.device))
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
