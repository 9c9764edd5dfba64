"""The package's mathematics against plain loops."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.support import oracles, tiny
from tests.support.float64 import SAME, plain_similarity, real, unit_rows
from tshsr.config.models import ReasoningConfig
from tshsr.errors import SettingsError
from tshsr.models.attention import (
    VECTOR,
    attend,
    attention_weights,
    late_interaction,
    masked_softmax,
    mean_of_best,
    similarities,
    softmax,
    to_unit_sums,
    unit,
)
from tshsr.models.base import ItemEncoding
from tshsr.models.context import ContextSimilarity
from tshsr.models.encoders import box_geometry
from tshsr.models.pooling import AttentionPooling, ChannelPooling
from tshsr.models.reasoning import HierarchicalReasoning
from tshsr.models.similarity import SimilarityVector
from tshsr.models.tshsr import TshsrStream
from tshsr.training.losses import contrastive, hinge, logit

LOOKS = {"products": True, "reasoning": ReasoningConfig(seeds=(4, 2), context_inverse_temperature=3.0)}
"""Settings by which context nodes attend once more."""


def level_parameters(reasoning: HierarchicalReasoning, level: int) -> dict:
    update = reasoning.updates[level]
    parameters = {
        "seeds": reasoning.extractions[level].seeds.tolist(),
        "relation": update.relation.weight.tolist(),
        "message": update.message.weight.tolist(),
        "message_bias": update.message.bias.tolist(),
    }
    if update.gate is not None:
        parameters |= {"gate": update.gate.weight.tolist(), "gate_bias": update.gate.bias.tolist()}
    return parameters


def plain_looks(stream: TshsrStream, queries: ItemEncoding, context: ItemEncoding) -> list[Callable] | None:
    """By level, context nodes with similarity vectors of their own, by plain loops."""
    if stream.reasoning.looks is None:
        return None
    q, c = queries.items[0].tolist(), context.items[0].tolist()

    def look_of(module: ContextSimilarity) -> Callable:
        similarity = copy.copy(module.similarity)
        similarity.view = stream.local_similarity.view

        def look(pooled: oracles.Matrix, shares: oracles.Matrix) -> oracles.Matrix:
            found = []
            for node, row in zip(pooled, shares, strict=True):
                sides = oracles.second_look(q, c, row[-len(q) :], module.inverse_temperature)
                both = node + plain_similarity(similarity, *sides)
                joined = oracles.affine(module.join.weight.tolist(), module.join.bias.tolist(), both)
                found.append(oracles.unit([x + y for x, y in zip(node, joined, strict=True)]))
            return found

        return look

    return [look_of(module) for module in stream.reasoning.looks]


def expected_reasoning(
    reasoning: HierarchicalReasoning, nodes: Tensor, looks: list[Callable] | None = None, **switches: bool
) -> tuple[Tensor, ...]:
    """Contributions, node weights and node contributions, by plain loops."""
    levels = [level_parameters(reasoning, level) for level in range(len(reasoning.updates))]
    outs = [
        (out.opening.weight[0].tolist(), out.opening.bias.item(), out.weight[0].tolist()) for out in reasoning.read_outs
    ]
    first, second, third = oracles.hierarchy(nodes.tolist(), levels, outs, looks, **switches)
    return tuple(torch.tensor(values, dtype=torch.float64) for values in (first, second, third))


@pytest.mark.parametrize(("queries", "context"), [(4, 6), (1, 5), (5, 1), (1, 1)])
def test_attention_is_the_formula(queries: int, context: int) -> None:
    q, c = unit_rows(queries, 8), unit_rows(context, 8)
    full = {"query_mask": torch.ones(queries, dtype=torch.bool), "context_mask": torch.ones(context, dtype=torch.bool)}
    weights = attention_weights(similarities(q, c), **full, inverse_temperature=9.0)
    expected = oracles.attention(q.tolist(), c.tolist(), 9.0)
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), **SAME)
    attended = torch.tensor([oracles.unit(oracles.mix(row, c.tolist())) for row in expected], dtype=torch.float64)
    torch.testing.assert_close(attend(to_unit_sums(weights, similarities(c, c)), c), attended, **SAME)


def test_queries_that_are_padding_leave_the_attention_of_the_others_alone() -> None:
    similarity, real_queries = real(5, 4).tanh(), torch.arange(5) < 3
    masked = attention_weights(similarity, query_mask=real_queries, context_mask=None, inverse_temperature=9.0)
    alone = attention_weights(similarity[:3], query_mask=None, context_mask=None, inverse_temperature=9.0)
    torch.testing.assert_close(masked[:3], alone, **SAME)


@pytest.mark.parametrize("items", [1, 3, VECTOR - 1, VECTOR, VECTOR + 1])
def test_the_softmax_of_rows_of_any_length_and_its_gradient_are_the_formula(items: int) -> None:
    logits = (5 * real(2, 3, items)).requires_grad_()
    expected = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    found = softmax(logits)
    assert found.shape == logits.shape
    assert torch.allclose(found, expected, **SAME)
    factors = real(2, 3, items)
    gradients = [torch.autograd.grad((each * factors).sum(), logits)[0] for each in (found, expected)]
    assert torch.allclose(*gradients, **SAME)
    mask = torch.arange(items) < torch.tensor([0, 1, items])[:, None]
    masked = torch.where(mask, logits.exp(), 0.0)
    expected = masked / masked.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    assert torch.allclose(masked_softmax(logits, mask), expected, **SAME), "zeros in a row without any"


def test_the_gradient_of_unit_rows_is_that_of_the_division() -> None:
    rows = real(4, 5).requires_grad_()
    assert torch.autograd.gradcheck(unit, rows)
    torch.testing.assert_close(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_of_zeros_has_no_gradient_and_leaves_that_of_others(dtype: torch.dtype) -> None:
    rows = torch.randn(3, 5, dtype=dtype)
    rows[1] = 0
    rows.requires_grad_()
    others = rows.detach()[[0, 2]].requires_grad_()
    for each in (rows, others):
        (unit(each) * torch.arange(5)).sum().backward()
    assert (rows.grad[1] == 0).all()
    assert torch.equal(rows.grad[[0, 2]], others.grad)


def test_an_empty_sum_stays_zero() -> None:
    weights = to_unit_sums(torch.ones(2, 3), torch.zeros(3, 3))
    torch.testing.assert_close(attend(weights, torch.zeros(3, 4)), torch.zeros(2, 4))


@torch.no_grad()
@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("comparison_dim", [6, 0])
def test_a_similarity_vector_is_the_formula(comparison_dim: int, products: bool) -> None:
    similarity = SimilarityVector(8, comparison_dim, 5, products=products).double()
    x, y = unit_rows(8), unit_rows(8)
    expected = torch.tensor(plain_similarity(similarity, x.tolist(), y.tolist()), dtype=torch.float64)
    torch.testing.assert_close(similarity(similarity.project(x), similarity.project(y), x @ y), expected, **SAME)


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("context", "local", "gate"), [(True, True, True), (True, False, True), (False, True, False), (True, True, False)]
)
def test_every_switch_of_the_hierarchy_is_the_formula(levels: int, context: bool, local: bool, gate: bool) -> None:
    config = ReasoningConfig(levels=levels, seeds=(4, 3, 2), context=context, local=local, gate=gate)
    reasoning = HierarchicalReasoning(6, config).double()
    nodes = unit_rows(5, 6)
    result = reasoning(nodes, torch.ones(5, dtype=torch.bool), traced=True)
    contributions, weights, added = expected_reasoning(reasoning, nodes, context=context, local=local, gate=gate)
    assert contributions.shape == (levels + 1,)
    torch.testing.assert_close(result.contributions, contributions, **SAME)
    torch.testing.assert_close(result.node_weights, weights, **SAME)
    torch.testing.assert_close(result.node_contributions, added, **SAME)
    torch.testing.assert_close(added.sum(-1), contributions, **SAME)
    torch.testing.assert_close(weights.sum(-1), torch.ones(levels + 1, dtype=torch.float64))


@torch.no_grad()
def expected_stream(
    stream: TshsrStream, queries: ItemEncoding, context: ItemEncoding, places: list[list[float]] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention, the level contributions and the logit's bias, by plain loops; places: of queries with context."""
    q, c = queries.items[0].tolist(), context.items[0].tolist()
    weights = oracles.attention(q, c, stream.inverse_temperature)
    attended = [oracles.unit(oracles.mix(row, c)) for row in weights]
    fits = places or [[0.0] * len(c)] * len(q)
    agreements = [oracles.dot(row, fit) for row, fit in zip(weights, fits, strict=True)]
    inputs = zip(q, attended, agreements, strict=True)
    nodes = [plain_similarity(stream.local_similarity, *each) for each in inputs]
    if stream.global_similarity is not None:
        nodes.insert(
            0, plain_similarity(stream.global_similarity, queries.pooled[0].tolist(), context.pooled[0].tolist())
        )
    rows = torch.tensor(nodes, dtype=torch.float64)
    looks = plain_looks(stream, queries, context)
    contributions, *_ = expected_reasoning(stream.reasoning, rows, looks, context=True, local=True, gate=True)
    return torch.tensor(weights, dtype=torch.float64), contributions, stream.bias


@torch.no_grad()
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("looks", [{}, LOOKS, LOOKS | {"comparison_dim": 0}])
def test_a_stream_is_the_formula_from_regions_and_words_to_the_score(whole: bool, looks: dict) -> None:
    network = tiny.network(global_node=whole, pooled_term=whole, **looks)
    images = network.encode_images(tiny.images(1, 5))
    captions = network.encode_captions(tiny.captions((4,)))
    scores = network.score_pairs(images, captions)
    levels = []
    sides = {"word_stream": (captions, images), "region_stream": (images, captions)}
    for name, (queries, context) in sides.items():
        stream = network.streams[name]
        assert isinstance(stream, TshsrStream)
        weights, contributions, bias = expected_stream(stream, queries, context)
        trace = network.trace(images, captions)[name]
        torch.testing.assert_close(trace.attention[0], weights, **SAME)
        torch.testing.assert_close(trace.contributions[0], contributions, **SAME)
        levels.append(torch.sigmoid(contributions + bias))
        pooled = oracles.dot(images.pooled[0].tolist(), captions.pooled[0].tolist()) * float(stream.pooled_weight or 0)
        torch.testing.assert_close(scores[name][0], torch.sigmoid(contributions.sum() + pooled + bias), **SAME)
        torch.testing.assert_close(trace.score, scores[name])
    for level in range(3):
        torch.testing.assert_close(scores[f"level_{level}"][0], (levels[0] + levels[1])[level] / 2, **SAME)
    both = (scores["word_stream"] + scores["region_stream"]) / 2
    torch.testing.assert_close(scores["fused"], both)
    torch.testing.assert_close(scores["pooled"], (images.pooled * captions.pooled).sum(-1))


@torch.no_grad()
def test_the_place_term_is_the_formula() -> None:
    network = tiny.network(encoder=replace(tiny.ENCODER, boxes=True), place_term=True)
    assert network.expectation is not None
    batch = tiny.images(1, 5)
    assert batch.boxes is not None
    images, captions = network.encode_images(batch), network.encode_captions(tiny.captions((4,)))
    centres = [[x1 + x2 - 1, y1 + y2 - 1, x2 - x1 - 0.5, y2 - y1 - 0.5] for x1, y1, x2, y2 in batch.boxes[0].tolist()]
    weight, bias = network.expectation.weight.tolist(), network.expectation.bias.tolist()
    wishes = [[40 * each for each in oracles.affine(weight, bias, word)] for word in captions.items[0].tolist()]
    fits = [[oracles.dot(wish, centre) for centre in centres] for wish in wishes]
    scores = network.score_pairs(images, captions)
    sides = {
        "word_stream": (captions, images, fits),
        "region_stream": (images, captions, [list(column) for column in zip(*fits, strict=True)]),
    }
    for name, given in sides.items():
        stream = network.streams[name]
        assert isinstance(stream, TshsrStream)
        _, contributions, bias_of_stream = expected_stream(stream, *given)
        pooled = oracles.dot(images.pooled[0].tolist(), captions.pooled[0].tolist()) * float(stream.pooled_weight or 0)
        expected = torch.sigmoid(contributions.sum() + pooled + bias_of_stream)
        torch.testing.assert_close(scores[name][0], expected, **SAME)


@pytest.mark.parametrize("looks", [{}, LOOKS])
def test_chunks_of_similarity_vectors_change_nothing(monkeypatch: pytest.MonkeyPatch, looks: dict) -> None:
    network = tiny.network(encoder=replace(tiny.ENCODER, boxes=True), place_term=True, **looks)
    images, captions = network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions())
    expected = network.score_all(images, captions)["fused"].detach()
    monkeypatch.setattr("tshsr.models.similarity.CHUNK_BYTES", 1)
    with torch.inference_mode():
        torch.testing.assert_close(network.score_all(images, captions)["fused"], expected, **SAME)


def test_a_place_term_needs_boxes() -> None:
    with pytest.raises(SettingsError, match=r"compares places, and model\.encoder\.boxes is off"):
        tiny.network(place_term=True)


@torch.no_grad()
def test_pooling_is_the_formula() -> None:
    pooling = AttentionPooling(6).double()
    items = unit_rows(2, 4, 6)
    pooled = pooling(items, torch.ones(2, 4, dtype=torch.bool))
    for row, expected in zip(items, pooled, strict=True):
        result = oracles.pool(
            row.tolist(),
            pooling.item.weight.tolist(),
            pooling.item.bias.tolist(),
            pooling.whole.weight.tolist(),
            pooling.weight.weight[0].tolist(),
        )
        torch.testing.assert_close(torch.tensor(result, dtype=torch.float64), expected, **SAME)


@torch.no_grad()
def test_shares_of_a_pooling_make_its_vector_without_padding() -> None:
    pooling, items = AttentionPooling(6).double(), unit_rows(2, 4, 6)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    shares = pooling.shares(items * mask[..., None], mask)
    torch.testing.assert_close((shares[..., None] * items).sum(dim=1), pooling(items * mask[..., None], mask), **SAME)
    assert (shares[~mask] == 0).all()


@torch.no_grad()
def test_the_pooled_terms_are_the_formula() -> None:
    network = tiny.network()
    images, captions = network.encode_images(tiny.images(1, 5)), network.encode_captions(tiny.captions((4,)))
    a = network.region_pooling.weights(images.items, images.mask)[0].tolist()
    b = network.word_pooling.weights(captions.items, captions.mask)[0].tolist()
    x, y = images.items[0].tolist(), captions.items[0].tolist()
    lengths = [sum(value**2 for value in oracles.mix(weights, rows)) ** 0.5 for weights, rows in ((a, x), (b, y))]
    for name, trace in network.trace(images, captions).items():
        gamma = network.streams[name].pooled_weight.item()
        met = [
            [gamma * p * q * oracles.dot(v, t) / (lengths[0] * lengths[1]) for q, t in zip(b, y, strict=True)]
            for p, v in zip(a, x, strict=True)
        ]
        expected = torch.tensor(met, dtype=torch.float64)
        torch.testing.assert_close(trace.pooled_terms[0], expected.T if name == "word_stream" else expected, **SAME)
        torch.testing.assert_close(trace.pooled_terms.sum(dim=(1, 2)), trace.pooled, **SAME)
        shares = torch.tensor([[p * q for q in b] for p in a], dtype=torch.float64)
        torch.testing.assert_close(trace.pooled_shares[0], shares.T if name == "word_stream" else shares, **SAME)


@torch.no_grad()
def test_a_late_term_stands_in_the_logit_after_training_alone() -> None:
    network = tiny.network(late_weight=7.0, late_centre=0.3)
    alone = tiny.network(pooled_term=False)
    alone.load_state_dict(network.state_dict())
    images, captions = network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions())
    assert not [name for name, _ in network.named_parameters() if "pooled_weight" in name]
    without, v_t = alone.score_all(images, captions), images.pooled @ captions.pooled.T
    trained = network.train().score_all(images, captions)
    late = network.eval().score_all(images, captions)
    for name in ("word_stream", "region_stream"):
        torch.testing.assert_close(trained[name], without[name], **SAME)
        expected = torch.sigmoid(torch.logit(without[name]) + 7 * (v_t - 0.3))
        torch.testing.assert_close(late[name], expected, **SAME)
    torch.testing.assert_close(late["fused"], (late["word_stream"] + late["region_stream"]) / 2, **SAME)
    for level in ("level_0", "level_1", "level_2"):
        torch.testing.assert_close(late[level], without[level], **SAME)
    for name, trace in network.trace(images, captions).items():
        torch.testing.assert_close(trace.score, late[name].diagonal(), **SAME)
        torch.testing.assert_close(trace.pooled, 7 * v_t.diagonal(), **SAME)
        total = trace.contributions.sum(dim=-1) + trace.pooled + trace.bias
        torch.testing.assert_close(torch.sigmoid(total), trace.score, **SAME)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["attention", "esa"])
def test_the_mean_similarity_is_subtracted_after_training_alone(pooling: str) -> None:
    network = tiny.network(late_weight=7.0, late_mean=5.0, pooling=pooling)
    without = tiny.network(late_weight=7.0, pooling=pooling)
    without.load_state_dict(network.state_dict())
    pictures, texts = tiny.images(2, 5, real=[5, 3]), tiny.captions((4, 6))
    images = network.with_parts(network.encode_images(pictures), pictures)
    captions = network.with_parts(network.encode_captions(texts), texts)
    before, after = (each.score_all(images, captions) for each in (without, network))
    traces, plain = (each.trace(images, captions) for each in (network, without))
    for i, j in ((i, j) for i in range(2) for j in range(2)):
        regions = images.items[i, : int(images.mask[i].sum())].tolist()
        words = captions.items[j, : int(captions.mask[j].sum())].tolist()
        shares = [[oracles.dot(x, y) / (len(regions) * len(words)) for y in words] for x in regions]
        mean = sum(map(sum, shares))
        for name in ("word_stream", "region_stream"):
            expected = torch.sigmoid(torch.logit(before[name][i, j]) - 5 * mean)
            torch.testing.assert_close(after[name][i, j], expected, **SAME)
            if i != j:
                continue
            torch.testing.assert_close(traces[name].pooled[i], plain[name].pooled[i] - 5 * mean, **SAME)
            change = traces[name].pooled_terms[i] - plain[name].pooled_terms[i]
            change = change.T if name == "word_stream" else change
            spread = -5 * torch.tensor(shares, dtype=torch.float64)
            torch.testing.assert_close(change[: len(regions), : len(words)], spread, **SAME)
            assert change[len(regions) :].abs().sum() == change[:, len(words) :].abs().sum() == 0
            torch.testing.assert_close(traces[name].pooled_terms[i].sum(), traces[name].pooled[i], **SAME)
            torch.testing.assert_close(traces[name].score[i], after[name][i, i], **SAME)
    pairs = network.score_pairs(images, captions)
    torch.testing.assert_close(pairs["fused"], after["fused"].diagonal(), **SAME)
    torch.testing.assert_close(after["level_1"], before["level_1"], **SAME)
    torch.testing.assert_close(after["pooled"], before["pooled"], **SAME)
    trained, alone = (each.train().score_all(images, captions) for each in (network, without))
    torch.testing.assert_close(trained["fused"], alone["fused"], **SAME)


@torch.no_grad()
def test_pooled_regions_share_the_mean_similarity_by_their_weights() -> None:
    network = tiny.network(late_weight=7.0, late_mean=5.0, pooling="attention")
    images, captions = network.encode_images(tiny.images(2)), network.encode_captions(tiny.captions((4, 6)))
    weights = torch.rand(images.mask.shape, dtype=torch.float64) * images.mask
    weighted = images.weighted(weights)
    before, after = (network.score_all(each, captions)["word_stream"] for each in (images, weighted))
    for i, j in ((i, j) for i in range(2) for j in range(2)):
        words = captions.items[j, : int(captions.mask[j].sum())].tolist()
        products = [[oracles.dot(x, y) / len(words) for y in words] for x in images.items[i].tolist()]
        mean = sum(w * sum(row) for w, row in zip(weights[i].tolist(), products, strict=True))
        regions = int(images.mask[i].sum())
        even = sum(map(sum, products[:regions])) / regions
        expected = torch.sigmoid(torch.logit(before[i, j]) - 5 * (mean - even))
        torch.testing.assert_close(after[i, j], expected, **SAME)
    for name, trace in network.trace(weighted, captions).items():
        torch.testing.assert_close(trace.pooled_terms.sum(dim=(-2, -1)), trace.pooled, **SAME)
        torch.testing.assert_close(trace.score, network.score_all(weighted, captions)[name].diagonal(), **SAME)


@torch.no_grad()
def test_without_v_t_in_the_logit_no_mean_similarity_is_subtracted_either() -> None:
    network, plain = tiny.network(pooled_term=False, late_weight=7.0, late_mean=5.0), tiny.network(pooled_term=False)
    plain.load_state_dict(network.state_dict())
    images, captions = network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions())
    found, expected = (each.score_all(images, captions)["fused"] for each in (network, plain))
    torch.testing.assert_close(found, expected, **SAME)


def plain_parts(pooling: ChannelPooling, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parts of the items of one row in its vector, and their mean weights, by plain loops."""
    rows, channels = items.tolist(), range(items.shape[1])
    logits = [[oracles.dot(pooling.weight.weight[d].tolist(), row) for d in channels] for row in rows]
    weights = [oracles.softmax([row[d] for row in logits]) for d in channels]
    weighted = [[weights[d][i] * rows[i][d] for d in channels] for i in range(len(rows))]
    length = math.sqrt(sum(sum(row[d] for row in weighted) ** 2 for d in channels))
    means = [sum(weights[d][i] for d in channels) / len(channels) for i in range(len(rows))]
    parts = torch.tensor(weighted, dtype=torch.float64) / length
    return parts, torch.tensor(means, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("projection", ["linear", "residual"])
def test_vectors_pooled_by_channel_come_from_projections_of_their_own_and_split_into_terms(projection: str) -> None:
    network = tiny.network(pooling="esa", encoder=replace(tiny.ENCODER, region_projection=projection))
    pictures, texts = tiny.images(2, 5, real=[5, 3]), tiny.captions((4, 6))
    images = network.with_parts(network.encode_images(pictures), pictures)
    captions = network.with_parts(network.encode_captions(texts), texts)
    found = {name: (trace.pooled_terms, trace.pooled_shares) for name, trace in network.trace(images, captions).items()}
    regions = network.pooled_regions.project(pictures.regions, pictures.mask)
    words = network.pooled_words.project(network.word_encoder.states(texts)[0], texts.mask)
    for row in range(2):
        m, n = int(pictures.mask[row].sum()), int(texts.mask[row].sum())
        v, a = plain_parts(network.region_pooling, regions[row, :m])
        t, b = plain_parts(network.word_pooling, words[row, :n])
        torch.testing.assert_close(images.pooled[row], v.sum(dim=0), **SAME)
        torch.testing.assert_close(captions.pooled[row], t.sum(dim=0), **SAME)
        for name, (terms, shares) in found.items():
            gamma = network.streams[name].pooled_weight.item()
            expected = (gamma * v @ t.T, a[:, None] * b)
            for values, plain in zip((terms[row], shares[row]), expected, strict=True):
                ours = values.T if name == "word_stream" else values
                torch.testing.assert_close(ours[:m, :n], plain, **SAME)
                assert ours[m:].abs().sum() == ours[:, n:].abs().sum() == 0


@torch.no_grad()
def test_without_the_parts_of_its_items_v_t_is_a_term_of_the_whole() -> None:
    network = tiny.network(pooling="esa")
    traces = network.trace(network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions()))
    for trace in traces.values():
        assert trace.pooled_terms is None
        torch.testing.assert_close(trace.pooled_whole, trace.pooled, **SAME)


@torch.no_grad()
@pytest.mark.parametrize("missing", ["images", "captions"])
def test_the_vector_of_a_side_without_parts_is_spread_evenly_over_its_items(missing: str) -> None:
    network, pictures, texts = tiny.network(pooling="esa"), tiny.images(2, 5, real=[5, 3]), tiny.captions((4, 6))
    images, captions = network.encode_images(pictures), network.encode_captions(texts)
    split = {"images": network.with_parts(images, pictures), "captions": network.with_parts(captions, texts)}
    given = {**split, missing: {"images": images, "captions": captions}[missing]}
    exact, found = (network.trace(*sides.values()) for sides in (split, given))
    axis = 1 if missing == "images" else 2  # of the word stream, whose queries are words
    terms, expected = found["word_stream"].pooled_terms, exact["word_stream"].pooled_terms
    torch.testing.assert_close(terms.sum(dim=3 - axis), expected.sum(dim=3 - axis), **SAME)
    for row, count in enumerate((pictures if missing == "images" else texts).mask.sum(dim=1).tolist()):
        along = terms[row] if missing == "images" else terms[row].T
        torch.testing.assert_close(along[:, :count], along[:, :1].expand(-1, count), **SAME)
        assert along[:, count:].abs().sum() == 0


@torch.no_grad()
def test_attention_pooling_needs_no_parts() -> None:
    network, pictures = tiny.network(), tiny.images()
    images = network.encode_images(pictures)
    assert network.with_parts(images, pictures) is images


def test_box_geometry_is_corners_and_area() -> None:
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.7]]])
    torch.testing.assert_close(box_geometry(boxes), torch.tensor([[[0.1, 0.2, 0.5, 0.7, 0.2]]]))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_contrastive_loss_is_the_formula(temperature: float) -> None:
    image_of_caption = torch.tensor([2, 0, 0, 1, 2])  # unordered, image 3 has none, two have several
    scores = torch.rand(4, 5, dtype=torch.float64)
    expected = oracles.contrastive(scores.tolist(), image_of_caption.tolist(), temperature)
    result = contrastive(scores, image_of_caption, temperature=temperature)
    assert result.item() == pytest.approx(expected, rel=1e-12)
    ones = torch.ones(5, dtype=torch.float64)
    assert contrastive(scores, image_of_caption, temperature=temperature, weights=ones).item() == result.item()
    one = contrastive(scores, image_of_caption, temperature=temperature, weights=ones.clone().fill_(0.5)).item()
    assert one == pytest.approx(expected, rel=1e-12)  # equal weights cancel


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_the_contrastive_loss_of_scored_pairs_is_the_formula(share: float) -> None:
    image_of_caption = torch.tensor([2, 0, 0, 1, 2])
    scores, scored = torch.rand(4, 5, dtype=torch.float64, requires_grad=True), torch.rand(4, 5) < share
    result = contrastive(scores, image_of_caption, temperature=0.5, scored=scored)
    expected = oracles.contrastive(scores.tolist(), image_of_caption.tolist(), 0.5, scored.tolist())
    assert result.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    result.backward()
    positive = image_of_caption[None, :] == torch.arange(4)[:, None]
    assert scores.grad.isfinite().all()
    assert not scores.grad[~(scored | positive)].any()


def test_late_interaction_is_the_formula() -> None:
    regions, words = unit_rows(3, 4, 6), unit_rows(2, 5, 6)
    real_regions = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])
    real_words = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    similarity = torch.einsum("ird,cwd->ircw", regions, words)
    by_words, by_regions = late_interaction(similarity, real_regions, real_words)
    for image in range(3):
        for caption in range(2):
            rows = regions[image][real_regions[image]].tolist(), words[caption][real_words[caption]].tolist()
            expected = oracles.late_interaction(*rows)
            assert by_words[image, caption].item() == pytest.approx(expected[0], rel=1e-12)
            assert by_regions[image, caption].item() == pytest.approx(expected[1], rel=1e-12)


def test_gradients_of_late_interaction_are_those_of_both_directions_by_themselves() -> None:
    generator = torch.Generator().manual_seed(4)
    similarity = torch.randn(3, 4, 2, 5, generator=generator, dtype=torch.float64)
    regions = torch.tensor([[True] * 4, [True, False, True, False], [False, True, True, True]])
    words = torch.tensor([[True] * 5, [True, True, False, False, False]])
    weights = torch.randn(2, 3, 2, generator=generator, dtype=torch.float64)
    found, expected = (similarity.clone().requires_grad_() for _ in range(2))
    by_words, by_regions = late_interaction(found, regions, words)
    (weights[0] * by_words + weights[1] * by_regions).sum().backward()
    plain = (
        mean_of_best(expected.permute(0, 2, 3, 1), words, regions[:, None]),
        mean_of_best(expected.transpose(1, 2), regions[:, None], words),
    )
    (weights[0] * plain[0] + weights[1] * plain[1]).sum().backward()
    torch.testing.assert_close(by_words, plain[0])
    torch.testing.assert_close(by_regions, plain[1])
    torch.testing.assert_close(found.grad, expected.grad)
    assert found.grad is not None
    assert found.grad[1, 1].abs().sum() == 0, "padding"


def test_a_logit_is_kept_finite() -> None:
    torch.testing.assert_close(logit(torch.tensor([0.5, 0.75])), torch.tensor([0.0, math.log(3)]))
    ends = logit(torch.tensor([0.0, 1.0]))
    assert ends[0] < -16
    assert 15 < ends[1] < 17


@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("max_cost", [math.inf, 0.3])
def test_the_hinge_is_the_formula(hardest: bool, share: float, max_cost: float) -> None:
    image_of_caption = torch.tensor([2, 0, 0, 1, 2])  # unordered, image 3 has none, two have several
    scores = torch.rand(4, 5, dtype=torch.float64)
    scored = torch.rand(4, 5) < share
    plain = scores.tolist(), image_of_caption.tolist(), 0.2
    expected = oracles.hinge(*plain, hardest=hardest, scored=scored.tolist(), max_cost=max_cost)
    result = hinge(scores, image_of_caption, margin=0.2, hardest=hardest, scored=scored, max_cost=max_cost)
    assert result.item() == pytest.approx(expected, rel=1e-12)
    if share == 1.0 and max_cost == math.inf:
        assert hinge(scores, image_of_caption, margin=0.2, hardest=hardest).item() == pytest.approx(expected, rel=1e-12)


@torch.no_grad()
def test_a_learned_fusion_is_the_convex_combination_of_the_streams() -> None:
    network = tiny.network(fusion="learned")
    assert network.fusion is not None
    network.fusion.copy_(torch.tensor([0.7, -0.4], dtype=torch.float64))
    scores = network.score_all(network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions()))
    words = math.exp(0.7) / (math.exp(0.7) + math.exp(-0.4))
    expected = words * scores["word_stream"] + (1 - words) * scores["region_stream"]
    torch.testing.assert_close(scores["fused"], expected, **SAME)
