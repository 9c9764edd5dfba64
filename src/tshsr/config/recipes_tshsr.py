"""Recipes of TSHSR."""

from __future__ import annotations

from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig, TrainingConfig


def tshsr_flickr30k() -> RunConfig:
    """Flickr30K, bottom-up-attention features (36 x 2048): 40 epochs, the rate falls tenfold at 30."""
    return RunConfig(
        recipe="tshsr-flickr30k",
        model=TshsrConfig(),
        loss=LossConfig(warmup_epochs=2),
        optimiser=OptimiserConfig(learning_rate=2e-4, schedule="step", decay_epoch=30, warmup_steps=500),
        training=TrainingConfig(epochs=40, batch=128, candidates=8),
    )


def tshsr_coco() -> RunConfig:
    """MSCOCO, bottom-up-attention features (36 x 2048): 20 epochs, the rate falls tenfold at 10."""
    return RunConfig(
        recipe="tshsr-coco",
        model=TshsrConfig(),
        loss=LossConfig(warmup_epochs=1),
        optimiser=OptimiserConfig(learning_rate=2e-4, schedule="step", decay_epoch=10, warmup_steps=500),
        training=TrainingConfig(epochs=20, batch=128, candidates=8, dev_images=1000),
    )


def tshsr_flickr8k() -> RunConfig:
    """Flickr8k, small features: sized for two processor cores."""
    return RunConfig(
        recipe="tshsr-flickr8k",
        model=TshsrConfig(encoder=EncoderConfig(dim=128, dropout=0.2), similarity_dim=32, comparison_dim=64),
        # Streams and levels that each must match by themselves take from v·t what they do not give back (docs/log.md).
        loss=LossConfig(streams=0.3, levels=0.3, pooled=2.0, warmup_epochs=1),
        optimiser=OptimiserConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=100),
        training=TrainingConfig(epochs=6, batch=128, candidates=6, evaluate_every=2, dev_images=200),
    )


def tshsr_scenes() -> RunConfig:
    """The built-in scenes: trains in about four minutes on two processor cores."""
    return RunConfig(
        recipe="tshsr-scenes",
        model=TshsrConfig(
            encoder=EncoderConfig(dim=128, word_dim=64, boxes=True),
            similarity_dim=32,
            comparison_dim=64,
            region_inverse_temperature=9.0,
            place_term=True,
        ),
        # Captions of scenes say what belongs to what, and other pictures seldom ask; v·t must not drown in it
        # (docs/log.md).
        loss=LossConfig(pooled=3.0, swapped=3.0, warmup_epochs=1),
        optimiser=OptimiserConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=50),
        training=TrainingConfig(epochs=4, batch=128, candidates=4, evaluate_every=2, dev_images=200, minimum_count=1),
    )
