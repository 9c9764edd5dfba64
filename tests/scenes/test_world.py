"""Scenes and their pictures: consistency, twins, drawing."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest

from tshsr.scenes.drawing import PAINT, PATTERN_WHITE, draw_scene
from tshsr.scenes.world import (
    COLOURS,
    MOST_OVERLAP,
    SHAPES,
    SIDE,
    SWAPPED_FIELDS,
    TEXTURES,
    Background,
    Scene,
    Thing,
    is_consistent,
    overlap,
    sample_scene,
    swap,
    tight_box,
    twins,
    unit_outline,
)

PLAIN = Background("plain", (200, 205, 210), (200, 205, 210), 0.0, 0)


def thing(shape: str = "square", colour: str = "red", **changes: object) -> Thing:
    """A large plain thing in the middle."""
    base = Thing(shape, colour, "large", "plain", 80.0, 80.0, 30.0, 0.0, 0.5, (0, 0, 0))
    return replace(base, **changes)  # type: ignore[arg-type]


def scenes(count: int, seed: int = 0) -> list[Scene]:
    return [sample_scene(np.random.default_rng([seed, index])) for index in range(count)]


def test_scenes_have_two_to_five_things_within_the_picture() -> None:
    for scene in scenes(100):
        assert 2 <= len(scene.things) <= 5
        boxes = [tight_box(item) for item in scene.things]
        assert all(0 < box[0] < box[2] < SIDE and 0 < box[1] < box[3] < SIDE for box in boxes)


def test_things_overlap_little_unless_one_lies_inside_the_other() -> None:
    inside = 0
    for scene in scenes(200):
        boxes = [tight_box(item) for item in scene.things]
        for i, j in combinations(range(len(boxes)), 2):
            if scene.things[j].inside == i:
                inside += 1
                (ax, ay, bx, by), (x1, y1, x2, y2) = boxes[i], boxes[j]
                assert ax < x1 < x2 < bx
                assert ay < y1 < y2 < by
            else:
                assert overlap(boxes[i], boxes[j]) <= MOST_OVERLAP
    assert inside > 20


def test_shape_and_colour_name_one_kind_in_a_scene() -> None:
    grouped = 0
    for scene in scenes(200):
        kinds = {item.kind for item in scene.things}
        assert len({kind[:2] for kind in kinds}) == len(kinds)
        grouped += len(kinds) < len(scene.things)
    assert grouped > 20


def test_every_property_is_used() -> None:
    things = [item for scene in scenes(300) for item in scene.things]
    assert {item.shape for item in things} == set(SHAPES)
    assert {item.colour for item in things} == set(COLOURS)
    assert {item.texture for item in things} == set(TEXTURES)
    assert {item.size for item in things} == {"small", "large"}


def test_overlap_is_a_share_of_the_smaller_box() -> None:
    assert overlap((0, 0, 10, 10), (5, 5, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (9, 0, 19, 10)) == pytest.approx(0.1)
    assert overlap((0, 0, 10, 10), (20, 0, 30, 10)) == 0


@pytest.mark.parametrize(
    ("things", "consistent"),
    [
        ((thing(x=40.0), thing("circle", x=120.0)), True),
        ((thing(x=40.0), thing(x=120.0, texture="dotted")), False),  # "a red square" would be either
        ((thing(x=40.0), thing("circle", x=60.0)), False),  # they cover each other
        ((thing(x=20.0), thing("circle", x=120.0)), False),  # the first crosses the border
        ((thing(), thing("star", "blue", radius=14.0, inside=0)), True),
        ((thing(), thing("star", "red", radius=14.0, inside=0)), False),  # red on red
    ],
)
def test_a_scene_is_consistent_where_its_things_are_visible_and_distinguishable(
    things: tuple[Thing, ...], consistent: bool
) -> None:
    assert is_consistent(things) is consistent


def test_twins_differ_in_one_property_of_two_things() -> None:
    seen = set()
    for scene in scenes(60):
        for twin in twins(scene):
            assert twin.background == scene.background
            pairs = list(zip(scene.things, twin.things, strict=True))
            changed = [number for number, (own, other) in enumerate(pairs) if own != other]
            assert len(changed) == 2
            names = {
                field.name
                for own, other in pairs
                for field in fields(Thing)
                if getattr(own, field.name) != getattr(other, field.name)
            }
            matching = [name for name, parts in SWAPPED_FIELDS.items() if names <= set(parts)]
            assert len(matching) == 1
            seen.add(matching[0])
            first, second = changed
            assert swap(twin, first, second, matching[0]) == scene
    assert seen == set(SWAPPED_FIELDS)


def test_nested_and_grouped_things_are_not_swapped() -> None:
    group = (thing(x=40.0, y=40.0), thing(x=120.0, y=40.0))
    nested = (thing("ring", "blue", y=120.0, x=40.0), thing("star", "green", y=120.0, x=40.0, radius=13.0, inside=0))
    assert twins(Scene(group, PLAIN)) == []
    assert twins(Scene(nested, PLAIN)) == []


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape is 'blob'; expected one of circle, square"):
        unit_outline("blob")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_tight_box_is_where_the_pixels_change(shape: str) -> None:
    item = thing(shape, x=70.3, y=85.6, angle=0.1)
    picture = np.asarray(draw_scene(Scene((item,), PLAIN))).astype(int)
    rows, columns = np.nonzero(np.abs(picture - PLAIN.first).sum(axis=2) > 60)
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert found == pytest.approx(tight_box(item), abs=1.6)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_plain_thing_has_the_paint_of_its_colour(colour: str) -> None:
    picture = draw_scene(Scene((thing(colour=colour),), PLAIN))
    assert picture.size == (SIDE, SIDE)
    assert picture.getpixel((80, 80)) == PAINT[colour]


@pytest.mark.parametrize(("texture", "share"), [("plain", 0.0), ("striped", 0.42), ("dotted", 0.25), ("checked", 0.5)])
def test_a_texture_has_its_fraction_of_white(texture: str, share: float) -> None:
    picture = np.asarray(draw_scene(Scene((thing(texture=texture, radius=36.0),), PLAIN)))
    inside = picture[56:104, 56:104].astype(float)
    part = (inside[..., 2] - PAINT["red"][2]) / (PATTERN_WHITE[2] - PAINT["red"][2])
    assert part.mean() == pytest.approx(share, abs=0.05)


def test_the_background_shows_through_a_ring() -> None:
    picture = draw_scene(Scene((thing("ring"),), PLAIN))
    assert picture.getpixel((80, 80)) == PLAIN.first
    assert picture.getpixel((80 + 25, 80)) == PAINT["red"]


def test_small_things_are_drawn_on_top() -> None:
    small = thing("circle", "blue", size="small", radius=14.0, inside=1)
    picture = draw_scene(Scene((small, thing()), PLAIN))
    assert picture.getpixel((80, 80)) == PAINT["blue"]


def test_the_same_scene_gives_the_same_pixels() -> None:
    for scene in scenes(10):
        assert draw_scene(scene).tobytes() == draw_scene(scene).tobytes()


@pytest.mark.parametrize("kind", ["plain", "gradient", "stripes", "clouds"])
def test_backgrounds_stay_between_their_two_colours(kind: str) -> None:
    background = Background(kind, (160, 170, 180), (220, 215, 210), 0.7, 3)
    pixels = np.asarray(draw_scene(Scene((), background))).reshape(-1, 3)
    assert (pixels >= background.first).all()
    assert (pixels <= background.second).all()
    assert (len(np.unique(pixels, axis=0)) == 1) is (kind == "plain")
