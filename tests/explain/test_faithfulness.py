"""Faithfulness of explanations: networks with known attributions, and figures that add up."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.scripted import ScriptedMatcher, TracelessMatcher, real, retriever, scripted, write_split
from tshsr.data.truth import Truth
from tshsr.errors import SettingsError
from tshsr.explain import faithfulness
from tshsr.explain.attribution import explain_pair
from tshsr.explain.faithfulness import choose_pairs, measure, measure_explanations, traced_rankings
from tshsr.explain.perturbation import Pairs
from tshsr.metrics.report import ExplanationFigures
from tshsr.models.base import ItemEncoding, Scores, StreamTrace
from tshsr.retriever import Retriever

CAPTIONS = ["a red square", "a small blue circle near it", "two red circles", "blue things", "a star in a ring"]
IMAGES = [0, 1, 2, 3, 4]
STREAMS = ("word_stream", "region_stream")


class SumMatcher(ScriptedMatcher):
    """score = sum_r f_r + sum_w value_w, f_r the first feature: what each item adds is known, and so is its trace."""

    sign = 1.0

    def score_pairs(self, images: ItemEncoding, captions: ItemEncoding) -> Scores:
        return {"fused": self.of_regions(images).sum(dim=-1) + self.of_words(captions).sum(dim=-1)}

    def of_regions(self, images: ItemEncoding) -> Tensor:
        return images.items[..., 0].abs() * images.mask

    def of_words(self, captions: ItemEncoding) -> Tensor:
        return captions.items @ torch.tensor([self.values.get(token, 0.0) for token in range(self.tokens)])

    def trace(self, images: ItemEncoding, captions: ItemEncoding) -> dict[str, StreamTrace]:
        traces = super().trace(images, captions)
        met = self.of_regions(images)[:, None, :] / captions.mask.sum(dim=1)[:, None, None] * captions.mask[..., None]
        met = met + self.of_words(captions)[..., None] / images.mask.sum(dim=1)[:, None, None] * images.mask[:, None]
        return {
            "word_stream": replace(traces["word_stream"], pooled_terms=self.sign * met),
            "region_stream": replace(traces["region_stream"], pooled_terms=self.sign * met.mT),
        }


def adding(sign: float = 1.0) -> Retriever:
    pairs = scripted(CAPTIONS, {"a": 0, "red": 1}, {"red": 3.0, "blue": 2.0, "circle": 1.0, "square": 0.5, "ring": 1.5})
    matcher = SumMatcher(pairs.matcher.tokens, pairs.matcher.points, pairs.matcher.values)
    matcher.sign = sign
    return retriever(matcher, pairs.tokenizer)


def test_exact_terms_rank_items_as_well_as_leave_one_out(tmp_path: Path) -> None:
    figures = measure_explanations(adding(), write_split(tmp_path, CAPTIONS, IMAGES, regions=14))
    for side in (figures.regions, figures.words):
        deletion, insertion = side.deletion.areas, side.insertion.areas
        assert deletion["relevance"].mean == pytest.approx(deletion["leave_one_out"].mean, abs=1e-6)
        assert deletion["relevance"].mean < deletion["random"].mean < insertion["relevance"].mean
        assert insertion["relevance"].mean == pytest.approx(insertion["leave_one_out"].mean, abs=1e-6)
        assert deletion["relevance"].mean < deletion["attention"].mean
        (best,) = (each for each in side.deletion.differences if each.b == "random")
        assert best.a == "relevance"
        assert best.mean < 0


def test_an_inverted_explanation_is_worse_than_chance(tmp_path: Path) -> None:
    figures = measure_explanations(adding(-1.0), write_split(tmp_path, CAPTIONS, IMAGES, regions=14))
    for side in (figures.regions, figures.words):
        assert side.deletion.areas["relevance"].mean > side.deletion.areas["random"].mean
        assert side.insertion.areas["relevance"].mean < side.insertion.areas["random"].mean


def test_areas_equal_a_loop_over_single_pairs(tmp_path: Path) -> None:
    split, network = write_split(tmp_path, CAPTIONS, IMAGES), real(CAPTIONS)
    figures = measure_explanations(network, split)
    whole, regions, words = 0.0, 0.0, 0.0
    for number, caption in enumerate(CAPTIONS):
        picture = split.regions.read([number])
        explanation = explain_pair(network, picture, caption)
        whole += explanation.scores["fused"]
        order = np.argsort(-np.array(explanation.region_relevance))
        curve = [score_of(network, picture.regions[:, np.sort(order[gone:])], caption) for gone in range(4)]
        regions += sum((a + b) / 2 for a, b in pairwise(curve)) / 3
        order = np.argsort(-np.array(explanation.word_relevance))
        texts = [" ".join(np.array(caption.split())[np.sort(order[gone:])]) for gone in range(len(order))]
        curve = [score_of(network, picture.regions, text) for text in texts]
        words += sum((a + b) / 2 for a, b in pairwise(curve)) / (len(curve) - 1)
    assert figures.full_score == pytest.approx(whole / len(CAPTIONS), abs=1e-6)
    assert figures.regions.deletion.areas["relevance"].mean == pytest.approx(regions / whole, abs=1e-5)
    assert figures.words.deletion.areas["relevance"].mean == pytest.approx(words / whole, abs=1e-5)


def score_of(network: Retriever, regions: Tensor, caption: str) -> float:
    return network.score_pair(regions.numpy(), caption)["fused"]


@pytest.mark.parametrize("stream", ["word", "region"])
def test_a_single_stream_ranks_its_context_by_attention(tmp_path: Path, stream: str) -> None:
    figures = measure_explanations(real(CAPTIONS, streams=stream), write_split(tmp_path, CAPTIONS, IMAGES))
    everything = {"relevance", "attention", "leave_one_out", "random"}
    looked_at, other = (figures.regions, figures.words) if stream == "word" else (figures.words, figures.regions)
    assert set(looked_at.deletion.areas) == everything
    assert set(other.insertion.areas) == everything - {"attention"}
    assert list(figures.level_shares) == [f"{stream}_stream"]
    assert figures.agreement is None


def test_attention_of_padding_ranks_nothing(tmp_path: Path) -> None:
    network, split = real(CAPTIONS), write_split(tmp_path, CAPTIONS, IMAGES)
    rankings = []
    for rows in (IMAGES, *([number] for number in IMAGES)):
        pairs = Pairs.read(network, split, np.array(rows), score="fused")
        rankings.append(traced_rankings(pairs, network.trace(pairs.images, pairs.texts)))
    together, *alone = rankings
    for side in ("regions", "words"):
        for number, each in enumerate(alone):
            np.testing.assert_allclose(together[side]["attention"][number], each[side]["attention"][0], rtol=1e-4)


def test_chance_is_the_mean_over_random_orders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbered(_: object, rankings: list, __: object) -> np.ndarray:
        return np.tile(np.arange(len(rankings), dtype=float)[None, :, None], (len(IMAGES), 1, 2))

    monkeypatch.setattr(faithfulness, "areas_of", numbered)
    network, split = real(CAPTIONS), write_split(tmp_path, CAPTIONS, IMAGES)
    pairs = Pairs.read(network, split, np.array(IMAGES), score="fused")
    areas = measure(pairs, np.random.default_rng(0)).areas
    for number, name in enumerate(("relevance", "attention", "leave_one_out")):
        assert (areas["words", "insertion", name] == number).all()
    assert (areas["regions", "deletion", "random"] == np.mean([3, 4, 5])).all()


def test_without_a_trace_leaving_one_out_is_compared_with_chance(tmp_path: Path) -> None:
    network = adding()
    silent = SilentMatcher(network.matcher.tokens, {}, network.matcher.values)
    figures = measure_explanations(retriever(silent, network.tokenizer), write_split(tmp_path, CAPTIONS, IMAGES))
    assert list(figures.regions.deletion.areas) == ["leave_one_out", "random"]
    (difference,) = figures.words.deletion.differences
    assert (difference.a, difference.b) == ("leave_one_out", "random")
    assert figures.level_shares == {}
    assert figures.agreement is None


class SilentMatcher(SumMatcher):
    """The same without a trace."""

    trace = TracelessMatcher.trace


def test_shares_of_levels_are_absolute_and_sum_to_one(tmp_path: Path) -> None:
    split, network = write_split(tmp_path, CAPTIONS, IMAGES), real(CAPTIONS)
    figures = measure_explanations(network, split)
    for name in STREAMS:
        expected: dict[str, float] = {}
        for number, caption in enumerate(CAPTIONS):
            stream = explain_pair(network, split.regions.read([number]), caption).streams[name]
            parts = {f"level_{n}": abs(level.contribution) for n, level in enumerate(stream.levels)}
            parts["pooled"] = abs(stream.pooled)
            for part, value in parts.items():
                expected[part] = expected.get(part, 0.0) + value / sum(parts.values()) / len(CAPTIONS)
        assert figures.level_shares[name] == pytest.approx(expected, abs=1e-5)
        assert sum(figures.level_shares[name].values()) == pytest.approx(1)


def test_agreement_is_what_both_maps_of_a_word_have_in_common(tmp_path: Path) -> None:
    split = write_split(tmp_path, ["a red", "red a"], [0, 1], regions=5)
    figures = measure_explanations(scripted(["a red"], {"red": 2}, {"red": 1.0}), split)
    # Attention of "red" is 5 : 1 on region 2, of "a" uniform; of region 2 it is 5 : 1 on "red", of the others 1 : 1.
    red, a = 4 / 9 + (5 / 6) / (4 / 2 + 5 / 6), 4 / 5 + (1 / 6) / (4 / 2 + 1 / 6)
    assert figures.agreement == pytest.approx((red + a) / 2)
    moved = 4 / 9 + (1 / 2) / (4 / 2 + 5 / 6)  # where shuffling takes region 2 to another place
    shuffled = [(first + second + 2 * a) / 4 for first, second in ((red, red), (red, moved), (moved, moved))]
    assert figures.agreement_by_chance in [pytest.approx(value) for value in shuffled]


def test_pointing_is_of_the_chosen_pairs_and_counts_their_words(tmp_path: Path) -> None:
    captions = ["a red square", "a blue circle", "a red circle"]
    split = write_split(tmp_path, captions, [0, 1, 2])
    network = scripted(captions, {"red": 0, "blue": 1, "square": 2, "circle": 3}, {"red": 1.0})
    truth = Truth(({1: (0,), 2: (2,)}, {1: (0,)}, {1: (0,), 2: (0,)}), ())
    figures = measure_explanations(network, split, truth=truth)
    assert figures.pointing == figures.pointing_by_attention == dict.fromkeys(STREAMS, 3 / 5)
    assert figures.pointing_by_chance == pytest.approx(1 / 4)
    assert figures.pointing_words == 5
    without = measure_explanations(network, split, truth=Truth(({}, {}, {}), ()))
    assert without.pointing is without.pointing_by_chance is None


def test_words_of_a_cut_caption_do_not_count_in_pointing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a red square", "a red circle"]
    split = write_split(tmp_path, captions, [0, 1])
    network = scripted(captions, {"red": 0}, {"red": 1.0})
    words = network.tokenizer.nodes_of_words
    monkeypatch.setattr(network.tokenizer, "nodes_of_words", lambda caption: [*words(caption)[:-1], -1])
    figures = measure_explanations(network, split, truth=Truth(({1: (0,), 2: (1, 2)}, {1: (0,)}), ()))
    assert (figures.pointing, figures.pointing_words) == (dict.fromkeys(STREAMS, 1.0), 2)
    assert figures.pointing_by_chance == pytest.approx(1 / 4)
    none = measure_explanations(network, split, truth=Truth(({2: (0,)}, {2: (0,)}), ()))
    assert none.pointing is none.pointing_by_chance is none.pointing_words is None


def test_pairs_are_of_different_images_and_chosen_by_the_seed(tmp_path: Path) -> None:
    split = write_split(tmp_path, ["red"] * 60, [number // 5 for number in range(60)])
    for seed in range(3):
        chosen = choose_pairs(split, 7, seed)
        assert len(set(split.image_of_caption[chosen])) == 7
        assert chosen.tolist() == choose_pairs(split, 7, seed).tolist()
    assert len(choose_pairs(split, 500, 0)) == 12
    assert choose_pairs(split, 7, 0).tolist() != choose_pairs(split, 7, 1).tolist()
    with pytest.raises(SettingsError, match="on 0 pairs; expected at least 1"):
        choose_pairs(split, 0, 0)


def test_the_same_seed_gives_the_same_figures_and_progress_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, network = write_split(tmp_path, CAPTIONS, IMAGES), real(CAPTIONS)
    monkeypatch.setattr(faithfulness, "CHUNK", 2)
    reported: list[tuple[int, int]] = []
    first = measure_explanations(network, split, pairs=3, seed=1, progress=lambda *done: reported.append(done))
    assert reported == [(2, 3), (3, 3)]
    assert first.pairs == 3
    assert without_seconds(first) == without_seconds(measure_explanations(network, split, pairs=3, seed=1))
    assert without_seconds(first) != without_seconds(measure_explanations(network, split, pairs=3, seed=2))


def without_seconds(figures: ExplanationFigures) -> dict[str, object]:
    return asdict(replace(figures, seconds=0.0))
