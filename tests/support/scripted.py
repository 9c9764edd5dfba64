"""A network that does what a test tells it, with the interface of the real ones, and small real data on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.config.run import RunConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.regions import RegionFeatures
from tshsr.data.text import Tokenizer
from tshsr.models.base import ItemEncoding, Matcher, Scores, StreamTrace
from tshsr.models.tshsr import Tshsr
from tshsr.retriever import Retriever

FEATURES = 6


class ScriptedMatcher(Matcher):
    """Each token looks at the region that `points` names for it; a caption scores the sum of its tokens' `values`."""

    def __init__(self, tokens: int, points: dict[int, int], values: dict[int, float]) -> None:
        super().__init__()
        self.tokens, self.points, self.values = tokens, points, values
        self.encoded: list[int] = []
        self.traced: list[int] = []
        self.place = nn.Parameter(torch.zeros(()))  # a retriever asks a network's weights where it is

    @property
    def score_names(self) -> frozenset[str]:
        return frozenset({"fused", "pooled"})

    def encode_images(self, batch: ImageBatch) -> ItemEncoding:
        self.encoded.append(len(batch))
        return ItemEncoding(batch.regions, batch.mask, batch.regions.mean(dim=1), batch.regions @ batch.regions.mT)

    def encode_captions(self, batch: CaptionBatch) -> ItemEncoding:
        items = functional.one_hot(batch.tokens, self.tokens).float() * batch.mask[..., None]
        return ItemEncoding(items, batch.mask, items.sum(dim=1), items @ items.mT)

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        values = torch.tensor([self.values.get(token, 0.0) for token in range(self.tokens)])
        alike = torch.zeros_like(images.pooled[..., 0] + captions.pooled[..., 0])
        return {"fused": alike + captions.pooled @ values, "pooled": alike}

    def bytes_per_pair(self, regions: int, words: int) -> int:
        return 4 * regions * words

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        self.traced.append(len(images))
        target = torch.tensor([self.points.get(token, -1) for token in range(self.tokens)])
        tokens = captions.items.argmax(dim=-1)
        regions = torch.arange(images.mask.shape[1])
        looks = torch.where(target[tokens][..., None] == regions, 5.0, 1.0)  # pairs x words x regions
        looks = looks * images.mask[:, None] * captions.mask[..., None]
        return {
            "word_stream": stream_trace(looks, captions.mask),
            "region_stream": stream_trace(looks.transpose(1, 2), images.mask),
        }


def stream_trace(looks: Tensor, queries: Tensor) -> StreamTrace:
    """A trace of two levels whose attention is `looks` with rows that sum to 1 and whose nodes weigh alike."""
    attention = looks / looks.sum(dim=-1, keepdim=True).clamp_min(1e-9)
    weights = torch.cat([torch.ones(len(queries), 1), queries.float()], dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True))[:, None].expand(-1, 2, -1)
    zeros, half = torch.zeros(len(queries), 2), torch.full((len(queries),), 0.5)
    return StreamTrace(attention, weights, zeros, zeros[:, 0], torch.zeros(()), half, True, torch.zeros_like(weights))


class TracelessMatcher(ScriptedMatcher):
    """A method that has nothing to show."""

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        return {}


def retriever(matcher: Matcher, tokenizer: Tokenizer) -> Retriever:
    """The public face of a network that knows the features of `write_split`."""
    return Retriever(matcher, tokenizer, RunConfig(extractor="random"), "scripted")


def scripted(captions: list[str], points: dict[str, int], values: dict[str, float] | None = None) -> Retriever:
    """A scripted network over the words of some captions."""
    tokenizer = Tokenizer.build(captions, minimum_count=1)
    number = {word: next(tokenizer.encode([word]).rows())[0] for word in {*points, *(values or {})}}
    by_token = {number[word]: region for word, region in points.items()}
    values_by_token = {number[word]: value for word, value in (values or {}).items()}
    return retriever(ScriptedMatcher(len(tokenizer), by_token, values_by_token), tokenizer)


def real(
    captions: list[str], *, streams: str = "both", levels: int = 2, global_node: bool = True, pooling: str = "attention"
) -> Retriever:
    """A small TSHSR network with random weights over the words of some captions."""
    tokenizer = Tokenizer.build(captions, minimum_count=1)
    torch.manual_seed(1)
    encoder = EncoderConfig(dim=16, feature_dim=FEATURES, vocabulary=len(tokenizer), word_dim=8)
    config = TshsrConfig(
        encoder=encoder,
        similarity_dim=8,
        streams=streams,
        global_node=global_node,
        pooling=pooling,
        reasoning=ReasoningConfig(levels=levels, seeds=(3, 2)),
    )
    return retriever(Tshsr(config), tokenizer)


def image(regions: int, *, padding: int = 0, boxes: bool = True) -> ImageBatch:
    """One image of random regions, with padding behind them."""
    generator = torch.Generator().manual_seed(regions)
    features = torch.randn(1, regions, FEATURES, generator=generator)
    corners = torch.rand(1, regions, 2, generator=generator) * 0.5
    features = functional.pad(features, (0, 0, 0, padding))
    mask = torch.arange(regions + padding)[None] < regions
    all_boxes = functional.pad(torch.cat([corners, corners + 0.4], dim=-1), (0, 0, 0, padding))
    return ImageBatch(features, mask, all_boxes if boxes else None)


def write_split(folder: Path, captions: list[str], image_of_caption: list[int], *, regions: int = 4) -> Split:
    """A split of random features on the disk."""
    images = max(image_of_caption) + 1
    features = np.random.default_rng(0).normal(size=(images, regions, FEATURES)).astype(np.float32)
    path = folder / "test_ims.npy"
    np.save(path, features)
    return Split(
        data="made up",
        name="test",
        regions=RegionFeatures.open(path),
        captions=tuple(captions),
        image_of_caption=np.array(image_of_caption),
        image_ids=tuple(f"{number}.png" for number in range(images)),
        extractor="random",
    )
