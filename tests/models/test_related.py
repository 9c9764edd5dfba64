"""The mathematics of DSGSL (our instantiation), IMRAM and SHAN against plain loops, and their gradients."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from tests.support import oracles, related_oracles, tiny
from tests.support.float64 import SAME, as_tensor, encoded, layer, plain_similarity, real, shaken, unit_rows
from tshsr.config.models import DsgslConfig, ImramConfig, ModelConfig, ScanConfig, ShanConfig
from tshsr.errors import SettingsError
from tshsr.index.rows import encoding_columns, encoding_of
from tshsr.models.base import ItemEncoding
from tshsr.models.build import build_matcher
from tshsr.models.dsgsl import Dsgsl, DsgslStream
from tshsr.models.imram import Imram, MemoryStream
from tshsr.models.roles import view_name
from tshsr.models.semantic_graphs import BatchGraph, DualGraph
from tshsr.models.shan import AlignmentStream, Shan
from tshsr.models.similarity import SimilarityVector
from tshsr.scoring.all_pairs import score_encoded

DSGSL = DsgslConfig(encoder=tiny.ENCODER, similarity_dim=6, comparison_dim=5, neighbours=2)
IMRAM = ImramConfig(encoder=tiny.ENCODER)
SCAN = ScanConfig(encoder=tiny.ENCODER, streams="both")
SHAN = ShanConfig(encoder=tiny.ENCODER)
PARTS = {"gated_queries": True, "global_node": True, "dual_graph": True, "neighbours": 2}
METHODS: dict[str, ModelConfig] = {
    "dsgsl": DSGSL,
    "imram": IMRAM,
    "shan": SHAN,
    "shan, two alignments": replace(SHAN, last_alignment="global_local"),
    "tshsr with the parts of dsgsl": tiny.config(products=True, **PARTS),
}
SIZES = [(5, 4), (1, 3), (4, 1)]


def with_pooled(vectors: Tensor) -> ItemEncoding:
    """Images or captions with these vectors and one item each."""
    items = vectors[:, None]
    return ItemEncoding(items, torch.ones(len(vectors), 1, dtype=torch.bool), vectors, items @ items.mT)


def similarity_parameters(module: SimilarityVector) -> dict:
    assert module.gate is not None
    assert module.cosine is not None
    return {
        "view": module.view.weight.tolist(),
        **layer(module.projection),
        "cosine": module.cosine.tolist(),
        "product": None if module.product is None else module.product.weight.tolist(),
        "gate": {"query": layer(module.gate.query), "difference": module.gate.difference.weight.tolist()},
    }


def graph_parameters(graph: DualGraph) -> dict:
    matrices = {name: getattr(graph, name).weight.tolist() for name in ("relation", "edge", "from_global")}
    return {
        **matrices,
        "opening": graph.opening.item(),
        "local": layer(graph.local),
        "to_global": layer(graph.to_global),
    }


@torch.no_grad()
@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_similarity_vectors_of_gated_queries_are_the_formula(products: bool, grad: bool) -> None:
    module = shaken(SimilarityVector(12, 5, 6, products=products, gated=True))
    queries, context, weights = unit_rows(4, 12), unit_rows(3, 12), torch.softmax(real(4, 3), dim=1)
    cosine = ((weights @ context) * queries).sum(dim=1)
    with torch.set_grad_enabled(grad):  # without gradients some operations work in place
        sides = module.project(queries)[None], weights[None], module.project(context)[None]
        found = module.to_attended(*sides, cosine[None])
    for row, vector in enumerate(found[0]):
        expected = related_oracles.gated_similarity(
            queries[row].tolist(), (weights @ context)[row].tolist(), similarity_parameters(module)
        )
        torch.testing.assert_close(vector, as_tensor(expected), **SAME)


@torch.no_grad()
@pytest.mark.parametrize("local", [5, 1])
def test_a_step_on_both_graphs_is_the_formula_and_ignores_padding(local: int) -> None:
    graph = shaken(DualGraph(6))
    nodes = unit_rows(1 + local, 6)
    expected = as_tensor(related_oracles.dual_graph(nodes.tolist(), graph_parameters(graph)))
    torch.testing.assert_close(graph(nodes, None), expected, **SAME)
    padded, mask = torch.cat([nodes, 9 * real(2, 6)]), torch.arange(3 + local) <= local
    torch.testing.assert_close(graph(padded, mask)[: 1 + local], expected, **SAME)


@torch.no_grad()
@pytest.mark.parametrize(("regions", "words"), SIZES)
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_both_streams_of_dsgsl_are_the_formula(steps: int, regions: int, words: int) -> None:
    network = shaken(Dsgsl(replace(DSGSL, graph_steps=steps)))
    v, t = encoded(unit_rows(regions, 12)), encoded(unit_rows(words, 12))
    v, t = (replace(side, views=network.views(side.items, None)) for side in (v, t))
    scores, traces = network.score_pairs(v, t), network.trace(v, t)
    expected = []
    for name, queries, context in (("word_stream", t, v), ("region_stream", v, t)):
        score, beta = plain_dsgsl(network.streams[name], queries, context)
        assert scores[name].item() == pytest.approx(score, rel=1e-9)
        trace = traces[name]
        torch.testing.assert_close(trace.node_weights[0, 0], as_tensor(beta), **SAME)
        torch.testing.assert_close(trace.node_contributions.sum(-1), trace.contributions)
        torch.testing.assert_close(torch.sigmoid(trace.contributions.sum(-1) + trace.bias), scores[name])
        expected.append(score)
    assert scores["fused"].item() == pytest.approx(sum(expected) / 2, rel=1e-9)


def plain_dsgsl(stream: DsgslStream, queries: ItemEncoding, context: ItemEncoding) -> tuple[float, list[float]]:
    """A stream's score and the weights of its nodes, by plain loops."""
    q, c = queries.items[0].tolist(), context.items[0].tolist()
    attention = oracles.attention(q, c, stream.inverse_temperature)
    local = similarity_parameters(stream.local_similarity)
    assert stream.global_similarity is not None
    nodes = [plain_similarity(stream.global_similarity, queries.pooled[0].tolist(), context.pooled[0].tolist())]
    for x, weights in zip(q, attention, strict=True):
        nodes.append(related_oracles.gated_similarity(x, oracles.unit(oracles.mix(weights, c)), local))
    for graph in stream.graphs:
        nodes = related_oracles.dual_graph(nodes, graph_parameters(graph))
    vector, beta = related_oracles.filtered(nodes, layer(stream.opening))
    return oracles.sigmoid(oracles.dot(stream.score.weight[0].tolist(), vector) + stream.score.bias.item()), beta


@torch.no_grad()
@pytest.mark.parametrize(("rows", "neighbours"), [(6, 2), (6, 9), (2, 3), (1, 3)])
def test_embeddings_are_rebuilt_from_their_nearest_neighbours(rows: int, neighbours: int) -> None:
    graph = shaken(BatchGraph(4, neighbours))
    sides = [with_pooled(unit_rows(rows, 4)) for _ in range(2)]
    found = graph(*sides)
    v, t = (
        as_tensor(related_oracles.rebuilt(side.pooled.tolist(), module.weight.tolist(), neighbours, graph.TEMPERATURE))
        for side, module in zip(sides, (graph.images, graph.captions), strict=True)
    )
    torch.testing.assert_close(found.scores["related"], v @ t.T, **SAME)
    torch.testing.assert_close(found.scores["related_images"], v @ sides[1].pooled.T, **SAME)
    torch.testing.assert_close(found.scores["related_captions"], sides[0].pooled @ t.T, **SAME)
    assert found.penalty == 0


def memory_parameters(stream: MemoryStream) -> dict:
    if stream.from_query is None or stream.from_context is None:
        return {}
    weight = torch.cat([stream.from_query.weight, stream.from_context.weight], dim=1)
    return {"weight": weight.tolist(), "bias": stream.from_query.bias.tolist()}


@torch.no_grad()
@pytest.mark.parametrize(("regions", "words"), SIZES)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_both_streams_of_imram_are_the_formula(steps: int, regions: int, words: int) -> None:
    config = replace(IMRAM, steps=steps)
    network = shaken(Imram(config))
    v, t = unit_rows(regions, 12), unit_rows(words, 12)
    scores, traces = network.score_pairs(encoded(v), encoded(t)), network.trace(encoded(v), encoded(t))
    expected = []
    for name, queries, context, temperature in (
        ("word_stream", t, v, config.word_inverse_temperature),
        ("region_stream", v, t, config.region_inverse_temperature),
    ):
        parameters = memory_parameters(network.streams[name])
        score, attention = related_oracles.imram(queries.tolist(), context.tolist(), temperature, steps, parameters)
        assert scores[name].item() == pytest.approx(score, rel=1e-9)
        torch.testing.assert_close(traces[name].attention[0], as_tensor(attention), **SAME)
        torch.testing.assert_close(traces[name].score, scores[name])
        torch.testing.assert_close(traces[name].node_contributions.sum((-1, -2)), scores[name])
        expected.append(score)
    assert scores["fused"].item() == pytest.approx(sum(expected) / 2, rel=1e-9)


def alignment_parameters(stream: AlignmentStream) -> dict:
    assert stream.gate_query is not None
    assert stream.gate_context is not None
    assert stream.share is not None
    return {
        "affinity": stream.affinity.weight.tolist(),
        "gate": torch.cat([stream.gate_query.weight, stream.gate_context.weight], dim=1).tolist(),
        "gate_bias": stream.gate_query.bias.tolist(),
        "share": stream.share.weight[0].tolist(),
    }


@torch.no_grad()
@pytest.mark.parametrize(("regions", "words"), SIZES)
def test_the_three_alignments_of_shan_are_the_formula(regions: int, words: int) -> None:
    network = shaken(Shan(SHAN))
    v, t = unit_rows(regions, 12), unit_rows(words, 12)
    parts = {}
    for name, queries, context in (("word_stream", t, v), ("region_stream", v, t)):
        parameters = alignment_parameters(network.streams[name])
        parts[name] = related_oracles.alignment(queries.tolist(), context.tolist(), 9.0, parameters)
    together = related_oracles.cosine(parts["word_stream"]["whole"], parts["region_stream"]["whole"])
    for alignments, last in enumerate(("local_local", "global_local", "global_global"), start=1):
        smaller = Shan(replace(SHAN, last_alignment=last)).double().eval()
        smaller.load_state_dict(network.state_dict(), strict=alignments > 1)
        scores, traces = smaller.score_pairs(encoded(v), encoded(t)), smaller.trace(encoded(v), encoded(t))
        expected = {}
        for name, part in parts.items():
            levels = [part["local"], part["global"], together][:alignments]
            expected[name] = sum(levels)
            assert scores[name].item() == pytest.approx(expected[name], rel=1e-9)
            trace = traces[name]
            torch.testing.assert_close(trace.attention[0], as_tensor(part["attention"]), **SAME)
            torch.testing.assert_close(trace.contributions[0], as_tensor(levels), **SAME)
            torch.testing.assert_close(trace.node_contributions.sum(-1), trace.contributions, **SAME)
            torch.testing.assert_close(trace.node_weights.sum(-1)[0], torch.ones(alignments).double())
            assert trace.has_global_node == (alignments == 3)
            if alignments > 1:
                shares = trace.node_weights[0, 1, int(trace.has_global_node) :]
                torch.testing.assert_close(shares, as_tensor(part["shares"]), **SAME)
        assert scores["fused"].item() == pytest.approx(sum(expected.values()) / 2, rel=1e-9)


def batch(network: nn.Module) -> tuple[ItemEncoding, ItemEncoding]:
    """Three images and five captions of different lengths."""
    images = network.encode_images(tiny.images(3, 6, real=[6, 1, 4]))
    return images, network.encode_captions(tiny.captions((4, 1, 6, 2, 5)))


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_the_score_of_a_pair_depends_on_no_gallery_and_no_batch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = shaken(build_matcher(METHODS[method]))
    images, captions = batch(network)
    monkeypatch.setattr(BatchGraph, "forward", lambda *_: pytest.fail("the batch graph was used for scores"))
    every = score_encoded(network, images, captions)
    for row in range(3):
        for column in range(5):
            alone = network.score_pairs(images[row : row + 1], captions[column : column + 1])
            for name, score in alone.items():
                torch.testing.assert_close(score[0], every[name][row, column], **SAME)
    alone = network.encode_images(tiny.images(3, 6, real=[6, 1, 4]))[1:2]
    torch.testing.assert_close(alone.pooled, images.pooled[1:2], **SAME)


@torch.no_grad()
@pytest.mark.parametrize("method", ["dsgsl", "tshsr with the parts of dsgsl"])
def test_related_scores_depend_on_the_batch(method: str) -> None:
    network = shaken(build_matcher(METHODS[method]))
    images, captions = batch(network)
    pairs = torch.tensor([0, 1, 2, 2, 1])
    whole = network.related_scores(images, captions, pairs).scores["related"]
    part = network.related_scores(images[:2], captions[:2], pairs[:2]).scores["related"]
    assert not torch.allclose(whole[:2, :2], part, atol=1e-4)
    without = shaken(build_matcher(replace(METHODS[method], neighbours=0)))
    assert without.related_scores(images, captions, pairs) is None
    assert not any(name.startswith("batch_graph") for name, _ in without.named_parameters())


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_an_index_gives_back_an_encoding_of_the_same_scores(method: str) -> None:
    """Projections of a role are computed again from the items, where the index gives these back alone."""
    network = build_matcher(METHODS[method]).eval()
    pictures = tiny.images(3, 5, real=[5, 2, 4])
    images = network.encode_images(replace(pictures, regions=pictures.regions.float(), boxes=None))
    captions = network.encode_captions(tiny.captions())
    rows = [pa.table(encoding_columns(side)) for side in (images, captions)]
    again = [encoding_of(network, table, torch.device("cpu")) for table in rows]
    scores, restored = network.score_all(images, captions), network.score_all(*again)
    for name, score in scores.items():
        torch.testing.assert_close(restored[name], score, rtol=0, atol=5e-3)


@torch.no_grad()
def test_an_encoding_keeps_the_projections_of_its_own_role() -> None:
    images, captions = batch(shaken(Imram(IMRAM)))
    assert images.views.keys() == {view_name("region_stream", "queries"), view_name("word_stream", "context")}
    assert captions.views.keys() == {view_name("word_stream", "queries"), view_name("region_stream", "context")}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_finite_differences(method: str) -> None:
    network = shaken(build_matcher(METHODS[method]))
    images, captions = tiny.images(2, 3, real=[3, 2]), tiny.captions((3, 2))
    regions = images.regions.clone().requires_grad_()

    def loss(features: Tensor) -> Tensor:
        left, right = network.encode_images(replace(images, regions=features)), network.encode_captions(captions)
        scores = network.score_all(left, right)
        return scores["fused"].square().sum() + scores["pooled"].sum()

    assert torch.autograd.gradcheck(loss, (regions,))


def test_gradients_through_the_batch_graph_are_those_of_finite_differences() -> None:
    graph = shaken(BatchGraph(4, 2))
    pooled = [unit_rows(4, 4).requires_grad_() for _ in range(2)]

    def related(v: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        return tuple(graph(with_pooled(v), with_pooled(t)).scores.values())

    assert torch.autograd.gradcheck(related, pooled)


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_tiles_of_any_size_score_alike(method: str) -> None:
    network = shaken(build_matcher(METHODS[method]))
    images = network.encode_images(tiny.images(5, 4, real=[4, 2, 1, 3, 4]))
    captions = network.encode_captions(tiny.captions((1, 2, 3, 6, 6)))  # shortest first
    whole = network.score_all(images, captions)
    for budget in (network.bytes_per_pair(4, 6), 4 * network.bytes_per_pair(4, 6), 10**9):
        tiled = score_encoded(network, images, captions, byte_budget=budget)
        for name, scores in whole.items():
            torch.testing.assert_close(tiled[name], scores, **SAME)


@torch.no_grad()
def test_one_step_of_imram_is_the_mean_of_scan() -> None:
    network, scan = (shaken(build_matcher(each)) for each in (replace(IMRAM, steps=1), SCAN))
    assert not list(network.streams.parameters())
    scan.load_state_dict(network.state_dict())
    images, captions = batch(network)
    scores = score_encoded(network, images, captions)
    for name, expected in score_encoded(scan, images, captions).items():
        torch.testing.assert_close(scores[name], expected, **SAME)


def test_graphs_without_a_global_node_are_refused() -> None:
    sentence = (
        r"^model\.dual-graph joins local nodes with the global one, and model\.global-node is off; switch it on\.$"
    )
    with pytest.raises(SettingsError, match=sentence):
        build_matcher(tiny.config(dual_graph=True))


def test_the_parts_of_dsgsl_have_weights_of_their_own_alone() -> None:
    before = build_matcher(tiny.config(global_node=True)).state_dict()
    after = build_matcher(tiny.config(**PARTS)).state_dict()
    added = {name.split(".")[0] if name.startswith("batch") else name.split(".")[2] for name in after.keys() - before}
    assert added == {"batch_graph", "graph", "local_similarity"}
    assert before.keys() <= after.keys()


@pytest.mark.parametrize("part", ["neighbours", "dual_graph"])
def test_a_part_of_dsgsl_that_comes_last_leaves_the_other_weights_as_they_are(part: str) -> None:
    config = tiny.config(global_node=True, streams="word")
    networks = []
    for each in (config, replace(config, **{part: PARTS[part]})):
        torch.manual_seed(7)
        networks.append(build_matcher(each).state_dict())
    without, with_it = networks
    assert without.keys() < with_it.keys()
    assert all(torch.equal(weights, with_it[name]) for name, weights in without.items())
