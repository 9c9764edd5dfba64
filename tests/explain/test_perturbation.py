"""Pairs without some regions or words: scores equal those of smaller pictures and shorter captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.scripted import real, write_split
from tshsr.data.batches import ImageBatch
from tshsr.data.dataset import Split
from tshsr.data.regions import RegionFeatures
from tshsr.data.text import Tokenizer
from tshsr.explain import perturbation as perturbation
from tshsr.explain.perturbation import Pairs

CAPTIONS = ["a red square", "a small blue circle near it", "two red circles", "square"]


def padded(split: Split) -> Split:
    """The same with boxes, and with two regions less in image 1."""
    mask = np.ones((len(split.regions), split.regions.regions), np.bool_)
    mask[1, 1:3] = False
    boxes = np.tile(np.array([0.1, 0.2, 0.5, 0.9], np.float32), (*mask.shape, 1))
    regions = RegionFeatures(split.regions.source, split.regions.rows, boxes, mask)
    object.__setattr__(split, "regions", regions)
    return split


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    split = padded(write_split(tmp_path, CAPTIONS, [0, 0, 1, 1], regions=5))
    return Pairs.read(real(CAPTIONS), split, np.arange(4), score="fused")


def test_regions_are_left_out_as_if_the_detector_had_not_found_them(pairs: Pairs) -> None:
    left = [dice_masks(len(pairs.regions_of(pair)), pair) for pair in range(4)]
    assert [masks.shape[1] for masks in left] == [5, 5, 3, 3]
    for pair, scores in enumerate(pairs.with_regions(left)):
        for mask, score in zip(left[pair], scores, strict=True):
            rows = pairs.regions_of(pair)[mask]
            picture = ImageBatch(pairs.batch.regions[pair : pair + 1, rows], torch.ones(1, len(rows), dtype=torch.bool))
            assert score == pytest.approx(pairs.retriever.score_pair(picture, CAPTIONS[pair])["fused"], abs=1e-6)


def test_words_are_left_out_as_if_they_had_never_been_written(pairs: Pairs) -> None:
    left = [dice_masks(len(pairs.words_of(pair)), pair) for pair in range(4)]
    for pair, scores in enumerate(pairs.with_words(left)):
        for mask, score in zip(left[pair], scores, strict=True):
            text = " ".join(np.array(CAPTIONS[pair].split())[mask])
            expected = pairs.retriever.score_pair(pairs.images[pair : pair + 1], text)["fused"]
            assert score == pytest.approx(expected, abs=1e-6)


def dice_masks(items: int, seed: int) -> np.ndarray:
    masks = np.random.default_rng(seed).random((6, items)) < 0.5
    masks[masks.sum(axis=1) == 0, 0] = True
    masks[0] = True
    return masks


def test_equal_variants_are_scored_once_and_blocks_change_nothing(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [dice_masks(len(pairs.words_of(pair)), pair) for pair in range(4)]
    whole = pairs.with_words(left)
    calls = []
    monkeypatch.setattr(perturbation, "ROWS", 2)
    monkeypatch.setattr(Pairs, "_score_texts", recorded(Pairs._score_texts, calls))
    for once, blockwise in zip(whole, pairs.with_words(left), strict=True):
        np.testing.assert_allclose(blockwise, once, atol=1e-6)
    assert max(map(len, calls)) == 2
    assert sum(map(len, calls)) == sum(len(np.unique(masks, axis=0)) for masks in left) < sum(map(len, left))
    lengths = [mask.sum() for variants in calls for _, mask in variants]
    assert lengths == sorted(lengths)


def recorded(function, calls):
    def record(self, variants):
        calls.append(variants)
        return function(self, variants)

    return record


def test_the_tokens_at_the_ends_of_a_caption_stay(tmp_path: Path) -> None:
    words = ["<pad>", "<start>", "<end>", "<unk>", "red", "square"]
    (tmp_path / "words.json").write_text(json.dumps({"word2idx": {word: n for n, word in enumerate(words)}}))
    network = real(["red square a b"])
    network.tokenizer = Tokenizer.from_file(tmp_path / "words.json", boundaries=True)
    pairs = Pairs.read(network, write_split(tmp_path, ["red square"], [0]), np.arange(1), score="fused")
    assert pairs.words_of(0).tolist() == [1, 2]
    (scores,) = pairs.with_words([np.array([[True, False], [False, True]])])
    for word, score in zip(("red", "square"), scores, strict=True):
        expected = network.score_pair(pairs.images, word)["fused"]
        assert score == pytest.approx(expected, abs=1e-6)
