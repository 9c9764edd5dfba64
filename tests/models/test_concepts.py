"""Concepts in networks: the formulas against plain loops, the score's terms, and independence of the gallery."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import knowledge_oracles, tiny
from tests.support.float64 import SAME, as_tensor, layer, shaken
from tests.support.methods import CONCEPTS, GRAPH
from tests.support.oracles import softmax
from tshsr.config.knowledge import KnowledgeConfig
from tshsr.config.models import ConceptsConfig, ModelConfig, TshsrConfig, VseConfig
from tshsr.data.batches import ImageBatch
from tshsr.errors import InputError, SettingsError
from tshsr.knowledge.graph import ConceptGraph
from tshsr.models.base import Matcher
from tshsr.models.build import build_matcher
from tshsr.models.concepts import Knowledge, ProgressiveConcepts, pooled_width
from tshsr.scoring.all_pairs import score_encoded

METHODS = ("progressive", "consistent", "consensus")
PAIRED = torch.tensor([0, 1, 2, 2])


def network(config: ModelConfig) -> tuple[Matcher, Knowledge]:
    """A shaken network whose edges are those of a graph again: negative ones have no meaning."""
    torch.manual_seed(3)
    matcher = shaken(build_matcher(config))
    knowledge = matcher.knowledge
    assert isinstance(knowledge, Knowledge)
    edges = np.random.default_rng(0).random((len(GRAPH.edges), *[len(GRAPH.concepts)] * 2)) > 0.6
    adjacency = [knowledge_oracles.normalised((each | each.T).astype(float).tolist()) for each in edges]
    knowledge.concepts.adjacency.copy_(torch.tensor(adjacency))
    return matcher, knowledge


def concepts(method: str, **changes: Any) -> ConceptsConfig:
    return ConceptsConfig(
        encoder=tiny.ENCODER, similarity_dim=6, comparison_dim=5, knowledge=replace(GRAPH, method=method, **changes)
    )


def parameters(knowledge: Knowledge) -> dict:
    config = knowledge.config
    found: dict[str, Any] = {
        "relation": knowledge.relation.weight.tolist(),
        "lambda": config.inverse_temperature,
        "active": knowledge.active,
        "steps": config.steps,
    }
    if config.method != "consensus":
        found["update"] = knowledge.update.weight.tolist()
    if isinstance(knowledge, ProgressiveConcepts):
        assert knowledge.gate is not None
        found |= {"gate_1": layer(knowledge.gate[0]), "gate_2": layer(knowledge.gate[2])}
        found |= {"concept": layer(knowledge.filter_concept), "score": layer(knowledge.filter_score)}
        found |= {"whole": knowledge.filter_whole.weight.tolist(), "support": knowledge.filter_support.weight.tolist()}
    return found


def plain_graph(knowledge: Knowledge) -> tuple[list, list]:
    """Concept vectors by plain loops, and the sum of the edges of all kinds."""
    graph = knowledge.concepts
    vectors = knowledge_oracles.concept_vectors(
        graph.adjacency.tolist(), graph.vectors.tolist(), graph.first.tolist(), graph.second.tolist()
    )
    return vectors, graph.adjacency.sum(dim=0).tolist()


def test_concept_vectors_are_two_layers_of_graph_convolution() -> None:
    _, knowledge = network(concepts("consensus"))
    torch.testing.assert_close(knowledge.concepts(), as_tensor(plain_graph(knowledge)[0]), **SAME)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("of_captions", [False, True])
def test_u_is_the_formula(method: str, of_captions: bool) -> None:
    matcher, knowledge = network(concepts(method, share=0.3))
    batch = tiny.images(3, 5, real=[5, 2, 1])
    encoding = matcher.encode_captions(tiny.captions()) if of_captions else matcher.encode_images(batch)
    vectors, edges = plain_graph(knowledge)
    wholes, found = knowledge.parts(encoding.pooled)
    p = parameters(knowledge)
    for row in range(3):
        real = encoding.mask[row]
        items, whole = encoding.items[row][real].tolist(), wholes[row].tolist()
        boxes = None if of_captions or batch.boxes is None else batch.boxes[row][real].tolist()
        if method == "progressive":
            expected = knowledge_oracles.progressive(items, whole, boxes, vectors, edges, p)
        elif method == "consistent":
            expected = knowledge_oracles.consistent(whole, vectors, edges, p)
        else:
            expected = knowledge_oracles.consensus(whole, vectors, p)
        torch.testing.assert_close(found[row], as_tensor(expected), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_the_divergence_is_the_formula(method: str) -> None:
    matcher, knowledge = network(concepts(method, consistency=0.7))
    images, captions = matcher.encode_images(tiny.images(3)), matcher.encode_captions(tiny.captions((4, 1, 6, 2)))
    related = matcher.related_scores(images, captions, PAIRED)
    assert related is not None
    vectors, edges = plain_graph(knowledge)
    p, costs = parameters(knowledge), []
    (v, u_v), (t, u_t) = knowledge.parts(images.pooled), knowledge.parts(captions.pooled)
    for caption, image in enumerate(PAIRED.tolist()):
        if method == "consistent":
            costs.append(knowledge_oracles.inconsistency(v[image].tolist(), t[caption].tolist(), vectors, edges, p))
            continue
        sides = (u_v[image], u_t[caption]) if method == "progressive" else (v[image], t[caption])
        p_v, p_t = (softmax(knowledge_oracles.concept_logits(side.tolist(), vectors, p)) for side in sides)
        both = (knowledge_oracles.kl(p_t, p_v) + knowledge_oracles.kl(p_v, p_t)) / 2
        costs.append(both if method == "progressive" else knowledge_oracles.kl(p_t, p_v))
    assert related.penalty.item() == pytest.approx(0.7 * sum(costs) / len(costs), rel=1e-8)
    torch.testing.assert_close(related.scores["concepts"], u_v @ u_t.T)
    torch.testing.assert_close(related.scores["instances"], v @ t.T)


@pytest.mark.parametrize("name", CONCEPTS)
def test_the_pooled_score_is_a_mixture_of_both_products(name: str) -> None:
    matcher, knowledge = network(CONCEPTS[name])
    images, captions = matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions())
    assert images.pooled.shape[-1] == pooled_width(CONCEPTS[name])
    torch.testing.assert_close(images.pooled.norm(dim=-1), torch.ones(3, dtype=torch.float64))
    (v, u_v), (t, u_t) = knowledge.parts(images.pooled), knowledge.parts(captions.pooled)
    beta = torch.sigmoid(knowledge.weight)
    expected = (1 - beta) * v @ t.T + beta * u_v @ u_t.T
    torch.testing.assert_close(matcher.score_all(images, captions)["pooled"], expected)


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_score_does_not_depend_on_the_gallery(name: str) -> None:
    matcher, _ = network(CONCEPTS[name])
    batch, text = tiny.images(4, 5, real=[5, 3, 4, 1]), tiny.captions((4, 1, 6))
    every = score_encoded(matcher, matcher.encode_images(batch), matcher.encode_captions(text))
    alone = score_encoded(matcher, matcher.encode_images(batch.rows(1, 2)), matcher.encode_captions(text))
    for key, scores in every.items():
        torch.testing.assert_close(scores[1:2], alone[key], **SAME)


@pytest.mark.parametrize("name", CONCEPTS)
def test_an_encoding_is_rebuilt_from_what_an_index_stores(name: str) -> None:
    matcher, _ = network(CONCEPTS[name])
    batch = tiny.images(3, 5, real=[5, 2, 4])
    images, captions = matcher.encode_images(batch), matcher.encode_captions(tiny.captions())
    places = batch.boxes if matcher.compares_places else None
    again = matcher.complete(images.items, images.mask, images.pooled, places)
    for key, scores in matcher.score_all(images, captions).items():
        torch.testing.assert_close(matcher.score_all(again, captions)[key], scores, **SAME)


def test_the_terms_of_a_trace_sum_to_the_logit_with_concepts() -> None:
    config = tiny.config(knowledge=replace(GRAPH, method="progressive"))
    matcher, _ = network(config)
    images, captions = matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions())
    scores = matcher.score_pairs(images, captions)
    for name, trace in matcher.trace(images, captions).items():
        torch.testing.assert_close(trace.score, scores[name])
        assert trace.has_global_node
        assert trace.pooled_terms is not None
        assert trace.pooled_whole is not None
        terms = trace.pooled_terms.sum(dim=(-2, -1)) + trace.pooled_whole
        torch.testing.assert_close(terms, trace.pooled)
        assert (trace.pooled_whole.abs() > 1e-6).all(), "the term of the concepts"


@pytest.mark.parametrize(
    ("node", "global_node", "first"), [(True, False, "u"), (False, True, "v"), (True, True, "both"), (False, False, "")]
)
def test_the_first_node_compares_what_the_settings_name(node: bool, global_node: bool, first: str) -> None:
    knowledge = replace(GRAPH, method="consistent", node=node)
    matcher, module = network(tiny.config(knowledge=knowledge, global_node=global_node))
    images, captions = matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions())
    stream = matcher.streams["word_stream"]
    assert (stream.global_similarity is not None) == bool(first)
    if not first:
        return
    for side in (images, captions):
        v, u = module.parts(side.pooled)
        torch.testing.assert_close(stream.whole(side.pooled), {"v": v, "u": u, "both": side.pooled}[first])


def test_a_network_without_concepts_is_the_one_it_was() -> None:
    torch.manual_seed(0)
    without = build_matcher(TshsrConfig(encoder=tiny.ENCODER))
    torch.manual_seed(0)
    off = build_matcher(TshsrConfig(encoder=tiny.ENCODER, knowledge=replace(GRAPH, method="none")))
    assert without.state_dict().keys() == off.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(without.parameters(), off.parameters(), strict=True))
    assert without.knowledge is None


def test_images_without_boxes_are_refused_where_concepts_read_them() -> None:
    batch = tiny.images()
    without = ImageBatch(batch.regions, batch.mask)
    for model in (concepts("progressive"), tiny.config(knowledge=replace(GRAPH, method="progressive"))):
        with pytest.raises(InputError, match=r"gates concepts by box geometry and the images have no boxes; give"):
            network(model)[0].encode_images(without)
    for other in (concepts("progressive", geometry=False), concepts("consistent")):
        network(other)[0].encode_images(without)


def test_a_network_without_a_graph_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"model.knowledge has 0 concepts; expected those of a graph: train with"):
        build_matcher(VseConfig(encoder=tiny.ENCODER, knowledge=KnowledgeConfig(method="consensus")))


def test_a_graph_is_loaded_into_the_weights() -> None:
    _, knowledge = network(concepts("consistent"))
    count = len(GRAPH.concepts)
    dice = np.random.default_rng(5)
    edges = np.triu(dice.random((2, count, count)) > 0.5, 1)
    graph = ConceptGraph(
        GRAPH.concepts,
        ("noun",) * count,
        GRAPH.edges,
        np.ones((count, count), np.int64),
        (edges | edges.transpose(0, 2, 1)).astype(np.float32),
        dice.normal(size=(count, GRAPH.width)).astype(np.float32),
        9,
        "x",
        "rules",
        "random",
    )
    knowledge.concepts.load_graph(graph)
    expected = [knowledge_oracles.normalised(each.tolist()) for each in graph.edges]
    torch.testing.assert_close(knowledge.concepts.adjacency, as_tensor(expected), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(knowledge.concepts.vectors.float(), torch.from_numpy(graph.vectors))
    buffers = {name for name, _ in network(concepts("consistent"))[0].named_buffers()}
    assert {"knowledge.concepts.adjacency", "knowledge.concepts.vectors"} <= buffers
