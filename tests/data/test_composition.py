"""Annotation of SugarCrepe, ARO and Winoground, in their public layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.composition import write_aro, write_sugarcrepe, write_winoground
from tests.support.small_runs import small_split
from tshsr.data.composition import CompositionCase, PictureRef, foil_cases, layout_of, read_composition
from tshsr.data.truth import Foil, Truth
from tshsr.errors import DataError


def test_sugarcrepe_is_read_by_kind(tmp_path: Path) -> None:
    write_sugarcrepe(tmp_path)
    assert layout_of(tmp_path) == layout_of(tmp_path / "swap_att.json") == "sugarcrepe"
    cases = read_composition(tmp_path)
    assert [case.kind for case in cases] == ["add_obj", "swap_att", "swap_att"]
    assert cases[1] == CompositionCase(
        "swap_att", "swap_att", (PictureRef("a.png"),), ("a red dog and a blue ball", "a blue dog and a red ball")
    )
    assert len(read_composition(tmp_path / "add_obj.json")) == 1


def test_aro_is_cut_to_the_box_and_grouped_by_relation(tmp_path: Path) -> None:
    write_aro(tmp_path)
    assert layout_of(tmp_path) == "aro"
    relation, attribution = read_composition(tmp_path)
    assert relation.pictures == (PictureRef("a.png", (1.0, 2.0, 5.0, 5.0)),)
    assert (relation.kind, relation.detail) == ("relation", "on")
    assert relation.captions == ("the dog is on the ball", "the ball is on the dog")
    assert (attribution.kind, attribution.detail) == ("attribution", "blue and red")


def test_winoground_has_two_pictures_a_case(tmp_path: Path) -> None:
    write_winoground(tmp_path)
    assert layout_of(tmp_path) == "winoground"
    examples = tmp_path / "examples.jsonl"
    entry = json.loads(examples.read_text()) | {"caption_0": "one\u2028line"}
    examples.write_text(json.dumps(entry, ensure_ascii=False), encoding="utf-8")
    (case,) = read_composition(tmp_path)
    assert case.captions[0] == "one\u2028line"
    assert case.pictures == (PictureRef("a"), PictureRef("b"))
    assert case.kind == "Object"


def test_false_captions_of_scenes_are_cases(tmp_path: Path) -> None:
    split = small_split(tmp_path, "test", 3)
    cases = foil_cases(split, Truth((), (Foil(1, 2, "a green dog here", "attribute"),)))
    assert cases == [
        CompositionCase("attribute", "attribute", (PictureRef("1.jpg"),), (split.captions[2], "a green dog here"))
    ]
    with pytest.raises(DataError, match="small, split test has no false captions; generate the scenes again"):
        foil_cases(split, Truth((), ()))
    with pytest.raises(DataError, match=r"split test has 3 images and .*, a false caption is of image 3 and caption 0"):
        foil_cases(split, Truth((), (Foil(3, 0, "a green dog", "attribute"),)))


def test_what_is_no_annotation_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing does not exist; name the annotation of SugarCrepe, ARO or Winoground"):
        layout_of(tmp_path / "nothing")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"has the files other\.json; expected add_\*\.json, replace_\*\.json or swap_"):
        layout_of(tmp_path)
    broken = tmp_path / "swap_obj.json"
    for text, said in (
        ("{", "cannot be read"),
        ("3", "holds a int; expected a list or an object of entries"),
        ("{}", "has no case of sugarcrepe; copy its annotation again"),
        (json.dumps({"0": {"filename": "a.jpg", "caption": "a"}}), "entry 0: negative_caption: Field required"),
    ):
        broken.write_text(text)
        with pytest.raises(DataError) as caught:
            read_composition(broken, "sugarcrepe")
        assert said in str(caught.value)
    (tmp_path / "examples.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"examples\.jsonl cannot be read"):
        read_composition(tmp_path / "examples.jsonl")


def test_a_box_without_an_area_is_refused(tmp_path: Path) -> None:
    write_aro(tmp_path)
    path = tmp_path / "visual_genome_relation.json"
    (entry,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**entry, "bbox_w": 0}]))
    with pytest.raises(DataError, match="entry 0: bbox_w: Input should be greater than 0"):
        read_composition(tmp_path)
    assert np.isfinite(entry["bbox_h"])
