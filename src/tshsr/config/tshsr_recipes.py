"""Recipes of TSHSR: settings of a run by name."""

from __future__ import annotations

from dataclasses import replace

from tshsr.config.models import EncoderConfig, ReasoningConfig, TshsrConfig
from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig, TrainingConfig

BERT_LAYERS = 12
"""Layers of BERT base: all of them are tuned."""
SMALL_WIDTH = 32
"""Width of similarity vectors in TSHSR's recipes for Flickr8k and scenes."""


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


def tshsr_flickr30k_bert() -> RunConfig:
    """Flickr30K, bottom-up-attention features (36 x 2048), a tuned BERT: 25 epochs, the rate falls tenfold at 15."""
    return with_bert(tshsr_flickr30k(), "tshsr-flickr30k-bert")


def tshsr_coco_bert() -> RunConfig:
    """MSCOCO, bottom-up-attention features (36 x 2048), a tuned BERT: 25 epochs, the rate falls tenfold at 15."""
    return with_bert(tshsr_coco(), "tshsr-coco-bert")


def tshsr_flickr30k_clip() -> RunConfig:
    """Flickr30K by a frozen CLIP B/16 (regions: --extractor clip): ranking starts at CLIP's own; 20 epochs."""
    return on_joint_encoder(tshsr_flickr30k(), "tshsr-flickr30k-clip", "clip")


def tshsr_coco_siglip2() -> RunConfig:
    """MSCOCO by a frozen SigLIP 2 B/16 (regions: --extractor siglip2): ranking starts at SigLIP's own; 20 epochs."""
    return on_joint_encoder(tshsr_coco(), "tshsr-coco-siglip2", "siglip2")


def tshsr_flickr8k() -> RunConfig:
    """Flickr8k, small features: sized for two processor cores."""
    return RunConfig(
        recipe="tshsr-flickr8k",
        model=TshsrConfig(encoder=EncoderConfig(dim=128, dropout=0.2), similarity_dim=32, comparison_dim=64),
        # Large losses on streams and levels cost v·t more than they gain elsewhere (docs/log.md).
        loss=LossConfig(streams=0.3, levels=0.3, pooled=2.0, warmup_epochs=1),
        optimiser=OptimiserConfig(learning_rate=1.5e-3, schedule="cosine", warmup_steps=100),
        training=TrainingConfig(epochs=6, batch=128, candidates=6, evaluate_every=2, dev_images=200),
    )


def tshsr_flickr8k_photos() -> RunConfig:
    """Flickr8k's pictures by EfficientNet-Lite2, words by a frozen MiniLM (extra photos): sized for two cores.

    Regions: tshsr features --extractor efficientnet-lite2.
    """
    # Chosen on dev (docs/log.md).
    encoder = EncoderConfig(
        dim=256,
        dropout=0.4,
        region_dropout=0.2,
        region_projection="residual",
        text="pretrained",
        text_weights="minilm",
        text_layers=(4, 6),
    )
    return RunConfig(
        recipe="tshsr-flickr8k-photos",
        model=TshsrConfig(
            encoder=encoder,
            similarity_dim=SMALL_WIDTH,
            comparison_dim=64,
            products=True,
            similarity_dropout=0.1,
            pooling="esa",
            late_weight=40.0,
            late_centre=0.5,
            late_mean=20.0,
            reasoning=ReasoningConfig(context_inverse_temperature=8.0),
        ),
        loss=LossConfig(
            scores="contrastive", streams=0.3, levels=0.3, contrastive=1.0, late_interaction=1.0, warmup_epochs=1
        ),
        optimiser=OptimiserConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=100),
        training=TrainingConfig(epochs=8, batch=128, candidates=6, evaluate_every=4),
    )


def tshsr_scenes() -> RunConfig:
    """The built-in scenes: trains in about three minutes on two processor cores."""
    return RunConfig(
        recipe="tshsr-scenes",
        model=TshsrConfig(
            encoder=EncoderConfig(dim=128, word_dim=64, boxes=True),
            similarity_dim=32,
            comparison_dim=64,
            region_inverse_temperature=9.0,
            place_term=True,
        ),
        # `swapped` trains the binding of words to things, on which scenes depend; `pooled` balances it for v·t
        # (docs/log.md).
        loss=LossConfig(pooled=3.0, swapped=3.0, warmup_epochs=1),
        optimiser=OptimiserConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=50),
        training=TrainingConfig(epochs=4, batch=128, candidates=4, evaluate_every=2, dev_images=200, minimum_count=1),
    )


def with_bert(base: RunConfig, name: str) -> RunConfig:
    """The settings with words of a tuned BERT, a residual projection of regions, and the schedule of VSE-infinity."""
    encoder = replace(
        base.model.encoder,
        text="pretrained",
        text_weights="bert",
        text_tuned_layers=BERT_LAYERS,
        region_projection="residual",
    )
    optimiser = OptimiserConfig(
        name="adamw", learning_rate=5e-4, weight_decay=1e-4, decay_epoch=15, warmup_steps=500, text_factor=0.1
    )
    return replace(
        base,
        recipe=name,
        model=replace(base.model, encoder=encoder),
        loss=replace(base.loss, warmup_epochs=1),
        optimiser=optimiser,
        training=replace(base.training, epochs=25),
    )


def on_joint_encoder(base: RunConfig, name: str, weights: str) -> RunConfig:
    """The settings with frozen words of a joint encoder, at whose own ranking training starts."""
    encoder = replace(
        base.model.encoder,
        dim=512,
        dropout=0.1,
        text="pretrained",
        text_weights=weights,
        pooled_vectors="adapter",
        region_projection="residual",
    )
    return replace(
        base,
        recipe=name,
        model=replace(base.model, encoder=encoder),
        loss=replace(base.loss, contrastive=1.0, warmup_epochs=1),
        optimiser=replace(base.optimiser, name="adamw", weight_decay=1e-4, schedule="cosine"),
        training=replace(base.training, epochs=20),
    )
