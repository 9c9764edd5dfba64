"""The methods: one file each, one interface (`matcher.Matcher`)."""

from typing import assert_never

from tshsr.config import ModelConfig, TshsrConfig
from tshsr.models.matcher import ItemEncoding, Matcher, Scores, StreamTrace
from tshsr.models.tshsr import Tshsr

__all__ = ["ItemEncoding", "Matcher", "Scores", "StreamTrace", "Tshsr", "build_matcher"]


def build_matcher(config: ModelConfig) -> Matcher:
    """The network that the settings describe, freshly initialised from torch's generator."""
    match config:
        case TshsrConfig():
            return Tshsr(config)
        case _:
            assert_never(config)
