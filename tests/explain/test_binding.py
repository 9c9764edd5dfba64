"""Binding: known networks get known shares, ties lose, and truth without foils is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.scripted import real, scripted, write_split
from tshsr.data.truth import Foil, Truth
from tshsr.errors import DataError
from tshsr.explain import pointing_game
from tshsr.explain.binding import foils_beaten, pointing_and_binding
from tshsr.metrics.report import Report

CAPTIONS = ["a red square", "a blue circle", "a red circle", "blue thing"]
IMAGES = [0, 0, 1, 1]


def with_foils(*foils: Foil) -> Truth:
    return Truth(regions_of_word=({},) * 4, foils=foils)


def test_binding_counts_foils_that_score_strictly_lower(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    foils = (
        Foil(0, 0, "a blue square", "colour"),  # 2 > 1: wins
        Foil(0, 0, "square a red", "order"),  # 2 = 2: a tie, which is lost
        Foil(0, 1, "a red circle", "colour"),  # 1 < 2: lost
        Foil(1, 2, "a blue circle", "colour"),  # 2 > 1: wins
    )
    pairs = scripted(CAPTIONS, {}, {"red": 2.0, "blue": 1.0})
    won = foils_beaten(pairs, split, with_foils(*foils))
    assert {name: each.tolist() for name, each in won.items()} == {
        "fused": [True, False, False, True],
        "pooled": [False] * 4,
    }


def test_a_report_has_binding_by_score_and_by_kind(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    foils = (
        Foil(0, 0, "a blue square", "attribute"),  # wins
        Foil(0, 1, "a red circle", "attribute"),  # lost
        Foil(1, 2, "a blue circle", "relation"),  # wins
    )
    truth = replace(with_foils(*foils), regions_of_word=({0: (0,)}, {}, {}, {}))
    found = pointing_and_binding(scripted(CAPTIONS, {}, {"red": 2.0, "blue": 1.0}), split, truth)
    report = Report("scenes", "test", "flickr", 2, 4, ("x",), {}, "one machine", "abc", 1.0, **vars(found))
    assert report.binding == {"fused": 2 / 3, "pooled": 0.0}
    assert report.binding_by_kind == {"attribute": 0.5, "relation": 1.0}
    assert '"binding_by_kind": {\n    "attribute": 0.5,' in report.to_json()


def test_a_score_that_is_not_finite_loses(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    pairs = scripted(CAPTIONS, {}, {"red": math.nan})
    foils = (Foil(0, 0, "a blue square", "colour"),)
    assert foils_beaten(pairs, split, with_foils(*foils))["fused"].tolist() == [False]


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
    monkeypatch.setattr(pointing_game, "CHUNK", 3)
    found = foils_beaten(pairs, split, with_foils(*foils))
    assert {name: int(won.sum()) for name, won in found.items()} == wins
    assert set(found) >= {"fused", "word_stream", "region_stream", "pooled", "level_0"}


def test_a_split_without_foils_is_refused(tmp_path: Path) -> None:
    split = write_split(tmp_path, CAPTIONS, IMAGES)
    with pytest.raises(DataError, match="the truth has no foils; binding needs at least one"):
        foils_beaten(scripted(CAPTIONS, {}), split, with_foils())
