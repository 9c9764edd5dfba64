"""Flickr30K Entities: boxes of phrases become true regions of words, and damaged annotation is refused."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.scripted import scripted, write_split
from tshsr.boxes import intersection_over_union
from tshsr.data.dataset import Split
from tshsr.data.entities import find_entities, read_entities, read_phrase_boxes, read_sentences
from tshsr.data.regions import RegionFeatures
from tshsr.data.text import Tokenizer
from tshsr.errors import DataError
from tshsr.explain.pointing_game import pointing_accuracy

CAPTIONS = ["Two young guys with shaggy hair look at their hands.", "A man's T-shirt is red.", "No one wrote this."]
SENTENCES = (
    "[/EN#1/people Two young guys] with [/EN#2/bodyparts/other shaggy hair] look at [/EN#0/notvisual their hands] .",
    "[/EN#3/people A man] 's [/EN#4/clothing T-shirt] is red .",
)
BOXES = {"1": [(11, 21, 50, 100), (61, 21, 100, 100)], "3": [(1, 1, 100, 200)], "4": [(41, 101, 60, 200)]}
"""1-based pixels of a picture of 100 x 200."""
REGIONS = [[0.1, 0.1, 0.5, 0.5], [0.6, 0.1, 1.0, 0.45], [0.4, 0.5, 0.6, 1.0], [0.0, 0.0, 1.0, 1.0]]


def xml(boxes: dict[str, list[tuple[int, int, int, int]]]) -> str:
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for name, all_boxes in boxes.items()
        for x1, y1, x2, y2 in all_boxes
    )
    hair = "<object><name>2</name><nobndbox>1</nobndbox><scene>0</scene></object>"
    return f"<annotation><size><width>100</width><height>200</height></size>{objects}{hair}</annotation>"


def annotate(folder: Path, name: str, text: str | None = None) -> None:
    for part in ("Sentences", "Annotations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "Sentences" / f"{name}.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    (folder / "Annotations" / f"{name}.xml").write_text(xml(BOXES) if text is None else text, encoding="utf-8")


def split_with_boxes(folder: Path, *, ids: tuple[str, ...] = ("36979.jpg", "1.jpg")) -> Split:
    split = write_split(folder, [*CAPTIONS, "A man's T-shirt is red"], [0, 0, 0, 1])
    boxes = np.tile(np.array(REGIONS, np.float32), (2, 1, 1))
    return replace(split, regions=RegionFeatures.open(split.regions.source.path, boxes=boxes), image_ids=ids)


def words(text: str) -> list[str]:
    return Tokenizer.build(["a"], minimum_count=1).words(text)


def test_the_last_word_of_a_phrase_has_the_regions_that_overlap_one_of_its_boxes(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    truth = read_entities(tmp_path, split_with_boxes(tmp_path), words)
    assert truth is not None
    assert truth.foils == ()
    assert truth.regions_of_word[:2] == ({2: (0, 1)}, {1: (3,), 3: (2,)})
    assert [words(CAPTIONS[0])[2], words(CAPTIONS[1])[1], words(CAPTIONS[1])[3]] == ["guys", "man", "T-shirt"]


def test_captions_and_images_without_annotation_have_no_truth(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    truth = read_entities(tmp_path, split_with_boxes(tmp_path), words)
    assert truth is not None
    assert truth.regions_of_word[2:] == ({}, {})


def test_unnamed_pictures_are_matched_by_their_captions(tmp_path: Path) -> None:
    annotate(tmp_path / "flickr30k_entities", "36979")
    truth = read_entities(tmp_path, split_with_boxes(tmp_path, ids=("0", "1")), words)
    assert truth is not None
    assert truth.regions_of_word == ({2: (0, 1)}, {1: (3,), 3: (2,)}, {}, {1: (3,), 3: (2,)})


def test_a_region_that_is_padding_shows_nothing(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    split = split_with_boxes(tmp_path)
    mask = np.array([[True, False, True, True]] * 2)
    regions = RegionFeatures.open(split.regions.source.path, boxes=split.regions.boxes, mask=mask)
    truth = read_entities(tmp_path, replace(split, regions=regions), words)
    assert truth is not None
    assert truth.regions_of_word[0] == {2: (0,)}


def test_tokens_at_the_ends_of_captions_do_not_count(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    split = split_with_boxes(tmp_path)
    plain = read_entities(tmp_path, split, words)
    assert read_entities(tmp_path, split, lambda text: ["<start>", *words(text), "<end>"]) == plain


def test_the_truth_serves_the_pointing_game(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    split = split_with_boxes(tmp_path)
    network = scripted(list(split.captions), {"guys": 1, "man": 0, "t-shirt": 2})
    truth = read_entities(tmp_path, split, network.tokenizer.words)
    assert truth is not None
    assert pointing_accuracy(network, split, truth)["word_stream"] == pytest.approx(2 / 3)


def test_one_based_pixels_become_fractions(tmp_path: Path) -> None:
    annotate(tmp_path, "7")
    boxes = read_phrase_boxes(tmp_path, "7")
    assert set(boxes) == {"1", "3", "4"}
    assert boxes["3"].tolist() == [[0, 0, 1, 1]]
    np.testing.assert_allclose(boxes["1"], [[0.1, 0.1, 0.5, 0.5], [0.6, 0.1, 1.0, 0.5]])


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_only_a_line_feed_ends_a_sentence(tmp_path: Path, inside: str) -> None:
    annotate(tmp_path, "7")
    (tmp_path / "Sentences" / "7.txt").write_text(f"A man{inside}is tall .\nA dog .\n", encoding="utf-8")
    assert [sentence.key for sentence in read_sentences(tmp_path, "7")] == ["a man is tall", "a dog"]


def test_overlap_is_intersection_over_union() -> None:
    first = np.array([[0.0, 0.0, 0.5, 0.5], [0.2, 0.2, 0.2, 0.9]])
    second = np.array([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.6, 0.6, 1.0, 1.0], [0.2, 0.2, 0.2, 0.9]])
    found = intersection_over_union(first, second)
    np.testing.assert_allclose(found, [[1, 1 / 3, 0, 0], [0, 0, 0, 0]], atol=1e-12)


def test_data_without_annotation_has_no_truth(tmp_path: Path) -> None:
    (tmp_path / "Sentences").mkdir()
    assert find_entities(tmp_path) is None
    assert read_entities(tmp_path, split_with_boxes(tmp_path), words) is None


def test_the_annotation_lies_beside_a_data_file_too(tmp_path: Path) -> None:
    annotate(tmp_path / "Flickr30kEntities", "36979")
    (tmp_path / "dataset.json").touch()
    assert find_entities(tmp_path / "dataset.json") == tmp_path / "Flickr30kEntities"


def test_regions_without_boxes_leave_the_annotation_unused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotate(tmp_path, "36979")
    with caplog.at_level(logging.WARNING):
        assert read_entities(tmp_path, write_split(tmp_path, CAPTIONS, [0, 0, 0]), words) is None
    assert "is not used: the regions of made up have no boxes to compare it with" in caplog.text


def test_annotation_of_other_pictures_is_refused(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    split = replace(split_with_boxes(tmp_path, ids=("0", "1")), captions=("x", "y", "z", "w"))
    with pytest.raises(DataError, match="annotates no image of made up, split test: neither an image id nor a caption"):
        read_entities(tmp_path, split, words)


@pytest.mark.parametrize("text", ["<annotation>", "<annotation/>", xml({"1": [(1, 1, 5, 5)]}).replace(">5<", ">x<", 1)])
def test_a_damaged_annotation_is_refused(tmp_path: Path, text: str) -> None:
    annotate(tmp_path, "36979", text)
    with pytest.raises(DataError, match=r"36979\.xml is no annotation of Flickr30K Entities \(.*Copy the annotation"):
        read_entities(tmp_path, split_with_boxes(tmp_path), words)


def test_a_missing_annotation_is_refused(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    (tmp_path / "Annotations" / "36979.xml").unlink()
    with pytest.raises(DataError, match=r"36979\.xml is no annotation of Flickr30K Entities \(.*No such file"):
        read_entities(tmp_path, split_with_boxes(tmp_path), words)


def test_sentences_that_are_no_text_are_refused(tmp_path: Path) -> None:
    annotate(tmp_path, "36979")
    (tmp_path / "Sentences" / "36979.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"36979\.txt cannot be read .*; copy the annotation again"):
        read_entities(tmp_path, split_with_boxes(tmp_path), words)
