"""A network inside another `Matcher` that scores pairs in its own way."""

from __future__ import annotations

from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.base import ItemEncoding, Matcher, Scores


class WrappedMatcher(Matcher):
    """The network's encodings, names, memory and scores; a subclass computes some scores otherwise."""

    def __init__(self, network: Matcher) -> None:
        super().__init__()
        self.network = network
        self.vision = network.vision

    @property
    def score_names(self) -> frozenset[str]:
        """The network's."""
        return self.network.score_names

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        """The network's."""
        return self.network.encode_images(batch)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        """The network's."""
        return self.network.encode_captions(batch)

    def bytes_per_pair(self, regions: int, words: int) -> int:
        """The network's."""
        return self.network.bytes_per_pair(regions, words)

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        """The network's."""
        return self.network.score_pairs(images, captions)
