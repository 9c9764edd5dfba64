"""What must hold for every setting of the network, whatever the numbers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import tiny
from tests.support.scored_pairs import assert_one_scores_with_all, assert_same, score, sizes
from tshsr.config.models import ReasoningConfig
from tshsr.data.batches import CaptionBatch, ImageBatch

VARIANTS = {
    "looks": {"products": True, "reasoning": ReasoningConfig(seeds=(4, 2), context_inverse_temperature=3.0)},
    "default": {},
    "word stream": {"streams": "word"},
    "region stream": {"streams": "region"},
    "global node": {"global_node": True},
    "no pooled term": {"pooled_term": False},
    "learned fusion": {"fusion": "learned"},
    "pooled by channel": {"pooling": "esa"},
    "late term": {"late_weight": 9.0},
    "late term less the mean similarity": {"late_weight": 9.0, "late_mean": 4.0},
    "compared in the joint space": {"comparison_dim": 0},
    "parts of dsgsl": {"gated_queries": True, "global_node": True, "dual_graph": True, "products": True},
    "flat": {"reasoning": ReasoningConfig(levels=0)},
    "three levels": {"reasoning": ReasoningConfig(levels=3, seeds=(4, 3, 2))},
    "context only": {"reasoning": ReasoningConfig(seeds=(4, 2), local=False)},
    "local only": {"reasoning": ReasoningConfig(seeds=(4, 2), context=False, gate=False)},
    "boxes": {"encoder": replace(tiny.ENCODER, boxes=True)},
    "places": {"encoder": replace(tiny.ENCODER, boxes=True), "place_term": True},
    "places in the joint space": {
        "encoder": replace(tiny.ENCODER, boxes=True),
        "place_term": True,
        "comparison_dim": 0,
    },
    "residual projection": {"encoder": replace(tiny.ENCODER, boxes=True, region_projection="residual")},
    "transformer": {"encoder": replace(tiny.ENCODER, text="transformer")},
}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=10, deadline=None)
@given(regions=sizes, words=sizes, extra=st.integers(1, 3))
def test_padding_is_invisible(variant: str, regions: list[int], words: list[int], extra: int) -> None:
    network = tiny.network(**VARIANTS[variant])
    images, captions = tiny.images(len(regions), max(regions), real=regions), tiny.captions(tuple(words))
    pad = torch.nn.functional.pad
    # Padding holds garbage here: it must not matter what is in it.
    padded = ImageBatch(torch.where(images.mask[..., None], images.regions, 7.0), images.mask, images.boxes)
    padded = ImageBatch(
        pad(padded.regions, (0, 0, 0, extra), value=-3.0),
        pad(padded.mask, (0, extra)),
        pad(padded.boxes, (0, 0, 0, extra), value=0.5),
    )
    longer = CaptionBatch(pad(captions.tokens, (0, extra), value=5), pad(captions.mask, (0, extra)))
    assert_same(score(network, images, captions), score(network, padded, longer))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(5)))
def test_the_order_of_regions_does_not_matter(variant: str, order: list[int]) -> None:
    network = tiny.network(**VARIANTS[variant])
    images, captions = tiny.images(2, 5), tiny.captions()
    shuffled = ImageBatch(images.regions[:, order], images.mask[:, order], images.boxes[:, order])
    assert_same(score(network, images, captions), score(network, shuffled, captions))


@pytest.mark.parametrize("variant", VARIANTS)
def test_pairs_one_by_one_score_as_all_at_once(variant: str) -> None:
    network = tiny.network(**VARIANTS[variant])
    images, captions = network.encode_images(tiny.images(3)), network.encode_captions(tiny.captions())
    every = network.score_all(images, captions)
    rows, columns = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 0, 2, 2])
    pairs = network.score_pairs(images[rows], captions[columns])
    expected = {name: value[rows, columns] for name, value in every.items()}
    assert_same(expected, pairs)
    assert_same(expected, network.score_listed(images[rows], captions[columns]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_image_scores_with_all_captions_and_one_caption_with_all_images(variant: str) -> None:
    network = tiny.network(**VARIANTS[variant])
    images = network.encode_images(tiny.images(3, 5, real=[5, 2, 4]))
    captions = network.encode_captions(tiny.captions())
    assert_one_scores_with_all(network, images, captions)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_network_names_its_scores(variant: str) -> None:
    network = tiny.network(**VARIANTS[variant])
    assert network.score_names == score(network, tiny.images(), tiny.captions()).keys()


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_region_and_one_word_are_enough(variant: str) -> None:
    scores = score(tiny.network(**VARIANTS[variant]), tiny.images(1, 1), tiny.captions((1,)))
    assert all(value.isfinite().all() for value in scores.values())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient_from_one_loss(variant: str) -> None:
    network = tiny.network(similarity_dim=16, **VARIANTS[variant])  # at width 6 a ReLU can be dead by chance
    scores = network.score_all(network.encode_images(tiny.images()), network.encode_captions(tiny.captions()))
    (scores["fused"].square().mean() + scores["pooled"].square().mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_bfloat16_scores_are_near_float64(variant: str) -> None:
    network = tiny.network(**VARIANTS[variant])
    exact = score(network, tiny.images(), tiny.captions())
    rough = score(network.to(torch.bfloat16), tiny.images(), tiny.captions())
    assert rough["fused"].dtype == torch.float32  # the sum over nodes is not rounded
    for name in exact:
        # bfloat16 keeps 8 bits: 0.4 % a step; a few dozen steps lie between features and score.
        torch.testing.assert_close(rough[name].double(), exact[name], rtol=0, atol=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")
def test_a_cuda_device_scores_as_the_processor() -> None:
    network = tiny.network(torch.float32)
    images, captions = tiny.images(), tiny.captions()
    near = score(network, images, captions)
    far = score(network.to("cuda"), images.to("cuda"), captions.to("cuda"))
    for name in near:
        torch.testing.assert_close(far[name].cpu(), near[name], rtol=1e-4, atol=1e-5)


def test_the_two_streams_share_no_weights() -> None:
    network = tiny.network()
    word, region = (set(map(id, stream.parameters())) for stream in network.streams.values())
    assert not word & region


def test_a_lone_stream_scores_alone() -> None:
    scores = score(tiny.network(streams="word"), tiny.images(), tiny.captions())
    assert "region_stream" not in scores
    torch.testing.assert_close(scores["fused"], scores["word_stream"])


def test_the_estimate_of_bytes_grows_with_both_sides() -> None:
    network = tiny.network()
    assert network.bytes_per_pair(36, 10) < network.bytes_per_pair(72, 10)
    assert network.bytes_per_pair(36, 10) < network.bytes_per_pair(36, 100)
