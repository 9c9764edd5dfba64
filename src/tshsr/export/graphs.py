"""The parts of a network as functions of tensors alone: images, text, and the head that scores pairs.

    head:    regions, words of pairs in the joint space, v, t       -> score
    images:  region features                                        -> regions, v
    text:    tokens                                                 -> words, t

Each calls the network's own public methods, so that a graph follows every change of them. Regions and words of images
and captions are computed once; the head alone works per pair.

Axes: pairs | images | captions | regions | words (nodes) | tokens | dim (joint space). Masks: True is real.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tshsr.config.models import ModelConfig, VseConfig
from tshsr.data.batches import UNREAD, CaptionBatch, ImageBatch
from tshsr.errors import SettingsError
from tshsr.models.base import Matcher
from tshsr.models.concepts import pooled_width, reads_boxes
from tshsr.models.encoders import LONGEST_CAPTION
from tshsr.models.whole import starts_at_encoder
from tshsr.pretrained.frozen_text import FrozenText
from tshsr.pretrained.pieces import PretrainedTokenizer
from tshsr.pretrained.text_network import TextNetwork, node_states
from tshsr.retriever import Retriever

PAIRS, IMAGES, CAPTIONS, REGIONS, WORDS, TOKENS = "pairs", "images", "captions", "regions", "words", "tokens"
"""Names of axes whose size is free."""
SIZES = {PAIRS: 3, IMAGES: 3, CAPTIONS: 3, REGIONS: 5, WORDS: 4, TOKENS: 7}
"""Sizes of the example inputs that a graph is traced with; they leave no mark on it."""


@dataclass(frozen=True)
class Graph:
    """A part of a network.

    Attributes:
        name: head, images or text.
        inputs: Example tensors by name, the arguments of the module in their order.
        axes: Names of the free axes of each input, in their order; other axes have the size of the example.
        outputs: Names of its results.
        limits: Smallest and largest size of axes that have others than 1 and none.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    axes: Mapping[str, tuple[str, ...]]
    outputs: tuple[str, ...]
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass
class _Inputs:
    """Example inputs with their axes."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, name: str, *axes: str, width: int | None = None, kind: torch.dtype = torch.float32) -> None:
        """An input with free axes and, with a width, a last one of fixed size."""
        shape = [*(SIZES[axis] for axis in axes), *([] if width is None else [width])]
        random = torch.rand(shape) if kind is torch.float32 else torch.ones(shape, dtype=kind)
        self.tensors[name], self.axes[name] = random, axes

    def graph(self, name: str, module: nn.Module, *outputs: str) -> Graph:
        """The graph of these inputs, without gradients and in evaluation mode."""
        return Graph(name, module.eval().requires_grad_(False), self.tensors, self.axes, outputs)


class Head(nn.Module):
    """Scores of pairs from what the other two graphs give."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self,
        regions: Tensor,
        region_mask: Tensor,
        v: Tensor,
        words: Tensor,
        word_mask: Tensor,
        t: Tensor,
        boxes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The fused score and v·t of each pair.

        Args:
            regions: Pairs x regions x dim, unit rows; padding is zero.
            v: Pairs x dim, unit rows.
            words: Pairs x words x dim, unit rows; padding is zero.
            t: Pairs x dim, unit rows.
            boxes: Pairs x regions x 4, for networks with `compares_places`.
        """
        images = self.matcher.complete(regions, region_mask, v, boxes)
        scores = self.matcher.score_pairs(images, self.matcher.complete(words, word_mask, t))
        return scores["fused"], scores["pooled"]


class Images(nn.Module):
    """Regions and v of images from their features."""

    def __init__(self, matcher: Matcher) -> None:
        super().__init__()
        self.matcher = matcher

    def forward(
        self, features: Tensor, region_mask: Tensor, boxes: Tensor | None = None, pooled: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encoded regions, images x regions x dim, and v, images x dim.

        Args:
            features: Images x regions x features.
            boxes: Images x regions x 4, for networks with box geometry.
            pooled: The image encoder's own vectors, for networks that read them.
        """
        encoding = self.matcher.encode_images(ImageBatch.unchecked(features, region_mask, boxes, pooled))
        return encoding.items, encoding.pooled


class Text(nn.Module):
    """Words and t of captions from tokens, through the text encoder.

    Args:
        frozen: A text network that is no part of the matcher.
    """

    def __init__(self, matcher: Matcher, frozen: TextNetwork | None) -> None:
        super().__init__()
        self.matcher, self.frozen = matcher, frozen

    def forward(self, tokens: Tensor, word_mask: Tensor, word_of_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encoded words, captions x words x dim, and t, captions x dim.

        Args:
            tokens: Captions x tokens; ids of the run's tokenizer.
            word_mask: Captions x words.
            word_of_token: For word pieces: the node of each token, -1 where it has none, -2 for padding.
        """
        batch = CaptionBatch.unchecked(tokens, word_mask, word_of_token=word_of_token)
        if self.frozen is not None and word_of_token is not None:
            found, whole = self.frozen(tokens, word_of_token != UNREAD)
            # Half precision, as states are stored in training.
            states = node_states(found, word_of_token, word_mask.shape[1]).half().float()
            batch = CaptionBatch.unchecked(tokens, word_mask, states, pooled=whole)
        encoding = self.matcher.encode_captions(batch)
        return encoding.items, encoding.pooled


def head_graph(retriever: Retriever) -> Graph:
    """The head: scores of pairs of encoded images and captions."""
    encoder, matcher = retriever.config.model.encoder, retriever.matcher
    pooled = pooled_width(retriever.config.model)
    inputs = _Inputs()
    for items, mask, whole in (("regions", "region_mask", "v"), ("words", "word_mask", "t")):
        inputs.add(items, PAIRS, items, width=encoder.dim)
        inputs.add(mask, PAIRS, items, kind=torch.bool)
        inputs.add(whole, PAIRS, width=pooled)
    if matcher.compares_places:
        inputs.add("boxes", PAIRS, REGIONS, width=4)
    return inputs.graph("head", Head(matcher), "score", "pooled")


def images_graph(retriever: Retriever) -> Graph:
    """From region features to encoded regions and v.

    Raises:
        SettingsError: As `check_pooling`.
    """
    check_pooling(retriever)
    encoder, inputs = retriever.config.model.encoder, _Inputs()
    inputs.add("features", IMAGES, REGIONS, width=encoder.feature_dim)
    inputs.add("region_mask", IMAGES, REGIONS, kind=torch.bool)
    if encoder.boxes or reads_boxes(retriever.config.model):
        inputs.add("boxes", IMAGES, REGIONS, width=4)
    if encoder.pooled_vectors != "items":
        inputs.add("pooled", IMAGES, width=encoder.image_pooled_width)
    graph = inputs.graph("images", Images(retriever.matcher), "regions", "v")
    slots: int = getattr(retriever.config.model, "region_slots", 0)
    return replace(graph, limits={REGIONS: (1, slots)}) if slots else graph


def text_graph(retriever: Retriever) -> Graph:
    """From tokens to encoded words and t, through the text encoder.

    Raises:
        SettingsError: Where the words are those of a GRU, whose steps ONNX can't have for captions of any length; and
            as `check_pooling`.
    """
    check_pooling(retriever)
    encoder, inputs = retriever.config.model.encoder, _Inputs()
    if encoder.text == "gru":
        raise SettingsError(
            f"{retriever.name} reads words with a GRU, which can't be exported for captions of any length; export its "
            "other parts: head, images."
        )
    tokenizer = retriever.tokenizer
    if not isinstance(tokenizer, PretrainedTokenizer):
        inputs.add("tokens", CAPTIONS, WORDS, kind=torch.int64)
        inputs.add("word_mask", CAPTIONS, WORDS, kind=torch.bool)
        graph = inputs.graph("text", Text(retriever.matcher, None), "words", "t")
        return replace(graph, limits={WORDS: (1, LONGEST_CAPTION)})
    length, fixed = tokenizer.tokenizer.length, tokenizer.tokenizer.fixed
    axes, width = ((CAPTIONS,), length) if fixed else ((CAPTIONS, TOKENS), None)
    inputs.add("tokens", *axes, width=width, kind=torch.int64)
    inputs.add("word_mask", CAPTIONS, WORDS, kind=torch.bool)
    inputs.add("word_of_token", *axes, width=width, kind=torch.int64)
    frozen = tokenizer.network if isinstance(tokenizer, FrozenText) else None
    graph = inputs.graph("text", Text(retriever.matcher, frozen), "words", "t")
    return replace(graph, limits={TOKENS: (2, length)})


def check_pooling(retriever: Retriever) -> None:
    """Refuse a pooling with a GRU over the ranks of items.

    Raises:
        SettingsError: In this case.
    """
    if pools_by_rank(retriever.config.model):
        raise SettingsError(
            f"{retriever.name} pools regions and words with a GRU over their ranks (generalised pooling), which can't "
            "be exported for any number of them; export its head."
        )


def pools_by_rank(model: ModelConfig) -> bool:
    """Whether a network has generalised pooling."""
    return isinstance(model, VseConfig) and model.pooling == "gpo" and not starts_at_encoder(model.encoder)


def exportable(model: ModelConfig) -> tuple[str, ...]:
    """Names of the graphs of a network."""
    if pools_by_rank(model):
        return ("head",)
    return ("head", "images") if model.encoder.text == "gru" else ("head", "images", "text")


GRAPHS = {"head": head_graph, "images": images_graph, "text": text_graph}
"""The function that makes each graph."""
