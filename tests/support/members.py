"""Networks with random weights as members of an ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.data.dataset import Split
from tshsr.data.text import Tokenizer
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher


@dataclass(frozen=True)
class Member:
    """A network with its tokenizer, as an evaluation takes it."""

    name: str
    matcher: Matcher
    tokenizer: Tokenizer


def member(name: str, split: Split, seed: int) -> Member:
    """A network with random weights of a seed, over the words of a split."""
    tokenizer = Tokenizer.build(split.captions, 1)
    encoder = EncoderConfig(dim=8, feature_dim=6, vocabulary=len(tokenizer), word_dim=7)
    torch.manual_seed(seed)
    return Member(name, build_matcher(TshsrConfig(encoder=encoder, similarity_dim=8)), tokenizer)
