"""Build the network of a configuration: one class per method, all with the interface `base.Matcher`."""

from dataclasses import replace
from typing import assert_never

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
    TshsrConfig,
    TwoStreamSgrConfig,
    VisionConfig,
    VseConfig,
)
from tshsr.models.base import Matcher
from tshsr.models.concept_streams import ConceptMatcher
from tshsr.models.dsgsl import Dsgsl
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.hrem import Hrem
from tshsr.models.imram import Imram
from tshsr.models.rcar import Rcar
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf, TwoStreamSgr
from tshsr.models.shan import Shan
from tshsr.models.tshsr import Tshsr
from tshsr.models.vse import Vse
from tshsr.pretrained.vision import build_vision


def build_matcher(config: ModelConfig) -> Matcher:
    """The network of a configuration, initialised from torch's default generator.

    Its vision network, where the configuration has the architecture of one, follows after all other parts.
    """
    matcher = _build_method(config)
    if config.encoder.vision.architecture:
        matcher.vision = build_vision(config.encoder.vision)
    return matcher


def without_vision(config: ModelConfig) -> ModelConfig:
    """The settings of the same network for region features."""
    return replace(config, encoder=replace(config.encoder, vision=VisionConfig()))


def _build_method(config: ModelConfig) -> Matcher:
    """The network for region features."""
    match config:
        case TshsrConfig():
            return Tshsr(config)
        case VseConfig():
            return Vse(config)
        case ScanConfig():
            return Scan(config)
        case SgrafConfig():
            return Sgraf(config)
        case TwoStreamSgrConfig():
            return TwoStreamSgr(config)
        case RcarConfig():
            return Rcar(config)
        case HardAlignmentConfig():
            return HardAlignment(config)
        case HremConfig():
            return Hrem(config)
        case DsgslConfig():
            return Dsgsl(config)
        case ImramConfig():
            return Imram(config)
        case ShanConfig():
            return Shan(config)
        case ConceptsConfig():
            return ConceptMatcher(config)
        case _:
            assert_never(config)
