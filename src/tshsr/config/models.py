"""Settings of the methods, one frozen dataclass each, told apart by `kind`; `config.py` makes them part of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class EncoderConfig:
    """How regions and words come into the joint space (model.md section 1)."""

    __pydantic_config__ = STRICT

    dim: int = 1024
    """Width of the joint space (D)."""
    feature_dim: int = 0
    """Width of a region feature; 0 takes it from the data."""
    vocabulary: int = 0
    """Number of tokens; 0 takes it from the tokenizer."""
    boxes: bool = False
    """Append x1, y1, x2, y2 and area of each region (fractions of the picture) to its features."""
    text: Literal["gru", "transformer"] = "gru"
    """Word encoder: a one-layer bidirectional GRU, or a transformer trained from scratch."""
    word_dim: int = 300
    """Width of a word embedding."""
    transformer_layers: int = 2
    """Layers of the transformer word encoder."""
    transformer_heads: int = 4
    """Attention heads of the transformer word encoder."""
    dropout: float = 0.0
    """Dropout on region features and word embeddings while training."""
    word_dropout: float = 0.0
    """Dropout on word embeddings where it is to be above `dropout`."""
    region_dropout: float = 0.0
    """Share of an image's regions that are left out at random while training."""


@dataclass(frozen=True)
class ReasoningConfig:
    """Hierarchical similarity reasoning (model.md section 4); every switch is a row of the ablation table."""

    __pydantic_config__ = STRICT

    levels: int = 2
    """Number of reasoning levels K; 0 reads out the similarity vectors alone."""
    seeds: tuple[int, ...] = (8, 3)
    """Learned context seeds of each level; the first `levels` are used."""
    context: bool = True
    """Let a level's update attend to the extracted context nodes."""
    local: bool = True
    """Let a level's update attend to the nodes themselves."""
    gate: bool = True
    """Gate each update by a learned sigmoid."""


@dataclass(frozen=True)
class TshsrConfig:
    """The two-stream hierarchical similarity reasoning network."""

    __pydantic_config__ = STRICT

    kind: Literal["tshsr"] = "tshsr"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 256
    """Width of the space in which a query and what it attends to are compared (k); 0: the joint space, as in SGRAF."""
    streams: Literal["both", "word", "region"] = "both"
    """Word stream: words look at regions. Region stream: regions look at words."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    place_term: bool = False
    """Let each word expect its region at some place, and similarity vectors tell how well that fits; needs
    `encoder.boxes`."""
    global_node: bool = False
    """Add the similarity vector of the pooled picture and the pooled caption as a node of its own."""
    pooled_term: bool = True
    """Add v·t, with a learned weight, to each stream's logit: the reasoning then learns what v·t leaves undecided."""
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    """Hierarchical reasoning, the same settings in both streams (weights are not shared)."""
    fusion: Literal["mean", "learned"] = "mean"
    """How the two stream scores become one."""


@dataclass(frozen=True)
class VseConfig:
    """Pooled embeddings and their cosine: VSE++ (Faghri et al. 2018), VSE-infinity (Chen et al. 2021)."""

    __pydantic_config__ = STRICT

    kind: Literal["vse"] = "vse"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    pooling: Literal["mean", "attention", "gpo"] = "gpo"
    """How regions or words become one vector; gpo is the generalised pooling operator of VSE-infinity."""
    perceptron: bool = True
    """Add a two-layer perceptron of a region's features to their linear projection, as VSE-infinity does."""
    size_augmentation: float = 0.2
    """Share of regions and words that are left out at random while training."""


@dataclass(frozen=True)
class ScanConfig:
    """Stacked cross attention (SCAN, Lee et al. 2018): cosines of queries and what they attend to, aggregated."""

    __pydantic_config__ = STRICT

    kind: Literal["scan"] = "scan"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    streams: Literal["both", "word", "region"] = "word"
    """Word stream: words look at regions (t-i). Region stream: regions look at words (i-t). Both: their mean."""
    normalisation: Literal["clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax"] = "clipped_l2norm"
    """What is done to q·c before the softmax over the context: clipped is a leaky ReLU of slope 0.1; the norm and the
    softmax run over the queries."""
    aggregation: Literal["mean", "logsumexp", "max", "sum"] = "mean"
    """How the cosines of a stream's queries become one score."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    word_logsumexp_factor: float = 6.0
    """Sharpness of logsumexp over words: towards 0 the mean counts, for a large value the maximum."""
    region_logsumexp_factor: float = 5.0
    """Sharpness of logsumexp over regions."""


@dataclass(frozen=True)
class SgrafConfig:
    """Similarity reasoning and filtration in the word stream (SGRAF, Diao et al. 2021); their SGRAF is an ensemble."""

    __pydantic_config__ = STRICT

    kind: Literal["sgraf"] = "sgraf"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 0
    """As in TshsrConfig: width of the space in which a query and what it attends to are compared (k); 0: the joint
    space, as the authors do."""
    reasoning: Literal["sgr", "saf"] = "sgr"
    """sgr: steps of a graph over all nodes, of which the global one is read out. saf: attention filtration."""
    steps: int = 3
    """Steps of the graph (sgr)."""
    inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_slots: int = 0
    """Regions with a batch normalisation of their own each in the global pooling (36 in the authors' code): it takes no
    more regions, and their order matters. 0: one for all regions; any number in any order."""
    pooling_dropout: float = 0.4
    """Dropout inside the global poolings while training."""


@dataclass(frozen=True)
class TwoStreamSgrConfig:
    """Two streams without a hierarchy: SGR in each, with weights of its own; the score is the mean of both."""

    __pydantic_config__ = STRICT

    kind: Literal["two_stream_sgr"] = "two_stream_sgr"
    """Which method this is."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 0
    """As in SgrafConfig: width of the space of comparison (k); 0: the joint space."""
    steps: int = 3
    """Steps of the graph in each stream."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    region_slots: int = 0
    """As in SgrafConfig: regions with a batch normalisation of their own each in the global pooling; 0: one for all."""
    pooling_dropout: float = 0.4
    """Dropout inside the global poolings while training."""


ModelConfig = Annotated[
    TshsrConfig | VseConfig | ScanConfig | SgrafConfig | TwoStreamSgrConfig, Field(discriminator="kind")
]
"""The union of the methods' settings, told apart by `kind`."""

KINDS = tuple(config.kind for config in (TshsrConfig, VseConfig, ScanConfig, SgrafConfig, TwoStreamSgrConfig))
"""The kinds of networks."""
