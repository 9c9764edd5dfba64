"""The methods: one file each, one interface (`matcher.Matcher`)."""

from typing import assert_never

from tshsr.config import ModelConfig, ScanConfig, SgrafConfig, TshsrConfig, TwoStreamSgrConfig, VseConfig
from tshsr.models.matcher import ItemEncoding, Matcher, Scores, StreamTrace, join_encodings
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf
from tshsr.models.tshsr import Tshsr
from tshsr.models.two_stream_sgr import TwoStreamSgr
from tshsr.models.vse import Vse

__all__ = [
    "ItemEncoding",
    "Matcher",
    "Scan",
    "Scores",
    "Sgraf",
    "StreamTrace",
    "Tshsr",
    "TwoStreamSgr",
    "Vse",
    "build_matcher",
    "join_encodings",
]


def build_matcher(config: ModelConfig) -> Matcher:
    """The network that the settings describe, freshly initialised from torch's generator."""
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
        case _:
            assert_never(config)
