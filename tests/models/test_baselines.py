"""The baselines' mathematics against plain loops."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.support import baseline_oracles, oracles, tiny
from tests.support.float64 import SAME, as_tensor, encoded, plain_similarity, real, shaken, unit_rows
from tshsr.config.models import ScanConfig, SgrafConfig, TwoStreamSgrConfig, VseConfig
from tshsr.models.base import ItemEncoding
from tshsr.models.encoders import RegionEncoder, RegionPerceptron
from tshsr.models.pooling import GeneralisedPooling, MaskedBatchNorm, MeanPooling, SelfAttentionPooling
from tshsr.models.scan import Scan, aggregate, query_shares
from tshsr.models.sgraf import AttentionFiltration, GraphReasoning, GraphStep, Sgraf, SgrafStream, TwoStreamSgr
from tshsr.models.vse import Vse, shortened

NORMALISATIONS = ("clipped_l2norm", "l2norm", "clipped", "no_norm", "softmax")
AGGREGATIONS = ("mean", "logsumexp", "max", "sum")


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("regions", "words"), [(5, 4), (1, 3), (4, 1)])
def test_both_streams_of_scan_are_the_formula(normalisation: str, aggregation: str, regions: int, words: int) -> None:
    config = ScanConfig(encoder=tiny.ENCODER, streams="both", normalisation=normalisation, aggregation=aggregation)
    network = Scan(config).double()
    v, t = unit_rows(regions, 12), unit_rows(words, 12)
    scores = network.score_pairs(encoded(v), encoded(t))
    expected = {}
    for name, queries, context, temperature, factor in (
        ("word_stream", t, v, config.word_inverse_temperature, config.word_logsumexp_factor),
        ("region_stream", v, t, config.region_inverse_temperature, config.region_logsumexp_factor),
    ):
        sides = queries.tolist(), context.tolist()
        cosines = baseline_oracles.scan_cosines(*sides, normalisation, temperature)
        expected[name] = baseline_oracles.aggregate(cosines, aggregation, factor)
        assert scores[name].item() == pytest.approx(expected[name], rel=1e-9)
        trace = network.trace(encoded(v), encoded(t))[name]
        attention = baseline_oracles.scan_attention(*sides, normalisation, temperature)
        torch.testing.assert_close(trace.attention[0], as_tensor(attention), **SAME)
        torch.testing.assert_close(trace.score, scores[name])
    assert scores["fused"].item() == pytest.approx(sum(expected.values()) / 2, rel=1e-9)
    assert scores["pooled"].item() == pytest.approx((v.mean(0) @ t.mean(0)).item())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_share_of_a_query_is_how_the_score_follows_it(aggregation: str) -> None:
    cosines = torch.rand(2, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    aggregate(cosines, mask, aggregation, 5.0).sum().backward()
    expected = cosines.grad / cosines.grad.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(query_shares(cosines.detach(), mask, aggregation, 5.0), expected, **SAME)


def step_parameters(step: GraphStep) -> dict:
    return {
        "query": step.query.weight.tolist(),
        "query_bias": step.query.bias.tolist(),
        "key": step.key.weight.tolist(),
        "update": step.update.weight.tolist(),
        "update_bias": step.update.bias.tolist(),
    }


def plain_norms(norm: MaskedBatchNorm) -> list[tuple[float, ...]]:
    parts = (norm.running_mean, norm.running_variance, norm.weight, norm.bias)
    return list(zip(*(part.flatten().tolist() for part in parts), strict=True))


def plain_reasoning(reasoning: nn.Module, nodes: list) -> tuple[list[float], list[float]]:
    """The vector that is scored, and the weights of the nodes, by plain loops."""
    if isinstance(reasoning, GraphReasoning):
        return baseline_oracles.graph(nodes, [step_parameters(step) for step in [*reasoning.steps, reasoning.last]])
    assert isinstance(reasoning, AttentionFiltration)
    (norm,) = plain_norms(reasoning.norm)
    return baseline_oracles.filtration(nodes, reasoning.opening.weight[0].tolist(), reasoning.opening.bias.item(), norm)


@torch.no_grad()
@pytest.mark.parametrize("nodes", [6, 1])
@pytest.mark.parametrize(
    "make", [lambda: GraphReasoning(5, 1), lambda: GraphReasoning(5, 3), lambda: AttentionFiltration(5)]
)
@pytest.mark.parametrize("grad", [True, False])
def test_graph_and_filtration_are_the_formula(make: object, nodes: int, grad: bool) -> None:
    reasoning = shaken(make())
    rows, mask = unit_rows(nodes, 5), torch.ones(nodes, dtype=torch.bool)
    with torch.set_grad_enabled(grad):  # without gradients some operations work in place
        result, weights = reasoning(rows, mask), reasoning.node_weights(rows, mask)
    vector, plain_weights = plain_reasoning(reasoning, rows.tolist())
    torch.testing.assert_close(result, as_tensor(vector), **SAME)
    torch.testing.assert_close(weights, as_tensor(plain_weights), **SAME)


@torch.no_grad()
def plain_stream(stream: SgrafStream, queries: ItemEncoding, context: ItemEncoding) -> tuple[float, Tensor]:
    """A stream's score and attention by plain loops, from unit rows on."""
    q, c = queries.items[0].tolist(), context.items[0].tolist()
    weights = oracles.attention(q, c, stream.inverse_temperature)
    attended = [oracles.unit(oracles.mix(row, c)) for row in weights]
    nodes = [plain_similarity(stream.global_similarity, queries.pooled[0].tolist(), context.pooled[0].tolist())]
    nodes += [plain_similarity(stream.local_similarity, x, y) for x, y in zip(q, attended, strict=True)]
    vector, _ = plain_reasoning(stream.reasoning, nodes)
    logit = oracles.dot(stream.score.weight[0].tolist(), vector) + stream.score.bias.item()
    return oracles.sigmoid(logit), as_tensor(weights)


@torch.no_grad()
@pytest.mark.parametrize("comparison_dim", [0, 5])
@pytest.mark.parametrize("reasoning", ["sgr", "saf"])
def test_sgraf_is_the_formula_from_regions_and_words_to_the_score(reasoning: str, comparison_dim: int) -> None:
    sizes = {"similarity_dim": 6, "comparison_dim": comparison_dim}
    network = shaken(Sgraf(SgrafConfig(encoder=tiny.ENCODER, **sizes, reasoning=reasoning)))
    images, captions = network.encode_images(tiny.images(1, 5)), network.encode_captions(tiny.captions((4,)))
    scores, trace = network.score_pairs(images, captions), network.trace(images, captions)["word_stream"]
    expected, weights = plain_stream(network.streams["word_stream"], captions, images)
    assert scores["fused"].item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(scores["word_stream"], scores["fused"])
    torch.testing.assert_close(trace.attention[0], weights, **SAME)
    torch.testing.assert_close(trace.score, scores["fused"])
    torch.testing.assert_close(torch.sigmoid(trace.contributions.sum(-1) + trace.bias), scores["fused"])
    torch.testing.assert_close(trace.node_weights.sum(-1), torch.ones(1, 1, dtype=torch.float64))
    assert trace.node_weights.shape == (1, 1, 5), "the global node and four words"


@torch.no_grad()
@pytest.mark.parametrize("comparison_dim", [0, 5])
def test_two_streams_of_sgr_are_the_mean_of_two_formulas(comparison_dim: int) -> None:
    sizes = {"similarity_dim": 6, "comparison_dim": comparison_dim}
    network = shaken(TwoStreamSgr(TwoStreamSgrConfig(encoder=tiny.ENCODER, **sizes)))
    images, captions = network.encode_images(tiny.images(1, 5)), network.encode_captions(tiny.captions((4,)))
    scores = network.score_pairs(images, captions)
    word, _ = plain_stream(network.streams["word_stream"], captions, images)
    region, _ = plain_stream(network.streams["region_stream"], images, captions)
    assert scores["word_stream"].item() == pytest.approx(word, rel=1e-9)
    assert scores["region_stream"].item() == pytest.approx(region, rel=1e-9)
    assert scores["fused"].item() == pytest.approx((word + region) / 2, rel=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("normalised", "slots"), [(False, 0), (True, 0), (True, 7)])
def test_self_attention_pooling_is_the_formula(normalised: bool, slots: int) -> None:
    pooling = shaken(SelfAttentionPooling(6, 0.4, normalised=normalised, slots=slots))
    items = unit_rows(2, 4, 6)
    parameters = {
        "item": pooling.item.weight.tolist(),
        "item_bias": pooling.item.bias.tolist(),
        "whole": pooling.whole.weight.tolist(),
        "whole_bias": pooling.whole.bias.tolist(),
        "weight": pooling.weight.weight[0].tolist(),
        "item_norms": plain_norms(pooling.item_norm) * (1 if slots else 4) if normalised else [],
        "whole_norms": plain_norms(pooling.whole_norm) if normalised else [],
    }
    pooled = pooling(items, torch.ones(2, 4, dtype=torch.bool))
    expected = [baseline_oracles.self_attention_pool(row.tolist(), parameters) for row in items]
    torch.testing.assert_close(pooled, as_tensor(expected), **SAME)


@torch.no_grad()
def test_generalised_pooling_is_the_formula_for_rows_of_any_length() -> None:
    pooling = shaken(GeneralisedPooling())
    items, lengths = real(3, 5, 6), torch.tensor([5, 1, 3])
    mask = torch.arange(5) < lengths[:, None]
    parameters = {name: value.tolist() for name, value in pooling.gru.named_parameters()}
    pooled, weights = pooling(torch.where(mask[..., None], items, 9.0), mask), pooling.weights(mask)
    for row, length in enumerate(lengths):
        expected, ranks = baseline_oracles.generalised_pool(
            items[row, :length].tolist(), parameters, pooling.score.weight[0].tolist()
        )
        torch.testing.assert_close(pooled[row], as_tensor(expected), **SAME)
        torch.testing.assert_close(weights[row, :length], as_tensor(ranks), **SAME)
    assert (weights[~mask] == 0).all()


def test_mean_pooling_is_the_unit_mean_of_the_real_rows() -> None:
    items, mask = real(2, 4, 6), torch.tensor([[True] * 4, [True, False, True, False]])
    expected = [oracles.unit(baseline_oracles.mean(row[kept].tolist())) for row, kept in zip(items, mask, strict=True)]
    torch.testing.assert_close(MeanPooling()(items, mask), as_tensor(expected), **SAME)


def projected(x: list[float], projection: nn.Linear, perceptron: RegionPerceptron | None) -> list[float]:
    """A region's features in the joint space, by plain loops."""
    row = oracles.affine(projection.weight.tolist(), projection.bias.tolist(), x)
    if perceptron is None:
        return row
    first, norms, second = perceptron.first, plain_norms(perceptron.norm), perceptron.second
    hidden = oracles.affine(first.weight.tolist(), first.bias.tolist(), x)
    hidden = [max(0.0, baseline_oracles.normalise(h, norm)) for h, norm in zip(hidden, norms, strict=True)]
    more = oracles.affine(second.weight.tolist(), second.bias.tolist(), hidden)
    return [a + b for a, b in zip(row, more, strict=True)]


PROJECTIONS = ("linear", "residual")


@torch.no_grad()
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_region_is_the_unit_projection_of_its_features(projection: str) -> None:
    encoder = shaken(RegionEncoder(replace(tiny.ENCODER, region_projection=projection)))
    assert (encoder.perceptron is None) == (projection == "linear")
    images = tiny.images(1, 3)
    expected = [oracles.unit(projected(x, encoder.projection, encoder.perceptron)) for x in images.regions[0].tolist()]
    torch.testing.assert_close(encoder(images)[0], as_tensor(expected), **SAME)


@torch.no_grad()
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_vse_is_the_formula_from_features_and_words_to_the_score(projection: str) -> None:
    network = shaken(Vse(VseConfig(encoder=replace(tiny.ENCODER, region_projection=projection))))
    assert (network.perceptron is None) == (projection == "linear")
    images, captions = tiny.images(1, 5), tiny.captions((4,))
    linear = network.region_encoder.projection
    rows = [projected(x, linear, network.perceptron) for x in images.regions[0].tolist()]
    words = network.word_encoder(captions)[0]
    v, t = (
        baseline_oracles.generalised_pool(
            items,
            {name: value.tolist() for name, value in pooling.gru.named_parameters()},
            pooling.score.weight[0].tolist(),
        )[0]
        for pooling, items in ((network.region_pooling, rows), (network.word_pooling, words.tolist()))
    )
    scores = network.score_pairs(network.encode_images(images), network.encode_captions(captions))
    assert scores["fused"].item() == pytest.approx(oracles.dot(v, t), rel=1e-9)
    assert torch.equal(scores["fused"], scores["pooled"])
    assert not torch.allclose(words.norm(dim=-1), torch.ones(4, dtype=torch.float64)), "words are pooled as they are"


@pytest.mark.parametrize("channels", [3, 1])
def test_batch_normalisation_of_padded_rows_is_that_of_torch_without_the_padding(channels: int) -> None:
    ours, theirs = MaskedBatchNorm(channels).double(), nn.BatchNorm1d(channels).double()
    for _ in range(3):
        x, mask = real(4, 5, 3), torch.rand(4, 5) < 0.6
        values = x[mask] if channels > 1 else x[mask].reshape(-1, 1)
        expected = theirs(values).reshape(-1, 3)
        torch.testing.assert_close(ours(x, mask[..., None])[mask], expected, **SAME)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, **SAME)
    torch.testing.assert_close(ours.running_variance, theirs.running_var, **SAME)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x, mask[..., None])[mask], theirs(values).reshape(-1, 3), **SAME)


def test_a_slot_that_a_batch_does_not_fill_keeps_its_statistics() -> None:
    norm = MaskedBatchNorm(3, 1).double()
    x, mask = real(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]])
    result = norm(x, mask[..., None])
    flat = x[:, 0].flatten()
    torch.testing.assert_close(result[:, 0].flatten(), (flat - flat.mean()) / (flat.var(correction=0) + 1e-5).sqrt())
    assert norm.running_mean[2] == 0
    assert norm.running_variance[2] == 1
    assert norm.running_mean[0] == pytest.approx(0.1 * flat.mean().item())


def test_size_augmentation_leaves_out_its_share_while_training_and_nothing_after() -> None:
    network = Vse(VseConfig(encoder=tiny.ENCODER, size_augmentation=0.4)).double()
    images, captions = tiny.images(200, 10), tiny.captions((10,) * 200)
    for encode, batch in ((network.train().encode_images, images), (network.encode_captions, captions)):
        left = encode(batch).mask.sum() / 2000
        assert left == pytest.approx(0.6, abs=0.05)
    assert network.encode_images(tiny.images(50, 1)).mask.all(), "one item is always left"
    network.eval()
    assert network.encode_images(images).mask.all()
    assert network.encode_captions(captions).mask.all()


def test_captions_are_shortened_in_their_order() -> None:
    captions = tiny.captions((4, 6))
    kept = torch.tensor([[True, False, True, True, False, False], [False, True, False, False, True, True]])
    result = shortened(captions, kept)
    for row, mask in enumerate(kept):
        assert result.tokens[row, :3].tolist() == captions.tokens[row][mask].tolist()
    assert result.mask.tolist() == [[True] * 3 + [False] * 3] * 2
    assert (result.tokens[:, 3:] == 0).all()
