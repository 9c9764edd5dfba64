"""Explanations as data: maps against plain loops, sums that must hold, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from tests.support.scripted import TracelessMatcher, image, real, retriever, scripted
from tshsr.data.batches import ImageBatch
from tshsr.errors import InputError
from tshsr.explain.attribution import (
    attention_maps,
    contribution_maps,
    explain_pair,
    level_maps,
    mean_relevance,
    relevance_maps,
    word_maps,
)
from tshsr.models.base import StreamTrace

CAPTION = "a small red square left of a circle"
WORDS, REGIONS, LEVELS = 3, 5, 2
STREAMS = ("word_stream", "region_stream")


def random_trace(stream: str, *, global_node: bool) -> tuple[StreamTrace, torch.Tensor, torch.Tensor]:
    """A trace of two pairs with padding, and the masks of words and regions."""
    generator = torch.Generator().manual_seed(7)
    words = torch.tensor([[True, True, True], [True, True, False]])
    regions = torch.tensor([[True] * 5, [True, True, True, False, False]])
    queries, context = (words, regions) if stream == "word_stream" else (regions, words)
    logits = torch.randn(2, queries.shape[1], context.shape[1], generator=generator)
    attention = logits.masked_fill(~context[:, None], -torch.inf).softmax(dim=-1)
    nodes = torch.cat([torch.ones(2, 1, dtype=torch.bool), queries], dim=1) if global_node else queries
    weights = torch.randn(2, LEVELS, nodes.shape[1], generator=generator)
    weights = weights.masked_fill(~nodes[:, None], -torch.inf).softmax(dim=-1)
    added = torch.randn(weights.shape, generator=generator) * nodes[:, None]
    met = torch.randn(attention.shape, generator=generator) * queries[..., None] * context[:, None]
    pooled, bias = met.sum(dim=(1, 2)), torch.tensor(0.5)
    score = torch.sigmoid(added.sum(dim=(1, 2)) + pooled + bias)
    shares = torch.rand(attention.shape, generator=generator) * queries[..., None] * context[:, None]
    shares = shares / shares.sum(dim=(1, 2), keepdim=True)
    contributions = added.sum(dim=-1)
    trace = StreamTrace(
        attention, weights, contributions, pooled, bias, score, global_node, added, met, pooled_shares=shares
    )
    return trace, words, regions


def plain_weight(trace: StreamTrace, pair: int, level: int, query: int) -> float:
    return float(trace.node_weights[pair, level, query + (1 if trace.has_global_node else 0)])


@pytest.mark.parametrize("global_node", [True, False])
@pytest.mark.parametrize("stream", STREAMS)
def test_level_maps_equal_plain_loops(stream: str, global_node: bool) -> None:
    trace, words, regions = random_trace(stream, global_node=global_node)
    maps = level_maps(stream, trace, words, regions)
    assert maps.shape == (2, LEVELS, WORDS, REGIONS)
    for pair, level, word, region in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        query, context = (word, region) if stream == "word_stream" else (region, word)
        expected = plain_weight(trace, pair, level, query) * float(trace.attention[pair, query, context])
        if not (words[pair, word] and regions[pair, region]):
            expected = 0.0
        assert float(maps[pair, level, word, region]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_attention_maps_equal_plain_loops(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    maps = attention_maps(stream, trace, words, regions)
    for pair in range(2):
        for word in range(WORDS):
            if stream == "word_stream":
                row = [float(trace.attention[pair, word, region]) for region in range(REGIONS)]
            else:
                row = []
                for region in range(REGIONS):
                    weight = sum(plain_weight(trace, pair, level, region) for level in range(LEVELS)) / LEVELS
                    row.append(weight * float(trace.attention[pair, region, word]))
                row = [value / (sum(row) or 1.0) for value in row]
            expected = row if words[pair, word] else [0.0] * REGIONS
            assert maps[pair, word].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("global_node", [True, False])
@pytest.mark.parametrize("stream", STREAMS)
def test_contribution_maps_equal_plain_loops(stream: str, global_node: bool) -> None:
    trace, words, regions = random_trace(stream, global_node=global_node)
    maps = contribution_maps(stream, trace, words, regions)
    assert trace.pooled_terms is not None
    for pair, word, region in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        query, context = (word, region) if stream == "word_stream" else (region, word)
        added = sum(float(trace.node_contributions[pair, level, query + global_node]) for level in range(LEVELS))
        expected = added * float(trace.attention[pair, query, context])
        expected += float(trace.pooled_terms[pair, query, context])
        if not (words[pair, word] and regions[pair, region]):
            expected = 0.0
        assert float(maps[pair, word, region]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("global_node", [True, False])
@pytest.mark.parametrize("stream", STREAMS)
def test_relevance_maps_equal_plain_loops(stream: str, global_node: bool) -> None:
    trace, words, regions = random_trace(stream, global_node=global_node)
    maps = relevance_maps(stream, trace, words, regions)
    contributions = contribution_maps(stream, trace, words, regions)
    weights = level_maps(stream, trace, words, regions)
    assert trace.pooled_terms is not None
    assert trace.pooled_shares is not None
    pooled = trace.pooled_shares if stream == "word_stream" else trace.pooled_shares.mT
    parts = [(trace.contributions[:, level], weights[:, level]) for level in range(LEVELS)]
    parts.append((trace.pooled_terms.sum(dim=(1, 2)), pooled))
    for pair, word, region in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist():
        expected = float(contributions[pair, word, region])
        real = bool(words[pair, word] and regions[pair, region])
        for total, shares in parts if real else ():
            of_region = sum(float(shares[pair, other, region]) for other in range(WORDS))
            even = of_region / int(words[pair].sum())
            expected += float(total[pair]) * (even - float(shares[pair, word, region]))
        assert float(maps[pair, word, region]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_relevance_keeps_the_sum_of_every_region(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    found, before = (of(stream, trace, words, regions) for of in (relevance_maps, contribution_maps))
    torch.testing.assert_close(found.sum(dim=1), before.sum(dim=1))


def test_words_whose_nodes_say_the_same_are_equally_relevant() -> None:
    trace, words, regions = random_trace("word_stream", global_node=False)
    same = replace(
        trace,
        node_contributions=2.0 * trace.node_weights,
        contributions=torch.full((2, LEVELS), 2.0),
        pooled_terms=None,
    )
    by_word = relevance_maps("word_stream", same, words, regions).sum(dim=2)
    torch.testing.assert_close(by_word, 2.0 * LEVELS * words / words.sum(dim=1, keepdim=True))
    by_weight = contribution_maps("word_stream", same, words, regions).sum(dim=2)
    torch.testing.assert_close(by_weight, 2.0 * trace.node_weights.sum(dim=1) * words)


@pytest.mark.parametrize("stream", STREAMS)
def test_relevance_the_global_node_and_the_bias_sum_to_the_logit(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    whole = trace.node_contributions[..., 0].sum(dim=-1)
    logit = relevance_maps(stream, trace, words, regions).sum(dim=(1, 2)) + whole + trace.bias
    torch.testing.assert_close(torch.sigmoid(logit), trace.score)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_word_map_is_the_positive_contribution(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    contributions, maps = (maps_of(stream, trace, words, regions) for maps_of in (contribution_maps, word_maps))
    for row, found in zip(contributions[0].tolist(), maps[0].tolist(), strict=True):
        speaking = [max(value, 0.0) for value in row]
        assert found == pytest.approx([value / sum(speaking) for value in speaking], abs=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_word_without_positive_contribution_shows_its_attention(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    trace = replace(trace, node_contributions=-trace.node_weights, pooled_terms=None)
    maps = word_maps(stream, trace, words, regions)
    torch.testing.assert_close(maps, attention_maps(stream, trace, words, regions))


def test_one_map_of_a_pair_is_the_mean_of_its_streams() -> None:
    traces = {name: random_trace(name, global_node=True) for name in STREAMS}
    words, regions = traces["word_stream"][1:]
    maps = [relevance_maps(name, trace, words, regions) for name, (trace, *_) in traces.items()]
    found = mean_relevance({name: trace for name, (trace, *_) in traces.items()}, words, regions)
    torch.testing.assert_close(found, (maps[0] + maps[1]) / 2)


@pytest.mark.parametrize("stream", STREAMS)
def test_every_real_word_has_one_distribution_over_real_regions(stream: str) -> None:
    trace, words, regions = random_trace(stream, global_node=True)
    maps = word_maps(stream, trace, words, regions)
    assert torch.allclose(maps.sum(dim=-1), words.float(), atol=1e-6)
    assert not maps.masked_select(~regions[:, None].expand_as(maps)).any()


def test_a_word_without_attention_gets_zeros_and_not_nan() -> None:
    trace, words, regions = random_trace("region_stream", global_node=True)
    alone = torch.tensor([1.0, 0, 0, 0, 0, 0]).expand(2, LEVELS, 6)
    trace = replace(trace, node_weights=alone, node_contributions=alone, pooled_terms=None)
    assert word_maps("region_stream", trace, words, regions).tolist() == torch.zeros(2, WORDS, REGIONS).tolist()


@pytest.mark.parametrize("levels", [0, 2])
def test_contributions_and_bias_sum_to_the_logit_of_the_score(levels: int) -> None:
    explanation = explain_pair(real([CAPTION], levels=levels), image(REGIONS), CAPTION)
    assert set(explanation.streams) == set(STREAMS)
    for name, stream in explanation.streams.items():
        assert len(stream.levels) == levels + 1
        logit = sum(level.contribution for level in stream.levels) + stream.pooled + stream.bias
        assert stream.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
        assert stream.score == pytest.approx(explanation.scores[name], abs=1e-6)


@pytest.mark.parametrize("pooling", ["attention", "esa"])
@pytest.mark.parametrize("global_node", [True, False])
@pytest.mark.parametrize("streams", ["both", "word", "region"])
def test_what_words_and_regions_add_sums_to_the_logit(streams: str, global_node: bool, pooling: str) -> None:
    pairs = real([CAPTION], streams=streams, global_node=global_node, pooling=pooling)
    explanation = explain_pair(pairs, image(REGIONS, padding=2), CAPTION)
    sums = []
    for stream in explanation.streams.values():
        added = sum(map(sum, stream.relevance))
        assert 1 / (1 + math.exp(-(added + stream.whole + stream.bias))) == pytest.approx(stream.score, abs=1e-6)
        assert (abs(stream.whole) > 1e-6) == global_node, "without it, what the sums round"
        assert len(stream.relevance) == len(explanation.words)
        sums.append(added)
    for each in (explanation.word_relevance, explanation.region_relevance):
        assert sum(each) == pytest.approx(sum(sums) / len(sums), abs=1e-5)
    assert len(explanation.word_relevance) == len(explanation.words)
    assert len(explanation.region_relevance) == explanation.regions == REGIONS


def test_node_weights_of_a_level_and_its_map_account_for_everything_that_was_read() -> None:
    explanation = explain_pair(real([CAPTION]), image(REGIONS), CAPTION)
    for name, stream in explanation.streams.items():
        for level in stream.levels:
            assert len(level.node_weights) == (len(explanation.words) if name == "word_stream" else REGIONS)
            assert level.global_weight is not None
            assert sum(level.node_weights) + level.global_weight == pytest.approx(1, abs=1e-5)
            assert sum(map(sum, level.word_regions)) == pytest.approx(sum(level.node_weights), abs=1e-5)


def test_without_a_global_node_its_weight_is_none() -> None:
    explanation = explain_pair(real([CAPTION], global_node=False), image(REGIONS), CAPTION)
    level = explanation.streams["word_stream"].levels[0]
    assert level.global_weight is None
    assert sum(level.node_weights) == pytest.approx(1, abs=1e-5)


def test_an_explanation_names_words_boxes_and_scores() -> None:
    images = image(REGIONS)
    explanation = explain_pair(real([CAPTION]), images, CAPTION)
    assert explanation.words == tuple(CAPTION.split())
    assert explanation.regions == REGIONS
    assert images.boxes is not None
    assert explanation.boxes == tuple(tuple(box) for box in images.boxes[0].tolist())
    assert {"fused", "pooled", "word_stream", "region_stream", "level_0"} <= set(explanation.scores)


def test_padding_of_the_image_is_invisible() -> None:
    pairs = real([CAPTION])
    plain, padded = (explain_pair(pairs, image(REGIONS, padding=padding), CAPTION) for padding in (0, 3))
    assert padded.regions == plain.regions == REGIONS
    assert padded.boxes == plain.boxes
    for name, stream in plain.streams.items():
        assert flat(padded.streams[name].word_regions) == pytest.approx(flat(stream.word_regions), abs=1e-5)
        assert flat(padded.streams[name].relevance) == pytest.approx(flat(stream.relevance), abs=1e-5)
        for level, other in zip(stream.levels, padded.streams[name].levels, strict=True):
            assert other.contribution == pytest.approx(level.contribution, abs=1e-5)
            assert other.node_weights == pytest.approx(level.node_weights, abs=1e-5)
            assert flat(other.word_regions) == pytest.approx(flat(level.word_regions), abs=1e-5)


def flat(rows: tuple[tuple[float, ...], ...]) -> list[float]:
    return [weight for row in rows for weight in row]


@pytest.mark.parametrize("stream", ["word", "region"])
def test_a_network_of_one_stream_explains_that_stream(stream: str) -> None:
    explanation = explain_pair(real([CAPTION], streams=stream), image(REGIONS), CAPTION)
    assert list(explanation.streams) == [f"{stream}_stream"]


def test_one_word_and_one_region_are_enough() -> None:
    explanation = explain_pair(real(["square"]), image(1), "square")
    for stream in explanation.streams.values():
        assert stream.word_regions == ((pytest.approx(1.0),),)


def test_a_method_without_traces_still_has_scores() -> None:
    tokenizer = scripted([CAPTION], {}).tokenizer
    silent = retriever(TracelessMatcher(len(tokenizer), {}, {}), tokenizer)
    explanation = explain_pair(silent, image(REGIONS, boxes=False), CAPTION)
    assert explanation.streams == {}
    assert explanation.word_relevance == explanation.region_relevance == ()
    assert explanation.boxes is None
    assert set(explanation.scores) == {"fused", "pooled"}


def test_an_explanation_is_json_with_the_names_of_its_attributes() -> None:
    caption = 'two <b>men</b> "fishing" 漁'
    explanation = explain_pair(real([caption]), image(2), caption)
    values = json.loads(explanation.to_json())
    assert values["caption"] == caption
    assert values["words"] == list(explanation.words)
    stream = explanation.streams["region_stream"]
    assert values["streams"]["region_stream"]["word_regions"] == [list(row) for row in stream.word_regions]
    assert values["streams"]["region_stream"]["levels"][1]["contribution"] == stream.levels[1].contribution


def test_several_images_at_once_are_refused() -> None:
    one = image(REGIONS)
    two = ImageBatch(one.regions.repeat(2, 1, 1), one.mask.repeat(2, 1))
    with pytest.raises(InputError, match=r"of one image; got a batch of 2\. Explain them one by one"):
        explain_pair(real([CAPTION]), two, CAPTION)


def test_words_that_are_not_the_networks_tokens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = real([CAPTION])
    monkeypatch.setattr(pairs.tokenizer, "words", lambda caption: caption.split()[1:])
    with pytest.raises(InputError, match="has 7 words but 8 tokens; expected one each"):
        explain_pair(pairs, image(REGIONS), CAPTION)


def test_a_score_that_is_not_finite_is_refused() -> None:
    pairs = scripted([CAPTION], {}, {"red": math.nan})
    with pytest.raises(InputError, match=r"score 'fused' of caption .* is nan; expected a finite number"):
        explain_pair(pairs, image(REGIONS), CAPTION)
