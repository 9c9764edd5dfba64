"""Build the network of a configuration: one class per method, all with the interface `base.Matcher`."""

from typing import assert_never

from tshsr.config.models import ModelConfig, ScanConfig, SgrafConfig, TshsrConfig, TwoStreamSgrConfig, VseConfig
from tshsr.models.base import Matcher
from tshsr.models.scan import Scan
from tshsr.models.sgraf import Sgraf, TwoStreamSgr
from tshsr.models.tshsr import Tshsr
from tshsr.models.vse import Vse


def build_matcher(config: ModelConfig) -> Matcher:
    """The network of a configuration, initialised from torch's default generator."""
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
