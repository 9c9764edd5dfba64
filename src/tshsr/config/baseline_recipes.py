"""Recipes of the baselines and rivals: as published, and at the budget of TSHSR's own recipes."""

from __future__ import annotations

from dataclasses import replace

from tshsr.config.budgets import all_pairs, at_the_budget_of, with_relations, with_stream_losses
from tshsr.config.models import (
    EncoderConfig,
    HardAlignmentConfig,
    HremConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.config.run import LossConfig, OptimiserConfig, RunConfig, TrainingConfig
from tshsr.config.tshsr_recipes import SMALL_WIDTH, tshsr_flickr8k, tshsr_flickr8k_photos, tshsr_scenes

ON_THE_SCORE = LossConfig(streams=0.0, levels=0.0, pooled=0.0, warmup_epochs=0.0)
"""One hinge, on the fused score, with the hardest negative from the first step."""
ON_EACH_STREAM = replace(ON_THE_SCORE, streams=1.0)
"""ON_THE_SCORE, and a hinge on each stream's score."""
SGRAF_ENCODER = EncoderConfig(word_dropout=0.4)
"""Encoders with the word dropout of SGRAF and RCAR."""
SGRAF_ENCODER_RESIDUAL = replace(SGRAF_ENCODER, region_projection="residual")
"""SGRAF_ENCODER with the region projection of VSE-infinity, as in RCAR's and CHAN's code."""
BUTD_REGIONS = 36
"""Regions per picture in the usual bottom-up-attention features."""


def vse_flickr30k() -> RunConfig:
    """VSE-infinity on Flickr30K: 25 epochs, the rate falls tenfold at 15."""
    return vse_as_published("vse-flickr30k", dev_images=0)


def vse_coco() -> RunConfig:
    """VSE-infinity on MSCOCO: 25 epochs, the rate falls tenfold at 15."""
    return vse_as_published("vse-coco", dev_images=1000)


def vse_flickr8k() -> RunConfig:
    """VSE-infinity at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    # Size augmentation, tuned for 25 epochs, costs 86 points of rSum in six (docs/log.md).
    return all_pairs(at_the_budget_of(base, "vse-flickr8k", vse_with(base.model.encoder)))


def vse_flickr8k_photos() -> RunConfig:
    """VSE-infinity at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    # Size augmentation, tuned for 25 epochs, costs 86 points of rSum in six (docs/log.md).
    return all_pairs(at_the_budget_of(base, "vse-flickr8k-photos", vse_with(base.model.encoder)))


def vse_scenes() -> RunConfig:
    """VSE-infinity at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    # A scene's caption mentions each thing once: size augmentation would change its meaning.
    return all_pairs(at_the_budget_of(base, "vse-scenes", vse_with(base.model.encoder)))


def scan_flickr30k() -> RunConfig:
    """SCAN t-i AVG on Flickr30K: 30 epochs, the rate falls tenfold at 15."""
    return as_published("scan-flickr30k", ScanConfig(), epochs=30, decay_epoch=15)


def scan_coco() -> RunConfig:
    """SCAN t-i AVG on MSCOCO: 20 epochs, the rate falls tenfold at 10."""
    return as_published("scan-coco", ScanConfig(), epochs=20, decay_epoch=10, learning_rate=5e-4, dev_images=1000)


def scan_flickr8k() -> RunConfig:
    """SCAN t-i AVG at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "scan-flickr8k", ScanConfig(encoder=base.model.encoder))


def scan_flickr8k_photos() -> RunConfig:
    """SCAN t-i AVG at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "scan-flickr8k-photos", ScanConfig(encoder=base.model.encoder))


def scan_scenes() -> RunConfig:
    """SCAN t-i AVG at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "scan-scenes", ScanConfig(encoder=base.model.encoder))


def sgr_flickr30k() -> RunConfig:
    """SGRAF's graph reasoning on Flickr30K: 40 epochs, the rate falls tenfold at 30."""
    return as_published("sgr-flickr30k", sgr(), epochs=40, decay_epoch=30)


def sgr_coco() -> RunConfig:
    """SGRAF's graph reasoning on MSCOCO: 20 epochs, the rate falls tenfold at 10."""
    return as_published("sgr-coco", sgr(), epochs=20, decay_epoch=10, dev_images=1000)


def sgr_flickr8k() -> RunConfig:
    """SGRAF's graph reasoning at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "sgr-flickr8k", small_sgr(base.model.encoder))


def sgr_flickr8k_photos() -> RunConfig:
    """SGRAF's graph reasoning at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "sgr-flickr8k-photos", small_sgr(base.model.encoder))


def sgr_scenes() -> RunConfig:
    """SGRAF's graph reasoning at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "sgr-scenes", small_sgr(base.model.encoder))


def saf_flickr30k() -> RunConfig:
    """SGRAF's attention filtration on Flickr30K: 30 epochs, the rate falls tenfold at 20."""
    return as_published("saf-flickr30k", replace(sgr(), reasoning="saf"), epochs=30, decay_epoch=20)


def saf_coco() -> RunConfig:
    """SGRAF's attention filtration on MSCOCO: 20 epochs, the rate falls tenfold at 10."""
    return as_published("saf-coco", replace(sgr(), reasoning="saf"), epochs=20, decay_epoch=10, dev_images=1000)


def saf_flickr8k() -> RunConfig:
    """SGRAF's attention filtration at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "saf-flickr8k", replace(small_sgr(base.model.encoder), reasoning="saf"))


def saf_flickr8k_photos() -> RunConfig:
    """SGRAF's attention filtration at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "saf-flickr8k-photos", replace(small_sgr(base.model.encoder), reasoning="saf"))


def saf_scenes() -> RunConfig:
    """SGRAF's attention filtration at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "saf-scenes", replace(small_sgr(base.model.encoder), reasoning="saf"))


def two_stream_sgr_flickr30k() -> RunConfig:
    """Two streams without a hierarchy on Flickr30K, as RCAR trains: 40 epochs, the rate falls tenfold at 30."""
    config = as_published("two-stream-sgr-flickr30k", two_streams(), epochs=40, decay_epoch=30, learning_rate=5e-4)
    return replace(config, loss=replace(ON_EACH_STREAM, warmup_epochs=3))


def two_stream_sgr_coco() -> RunConfig:
    """Two streams without a hierarchy on MSCOCO, as RCAR trains: 25 epochs, the rate falls tenfold at 15."""
    config = as_published(
        "two-stream-sgr-coco", two_streams(), epochs=25, decay_epoch=15, learning_rate=5e-4, dev_images=1000
    )
    return replace(config, loss=replace(ON_EACH_STREAM, warmup_epochs=5))


def two_stream_sgr_flickr8k() -> RunConfig:
    """Two streams without a hierarchy at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    model = TwoStreamSgrConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH)
    return with_stream_losses(at_the_budget_of(base, "two-stream-sgr-flickr8k", model))


def two_stream_sgr_flickr8k_photos() -> RunConfig:
    """Two streams without a hierarchy at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    model = TwoStreamSgrConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH)
    return with_stream_losses(at_the_budget_of(base, "two-stream-sgr-flickr8k-photos", model))


def two_stream_sgr_scenes() -> RunConfig:
    """Two streams without a hierarchy at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    model = TwoStreamSgrConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH, region_inverse_temperature=9.0)
    return with_stream_losses(at_the_budget_of(base, "two-stream-sgr-scenes", model))


def rcar_flickr30k() -> RunConfig:
    """RCAR, word stream, on Flickr30K: 40 epochs, the rate falls tenfold at 30."""
    config = as_published("rcar-flickr30k", rcar(), epochs=40, decay_epoch=30, learning_rate=5e-4)
    return with_adamw(config, weight_decay=1e-2, warmup_epochs=3)


def rcar_coco() -> RunConfig:
    """RCAR, word stream, on MSCOCO: 25 epochs, the rate falls tenfold at 15."""
    config = as_published("rcar-coco", rcar(), epochs=25, decay_epoch=15, learning_rate=5e-4, dev_images=1000)
    return with_adamw(config, weight_decay=1e-2, warmup_epochs=5)


def rcar_flickr8k() -> RunConfig:
    """RCAR, word stream, at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    model = RcarConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH)
    return at_the_budget_of(base, "rcar-flickr8k", model)


def rcar_flickr8k_photos() -> RunConfig:
    """RCAR, word stream, at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    model = RcarConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH)
    return at_the_budget_of(base, "rcar-flickr8k-photos", model)


def rcar_scenes() -> RunConfig:
    """RCAR, word stream, at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    model = RcarConfig(encoder=base.model.encoder, similarity_dim=SMALL_WIDTH, region_inverse_temperature=9.0)
    return at_the_budget_of(base, "rcar-scenes", model)


def chan_flickr30k() -> RunConfig:
    """CHAN on Flickr30K: 25 epochs, the rate falls tenfold at 15."""
    return chan_as_published("chan-flickr30k", dev_images=0)


def chan_coco() -> RunConfig:
    """CHAN on MSCOCO: 25 epochs, the rate falls tenfold at 15."""
    return chan_as_published("chan-coco", dev_images=1000)


def chan_flickr8k() -> RunConfig:
    """CHAN at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "chan-flickr8k", HardAlignmentConfig(encoder=base.model.encoder))


def chan_flickr8k_photos() -> RunConfig:
    """CHAN at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "chan-flickr8k-photos", HardAlignmentConfig(encoder=base.model.encoder))


def chan_scenes() -> RunConfig:
    """CHAN at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "chan-scenes", HardAlignmentConfig(encoder=base.model.encoder))


def late_interaction_flickr30k() -> RunConfig:
    """Late interaction (MaxSim, both streams) on Flickr30K, with the schedule of VSE-infinity."""
    return replace(vse_flickr30k(), recipe="late-interaction-flickr30k", model=late_interaction(SGRAF_ENCODER_RESIDUAL))


def late_interaction_coco() -> RunConfig:
    """Late interaction (MaxSim, both streams) on MSCOCO, with the schedule of VSE-infinity."""
    return replace(vse_coco(), recipe="late-interaction-coco", model=late_interaction(SGRAF_ENCODER_RESIDUAL))


def late_interaction_flickr8k() -> RunConfig:
    """Late interaction (MaxSim, both streams) at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "late-interaction-flickr8k", late_interaction(base.model.encoder))


def late_interaction_flickr8k_photos() -> RunConfig:
    """Late interaction (MaxSim, both streams) at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "late-interaction-flickr8k-photos", late_interaction(base.model.encoder))


def late_interaction_scenes() -> RunConfig:
    """Late interaction (MaxSim, both streams) at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "late-interaction-scenes", late_interaction(base.model.encoder))


def hrem_flickr30k() -> RunConfig:
    """HREM on Flickr30K: 30 epochs, the rate falls tenfold at 15; relations from epoch 8 on."""
    return hrem_as_published("hrem-flickr30k", relations_warmup_epochs=7, dev_images=0)


def hrem_coco() -> RunConfig:
    """HREM on MSCOCO: 30 epochs, the rate falls tenfold at 15; relations after 1.8 epochs."""
    return hrem_as_published("hrem-coco", relations_warmup_epochs=1.8, dev_images=1000)


def hrem_flickr8k() -> RunConfig:
    """HREM at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    config = all_pairs(at_the_budget_of(base, "hrem-flickr8k", small_hrem(base.model.encoder)))
    return with_relations(config, config.training.epochs / 4)


def hrem_flickr8k_photos() -> RunConfig:
    """HREM at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    config = all_pairs(at_the_budget_of(base, "hrem-flickr8k-photos", small_hrem(base.model.encoder)))
    return with_relations(config, config.training.epochs / 4)


def hrem_scenes() -> RunConfig:
    """HREM at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    config = all_pairs(at_the_budget_of(base, "hrem-scenes", small_hrem(base.model.encoder)))
    return with_relations(config, config.training.epochs / 4)


def esa_flickr30k() -> RunConfig:
    """ESA's pooling on Flickr30K: 25 epochs, the rate falls tenfold at 15."""
    return esa_as_published("esa-flickr30k", dev_images=0)


def esa_coco() -> RunConfig:
    """ESA's pooling on MSCOCO: 25 epochs, the rate falls tenfold at 15."""
    return esa_as_published("esa-coco", dev_images=1000)


def esa_flickr8k() -> RunConfig:
    """ESA's pooling at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    model = replace(vse_with(base.model.encoder), pooling="esa")
    return all_pairs(at_the_budget_of(base, "esa-flickr8k", model))


def esa_flickr8k_photos() -> RunConfig:
    """ESA's pooling at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    model = replace(vse_with(base.model.encoder), pooling="esa")
    return all_pairs(at_the_budget_of(base, "esa-flickr8k-photos", model))


def esa_scenes() -> RunConfig:
    """ESA's pooling at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    model = replace(vse_with(base.model.encoder), pooling="esa")
    return all_pairs(at_the_budget_of(base, "esa-scenes", model))


BASELINES = (
    vse_flickr30k,
    vse_coco,
    vse_flickr8k,
    vse_flickr8k_photos,
    vse_scenes,
    scan_flickr30k,
    scan_coco,
    scan_flickr8k,
    scan_flickr8k_photos,
    scan_scenes,
    sgr_flickr30k,
    sgr_coco,
    sgr_flickr8k,
    sgr_flickr8k_photos,
    sgr_scenes,
    saf_flickr30k,
    saf_coco,
    saf_flickr8k,
    saf_flickr8k_photos,
    saf_scenes,
    two_stream_sgr_flickr30k,
    two_stream_sgr_coco,
    two_stream_sgr_flickr8k,
    two_stream_sgr_flickr8k_photos,
    two_stream_sgr_scenes,
    rcar_flickr30k,
    rcar_coco,
    rcar_flickr8k,
    rcar_flickr8k_photos,
    rcar_scenes,
    chan_flickr30k,
    chan_coco,
    chan_flickr8k,
    chan_flickr8k_photos,
    chan_scenes,
    late_interaction_flickr30k,
    late_interaction_coco,
    late_interaction_flickr8k,
    late_interaction_flickr8k_photos,
    late_interaction_scenes,
    hrem_flickr30k,
    hrem_coco,
    hrem_flickr8k,
    hrem_flickr8k_photos,
    hrem_scenes,
    esa_flickr30k,
    esa_coco,
    esa_flickr8k,
    esa_flickr8k_photos,
    esa_scenes,
)
"""Recipes of the baselines."""


def as_published(
    name: str, model: ModelConfig, *, epochs: int, decay_epoch: int, learning_rate: float = 2e-4, dev_images: int = 0
) -> RunConfig:
    """A run with the published schedule of SCAN, SGRAF and RCAR."""
    return RunConfig(
        recipe=name,
        model=model,
        loss=ON_THE_SCORE,
        optimiser=OptimiserConfig(learning_rate=learning_rate, schedule="step", decay_epoch=decay_epoch),
        training=TrainingConfig(epochs=epochs, batch=128, candidates=0, dev_images=dev_images),
    )


def vse_as_published(name: str, *, dev_images: int) -> RunConfig:
    """VSE-infinity on regions as published: AdamW, and a first epoch on all negatives."""
    config = as_published(name, VseConfig(), epochs=25, decay_epoch=15, learning_rate=5e-4, dev_images=dev_images)
    return with_adamw(config, weight_decay=1e-4, warmup_epochs=1)


def esa_as_published(name: str, *, dev_images: int) -> RunConfig:
    """ESA's pooling with the schedule of the authors, that of VSE-infinity; without its loss (docs/paper.md)."""
    encoder = EncoderConfig(region_projection="residual", word_dropout=0.1, region_dropout=0.2)
    model = VseConfig(encoder=encoder, pooling="esa", size_augmentation=0.0)
    return replace(vse_as_published(name, dev_images=dev_images), model=model)


def hrem_as_published(name: str, *, relations_warmup_epochs: float, dev_images: int) -> RunConfig:
    """HREM with the schedule of the authors; relations begin after 8,000 steps."""
    config = as_published(name, HremConfig(), epochs=30, decay_epoch=15, learning_rate=5e-4, dev_images=dev_images)
    return with_relations(with_adamw(config, weight_decay=1e-4, warmup_epochs=1), relations_warmup_epochs)


def chan_as_published(name: str, *, dev_images: int) -> RunConfig:
    """CHAN with the schedule of the authors, and a margin of 0.05 in units of log-sum-exp."""
    encoder = EncoderConfig(region_projection="residual", region_dropout=0.2)
    model = HardAlignmentConfig(encoder=encoder)
    config = as_published(name, model, epochs=25, decay_epoch=15, learning_rate=5e-4, dev_images=dev_images)
    config = with_adamw(config, weight_decay=1e-2, warmup_epochs=1)
    return replace(config, loss=replace(config.loss, margin=0.05))


def rcar() -> RcarConfig:
    """RCAR at full size, word stream."""
    return RcarConfig(encoder=SGRAF_ENCODER_RESIDUAL)


def late_interaction(encoder: EncoderConfig) -> HardAlignmentConfig:
    """MaxSim in both streams, by means."""
    return HardAlignmentConfig(encoder=encoder, streams="both", aggregation="mean")


def small_hrem(encoder: EncoderConfig) -> HremConfig:
    """HREM without size augmentation on another method's encoder, with the projection as published."""
    return HremConfig(encoder=replace(encoder, region_projection="residual"), heads=4, size_augmentation=0.0)


def with_adamw(config: RunConfig, *, weight_decay: float, warmup_epochs: float) -> RunConfig:
    """The settings with AdamW, and first epochs on all negatives."""
    return replace(
        config,
        loss=replace(config.loss, warmup_epochs=warmup_epochs),
        optimiser=replace(config.optimiser, name="adamw", weight_decay=weight_decay),
    )


def vse_with(encoder: EncoderConfig) -> VseConfig:
    """VSE-infinity without size augmentation on another method's encoder, with the projection as published."""
    return VseConfig(encoder=replace(encoder, region_projection="residual"), size_augmentation=0.0)


def sgr() -> SgrafConfig:
    """SGRAF at full size, with SGR."""
    return SgrafConfig(encoder=SGRAF_ENCODER, region_slots=BUTD_REGIONS)


def two_streams() -> TwoStreamSgrConfig:
    """Two streams at full size, with RCAR's temperatures."""
    return TwoStreamSgrConfig(
        encoder=SGRAF_ENCODER, word_inverse_temperature=10.0, region_inverse_temperature=3.0, region_slots=BUTD_REGIONS
    )


def small_sgr(encoder: EncoderConfig) -> SgrafConfig:
    """SGRAF at the width of TSHSR's small recipes, with SGR."""
    return SgrafConfig(encoder=encoder, similarity_dim=SMALL_WIDTH)
