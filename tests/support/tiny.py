"""Small networks and batches that many tests share."""

from dataclasses import replace

import torch

from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.models.tshsr import Tshsr

ENCODER = EncoderConfig(dim=12, feature_dim=7, vocabulary=20, word_dim=8, transformer_heads=2)

RECIPE_CHANGES = {
    "model.encoder.dim": 8,
    "model.encoder.word_dim": 6,
    "training.epochs": 1,
    "training.batch": 8,
    "training.minimum_count": 1,
    "training.evaluate_every": 1,
    "optimiser.warmup_steps": 1,
    "loss.relations_warmup_epochs": 0.0,
}
"""Settings by dotted name that make a recipe tiny."""


def config(**changes: object) -> TshsrConfig:
    """A tiny network's settings; keywords replace fields of TshsrConfig."""
    return replace(
        TshsrConfig(encoder=ENCODER, similarity_dim=6, comparison_dim=5, reasoning=ReasoningConfig(seeds=(4, 2))),
        **changes,
    )


def network(dtype: torch.dtype = torch.float64, **changes: object) -> Tshsr:
    """A tiny network in evaluation mode."""
    return Tshsr(config(**changes)).to(dtype).eval()


def images(count: int = 3, regions: int = 5, *, real: list[int] | None = None, seed: int = 1) -> ImageBatch:
    """Random images; `real` gives the number of real regions of each."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, regions, 7, generator=generator, dtype=torch.float64)
    corners = torch.rand(count, regions, 2, generator=generator, dtype=torch.float64) / 2
    mask = torch.arange(regions)[None, :] < torch.tensor(real or [regions] * count)[:, None]
    boxes = torch.cat([corners, corners + 0.3], dim=-1)
    return ImageBatch(features * mask[..., None], mask, boxes)


def captions(lengths: tuple[int, ...] = (4, 1, 6), *, seed: int = 2) -> CaptionBatch:
    """Random captions of the given lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    tokens = torch.randint(1, 20, mask.shape, generator=generator) * mask
    return CaptionBatch(tokens, mask)
