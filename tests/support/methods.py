"""A tiny network of every baseline and rival."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.support import tiny
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import (
    ConceptsConfig,
    DsgslConfig,
    HardAlignmentConfig,
    HremConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher

BOXES = replace(tiny.ENCODER, boxes=True)
RESIDUAL = replace(tiny.ENCODER, region_projection="residual")
SLOTS = 12
GRAPH = KnowledgeConfig(
    concepts=("dog", "cat", "run", "red", "grass", "ball", "sky"), width=6, edges=("captions", "wordnet"), active=3
)
"""Concepts without a method."""
CONCEPTS: dict[str, ModelConfig] = {
    "ekdm": ConceptsConfig(
        encoder=tiny.ENCODER, similarity_dim=16, comparison_dim=5, knowledge=replace(GRAPH, method="progressive")
    ),
    "ekdm without boxes or node": ConceptsConfig(
        encoder=tiny.ENCODER,
        similarity_dim=16,
        comparison_dim=0,
        knowledge=replace(GRAPH, method="progressive", geometry=False, node=False),
    ),
    "csrc": ConceptsConfig(
        encoder=tiny.ENCODER, similarity_dim=16, knowledge=replace(GRAPH, method="consistent", node=False)
    ),
    "cvse": VseConfig(encoder=RESIDUAL, knowledge=replace(GRAPH, method="consensus")),
    "tshsr with concepts of ekdm": tiny.config(knowledge=replace(GRAPH, method="progressive")),
    "tshsr with concepts of csrc": tiny.config(knowledge=replace(GRAPH, method="consistent", node=False)),
}
"""Networks with concepts of a graph."""
METHODS: dict[str, ModelConfig] = {
    **{name: config for name, config in CONCEPTS.items() if not name.startswith("tshsr")},
    "vse mean": VseConfig(encoder=tiny.ENCODER, pooling="mean"),
    "vse attention": VseConfig(encoder=replace(BOXES, region_projection="residual"), pooling="attention"),
    "vse gpo": VseConfig(encoder=RESIDUAL),
    "vse transformer": VseConfig(encoder=replace(tiny.ENCODER, text="transformer")),
    "scan word stream": ScanConfig(encoder=tiny.ENCODER),
    "scan, residual projection": ScanConfig(encoder=RESIDUAL),
    "scan region stream, logsumexp": ScanConfig(encoder=tiny.ENCODER, streams="region", aggregation="logsumexp"),
    "scan both, maximum": ScanConfig(encoder=tiny.ENCODER, streams="both", aggregation="max"),
    "scan both, sum, softmax": ScanConfig(
        encoder=tiny.ENCODER, streams="both", aggregation="sum", normalisation="softmax"
    ),
    "scan without norm": ScanConfig(encoder=tiny.ENCODER, streams="both", normalisation="no_norm"),
    "sgr": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=16),
    "sgr one step": SgrafConfig(encoder=BOXES, similarity_dim=16, steps=1),
    "saf": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=16, reasoning="saf"),
    "saf compared in a narrow space": SgrafConfig(
        encoder=tiny.ENCODER, similarity_dim=16, reasoning="saf", comparison_dim=5
    ),
    "sgr slots": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=16, region_slots=SLOTS),
    "two streams": TwoStreamSgrConfig(encoder=tiny.ENCODER, similarity_dim=16),
    "two streams, compared in a narrow space": TwoStreamSgrConfig(
        encoder=tiny.ENCODER, similarity_dim=16, comparison_dim=5
    ),
    "vse esa": VseConfig(encoder=RESIDUAL, pooling="esa"),
    "rcar word stream": RcarConfig(encoder=tiny.ENCODER, similarity_dim=16),
    "rcar region stream, three steps": RcarConfig(encoder=RESIDUAL, similarity_dim=16, streams="region", steps=3),
    "rcar both, one step": RcarConfig(encoder=tiny.ENCODER, similarity_dim=16, streams="both", steps=1),
    "chan": HardAlignmentConfig(encoder=RESIDUAL),
    "hard alignment of regions, sum": HardAlignmentConfig(encoder=tiny.ENCODER, streams="region", aggregation="sum"),
    "late interaction": HardAlignmentConfig(encoder=tiny.ENCODER, streams="both", aggregation="mean"),
    "hrem": HremConfig(encoder=RESIDUAL, heads=3),
    "dsgsl": DsgslConfig(encoder=RESIDUAL, similarity_dim=16, comparison_dim=5, neighbours=1),
    "imram": ImramConfig(encoder=tiny.ENCODER),
    "shan": ShanConfig(encoder=tiny.ENCODER),
    "two streams, slots": TwoStreamSgrConfig(encoder=tiny.ENCODER, similarity_dim=16, region_slots=SLOTS),
}
WITH_ORDER = ("sgr slots", "two streams, slots")
"""In slots the order of regions matters, as in the authors' code."""


def network(method: str) -> Matcher:
    """In float64 and evaluation mode, with running statistics away from where they begin."""
    matcher = build_matcher(METHODS[method]).double().eval()
    for name, statistic in matcher.named_buffers():
        statistic.copy_(torch.rand_like(statistic) + ("variance" in name))
    return matcher
