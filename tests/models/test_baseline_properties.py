"""What must hold for every baseline, whatever the numbers; `test_matcher_properties.py` says the same of TSHSR."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import tiny
from tests.support.methods import CONCEPTS, METHODS, SLOTS, WITH_ORDER, network
from tests.support.scored_pairs import assert_one_scores_with_all, assert_same, score, sizes
from tshsr.config.run import LossConfig
from tshsr.data.batches import CaptionBatch, ImageBatch
from tshsr.errors import InputError
from tshsr.models.build import build_matcher
from tshsr.training import objective
from tshsr.training.objective import Objective


def with_padding(images: ImageBatch, captions: CaptionBatch, extra: int) -> tuple[ImageBatch, CaptionBatch]:
    """The same batches with more padding, all of it full of garbage."""
    pad = torch.nn.functional.pad
    regions = torch.where(images.mask[..., None], images.regions, 7.0)
    tokens = torch.where(captions.mask, captions.tokens, 3)
    return (
        ImageBatch(
            pad(regions, (0, 0, 0, extra), value=-3.0),
            pad(images.mask, (0, extra)),
            pad(images.boxes, (0, 0, 0, extra), value=0.5),
        ),
        CaptionBatch(pad(tokens, (0, extra), value=5), pad(captions.mask, (0, extra))),
    )


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=10, deadline=None)
@given(regions=sizes, words=sizes, extra=st.integers(1, 8))
def test_padding_is_invisible(method: str, regions: list[int], words: list[int], extra: int) -> None:
    matcher = network(method)
    images, captions = tiny.images(len(regions), max(regions), real=regions), tiny.captions(tuple(words))
    assert_same(score(matcher, images, captions), score(matcher, *with_padding(images, captions, extra)))


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=5, deadline=None)
@given(regions=sizes, words=sizes, extra=st.integers(1, 3))
def test_padding_is_invisible_to_the_statistics_of_a_training_batch(
    method: str, regions: list[int], words: list[int], extra: int
) -> None:
    still = {"size_augmentation": 0.0, "pooling_dropout": 0.0}
    config = replace(
        METHODS[method], **{name: value for name, value in still.items() if hasattr(METHODS[method], name)}
    )
    matcher = build_matcher(replace(config, encoder=replace(config.encoder, dropout=0.0))).double().train()
    start = {name: value.clone() for name, value in matcher.state_dict().items()}
    images, captions = tiny.images(len(regions), max(regions), real=regions), tiny.captions(tuple(words))
    results = []
    for batch in ((images, captions), with_padding(images, captions, extra)):
        matcher.load_state_dict(start)
        if "transformer" in method:
            matcher.word_encoder.eval()  # its layers drop out whatever the embeddings do
        results.append({**score(matcher, *batch), **dict(matcher.named_buffers())})
        results[-1] = {name: value.clone() for name, value in results[-1].items()}
    assert_same(*results)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in WITH_ORDER])
@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(5)))
def test_the_order_of_regions_does_not_matter(method: str, order: list[int]) -> None:
    matcher = network(method)
    images, captions = tiny.images(2, 5), tiny.captions()
    shuffled = ImageBatch(images.regions[:, order], images.mask[:, order], images.boxes[:, order])
    assert_same(score(matcher, images, captions), score(matcher, shuffled, captions))


@pytest.mark.parametrize("method", METHODS)
def test_pairs_one_by_one_score_as_all_at_once_and_as_a_list(method: str) -> None:
    matcher = network(method)
    images = matcher.encode_images(tiny.images(3, 5, real=[5, 2, 4]))
    captions = matcher.encode_captions(tiny.captions())
    every = matcher.score_all(images, captions)
    assert_same(every, matcher.score_pairs(images.unsqueeze(1), captions.unsqueeze(0)))
    rows, columns = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 0, 0, 1])  # without the longest caption
    expected = {name: value[rows, columns] for name, value in every.items()}
    assert_same(expected, matcher.score_pairs(images[rows], captions[columns]))
    assert_same(expected, matcher.score_listed(images[rows], captions[columns]))
    one = matcher.score_pairs(images[2:], captions[:1])
    assert_same({name: value[2:, 0] for name, value in every.items()}, one)


@pytest.mark.parametrize("method", METHODS)
def test_one_image_scores_with_all_captions_and_one_caption_with_all_images(method: str) -> None:
    matcher = network(method)
    images = matcher.encode_images(tiny.images(3, 5, real=[5, 2, 4]))
    captions = matcher.encode_captions(tiny.captions())
    assert_one_scores_with_all(matcher, images, captions)


@pytest.mark.parametrize("method", METHODS)
def test_a_network_names_its_scores(method: str) -> None:
    matcher = network(method)
    assert matcher.score_names == score(matcher, tiny.images(), tiny.captions()).keys()


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_the_same_with_and_without_gradients(method: str) -> None:
    matcher = network(method)
    with_gradients = matcher.score_all(matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions()))
    assert_same(score(matcher, tiny.images(), tiny.captions()), {n: v.detach() for n, v in with_gradients.items()})


@pytest.mark.parametrize("method", METHODS)
def test_one_region_and_one_word_are_enough(method: str) -> None:
    for matcher in (network(method), network(method).train()):
        scores = score(matcher, tiny.images(1, 1), tiny.captions((1,)))
        assert {"fused", "pooled"} <= scores.keys()
        assert all(value.shape == (1, 1) and value.isfinite().all() for value in scores.values())


@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient_from_one_loss(method: str) -> None:
    matcher = network(method)
    scores = matcher.score_all(matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions()))
    loss = scores["fused"].square().mean() + scores["pooled"].square().mean()
    encoded = matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions())
    related = matcher.related_scores(*encoded, torch.arange(3))
    if related is not None:
        loss = loss + related.penalty + sum(score.square().mean() for score in related.scores.values())
    loss.backward()
    for name, parameter in matcher.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_scores_are_near_float64(method: str) -> None:
    matcher = network(method)
    exact = score(matcher, tiny.images(), tiny.captions())
    rough = score(matcher.to(torch.bfloat16), tiny.images(), tiny.captions())
    for name in exact:
        # bfloat16 keeps 8 bits: 0.4 % a step; a few dozen steps lie between features and score.
        near = 0.05 * max(1.0, exact[name].abs().max().item())
        torch.testing.assert_close(rough[name].double(), exact[name], rtol=0, atol=near)


@pytest.mark.parametrize("method", METHODS)
def test_scores_under_mixed_precision_are_near_as_training_takes_them(method: str) -> None:
    matcher = network(method).float()
    exact = score(matcher, tiny.images(), tiny.captions())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = matcher.score_all(matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions()))
    for name in exact:
        near = 0.05 * max(1.0, exact[name].abs().max().item())
        torch.testing.assert_close(rough[name].detach().float(), exact[name], rtol=0, atol=near)


@pytest.mark.parametrize("method", METHODS)
def test_a_trace_is_of_the_streams_that_are_scored(method: str) -> None:
    matcher = network(method)
    images = matcher.encode_images(tiny.images(2, 4, real=[4, 2]))
    captions = matcher.encode_captions(tiny.captions((5, 3)))
    scores, traces = matcher.score_pairs(images, captions), matcher.trace(images, captions)
    assert traces.keys() == {name for name in scores if name.endswith("_stream")}
    for name, trace in traces.items():
        torch.testing.assert_close(trace.score, scores[name])
        queries, context = (captions, images) if name == "word_stream" else (images, captions)
        ones = torch.ones(2, dtype=torch.float64)
        torch.testing.assert_close(trace.attention.sum(-1)[queries.mask], ones[:1].expand(int(queries.mask.sum())))
        assert (trace.attention.masked_select(~context.mask[:, None].expand_as(trace.attention)) == 0).all()
        torch.testing.assert_close(trace.node_weights.sum(-1)[:, 0], ones)
        queried = trace.node_weights[:, 0, int(trace.has_global_node) :]
        assert (queried[~queries.mask] == 0).all()
        torch.testing.assert_close(trace.node_contributions.sum(-1), trace.contributions)
        added = trace.node_contributions[:, 0, int(trace.has_global_node) :]
        assert (added[~queries.mask] == 0).all()
        assert trace.pooled_terms is None
        assert (trace.pooled == 0).all() or method in CONCEPTS


@pytest.mark.parametrize(
    "method", ["vse gpo", "scan both, maximum", "sgr", "saf", "two streams", "rcar both, one step", "late interaction"]
)
@pytest.mark.parametrize("candidates", [0, 2])
def test_pairs_that_are_computed_again_in_the_backward_pass_give_the_same_gradients(
    method: str, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matcher = network(method)
    learning = Objective(matcher, LossConfig(), candidates=candidates)
    batch = tiny.images(3), tiny.captions((4, 1, 6, 2)), torch.tensor([0, 1, 2, 2])
    gradients = []
    for at_once in (True, False):
        monkeypatch.setattr(objective, "ACTIVATION_BYTES", 2**31 if at_once else 0)
        matcher.zero_grad()
        learning(*batch, hardest=True, seed=0)["loss"].backward()
        gradients.append({name: weight.grad.clone() for name, weight in matcher.named_parameters()})
    assert_same(*gradients)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_scores_do_not_tie(method: str) -> None:
    matcher = network(method).float()
    images, captions = matcher.encode_images(tiny.images()), matcher.encode_captions(tiny.captions())
    exact = matcher.score_all(images, captions)
    rough = matcher.bfloat16().score_all(images.at(torch.bfloat16), captions.at(torch.bfloat16))
    for name, scores in rough.items():
        assert scores.dtype == torch.float32, name
        assert (scores != scores.bfloat16()).any(), name
        torch.testing.assert_close(scores, exact[name], rtol=0.1, atol=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")
@pytest.mark.parametrize("method", METHODS)
def test_a_cuda_device_scores_as_the_processor(method: str) -> None:
    matcher = network(method).float()
    images, captions = tiny.images(), tiny.captions()
    near = score(matcher, images, captions)
    far = score(matcher.to("cuda"), images.to("cuda"), captions.to("cuda"))
    for name in near:
        torch.testing.assert_close(far[name].cpu(), near[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["scan both, maximum", "sgr", "saf", "two streams", "rcar word stream", "late interaction"]
)
def test_the_estimate_of_bytes_grows_with_both_sides(method: str) -> None:
    matcher = network(method)
    assert matcher.bytes_per_pair(36, 10) < matcher.bytes_per_pair(72, 10)
    assert matcher.bytes_per_pair(36, 10) < matcher.bytes_per_pair(36, 100)


def test_more_regions_than_slots_are_refused() -> None:
    with pytest.raises(InputError, match=rf"more regions than the {SLOTS} that this network was built for"):
        network("sgr slots").encode_images(tiny.images(1, SLOTS + 1))


def test_in_slots_the_order_of_regions_matters() -> None:
    matcher, images = network("sgr slots"), tiny.images(1, 5)
    turned = ImageBatch(images.regions.flip(1), images.mask, images.boxes)
    assert not torch.allclose(matcher.encode_images(images).pooled, matcher.encode_images(turned).pooled)


def test_the_two_streams_share_no_weights() -> None:
    word, region = (set(map(id, stream.parameters())) for stream in network("two streams").streams.values())
    assert word
    assert not word & region
