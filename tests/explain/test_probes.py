"""Pointing and binding: known networks get known shares, ties lose, and truth that does not fit is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.support.scripted import TracelessMatcher, real, retriever, scripted, write_split
from tshsr.data.truth import Foil, Truth
from tshsr.errors import DataError
from tshsr.explain import probes
from tshsr.explain.attribution import explain_pair
from tshsr.explain.probes import foils_beaten, measure_probes, pointing_accuracy, pointing_chance
from tshsr.metrics.report import Report

CAPTIONS = ["a red square", "a blue circle", "a red circle", "blue thing"]
IMAGES = [0, 0, 1, 1]
POINTS = {"red": 0, "blue": 1, "square": 2, "circle": 3}


def truth_of(regions: list[dict[int, tuple[int, ...]]], foils: tuple[Foil, ...] = ()) -> Truth:
    return Truth(regions_of_word=tuple(regions), foils=foils)


def test_a_network_that_points_right_gets_one_and_one_that_never_does_gets_zero(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    right = truth_of([{1: (0,), 2: (2,)}, {1: (1, 2), 2: (3,)}, {}, {0: (1,)}])
    wrong = truth_of([{1: (1,), 2: (3,)}, {1: (2, 3)}, {}, {0: (0,)}])
    pairs = scripted(CAPTIONS, POINTS)
    assert pointing_accuracy(pairs, split, right) == {"word_stream": 1.0, "region_stream": 1.0}
    assert pointing_accuracy(pairs, split, wrong) == {"word_stream": 0.0, "region_stream": 0.0}


def test_pointing_is_the_share_of_words_and_not_of_captions(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    truth = truth_of([{1: (0,), 2: (2,)}, {2: (0,)}, {}, {}])
    assert pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth)["word_stream"] == pytest.approx(2 / 3)


def test_a_word_that_looks_everywhere_alike_is_a_miss(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    truth = truth_of([{0: (0,)}, {}, {}, {}])  # "a" points nowhere; region 0 is where an argmax would look first
    assert pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth)["word_stream"] == 0.0


def test_limit_looks_at_the_first_captions_only(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    truth = truth_of([{1: (0,)}, {1: (0,)}, {1: (3,)}, {}])
    pairs = scripted(CAPTIONS, POINTS)
    assert pointing_accuracy(pairs, split, truth, limit=1)["word_stream"] == 1.0
    assert pointing_accuracy(pairs, split, truth, limit=2)["word_stream"] == 0.5


def test_pointing_equals_a_loop_over_single_explanations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a red square", "a small blue circle near it", "two red circles", "blue things", "a star in a ring"] * 3
    image_of_caption = [number // 3 for number in range(15)]
    split = write_split(tmp_path, captions, image_of_caption, regions=5)
    truth = truth_of([{0: (n % 5,), len(caption.split()) - 1: (0, n % 4)} for n, caption in enumerate(captions)])
    pairs = real(captions)
    hits = {"word_stream": 0, "region_stream": 0}
    for number, caption in enumerate(captions):
        explanation = explain_pair(pairs, split.regions.read([image_of_caption[number]]), caption)
        for name, stream in explanation.streams.items():
            for word, regions in truth.regions_of_word[number].items():
                row = stream.word_regions[word]
                hits[name] += row.index(max(row)) in regions
    total = sum(map(len, truth.regions_of_word))
    monkeypatch.setattr(probes, "CHUNK", 4)
    assert pointing_accuracy(pairs, split, truth) == {name: count / total for name, count in hits.items()}


def test_pairs_are_traced_in_chunks_and_an_image_is_encoded_once_in_each(tmp_path: Path) -> None:
    split = write_split(tmp_path, ["red"] * 300, [number // 5 for number in range(300)])
    pairs = scripted(["red"], {"red": 1})
    pointing_accuracy(pairs, split, truth_of([{0: (1,)}] * 300))
    assert pairs.matcher.traced == [128, 128, 44]
    assert pairs.matcher.encoded == [26, 27, 9]  # 5 captions an image; the images of chunk borders come twice


def test_start_and_end_tokens_do_not_shift_the_words(tmp_path: Path) -> None:
    listing = '{"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 3, "a": 4, "red": 5, "square": 6}}'
    (tmp_path / "words.json").write_text(listing)
    pairs = scripted(CAPTIONS, {})
    pairs.tokenizer = pairs.tokenizer.from_file(tmp_path / "words.json", boundaries=True)
    pairs.matcher = type(pairs.matcher)(7, {5: 0, 6: 2}, {})
    split = write_split(tmp_path, ["a red square"], [0])
    assert pointing_accuracy(pairs, split, truth_of([{1: (0,), 2: (2,)}]))["word_stream"] == 1.0


def test_chance_is_the_mean_share_of_true_regions(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    truth = truth_of([{1: (0,), 2: (2, 3)}, {}, {0: (0, 1, 2, 3)}, {}])
    assert pointing_chance(split, truth) == pytest.approx((0.25 + 0.5 + 1.0) / 3)


def test_a_method_without_a_trace_points_nowhere(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    pairs = scripted(CAPTIONS, POINTS)
    silent = retriever(TracelessMatcher(len(pairs.tokenizer), {}, {}), pairs.tokenizer)
    assert pointing_accuracy(silent, split, truth_of([{0: (0,)}, {}, {}, {}])) == {}


@pytest.mark.parametrize("regions", [{3: (0,)}, {1: (4,)}, {1: ()}, {-1: (0,)}])
def test_truth_of_another_split_is_refused(tmp_path: Path, regions: dict[int, tuple[int, ...]]) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match=r"expected a word below 3 and regions below 4\. Does the truth belong"):
        pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth_of([regions, {}, {}, {}]))


def test_truth_without_a_word_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match="none of 4 captions has a word with true regions"):
        pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth_of([{}] * 4))


def test_binding_counts_foils_that_score_strictly_lower(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    foils = (
        Foil(0, 0, "a blue square", "colour"),  # 2 > 1: wins
        Foil(0, 0, "square a red", "order"),  # 2 = 2: a tie, which is lost
        Foil(0, 1, "a red circle", "colour"),  # 1 < 2: lost
        Foil(1, 2, "a blue circle", "colour"),  # 2 > 1: wins
    )
    pairs = scripted(CAPTIONS, {}, {"red": 2.0, "blue": 1.0})
    won = foils_beaten(pairs, split, truth_of([{}] * 4, foils))
    assert {name: each.tolist() for name, each in won.items()} == {
        "fused": [True, False, False, True],
        "pooled": [False] * 4,
    }


def test_a_report_tells_binding_by_score_and_by_kind(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    foils = (
        Foil(0, 0, "a blue square", "attribute"),  # wins
        Foil(0, 1, "a red circle", "attribute"),  # lost
        Foil(1, 2, "a blue circle", "relation"),  # wins
    )
    truth = truth_of([{0: (0,)}, {}, {}, {}], foils)
    probes = measure_probes(scripted(CAPTIONS, {}, {"red": 2.0, "blue": 1.0}), split, truth)
    report = Report("scenes", "test", "flickr", 2, 4, ("x",), {}, "one machine", "abc", 1.0, **vars(probes))
    assert report.binding == {"fused": 2 / 3, "pooled": 0.0}
    assert report.binding_by_kind == {"attribute": 0.5, "relation": 1.0}
    assert '"binding_by_kind": {\n    "attribute": 0.5,' in report.to_json()


def test_a_score_that_is_not_finite_loses(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    pairs = scripted(CAPTIONS, {}, {"red": math.nan})
    foils = (Foil(0, 0, "a blue square", "colour"),)
    assert foils_beaten(pairs, split, truth_of([{}] * 4, foils))["fused"].tolist() == [False]


def test_binding_equals_scoring_pair_by_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["a red square left of a blue circle", "two red circles", "a blue star in a ring", "red"]
    split = write_split(tmp_path, captions, [0, 0, 1, 2])
    texts = ("a blue square left of a red circle", "two blue circles", "a red star in a ring", "blue red")
    foils = tuple(Foil(image, n, text, "colour") for image, n, text in zip([0, 0, 1, 2], range(4), texts, strict=True))
    pairs = real([*captions, *texts])
    wins: dict[str, int] = {}
    with torch.inference_mode():
        for foil in foils:
            images = pairs.encode_images(split.regions.read([foil.image]))
            true = pairs.matcher.score_pairs(images, pairs.encode_captions([captions[foil.caption]]))
            false = pairs.matcher.score_pairs(images, pairs.encode_captions([foil.text]))
            for name in true:
                wins[name] = wins.get(name, 0) + int(true[name] > false[name])
    monkeypatch.setattr(probes, "CHUNK", 3)
    found = foils_beaten(pairs, split, truth_of([{}] * 4, foils))
    assert {name: int(won.sum()) for name, won in found.items()} == wins
    assert set(found) >= {"fused", "word_stream", "region_stream", "pooled", "level_0"}


def test_a_split_without_foils_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match="the truth has no foils; binding needs at least one"):
        foils_beaten(scripted(CAPTIONS, {}), split, truth_of([{}] * 4))
