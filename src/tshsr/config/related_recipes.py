"""Recipes of methods related to TSHSR, at the budget of its small recipes (docs/related.md).

There are none at full size: the authors' training settings were not available to us.
"""

from __future__ import annotations

from tshsr.config.budgets import at_the_budget_of, with_relations
from tshsr.config.models import DsgslConfig, ImramConfig, ShanConfig
from tshsr.config.run import RunConfig
from tshsr.config.tshsr_recipes import SMALL_WIDTH, tshsr_flickr8k, tshsr_flickr8k_photos, tshsr_scenes

COMPARISON_WIDTH = 64
"""Width of the comparison space in TSHSR's recipes for Flickr8k and scenes."""


def dsgsl_flickr8k() -> RunConfig:
    """DSGSL, our instantiation, at the budget of tshsr-flickr8k."""
    return dsgsl(tshsr_flickr8k(), "dsgsl-flickr8k")


def dsgsl_flickr8k_photos() -> RunConfig:
    """DSGSL, our instantiation, at the budget of tshsr-flickr8k-photos."""
    return dsgsl(tshsr_flickr8k_photos(), "dsgsl-flickr8k-photos")


def dsgsl_scenes() -> RunConfig:
    """DSGSL, our instantiation, at the budget of tshsr-scenes."""
    return dsgsl(tshsr_scenes(), "dsgsl-scenes", region_inverse_temperature=9.0)


def imram_flickr8k() -> RunConfig:
    """IMRAM, both streams, at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "imram-flickr8k", ImramConfig(encoder=base.model.encoder))


def imram_flickr8k_photos() -> RunConfig:
    """IMRAM, both streams, at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "imram-flickr8k-photos", ImramConfig(encoder=base.model.encoder))


def imram_scenes() -> RunConfig:
    """IMRAM, both streams, at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    model = ImramConfig(encoder=base.model.encoder, region_inverse_temperature=9.0)
    return at_the_budget_of(base, "imram-scenes", model)


def shan_flickr8k() -> RunConfig:
    """SHAN at the budget of tshsr-flickr8k."""
    base = tshsr_flickr8k()
    return at_the_budget_of(base, "shan-flickr8k", ShanConfig(encoder=base.model.encoder))


def shan_flickr8k_photos() -> RunConfig:
    """SHAN at the budget of tshsr-flickr8k-photos."""
    base = tshsr_flickr8k_photos()
    return at_the_budget_of(base, "shan-flickr8k-photos", ShanConfig(encoder=base.model.encoder))


def shan_scenes() -> RunConfig:
    """SHAN at the budget of tshsr-scenes."""
    base = tshsr_scenes()
    return at_the_budget_of(base, "shan-scenes", ShanConfig(encoder=base.model.encoder))


RELATED = (
    dsgsl_flickr8k,
    dsgsl_flickr8k_photos,
    dsgsl_scenes,
    imram_flickr8k,
    imram_flickr8k_photos,
    imram_scenes,
    shan_flickr8k,
    shan_flickr8k_photos,
    shan_scenes,
)
"""Recipes of related methods."""


def dsgsl(base: RunConfig, name: str, region_inverse_temperature: float = 4.0) -> RunConfig:
    """DSGSL with all other settings of a run; the batch graph's losses begin after a quarter of it, as HREM's."""
    model = DsgslConfig(
        encoder=base.model.encoder,
        similarity_dim=SMALL_WIDTH,
        comparison_dim=COMPARISON_WIDTH,
        region_inverse_temperature=region_inverse_temperature,
    )
    config = at_the_budget_of(base, name, model)
    return with_relations(config, config.training.epochs / 4)
