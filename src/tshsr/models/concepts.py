"""Concepts of a graph as a second representation of images and captions, beside v and t.

Each image has u_v and each caption u_t, made from concepts that it attends to. They stand beside v and t in the pooled
vector, so that v·t of an encoding, which ranks candidates and stands in logits, is

    (1 - beta) v·t + beta u_v·u_t          pooled = [ sqrt(1 - beta) v ; sqrt(beta) u ],  beta: learned

u depends on its own image or caption alone: the score of a pair is the same in every gallery. The graph is part of the
weights. `ProgressiveConcepts`, `ConsistentConcepts` and `ConsensusConcepts` are our instantiations of published ideas
(docs/related-knowledge.md).

Axes: rows (images or captions) | items (regions or words) | concepts (of the graph) | active (concepts of a row) |
kinds (of edges) | dim (joint space) | width (of v and t) | pairs (captions with their images).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import EMBEDDING_KINDS, EncoderConfig, ModelConfig, knowledge_of
from tshsr.errors import InputError, SettingsError
from tshsr.knowledge.graph import ConceptGraph
from tshsr.models.attention import masked_softmax, unit
from tshsr.models.base import ItemEncoding, RelatedScores
from tshsr.models.whole import starts_at_encoder, whole_width

FILTER_WIDTH = 32
"""Hidden width of the filter."""
GEOMETRY_WIDTH = 8
"""Hidden width of the gate by box geometry."""
SMALLEST_SIDE = 1e-2
"""Smallest side of a box in ratios of sides, as a fraction of the picture."""


class ConceptVectors(nn.Module):
    """Two layers of graph convolution over the vectors of the concepts (Kipf and Welling 2017; one W for each kind).

        H = leaky_relu( sum_k A_k X W1_k, 0.2 )       E = l2( sum_k A_k H W2_k )

    A_k: normalised edges of kind k; X: the concepts' pretrained vectors. Both are buffers, saved with the weights.

    Args:
        knowledge: Numbers of concepts and of kinds, and the width of X.
        dim: Width of E.
    """

    adjacency: Tensor
    vectors: Tensor

    def __init__(self, knowledge: KnowledgeConfig, dim: int) -> None:
        super().__init__()
        count, kinds = len(knowledge.concepts), len(knowledge.edges)
        self.register_buffer("adjacency", torch.eye(count).repeat(kinds, 1, 1))
        self.register_buffer("vectors", torch.randn(count, knowledge.width))
        self.first, self.second = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(kinds * inputs, dim)).view(kinds, inputs, dim))
            for inputs in (knowledge.width, dim)
        )

    @torch.no_grad()
    def load_graph(self, graph: ConceptGraph) -> None:
        """Copy edges and vectors of a graph."""
        for buffer, values in ((self.adjacency, graph.adjacency()), (self.vectors, graph.vectors)):
            buffer.copy_(torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self) -> Float[Tensor, "concepts dim"]:
        """E; unit rows."""
        hidden = nn.functional.leaky_relu((self.adjacency @ (self.vectors @ self.first)).sum(dim=0), 0.2)
        return unit((self.adjacency @ (hidden @ self.second)).sum(dim=0))


class Knowledge(nn.Module, ABC):
    """From v or t, items and concepts to u; base of the three methods.

        p = softmax_k( lambda e_k·W g )          distribution over the concepts for g, which is v, t or u

    Args:
        encoder: Widths.
        knowledge: Settings, with the graph's sizes.

    Raises:
        SettingsError: Where there is no graph.

    Attributes:
        width: Width of v and t.
        weight: Logit of beta.
    """

    def __init__(self, encoder: EncoderConfig, knowledge: KnowledgeConfig) -> None:
        super().__init__()
        if len(knowledge.concepts) < 2 or not knowledge.edges or knowledge.width < 1:
            raise SettingsError(
                f"model.knowledge has {len(knowledge.concepts)} concepts; expected those of a graph: train with `fit`, "
                "which builds or reads it, or take the settings of a trained run."
            )
        self.config = knowledge
        self.width, self.active = whole_width(encoder), min(knowledge.active, len(knowledge.concepts))
        self.concepts = ConceptVectors(knowledge, encoder.dim)
        self.relation = nn.Linear(self.width, encoder.dim, bias=False)
        nn.init.orthogonal_(self.relation.weight)
        self.weight = nn.Parameter(torch.tensor(math.log(knowledge.share / (1 - knowledge.share))))

    @property
    def reads_boxes(self) -> bool:
        """Whether u_v depends on the boxes of regions."""
        return False

    @abstractmethod
    def forward(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        whole: Float[Tensor, "rows width"],
        boxes: Float[Tensor, "rows items 4"] | None,
    ) -> Float[Tensor, "rows _"]:
        """u; unit rows.

        Args:
            items: Regions or words; unit rows.
            whole: v or t.
            boxes: Of regions, where they are read; None for words.
        """

    @abstractmethod
    def divergence(self, images: tuple[Tensor, Tensor], captions: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """The divergence of the concepts of matching images and captions, each (v, u) and (t, u) of pairs."""

    def logits(
        self, whole: Float[Tensor, "rows width"], vectors: Float[Tensor, "concepts dim"]
    ) -> Float[Tensor, "rows concepts"]:
        """The logits of p: lambda e_k·W g."""
        logits: Tensor = self.config.inverse_temperature * (self.relation(whole) @ vectors.T)
        return logits

    def add(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        whole: Float[Tensor, "rows width"],
        boxes: Float[Tensor, "rows items 4"] | None = None,
    ) -> tuple[Float[Tensor, "rows _"], Float[Tensor, ""]]:
        """[ sqrt(1 - beta) v ; sqrt(beta) u ], unit rows, and sqrt(1 - beta).

        Raises:
            InputError: Where boxes are read and missing; captions have none, and are not asked for them.
        """
        u = self(items, mask, whole, boxes if self.reads_boxes else None)
        beta = torch.sigmoid(self.weight)
        kept = (1 - beta).sqrt()
        return torch.cat([kept * whole, beta.sqrt() * u], dim=-1), kept

    def parts(self, pooled: Float[Tensor, "*rows _"]) -> tuple[Float[Tensor, "*rows _"], Float[Tensor, "*rows _"]]:
        """Both parts, v and u or t and u, from the vector of `add`; unit rows."""
        return unit(pooled[..., : self.width]), unit(pooled[..., self.width :])

    def related(
        self, images: ItemEncoding, captions: ItemEncoding, image_of_caption: Int[Tensor, " captions"]
    ) -> RelatedScores:
        """For the loss: v·t and u_v·u_t of all pairs of a batch, and the weighted divergence of matching ones."""
        v, u_v = self.parts(images.pooled)
        t, u_t = self.parts(captions.pooled)
        matching = v.index_select(0, image_of_caption), u_v.index_select(0, image_of_caption)
        penalty = self.config.consistency * self.divergence(matching, (t, u_t))
        return RelatedScores({"instances": v @ t.T, "concepts": u_v @ u_t.T}, penalty)


class ProgressiveConcepts(Knowledge):
    """Concepts explored step by step by a dynamic global representation: our instantiation of EKDM.

        g_0 = v or t;   for each of S steps, over the K concepts with the largest e_k·W g:
            alpha   = softmax_k( lambda e_k·W g )
            a_kr    = softmax_r( lambda e_k·x_r )                             where concept k is in the image
            B_kl    = sum_r sum_s a_kr sigmoid( gate(b_r, b_s) ) a_ls          places of k and l; 1 in captions
            e'_k    = l2( e_k + sum_l A_kl B_kl e_l / sum_l A_kl B_kl )       A = sum of all kinds of edges
            f_k     = sigmoid( w·tanh( F_e e'_k + F_g g + F_s s_k + c ) + d )
            g      <- l2( g + U sum_k alpha_k f_k e'_k )
        u = g_S

    s_k is the support of concept k: max_r e_k·x_r, and the centre and size of sum_r a_kr b_r (0 in captions). gate is a
    perceptron of the offset of the centres and the log ratios of the sides of two boxes. The divergence is the mean of
    KL(p_v, p_t) and KL(p_t, p_v), with p from u.
    """

    def __init__(self, encoder: EncoderConfig, knowledge: KnowledgeConfig) -> None:
        super().__init__(encoder, knowledge)
        dim = encoder.dim
        self.filter_concept = nn.Linear(dim, FILTER_WIDTH)
        self.filter_whole = nn.Linear(self.width, FILTER_WIDTH, bias=False)
        self.filter_support = nn.Linear(5 if knowledge.geometry else 1, FILTER_WIDTH, bias=False)
        self.filter_score = nn.Linear(FILTER_WIDTH, 1)
        self.gate: nn.Sequential | None = None
        if knowledge.geometry:
            self.gate = nn.Sequential(nn.Linear(4, GEOMETRY_WIDTH), nn.Tanh(), nn.Linear(GEOMETRY_WIDTH, 1))
        self.update = make_update(encoder)

    @property
    def reads_boxes(self) -> bool:
        """Whether the gate and the filter read boxes."""
        return self.gate is not None

    def forward(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        whole: Float[Tensor, "rows width"],
        boxes: Float[Tensor, "rows items 4"] | None,
    ) -> Float[Tensor, "rows width"]:
        """u; unit rows."""
        vectors, edges = self.concepts(), self.concepts.adjacency.sum(dim=0)
        places = None if boxes is None else centres_and_sizes(boxes.to(items.dtype))
        beside = None if places is None or self.gate is None else torch.sigmoid(self.gate(offsets(places)).squeeze(-1))
        for _ in range(self.config.steps):
            chosen, index = self.logits(whole, vectors).topk(self.active, dim=-1)
            found = select(vectors, index)
            cosines = found @ items.mT
            where = masked_softmax(self.config.inverse_temperature * cosines, mask[:, None, :])
            near = edges[index[:, :, None], index[:, None, :]]
            if beside is not None:
                near = near * (where @ beside @ where.mT)
            enhanced = unit(found + weighted_mean(near, found))
            opened = self._filter(enhanced, whole, cosines, mask, None if places is None else where @ places)
            pooled = torch.einsum("rk,rkd->rd", torch.softmax(chosen, dim=-1) * opened, enhanced)
            whole = unit(whole + self.update(pooled))
        return whole

    def _filter(
        self,
        enhanced: Float[Tensor, "rows active dim"],
        whole: Float[Tensor, "rows width"],
        cosines: Float[Tensor, "rows active items"],
        mask: Bool[Tensor, "rows items"],
        places: Float[Tensor, "rows active 4"] | None,
    ) -> Float[Tensor, "rows active"]:
        """The opening f of each concept."""
        best = cosines.masked_fill(~mask[:, None, :], torch.finfo(cosines.dtype).min).amax(dim=-1, keepdim=True)
        if self.gate is not None:
            given = best.new_zeros(*best.shape[:-1], 4) if places is None else places
            best = torch.cat([best, given], dim=-1)
        parts = self.filter_concept(enhanced) + self.filter_whole(whole)[:, None] + self.filter_support(best)
        opened: Tensor = torch.sigmoid(self.filter_score(torch.tanh(parts)).squeeze(-1))
        return opened

    def divergence(self, images: tuple[Tensor, Tensor], captions: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """( KL(p_v, p_t) + KL(p_t, p_v) ) / 2, mean over the pairs, in nats."""
        vectors = self.concepts()
        of_image, of_caption = (torch.log_softmax(self.logits(u, vectors), dim=-1) for _, u in (images, captions))
        return (kl(of_image, of_caption) + kl(of_caption, of_image)) / 2


class ConsistentConcepts(Knowledge):
    """Importance of concepts and relations between them, equal in both modalities: our instantiation of CSRC.

        p     = softmax_k( lambda e_k·W g ),  g = v or t                          importance
        h_k   = l2( e_k + sum_l A_kl p_l e_l / sum_l A_kl p_l )                  association-enhanced concept
        u     = l2( g + U sum_k p_k h_k / sum_k p_k )                            over the K most important concepts
        L_sem = sum_k ( p_k(v) - p_k(t) )^2
        L_rel = mean_kl ( h_k(v)·h_l(v) - h_k(t)·h_l(t) )^2                      k, l: the K largest p_k(v) p_k(t)

    The divergence is the mean of L_sem + L_rel over matching pairs.
    """

    def __init__(self, encoder: EncoderConfig, knowledge: KnowledgeConfig) -> None:
        super().__init__(encoder, knowledge)
        self.update = make_update(encoder)

    def forward(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        whole: Float[Tensor, "rows width"],
        boxes: Float[Tensor, "rows items 4"] | None,
    ) -> Float[Tensor, "rows width"]:
        """u; unit rows."""
        del items, mask, boxes
        vectors = self.concepts()
        importance = torch.softmax(self.logits(whole, vectors), dim=-1)
        chosen, index = importance.topk(self.active, dim=-1)
        shares = chosen / chosen.sum(dim=-1, keepdim=True)
        enhanced = self.enhanced(vectors, importance, index)
        return unit(whole + self.update(torch.einsum("rk,rkd->rd", shares, enhanced)))

    def enhanced(
        self,
        vectors: Float[Tensor, "concepts dim"],
        importance: Float[Tensor, "rows concepts"],
        index: Int[Tensor, "rows active"],
    ) -> Float[Tensor, "rows active dim"]:
        """The vectors h of the concepts in `index`."""
        near = select(self.concepts.adjacency.sum(dim=0), index) * importance[:, None, :]
        return unit(select(vectors, index) + weighted_mean(near, vectors))

    def divergence(self, images: tuple[Tensor, Tensor], captions: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """L_sem + L_rel, mean over the pairs."""
        vectors = self.concepts()
        of_image, of_caption = (torch.softmax(self.logits(g, vectors), dim=-1) for g, _ in (images, captions))
        semantic = (of_image - of_caption).square().sum(dim=-1).mean()
        index = (of_image * of_caption).topk(self.active, dim=-1).indices
        relations = []
        for importance in (of_image, of_caption):
            enhanced = self.enhanced(vectors, importance, index)
            relations.append(enhanced @ enhanced.mT)
        return semantic + (relations[0] - relations[1]).square().mean()


class ConsensusConcepts(Knowledge):
    """Consensus of both modalities, after CVSE (Wang et al., ECCV 2020): our instantiation.

        p = softmax_k( lambda e_k·W g ),  g = v or t          u = l2( sum_k p_k e_k )

    The divergence is KL(p_t, p_v), mean over matching pairs.
    """

    def forward(
        self,
        items: Float[Tensor, "rows items dim"],
        mask: Bool[Tensor, "rows items"],
        whole: Float[Tensor, "rows width"],
        boxes: Float[Tensor, "rows items 4"] | None,
    ) -> Float[Tensor, "rows dim"]:
        """u; unit rows."""
        del items, mask, boxes
        vectors = self.concepts()
        return unit(torch.softmax(self.logits(whole, vectors), dim=-1) @ vectors)

    def divergence(self, images: tuple[Tensor, Tensor], captions: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
        """KL(p_t, p_v), mean over the pairs, in nats."""
        vectors = self.concepts()
        of_image, of_caption = (torch.log_softmax(self.logits(g, vectors), dim=-1) for g, _ in (images, captions))
        return kl(of_caption, of_image)


def make_update(encoder: EncoderConfig) -> nn.Linear:
    """U; 0 before the first step where ranking starts at a joint encoder's, so that u is v or t."""
    update = nn.Linear(encoder.dim, whole_width(encoder), bias=False)
    if starts_at_encoder(encoder):
        nn.init.zeros_(update.weight)
    return update


def build_knowledge(model: ModelConfig) -> Knowledge | None:
    """The module of a configuration; None for a method without concepts, or where they are off.

    Raises:
        SettingsError: Where there is no graph.
    """
    knowledge = knowledge_of(model)
    if knowledge is None:
        return None
    match knowledge.method:
        case "progressive":
            return ProgressiveConcepts(model.encoder, knowledge)
        case "consistent":
            return ConsistentConcepts(model.encoder, knowledge)
        case "consensus":
            return ConsensusConcepts(model.encoder, knowledge)
        case "none":
            return None
        case _:
            assert_never(knowledge.method)


def check_boxes(knowledge: Knowledge | None, boxes: Tensor | None) -> None:
    """Refuse images without boxes where concepts read them.

    Raises:
        InputError: In this case.
    """
    if knowledge is not None and knowledge.reads_boxes and boxes is None:
        raise InputError(
            "this network gates concepts by box geometry and the images have no boxes; give boxes, or retrain with "
            "model.knowledge.geometry off."
        )


def pooled_width(model: ModelConfig) -> int:
    """Width of the pooled vectors of a network's encodings."""
    knowledge, width = knowledge_of(model), whole_width(model.encoder)
    return width if knowledge is None else width + concepts_width(model.encoder, knowledge)


def reads_boxes(model: ModelConfig) -> bool:
    """Whether concepts of a network's images depend on boxes of regions."""
    knowledge = knowledge_of(model)
    return knowledge is not None and knowledge.method == "progressive" and knowledge.geometry


def has_shares(model: ModelConfig) -> bool:
    """Whether a network's pooled vectors have other parts beside pooled regions or words."""
    if model.kind in EMBEDDING_KINDS or starts_at_encoder(model.encoder):
        return False
    return model.encoder.pooled_vectors == "added" or knowledge_of(model) is not None


def concepts_width(encoder: EncoderConfig, knowledge: KnowledgeConfig) -> int:
    """Width of u."""
    return encoder.dim if knowledge.method == "consensus" else whole_width(encoder)


def whole_node(model: ModelConfig, *, global_node: bool) -> tuple[int, int]:
    """What the first node of a stream compares: a width and the first column in pooled vectors; width 0: no such node.

    With concepts alone u_v and u_t; with a global node v and t, or the pooled vectors as a whole with both.
    """
    first = 0 if global_node else whole_width(model.encoder)
    end = pooled_width(model) if has_node(model) else whole_width(model.encoder)
    return end - first, first


def has_node(model: ModelConfig) -> bool:
    """Whether the first node of a stream compares concepts."""
    knowledge = knowledge_of(model)
    return knowledge is not None and knowledge.node


def select(
    rows: Float[Tensor, "concepts width"], index: Int[Tensor, "rows active"]
) -> Float[Tensor, "rows active width"]:
    """The rows of an index."""
    return rows.index_select(0, index.flatten()).view(*index.shape, rows.shape[-1])


def weighted_mean(
    weights: Float[Tensor, "rows active others"], vectors: Float[Tensor, "*#rows others dim"]
) -> Float[Tensor, "rows active dim"]:
    """sum_l w_kl e_l / sum_l w_kl; 0 where all weights are."""
    return weights @ vectors / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def kl(logs: Float[Tensor, "pairs concepts"], others: Float[Tensor, "pairs concepts"]) -> Float[Tensor, ""]:
    """KL(p, q) = sum_k p_k log( p_k / q_k ), mean over the pairs, from log p and log q."""
    return (logs.exp() * (logs - others)).sum(dim=-1).mean()


def centres_and_sizes(boxes: Float[Tensor, "rows items 4"]) -> Float[Tensor, "rows items 4"]:
    """Centre x, y, width and height of boxes x1, y1, x2, y2, as fractions of the picture."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


def offsets(places: Float[Tensor, "rows items 4"]) -> Float[Tensor, "rows items items 4"]:
    """Of each pair of boxes r, s: centre of s minus that of r, and log of the sides of s over those of r."""
    centres, sides = places[..., :2], places[..., 2:].clamp_min(SMALLEST_SIDE).log()
    parts = [each[:, None, :, :] - each[:, :, None, :] for each in (centres, sides)]
    return torch.cat(parts, dim=-1)
