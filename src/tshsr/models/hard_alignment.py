"""Hard alignment: the best context item of each query alone, aggregated over the queries.

CHAN (Pan et al. 2023) and late interaction (MaxSim: Khattab & Zaharia 2020, for image and text Yao et al. 2022).

Axes: pairs (leading, broadcast) | queries | context (the items they are aligned with).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tshsr.config.models import HardAlignmentConfig
from tshsr.models.attention import at_least_float32, real_similarity
from tshsr.models.base import ItemEncoding
from tshsr.models.scan import CosineStream
from tshsr.models.streams import MeanPooledMatcher, stream_names


class HardAlignment(MeanPooledMatcher):
    """score = mean of the stream scores.

    CHAN is the word stream with logsumexp; late interaction is the mean or the sum, in either stream or in both.
    """

    def __init__(self, config: HardAlignmentConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        self.streams = nn.ModuleDict({name: BestMatch(config) for name in stream_names(config.streams)})


class BestMatch(CosineStream):
    """One stream.

        r_q = max_c q·c
        score: the mean or the sum of r_q, or  log( sum_q exp( r_q / tau ) )

    With logsumexp the score is in units of the temperature tau: the sum is not multiplied by it.

    Args:
        config: Aggregation and temperature.
    """

    def __init__(self, config: HardAlignmentConfig) -> None:
        factor = 1 / config.temperature
        super().__init__(
            config.encoder, config.aggregation, factor, factor if config.aggregation == "logsumexp" else 1.0
        )

    def forward(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs"]:
        """The score of each pair without v·t; the alignment itself is not formed."""
        best = real_similarity(similarity, context.real).amax(dim=-1)
        return self.aggregated(at_least_float32(best), queries)

    def attention(
        self, similarity: Float[Tensor, "*pairs queries context"], queries: ItemEncoding, context: ItemEncoding
    ) -> Float[Tensor, "*pairs queries context"]:
        """1 at the best context item of each query (the first of equal ones), 0 elsewhere."""
        del queries
        best = real_similarity(similarity, context.real).argmax(dim=-1, keepdim=True)
        return torch.zeros_like(similarity).scatter_(-1, best, 1.0)

    def cosines(
        self,
        weights: Float[Tensor, "*pairs queries context"],
        similarity: Float[Tensor, "*pairs queries context"],
        context: ItemEncoding,
    ) -> Float[Tensor, "*pairs queries"]:
        """r_q, the best cosine."""
        del context
        return (weights * at_least_float32(similarity)).sum(dim=-1)

    def floats_per_pair(self, queries: int, context: int) -> int:
        """The masked similarities, and two numbers per query."""
        return queries * context + 2 * queries
