"""Pointing game: known networks get known shares, ties lose, and truth that does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scripted import TracelessMatcher, real, retriever, scripted, write_split
from tshsr.data.truth import Truth
from tshsr.errors import DataError
from tshsr.explain import pointing_game
from tshsr.explain.attribution import explain_pair
from tshsr.explain.pointing_game import pointing_accuracy, pointing_chance

CAPTIONS = ["a red square", "a blue circle", "a red circle", "blue thing"]
IMAGES = [0, 0, 1, 1]
POINTS = {"red": 0, "blue": 1, "square": 2, "circle": 3}


def truth_of(regions: list[dict[int, tuple[int, ...]]]) -> Truth:
    return Truth(regions_of_word=tuple(regions), foils=())


def test_known_networks_have_pointing_accuracy_one_and_zero(tmp_path: Path) -> None:
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


def test_a_map_of_equal_weights_is_a_miss(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    truth = truth_of([{0: (0,)}, {}, {}, {}])  # the map of "a" is flat; an argmax would return region 0
    assert pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth)["word_stream"] == 0.0


def test_limit_takes_the_first_captions_only(tmp_path: Path) -> None:
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
    monkeypatch.setattr(pointing_game, "CHUNK", 4)
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


def test_a_method_without_traces_has_no_pointing_accuracy(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    pairs = scripted(CAPTIONS, POINTS)
    traceless = retriever(TracelessMatcher(len(pairs.tokenizer), {}, {}), pairs.tokenizer)
    assert pointing_accuracy(traceless, split, truth_of([{0: (0,)}, {}, {}, {}])) == {}


@pytest.mark.parametrize("regions", [{3: (0,)}, {1: (4,)}, {1: ()}, {-1: (0,)}])
def test_truth_of_another_split_is_refused(tmp_path: Path, regions: dict[int, tuple[int, ...]]) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match=r"expected a word below 3 and regions below 4\. Does the truth belong"):
        pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth_of([regions, {}, {}, {}]))


def test_truth_without_a_word_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match="none of 4 captions has a word with true regions"):
        pointing_accuracy(scripted(CAPTIONS, POINTS), split, truth_of([{}] * 4))
