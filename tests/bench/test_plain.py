"""The plain references of the benchmark give our scores: the same formula, another way to it.

They divide by norm + 1e-8 as the published code does and we by max(norm, 1e-12): that is what the tolerance is for.
"""

from __future__ import annotations

import pytest
import torch

from tests.support import tiny
from tests.support.float64 import shaken
from tshsr.bench.plain import loop_over_captions
from tshsr.bench.speed import plain_score
from tshsr.config.models import (
    DsgslConfig,
    HardAlignmentConfig,
    ImramConfig,
    ModelConfig,
    RcarConfig,
    ReasoningConfig,
    ScanConfig,
    SgrafConfig,
    ShanConfig,
    TwoStreamSgrConfig,
    VseConfig,
)
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.scoring.all_pairs import score_encoded

SGRAF = SgrafConfig(encoder=tiny.ENCODER, similarity_dim=6)
CONFIGS: dict[str, ModelConfig] = {
    "tshsr": tiny.config(),
    "tshsr, one level without a gate": tiny.config(reasoning=ReasoningConfig(levels=1, seeds=(3,), gate=False)),
    "tshsr, compared in the joint space": tiny.config(comparison_dim=0),
    "tshsr, without v·t": tiny.config(pooled_term=False),
    "tshsr, context nodes that attend": tiny.config(
        products=True, reasoning=ReasoningConfig(seeds=(4, 2), context_inverse_temperature=3.0)
    ),
    "tshsr, v·t and the mean similarity after training": tiny.config(late_weight=2.0, late_centre=0.3, late_mean=1.0),
    "sgr": SGRAF,
    "sgr, one step": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=6, steps=1),
    "saf": SgrafConfig(encoder=tiny.ENCODER, similarity_dim=6, reasoning="saf"),
    "scan": ScanConfig(encoder=tiny.ENCODER),
    "scan, mean": ScanConfig(encoder=tiny.ENCODER, aggregation="mean", streams="word"),
    "two_stream_sgr": TwoStreamSgrConfig(encoder=tiny.ENCODER, similarity_dim=6),
    "rcar": RcarConfig(encoder=tiny.ENCODER, similarity_dim=6, streams="both"),
    "rcar, three steps": RcarConfig(encoder=tiny.ENCODER, similarity_dim=6, steps=3),
    "tshsr, gated queries": tiny.config(products=True, gated_queries=True),
    "dsgsl": DsgslConfig(encoder=tiny.ENCODER, similarity_dim=6, comparison_dim=5),
    "dsgsl, no gate, no graphs": DsgslConfig(
        encoder=tiny.ENCODER, similarity_dim=6, gated_queries=False, graph_steps=0, streams="word"
    ),
    "imram": ImramConfig(encoder=tiny.ENCODER),
    "imram, one step": ImramConfig(encoder=tiny.ENCODER, steps=1, streams="region"),
    "shan": ShanConfig(encoder=tiny.ENCODER),
    "shan, one alignment": ShanConfig(encoder=tiny.ENCODER, last_alignment="local_local"),
    "chan": HardAlignmentConfig(encoder=tiny.ENCODER),
    "late interaction": HardAlignmentConfig(encoder=tiny.ENCODER, streams="both", aggregation="mean"),
}


def network(config: ModelConfig) -> Matcher:
    """In float64, its weights away from where they begin."""
    built = build_matcher(config)
    return built.double().eval() if isinstance(config, ScanConfig | HardAlignmentConfig) else shaken(built)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_the_plain_reference_gives_our_scores(name: str) -> None:
    matcher = network(CONFIGS[name])
    images = matcher.encode_images(tiny.images(4, 5))
    captions = matcher.encode_captions(tiny.captions((2, 3, 6, 6)))
    ours = score_encoded(matcher, images, captions)["fused"]
    plainly = loop_over_captions(plain_score(matcher), images, captions)
    assert plainly.shape == (4, 4)
    torch.testing.assert_close(plainly, ours, rtol=0, atol=2e-7)
    assert ours.std() > 1e-4, "scores that are all alike would agree by themselves"


def test_a_network_without_a_plain_reference_is_refused() -> None:
    with pytest.raises(TypeError, match="Vse has no plain reference"):
        plain_score(build_matcher(VseConfig(encoder=tiny.ENCODER)))
