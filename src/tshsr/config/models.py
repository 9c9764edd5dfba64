"""Settings of the methods, one frozen dataclass each, discriminated by `kind`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.strict import STRICT


@dataclass(frozen=True)
class VisionConfig:
    """A vision network in front of the region encoder, trained from pixels (docs/guide/pixels.md)."""

    __pydantic_config__ = STRICT

    weights: str = ""
    """Train on pixels, with this network: efficientnet-lite2, which comes as a package, clip, siglip2, dinov2, dinov3,
    a folder with a network for transformers, or its name on the Hugging Face hub; empty: train on stored features."""
    cells: int = 6
    """Rows and columns of the grid of regions; the whole picture is one more region."""
    tuned_blocks: int = 2
    """Number of the network's last blocks that are trained; 0: none, its number of blocks or more: the whole network
    with its patch embedding."""
    gradient_checkpointing: bool = False
    """Recompute trained blocks in the backward pass: more time, less memory."""
    fingerprint: str = ""
    """Hash of the weights that training starts from; empty accepts any."""
    architecture: dict[str, Any] = field(default_factory=dict)
    """Kind, settings and preprocessing of the network, taken from the weights, so that a run loads without them."""


@dataclass(frozen=True)
class EncoderConfig:
    """Encoders of regions and words into the joint space (docs/model.md, section 1)."""

    __pydantic_config__ = STRICT

    dim: int = 1024
    """Width of the joint space (D)."""
    feature_dim: int = 0
    """Width of a region feature; 0: that of the data."""
    vocabulary: int = 0
    """Number of tokens; 0: that of the tokenizer."""
    boxes: bool = False
    """Append x1, y1, x2, y2 and area of each region, as fractions of the picture, to its features."""
    text: Literal["gru", "transformer", "pretrained"] = "gru"
    """Word encoder: a one-layer bidirectional GRU, a transformer trained from scratch, or a pretrained network."""
    text_weights: str = ""
    """Pretrained word encoder: minilm, bert, roberta, clip, siglip2, a folder, or a name on the Hugging Face hub."""
    text_nodes: Literal["words", "pieces"] = "words"
    """Nodes of the pretrained encoder: words, each the mean of its word pieces, or the word pieces."""
    text_layers: tuple[int, ...] = ()
    """Layers of the pretrained encoder whose states are concatenated for each word, such as 4 6; empty: the last
    one."""
    text_tuned_layers: int = 0
    """Last layers of the pretrained encoder that are trained; 0: frozen; all of its layers: also its embeddings."""
    text_width: int = 0
    """Width of the pretrained encoder's states, of all `text_layers` together; taken from its weights."""
    text_pooled_width: int = 0
    """Width of the pretrained encoder's vector of the whole caption; taken from its weights."""
    text_fingerprint: str = ""
    """Fingerprint of the pretrained encoder's weights; taken from them, checked wherever they are loaded."""
    word_dim: int = 300
    """Width of a word embedding."""
    word_vectors: str = ""
    """Word vectors that the GRU's embedding starts from, `word_dim` wide: a file of GloVe or word2vec (text, .bin,
    .gz), a .npy with its words in a .txt of the same name, or glove-50d; empty: random numbers."""
    transformer_layers: int = 2
    """Layers of the transformer word encoder."""
    transformer_heads: int = 4
    """Attention heads of the transformer word encoder."""
    dropout: float = 0.0
    """Dropout on region features and word embeddings while training."""
    word_dropout: float = 0.0
    """Dropout on word embeddings, where larger than `dropout`."""
    region_dropout: float = 0.0
    """Fraction of an image's regions that training drops at random."""
    pooled_vectors: Literal["items", "added", "frozen", "adapter"] = "items"
    """Vectors of the whole picture and caption: pooled from regions and words (items), with the encoders' own vectors
    added, or those of a joint encoder alone: as they are (frozen), or with a trained linear layer that starts at zero
    (adapter). With the last two, ranking starts at the joint encoder's."""
    image_pooled_width: int = 0
    """Width of the image encoder's vector of the whole picture; taken from the data."""
    region_projection: Literal["linear", "residual"] = "linear"
    """Projection of a region's features: linear, or with a two-layer perceptron added, as in VSE-infinity and ESA."""
    vision: VisionConfig = field(default_factory=VisionConfig)
    """Training from pixels."""


@dataclass(frozen=True)
class ReasoningConfig:
    """Hierarchical similarity reasoning (docs/model.md, section 4); every switch is a row of the ablation table."""

    __pydantic_config__ = STRICT

    levels: int = 2
    """Number of reasoning levels K; 0: read-out of the similarity vectors alone."""
    seeds: tuple[int, ...] = (8, 3)
    """Learned context seeds of each level; the first `levels` are used."""
    context: bool = True
    """Let a level's update attend to the extracted context nodes."""
    local: bool = True
    """Let a level's update attend to the nodes themselves."""
    gate: bool = True
    """Gate each update by a learned sigmoid."""
    context_inverse_temperature: float = 0.0
    """Sharpness (lambda) of the attention of context nodes over the other side, from which each gets a similarity
    vector of its own; 0: context nodes pool similarity vectors alone."""


@dataclass(frozen=True)
class TshsrConfig:
    """The two-stream hierarchical similarity reasoning network."""

    __pydantic_config__ = STRICT

    kind: Literal["tshsr"] = "tshsr"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 256
    """Width of the space in which a query is compared with its attended vector (k); 0: the joint space, as in SGRAF."""
    products: bool = False
    """Compare by products beside squared differences."""
    similarity_dropout: float = 0.0
    """Dropout on similarity vectors while training."""
    streams: Literal["both", "word", "region"] = "both"
    """Word stream: words attend to regions. Region stream: regions attend to words."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    place_term: bool = False
    """Add a term to similarity vectors: agreement of a region's box with a position predicted from the word; requires
    `encoder.boxes`."""
    global_node: bool = False
    """Add the similarity vector of the pooled picture and the pooled caption as a node."""
    gated_queries: bool = False
    """DSGSL's gate: compare each query after mixing it with its attended vector, channel by channel."""
    dual_graph: bool = False
    """DSGSL's graphs: one step among the local nodes, and between them and the global one, before the hierarchy;
    requires `global_node`."""
    neighbours: int = 0
    """DSGSL's batch graph: nearest images (captions) of a batch from which loss.relations rebuilds v (t); 0: none."""
    pooled_term: bool = True
    """Add v·t, with a learned weight, to each stream's logit, so that the reasoning learns the residual."""
    late_weight: float = 0.0
    """Fixed weight of v·t in place of the learned one: streams are trained without v·t, which joins them in evaluation;
    0: learned."""
    late_centre: float = 0.6
    """With `late_weight`: v·t at which its term is 0."""
    late_mean: float = 0.0
    """With `late_weight`: weight by which the mean similarity of all regions with all words is subtracted in
    evaluation, because streams and v·t both count it."""
    pooling: Literal["attention", "esa"] = "attention"
    """Pooling of v and t: attention over the regions and words of the streams, or, over projections of their own, the
    pooling of ESA: a softmax over the items for each channel."""
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    """Hierarchical reasoning, the same settings in both streams (weights are not shared)."""
    fusion: Literal["mean", "learned"] = "mean"
    """Fusion of the two stream scores."""
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    """Concepts of a graph."""


@dataclass(frozen=True)
class VseConfig:
    """Pooled embeddings and their cosine: VSE++ (Faghri et al. 2018), VSE-infinity (Chen et al. 2021)."""

    __pydantic_config__ = STRICT

    kind: Literal["vse"] = "vse"
    """The method."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(region_projection="residual"))
    """Region and word encoders."""
    pooling: Literal["mean", "attention", "gpo", "esa"] = "gpo"
    """Pooling of regions and of words; gpo is the generalised pooling operator of VSE-infinity, esa the pooling of ESA:
    a softmax over the items for each channel."""
    size_augmentation: float = 0.2
    """Fraction of regions and words that training drops at random."""
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    """Concepts of a graph: with consensus CVSE (Wang et al. 2020)."""


@dataclass(frozen=True)
class ScanConfig:
    """Stacked cross attention (SCAN, Lee et al. 2018): cosines of queries and their attended vectors, aggregated."""

    __pydantic_config__ = STRICT

    kind: Literal["scan"] = "scan"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    streams: Literal["both", "word", "region"] = "word"
    """Word stream: words attend to regions (t-i). Region stream: regions attend to words (i-t). Both: their mean."""
    normalisation: Literal["clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax"] = "clipped_l2norm"
    """Normalisation of q·c before the softmax over the context: clipped is a leaky ReLU of slope 0.1; the norm and the
    softmax run over the queries."""
    aggregation: Literal["mean", "logsumexp", "max", "sum"] = "mean"
    """Aggregation of the cosines of a stream's queries."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    word_logsumexp_factor: float = 6.0
    """Factor mu of logsumexp over words: near 0 it approaches the mean, for large values the maximum."""
    region_logsumexp_factor: float = 5.0
    """Factor mu of logsumexp over regions."""


@dataclass(frozen=True)
class SgrafConfig:
    """Graph reasoning or filtration in the word stream (SGRAF, Diao et al. 2021, is the ensemble of both)."""

    __pydantic_config__ = STRICT

    kind: Literal["sgraf"] = "sgraf"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 0
    """As in TshsrConfig: width of the comparison space (k); 0: the joint space, as in the authors' code."""
    reasoning: Literal["sgr", "saf"] = "sgr"
    """sgr: graph steps over all nodes, with the global node read out. saf: attention filtration."""
    steps: int = 3
    """Steps of the graph (sgr)."""
    inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_slots: int = 0
    """Number of region positions, each with a separate batch normalisation in the global pooling (36 in the authors'
    code); limits the number of regions and depends on their order. 0: one normalisation for all regions."""
    pooling_dropout: float = 0.4
    """Dropout inside the global poolings while training."""


@dataclass(frozen=True)
class TwoStreamSgrConfig:
    """Two streams without a hierarchy: SGR in each, with separate weights; the score is the mean of both."""

    __pydantic_config__ = STRICT

    kind: Literal["two_stream_sgr"] = "two_stream_sgr"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 0
    """As in SgrafConfig: width of the comparison space (k); 0: the joint space."""
    steps: int = 3
    """Steps of the graph in each stream."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    region_slots: int = 0
    """As in SgrafConfig: region positions, each with a separate batch normalisation; 0: one for all."""
    pooling_dropout: float = 0.4
    """Dropout inside the global poolings while training."""


@dataclass(frozen=True)
class RcarConfig:
    """Regulated attention and aggregation in one stream (RCAR, Diao et al. 2023, is the ensemble of both streams)."""

    __pydantic_config__ = STRICT

    kind: Literal["rcar"] = "rcar"
    """The method."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(region_projection="residual"))
    """Region and word encoders."""
    streams: Literal["both", "word", "region"] = "word"
    """Word stream: words attend to regions. Region stream: regions attend to words. Both: one network with their
    mean."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    steps: int = 2
    """Steps; each attends, and then aggregates the similarity vectors. 1: attention without regulation."""
    word_inverse_temperature: float = 10.0
    """Sharpness (lambda) of the first attention of words over regions."""
    region_inverse_temperature: float = 3.0
    """Sharpness (lambda) of the first attention of regions over words."""
    pooling_dropout: float = 0.4
    """Dropout inside the aggregation while training."""


@dataclass(frozen=True)
class HardAlignmentConfig:
    """The best context item of each query: CHAN (Pan et al. 2023), late interaction (Khattab & Zaharia 2020)."""

    __pydantic_config__ = STRICT

    kind: Literal["hard_alignment"] = "hard_alignment"
    """The method."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(region_projection="residual"))
    """Region and word encoders."""
    streams: Literal["both", "word", "region"] = "word"
    """Word stream: the best region of each word. Region stream: the best word of each region. Both: their mean."""
    aggregation: Literal["logsumexp", "mean", "sum"] = "logsumexp"
    """Aggregation of the queries' best cosines: logsumexp in CHAN, sum in ColBERT, mean in FILIP."""
    temperature: float = 0.1
    """Temperature of logsumexp; the score is in units of it."""


@dataclass(frozen=True)
class HremConfig:
    """Embeddings trained with the relations among the pairs of a batch (HREM, Fu et al. 2023)."""

    __pydantic_config__ = STRICT

    kind: Literal["hrem"] = "hrem"
    """The method."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(region_projection="residual"))
    """Region and word encoders."""
    heads: int = 16
    """Attention heads of the transformer layers, over the items and over the batch."""
    item_share: float = 0.8
    """Share of the items' own maxima in a pooled vector; the rest is the mean of their transformer layer."""
    connected: float = 0.5
    """Fraction of a batch's images, and of its captions, with which an image or caption interacts."""
    best_matches: int = 10
    """Best matches of a pair's words and regions that its relevance is computed from."""
    relevance_weight: float = 10.0
    """Weight of the divergence of relevance from the similarity of embeddings, in loss.relations."""
    size_augmentation: float = 0.2
    """Fraction of regions and words that training drops at random."""
    pooling_dropout: float = 0.1
    """Dropout inside the transformer layers while training."""


@dataclass(frozen=True)
class DsgslConfig:
    """Gated queries, graphs of local and global nodes, a graph of each batch in training.

    Our instantiation of DSGSL (Tan et al. 2022), of which the abstract is known (docs/related.md).
    """

    __pydantic_config__ = STRICT

    kind: Literal["dsgsl"] = "dsgsl"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 256
    """As in TshsrConfig: width of the comparison space (k), in which queries are gated; 0: the joint space."""
    streams: Literal["both", "word", "region"] = "both"
    """Word stream: words attend to regions. Region stream: regions attend to words."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    gated_queries: bool = True
    """Compare each query after mixing it with its attended vector, channel by channel."""
    graph_steps: int = 2
    """Steps on the graphs of local nodes and of local and global ones; 0: none."""
    neighbours: int = 8
    """Nearest images (captions) of a batch from which loss.relations rebuilds v (t)."""


@dataclass(frozen=True)
class ImramConfig:
    """Attention in steps, each query refined by what it found (IMRAM, Chen et al. 2020)."""

    __pydantic_config__ = STRICT

    kind: Literal["imram"] = "imram"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    streams: Literal["both", "word", "region"] = "both"
    """Word stream: words attend to regions. Region stream: regions attend to words. Both: their mean."""
    steps: int = 3
    """Steps of attention; each but the last refines the queries. 1: SCAN's mean."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""


@dataclass(frozen=True)
class ShanConfig:
    """Alignment in steps, local-local, global-local, global-global (SHAN, Ji et al. 2021)."""

    __pydantic_config__ = STRICT

    kind: Literal["shan"] = "shan"
    """The method."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Region and word encoders."""
    last_alignment: Literal["local_local", "global_local", "global_global"] = "global_global"
    """Last of the alignments, in this order, whose scores are summed."""
    inverse_temperature: float = 9.0
    """Sharpness (lambda) of every attention."""


@dataclass(frozen=True)
class ConceptsConfig:
    """Two streams with attention filtration and concepts of a graph: our instantiations of EKDM and CSRC."""

    __pydantic_config__ = STRICT

    kind: Literal["concepts"] = "concepts"
    """The method."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(region_projection="residual"))
    """Region and word encoders."""
    similarity_dim: int = 256
    """Width of a similarity vector (m)."""
    comparison_dim: int = 256
    """As in TshsrConfig: width of the comparison space (k); 0: the joint space."""
    word_inverse_temperature: float = 9.0
    """Sharpness (lambda) of the attention of words over regions."""
    region_inverse_temperature: float = 4.0
    """Sharpness (lambda) of the attention of regions over words."""
    knowledge: KnowledgeConfig = field(default_factory=lambda: KnowledgeConfig(method="progressive"))
    """Concepts of a graph."""


def current_names(values: Any) -> Any:
    """Settings of a saved model in today's names: `perceptron` of VSE became `encoder.region_projection`."""
    if not isinstance(values, dict) or values.get("kind") != "vse" or not isinstance(values.get("perceptron"), bool):
        return values
    rest = {name: value for name, value in values.items() if name != "perceptron"}
    projection = "residual" if values["perceptron"] else "linear"
    encoder = rest.get("encoder", {})
    return {**rest, "encoder": {"region_projection": projection, **encoder} if isinstance(encoder, dict) else encoder}


ModelConfig = Annotated[
    TshsrConfig
    | VseConfig
    | ScanConfig
    | SgrafConfig
    | TwoStreamSgrConfig
    | RcarConfig
    | HardAlignmentConfig
    | HremConfig
    | DsgslConfig
    | ImramConfig
    | ShanConfig
    | ConceptsConfig,
    Field(discriminator="kind"),
]
"""The union of the methods' settings, discriminated by `kind`."""

KINDS = tuple(
    config.kind
    for config in (
        TshsrConfig,
        VseConfig,
        ScanConfig,
        SgrafConfig,
        TwoStreamSgrConfig,
        RcarConfig,
        HardAlignmentConfig,
        HremConfig,
        DsgslConfig,
        ImramConfig,
        ShanConfig,
        ConceptsConfig,
    )
)
"""Values of `kind`."""
EMBEDDING_KINDS = ("vse", "hrem")
"""Methods whose whole score is v·t: they have no streams."""


def knowledge_of(model: ModelConfig) -> KnowledgeConfig | None:
    """The settings of a method's concepts; None for a method without, or where they are off."""
    if isinstance(model, TshsrConfig | VseConfig | ConceptsConfig) and model.knowledge.method != "none":
        return model.knowledge
    return None


def with_knowledge(model: ModelConfig, **changes: Any) -> ModelConfig:
    """A method's settings with some of its concepts' settings replaced; unchanged for a method without."""
    if not isinstance(model, TshsrConfig | VseConfig | ConceptsConfig):
        return model
    return replace(model, knowledge=replace(model.knowledge, **changes))
