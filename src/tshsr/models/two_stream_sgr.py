"""Two streams without a hierarchy: similarity graph reasoning in each, with weights of its own (after RCAR)."""

from __future__ import annotations

from torch import nn

from tshsr.config.models import TwoStreamSgrConfig
from tshsr.models.encoders import start_with_xavier
from tshsr.models.sgraf import GraphReasoning, SimilarityStream, build_poolings
from tshsr.models.streams import StreamMatcher


class TwoStreamSgr(StreamMatcher):
    """score = ( sigmoid score of the word stream + sigmoid score of the region stream ) / 2.

    RCAR (Diao et al. 2023) trains such streams apart and averages their scores; here both share the encoders and the
    poolings, and one loss trains them. It answers what a second stream adds without a hierarchy.
    """

    def __init__(self, config: TwoStreamSgrConfig) -> None:
        temperatures = {
            "word_stream": config.word_inverse_temperature,
            "region_stream": config.region_inverse_temperature,
        }
        super().__init__(config.encoder)
        start_with_xavier(self.region_encoder)
        self.config = config
        dim, width = config.encoder.dim, config.similarity_dim
        self.region_pooling, self.word_pooling = build_poolings(dim, config.pooling_dropout, config.region_slots)
        self.streams = nn.ModuleDict(
            {
                name: SimilarityStream(name, config, GraphReasoning(width, config.steps), temperature)
                for name, temperature in temperatures.items()
            }
        )
