"""The mathematics of RCAR, hard alignment, HREM and ESA's pooling against plain loops, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.support import oracles, rival_oracles, tiny
from tests.support.float64 import SAME, as_tensor, encoded, layer, real, shaken, unit_rows
from tshsr.config.models import HardAlignmentConfig, HremConfig, ModelConfig, RcarConfig, VseConfig
from tshsr.errors import SettingsError
from tshsr.models.base import ItemEncoding
from tshsr.models.build import build_matcher
from tshsr.models.fragments import FragmentPooling, SetLayer
from tshsr.models.hard_alignment import HardAlignment
from tshsr.models.hrem import BatchRelations, Hrem, divergence
from tshsr.models.pooling import ChannelPooling
from tshsr.models.rcar import AggregationRegulator, AttentionRegulator, Rcar, RcarStream
from tshsr.models.vse import Vse
from tshsr.scoring.all_pairs import score_encoded

RCAR = RcarConfig(encoder=tiny.ENCODER, similarity_dim=6)
HREM = HremConfig(encoder=tiny.ENCODER, heads=3, best_matches=4)


def rcar_parameters(stream: RcarStream) -> dict:
    return {
        "alignments": [layer(each.projection) for each in stream.alignments],
        "aggregations": [aggregation_parameters(each) for each in stream.aggregations],
        "regulators": [regulator_parameters(each) for each in stream.regulators],
        "score": stream.score.weight[0].tolist(),
        "bias": stream.score.bias.item(),
    }


def aggregation_parameters(module: AggregationRegulator) -> dict:
    return {"item": layer(module.item), "whole": layer(module.whole), "weight": module.weight.weight[0].tolist()}


def regulator_parameters(module: AttentionRegulator) -> dict:
    return {
        "gate_1": layer(module.gate[0]),
        "gate_2": layer(module.gate[2]),
        "sharpness_1": layer(module.sharpness[0]),
        "sharpness_2": layer(module.sharpness[2]),
    }


@torch.no_grad()
@pytest.mark.parametrize(("regions", "words"), [(5, 4), (1, 3), (4, 1)])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_both_streams_of_rcar_are_the_formula(steps: int, regions: int, words: int) -> None:
    config = replace(RCAR, streams="both", steps=steps)
    network = shaken(Rcar(config))
    v, t = unit_rows(regions, 12), unit_rows(words, 12)
    scores, traces = network.score_pairs(encoded(v), encoded(t)), network.trace(encoded(v), encoded(t))
    expected = []
    for name, queries, context, temperature in (
        ("word_stream", t, v, config.word_inverse_temperature),
        ("region_stream", v, t, config.region_inverse_temperature),
    ):
        sides = queries.tolist(), context.tolist()
        score, attention, weights = rival_oracles.rcar(*sides, temperature, rcar_parameters(network.streams[name]))
        assert scores[name].item() == pytest.approx(score, rel=1e-9)
        trace = traces[name]
        torch.testing.assert_close(trace.attention[0], as_tensor(attention), **SAME)
        torch.testing.assert_close(trace.node_weights[0, 0], as_tensor(weights), **SAME)
        torch.testing.assert_close(trace.node_contributions.sum(-1), trace.contributions)
        torch.testing.assert_close(torch.sigmoid(trace.contributions.sum(-1) + trace.bias), scores[name])
        expected.append(score)
    assert scores["fused"].item() == pytest.approx(sum(expected) / 2, rel=1e-9)
    assert scores["pooled"].item() == pytest.approx((v.mean(0) @ t.mean(0)).item())


@torch.no_grad()
def test_gates_are_clamped_and_a_sharpness_is_never_negative() -> None:
    regulator = shaken(AttentionRegulator(6, 12))
    for scale in (1.0, 40.0):
        for last in (regulator.gate[2], regulator.sharpness[2]):
            last.bias.copy_(scale * real(*last.bias.shape))
        vectors, gates, sharpness = unit_rows(5, 6), real(5, 12).clamp(-1, 1), 3 * torch.rand(5, 1).double()
        expected = rival_oracles.regulate_attention(
            vectors.tolist(), gates.tolist(), sharpness[:, 0].tolist(), regulator_parameters(regulator)
        )
        new_gates, new_sharpness = regulator(vectors, gates, sharpness)
        torch.testing.assert_close(new_gates, as_tensor(expected[0]), **SAME)
        torch.testing.assert_close(new_sharpness[:, 0], as_tensor(expected[1]), **SAME)
    assert (new_gates.abs() == 1).any()
    assert new_gates.abs().max() <= 1


@torch.no_grad()
def test_an_aggregate_depends_on_the_one_before() -> None:
    aggregation = shaken(AggregationRegulator(6, 0.4))
    vectors = unit_rows(5, 6)
    found = []
    for start in unit_rows(2, 6):
        expected, weights = rival_oracles.regulate_aggregation(
            vectors.tolist(), start.tolist(), aggregation_parameters(aggregation)
        )
        aggregate, node_weights = aggregation(vectors, start, None)
        torch.testing.assert_close(aggregate, as_tensor(expected), **SAME)
        torch.testing.assert_close(node_weights, as_tensor(weights), **SAME)
        found.append(aggregate)
    assert not torch.allclose(*found)


@pytest.mark.parametrize("aggregation", ["logsumexp", "mean", "sum"])
@pytest.mark.parametrize(("regions", "words"), [(5, 4), (1, 3), (4, 1)])
def test_hard_alignment_is_the_formula_in_both_directions_and_their_mean(
    aggregation: str, regions: int, words: int
) -> None:
    config = HardAlignmentConfig(encoder=tiny.ENCODER, streams="both", aggregation=aggregation, temperature=0.2)
    network = HardAlignment(config).double()
    v, t = unit_rows(regions, 12), unit_rows(words, 12)
    scores, traces = network.score_pairs(encoded(v), encoded(t)), network.trace(encoded(v), encoded(t))
    expected = []
    for name, queries, context in (("word_stream", t, v), ("region_stream", v, t)):
        expected.append(rival_oracles.hard_alignment(queries.tolist(), context.tolist(), aggregation, 0.2))
        assert scores[name].item() == pytest.approx(expected[-1], rel=1e-9)
        trace, similarity = traces[name], queries @ context.T
        torch.testing.assert_close(trace.score, scores[name])
        assert (trace.attention[0].argmax(dim=1) == similarity.argmax(dim=1)).all()
        assert (trace.attention[0].sort(dim=1).values[:, -1] == 1).all(), "one context item alone"
        torch.testing.assert_close(trace.node_contributions.sum((-1, -2)), scores[name])
    assert scores["fused"].item() == pytest.approx(sum(expected) / 2, rel=1e-9)


@torch.no_grad()
def test_channel_pooling_is_the_formula_for_rows_of_any_length() -> None:
    pooling = shaken(ChannelPooling(6))
    items, lengths = real(3, 5, 6), torch.tensor([5, 1, 3])
    mask = torch.arange(5) < lengths[:, None]
    pooled = pooling(torch.where(mask[..., None], items, 9.0), mask)
    for row, length in enumerate(lengths):
        expected = rival_oracles.channel_pool(items[row, :length].tolist(), pooling.weight.weight.tolist())
        torch.testing.assert_close(pooled[row], as_tensor(expected), **SAME)


def layer_parameters(module: SetLayer) -> dict:
    names = ("query", "value", "output", "first", "second", "norm_attention", "norm_update")
    return {
        "heads": module.heads,
        "key": module.key.weight.tolist(),
        **{name: layer(getattr(module, name)) for name in names},
    }


@torch.no_grad()
def test_fragment_pooling_is_the_formula_for_rows_of_any_length() -> None:
    pooling = shaken(FragmentPooling(6, 3, 0.8, 0.1))
    items, lengths = real(4, 5, 6), torch.tensor([5, 1, 3, 2])
    mask = torch.arange(5) < lengths[:, None]
    pooled = pooling(torch.where(mask[..., None], items, 9.0), mask)
    for row, length in enumerate(lengths):
        expected = rival_oracles.fragment_pool(items[row, :length].tolist(), 0.8, layer_parameters(pooling.layer))
        torch.testing.assert_close(pooled[row], as_tensor(expected), **SAME)


@torch.no_grad()
def test_a_set_layer_is_that_of_torch() -> None:
    ours, theirs = shaken(SetLayer(6, 3, 0.1)), nn.TransformerEncoderLayer(6, 3, 6, 0.1, batch_first=True).double()
    theirs.eval()
    attention = theirs.self_attn
    attention.in_proj_weight.copy_(torch.cat([part.weight for part in (ours.query, ours.key, ours.value)]))
    attention.in_proj_bias.copy_(torch.cat([ours.query.bias, real(6), ours.value.bias]))  # that of the keys cancels
    for name, part in (
        ("self_attn.out_proj", ours.output),
        ("linear1", ours.first),
        ("linear2", ours.second),
        ("norm1", ours.norm_attention),
        ("norm2", ours.norm_update),
    ):
        theirs.get_submodule(name).load_state_dict(part.state_dict())
    items, bias = real(1, 5, 6), real(5, 5)
    torch.testing.assert_close(ours(items, bias[None]), theirs(items, src_mask=bias), **SAME)


def relation_parameters(module: BatchRelations) -> dict:
    perceptrons = {
        name: {"first": layer(getattr(module, name)[0]), "second": layer(getattr(module, name)[2])}
        for name in ("image_relevance", "caption_relevance")
    }
    return {
        "layer": layer_parameters(module.layer),
        "count": module.count,
        "connected": module.connected,
        "penalty": module.penalty,
        **perceptrons,
    }


def hrem_batch(network: Hrem) -> tuple[ItemEncoding, ItemEncoding, Tensor]:
    """Three images and five captions of different lengths."""
    images = network.encode_images(tiny.images(3, 6, real=[6, 1, 4]))
    return images, network.encode_captions(tiny.captions((4, 1, 6, 2, 5))), torch.tensor([0, 1, 2, 2, 1])


@torch.no_grad()
@pytest.mark.parametrize("connected", [0.0, 0.5, 0.9])
def test_relations_of_a_batch_are_the_formula(connected: float) -> None:
    network = shaken(Hrem(replace(HREM, connected=connected)))
    images, captions, image_of_caption = hrem_batch(network)
    v, t, penalty = network.relations(images, captions, image_of_caption)
    rows = [
        [row[mask].tolist() for row, mask in zip(side.items, side.mask, strict=True)] for side in (images, captions)
    ]
    expected = rival_oracles.batch_relations(
        images.pooled.tolist(),
        captions.pooled.tolist(),
        *rows,
        image_of_caption.tolist(),
        relation_parameters(network.relations),
    )
    torch.testing.assert_close(v, as_tensor(expected[0]), **SAME)
    torch.testing.assert_close(t, as_tensor(expected[1]), **SAME)
    assert penalty.item() == pytest.approx(expected[2], rel=1e-9)
    found = network.related_scores(images, captions, image_of_caption)
    torch.testing.assert_close(found.scores["related"], v @ t.T)
    torch.testing.assert_close(found.scores["related_images"], v @ captions.pooled.T)
    torch.testing.assert_close(found.scores["related_captions"], images.pooled @ t.T)


@torch.no_grad()
def test_related_scores_depend_on_the_batch_and_the_score_of_a_pair_on_no_gallery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = shaken(Hrem(HREM))
    images, captions, image_of_caption = hrem_batch(network)
    whole = network.related_scores(images, captions, image_of_caption).scores["related"]
    part = network.related_scores(images[:2], captions[:2], image_of_caption[:2]).scores["related"]
    assert not torch.allclose(whole[:2, :2], part, atol=1e-4)
    monkeypatch.setattr(BatchRelations, "forward", lambda *_: pytest.fail("relations were used for scores"))
    for mode in (True, False):
        network.train(mode)
        every = score_encoded(network, images, captions)
        for row in range(3):
            for column in range(5):
                alone = network.score_pairs(images[row : row + 1], captions[column : column + 1])
                for name, score in alone.items():
                    torch.testing.assert_close(score[0], every[name][row, column], **SAME)
    alone = network.eval().encode_images(tiny.images(3, 6, real=[6, 1, 4]))[1:2]
    torch.testing.assert_close(alone.pooled, images.pooled[1:2], **SAME)


def test_relevance_sends_no_gradient_to_regions_and_words() -> None:
    network = shaken(Hrem(HREM))
    images, captions, image_of_caption = hrem_batch(network)
    items = [side.items.detach().requires_grad_() for side in (images, captions)]
    sides = [replace(side, items=rows) for side, rows in zip((images, captions), items, strict=True)]
    found = network.related_scores(*sides, image_of_caption)
    (found.penalty + found.scores["related"].sum()).backward()
    assert all(rows.grad is None for rows in items)
    assert network.relations.image_relevance[0].weight.grad.abs().max() > 0


def test_the_penalty_moves_relevance_towards_the_embeddings_and_not_these() -> None:
    network = shaken(Hrem(HREM))
    images, captions, image_of_caption = hrem_batch(network)
    pooled = [side.pooled.detach().requires_grad_() for side in (images, captions)]
    sides = [replace(side, pooled=rows) for side, rows in zip((images, captions), pooled, strict=True)]
    network.related_scores(*sides, image_of_caption).penalty.backward()
    assert all(rows.grad is None for rows in pooled)
    assert network.relations.caption_relevance[0].weight.grad.abs().max() > 0


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"^model\.heads is 5 and vectors are 12 wide; expected a number of heads"):
        build_matcher(replace(HREM, heads=5))


GRADIENTS: dict[str, ModelConfig] = {
    "rcar": replace(RCAR, streams="both"),
    "chan": HardAlignmentConfig(encoder=tiny.ENCODER),
    "late interaction": HardAlignmentConfig(encoder=tiny.ENCODER, streams="both", aggregation="mean"),
    "esa": VseConfig(encoder=tiny.ENCODER, pooling="esa"),
    "hrem": HREM,
}


@pytest.mark.parametrize("method", GRADIENTS)
def test_gradients_are_those_of_finite_differences(method: str) -> None:
    network = shaken(build_matcher(GRADIENTS[method]))
    images, captions = tiny.images(2, 3, real=[3, 2]), tiny.captions((3, 2))
    regions = images.regions.clone().requires_grad_()

    def loss(features: Tensor) -> Tensor:
        left, right = network.encode_images(replace(images, regions=features)), network.encode_captions(captions)
        scores = network.score_all(left, right)
        return scores["fused"].square().sum() + scores["pooled"].sum()

    assert torch.autograd.gradcheck(loss, (regions,))


def test_gradients_through_the_relations_are_those_of_finite_differences() -> None:
    network = shaken(Hrem(HREM))
    images, captions, image_of_caption = hrem_batch(network)
    pooled = [side.pooled.detach().requires_grad_() for side in (images, captions)]

    def related(v: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        sides = replace(images, pooled=v), replace(captions, pooled=t)
        return tuple(network.related_scores(*sides, image_of_caption).scores.values())

    assert torch.autograd.gradcheck(related, pooled)
    rows, guide = real(3, 4).requires_grad_(), real(3, 4)
    assert torch.autograd.gradcheck(lambda relevance: divergence(relevance, guide), (rows,))


@pytest.mark.parametrize(
    ("make", "rows"),
    [
        (lambda: AggregationRegulator(4, 0.0), lambda: (unit_rows(3, 4), unit_rows(4))),
        (lambda: AttentionRegulator(4, 5), lambda: (unit_rows(3, 4), real(3, 5) / 9, 3 + real(3, 1))),
        (lambda: SetLayer(4, 2, 0.0), lambda: (real(1, 3, 4), real(1, 3, 3))),
    ],
)
def test_gradients_of_the_parts_are_those_of_finite_differences(
    make: Callable[[], nn.Module], rows: Callable[[], tuple[Tensor, ...]]
) -> None:
    module, inputs = shaken(make()), [each.requires_grad_() for each in rows()]
    extra = (None,) if isinstance(module, AggregationRegulator) else ()
    assert torch.autograd.gradcheck(lambda *given: module(*given, *extra), inputs)


@torch.no_grad()
def test_esa_and_hrem_score_pooled_embeddings() -> None:
    for config in (GRADIENTS["esa"], HREM):
        network = shaken(build_matcher(config))
        assert isinstance(network, Vse)
        images, captions = network.encode_images(tiny.images(1, 5)), network.encode_captions(tiny.captions((4,)))
        scores = network.score_pairs(images, captions)
        assert scores.keys() == {"fused", "pooled"}
        expected = oracles.dot(images.pooled[0].tolist(), captions.pooled[0].tolist())
        assert scores["fused"].item() == pytest.approx(expected, rel=1e-9)
        assert not network.trace(images, captions)


@torch.no_grad()
@pytest.mark.parametrize("method", GRADIENTS)
def test_tiles_of_any_size_score_alike(method: str) -> None:
    network = shaken(build_matcher(GRADIENTS[method]))
    images = network.encode_images(tiny.images(5, 4, real=[4, 2, 1, 3, 4]))
    captions = network.encode_captions(tiny.captions((1, 2, 3, 6, 6)))  # shortest first
    whole = network.score_all(images, captions)
    for budget in (network.bytes_per_pair(4, 6), 4 * network.bytes_per_pair(4, 6), 10**9):
        tiled = score_encoded(network, images, captions, byte_budget=budget)
        for name, scores in whole.items():
            torch.testing.assert_close(tiled[name], scores, **SAME)
