"""Other methods at the budget of a recipe, and changes of settings that several families of recipes share."""

from __future__ import annotations

from dataclasses import replace

from tshsr.config.models import (
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    ScanConfig,
    ShanConfig,
    VseConfig,
)
from tshsr.config.run import RunConfig


def at_the_budget_of(base: RunConfig, name: str, model: ModelConfig) -> RunConfig:
    """Another method with all other settings of a run; v·t is trained too, as it selects the candidates.

    Scores that are cosines keep the hinge, and embeddings compare pooled vectors alone.
    """
    loss = replace(base.loss, streams=0.0, levels=0.0, pooled=1.0)
    if isinstance(model, ScanConfig | HardAlignmentConfig | ImramConfig | ShanConfig | VseConfig | HremConfig):
        loss = replace(loss, scores="hinge")
    if isinstance(model, VseConfig | HremConfig):
        loss = replace(loss, late_interaction=0.0)
    return replace(base, recipe=name, model=model, loss=loss)


def with_stream_losses(config: RunConfig) -> RunConfig:
    """The settings with an additional loss on each stream's score."""
    return replace(config, loss=replace(config.loss, streams=1.0))


def all_pairs(config: RunConfig) -> RunConfig:
    """The settings with all pairs and one hinge: for v·t, all pairs cost less than mining."""
    return replace(config, loss=replace(config.loss, pooled=0.0), training=replace(config.training, candidates=0))


def with_relations(config: RunConfig, warmup_epochs: float) -> RunConfig:
    """The settings with the relations of HREM from an epoch on."""
    return replace(config, loss=replace(config.loss, relations=1.0, relations_warmup_epochs=warmup_epochs))
