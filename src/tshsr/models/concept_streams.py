"""Two streams with attention filtration and concepts of a graph: our instantiations of EKDM and CSRC.

Axes: pairs (leading, broadcast) | nodes (the concepts' or the global one first, then one per query).
"""

from __future__ import annotations

import torch
from torch import nn

from tshsr.config.models import ConceptsConfig
from tshsr.models.concepts import build_knowledge
from tshsr.models.sgraf import AttentionFiltration, SgrafStream
from tshsr.models.streams import AttentionPooledMatcher
from tshsr.models.whole import POOLED_WEIGHT


class ConceptStream(SgrafStream):
    """One stream: similarity vectors of the queries and of u_v, u_t, filtered (SAF), and the pooled vectors' product.

        score = sigmoid( w·l2( sum_p beta_p S_p ) + gamma ( (1 - beta) v·t + beta u_v·u_t ) + b )

    Without the concepts' node, the first node compares v and t.

    Args:
        name: Key of its view in an encoding.
        inverse_temperature: Lambda of the attention.
    """

    def __init__(self, name: str, config: ConceptsConfig, inverse_temperature: float) -> None:
        super().__init__(name, config, AttentionFiltration(config.similarity_dim), inverse_temperature)
        if self.pooled_weight is None:
            self.pooled_weight = nn.Parameter(torch.tensor(POOLED_WEIGHT))


class ConceptMatcher(AttentionPooledMatcher):
    """Word stream and region stream, their mean, and concepts beside v and t (`concepts.Knowledge`)."""

    has_probabilities = True

    def __init__(self, config: ConceptsConfig) -> None:
        super().__init__(config.encoder)
        self.config = config
        temperatures = {
            "word_stream": config.word_inverse_temperature,
            "region_stream": config.region_inverse_temperature,
        }
        self.streams = nn.ModuleDict(
            {name: ConceptStream(name, config, temperature) for name, temperature in temperatures.items()}
        )
        self.knowledge = build_knowledge(config)
