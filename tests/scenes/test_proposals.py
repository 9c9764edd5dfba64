"""Proposals in drawn pictures, and the extractor of the scenes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.picture_files import drawn
from tshsr.boxes import intersection_over_union
from tshsr.features.catalog import open_extractor, rebuild_extractor
from tshsr.features.scenes import region_boxes
from tshsr.scenes.descriptor import EXTRACTOR, FEATURES, describe
from tshsr.scenes.drawing import draw_scene
from tshsr.scenes.generate import MATCH, REGIONS, scene_and_twin
from tshsr.scenes.proposals import component_boxes, propose_boxes
from tshsr.scenes.world import SIDE, tight_box


def test_the_things_of_scenes_are_found() -> None:
    found, things = 0, 0
    for index in range(60):
        _, scene, _ = scene_and_twin(0, "dev", index)
        tight = np.array([tight_box(thing) for thing in scene.things]) / SIDE
        boxes = propose_boxes(draw_scene(scene), 9)
        found += int((intersection_over_union(boxes, tight).max(axis=0, initial=0) >= MATCH).sum())
        things += len(tight)
    assert found / things > 0.95


@pytest.mark.parametrize("size", [(160, 160), (640, 400), (90, 300)])
@pytest.mark.parametrize("ground", [(255, 255, 255), (20, 20, 30), (120, 170, 90)])
def test_boxes_are_tight_whatever_the_size_and_the_ground(size: tuple[int, int], ground: tuple[int, int, int]) -> None:
    picture = Image.new("RGB", size, ground)
    true = (0.2, 0.3, 0.5, 0.6)
    box = [round(part * side) for part, side in zip(true, size * 2, strict=True)]
    ImageDraw.Draw(picture).rectangle(box, fill=(230, 60, 200))
    (found,) = propose_boxes(picture, 5)
    np.testing.assert_allclose(found, true, atol=0.03)


def test_touching_things_are_separated_by_their_colours() -> None:
    picture = Image.new("RGB", (100, 100), (240, 240, 240))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((20, 20, 49, 49), fill=(220, 30, 30))
    pen.rectangle((50, 20, 79, 49), fill=(30, 30, 220))
    overlaps = intersection_over_union(
        propose_boxes(picture, 9), np.array([(0.2, 0.2, 0.5, 0.5), (0.5, 0.2, 0.8, 0.5), (0.2, 0.2, 0.8, 0.5)])
    )
    assert (overlaps.max(axis=0) > 0.9).all()


def test_touching_things_of_one_colour_are_separated() -> None:
    picture = Image.new("RGB", (100, 100), (240, 240, 240))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((10, 30, 50, 70), fill=(220, 30, 30))
    pen.ellipse((50, 30, 90, 70), fill=(220, 30, 30))
    each = np.array([(0.1, 0.3, 0.5, 0.7), (0.5, 0.3, 0.9, 0.7)])
    assert (intersection_over_union(propose_boxes(picture, 9), each).max(axis=0) > 0.7).all()


def test_an_empty_picture_has_no_things() -> None:
    assert propose_boxes(Image.new("RGB", (50, 80), (10, 200, 10)), 9).shape == (0, 4)
    assert propose_boxes(Image.new("RGB", (1, 1)), 9).shape == (0, 4)


def flood(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of 8-connected components, pixel by pixel, in the order of their first pixels."""
    left, boxes = {tuple(place): None for place in np.argwhere(mask).tolist()}, []
    while left:
        todo, component = [next(iter(left))], []
        del left[todo[0]]
        while todo:
            y, x = todo.pop()
            component.append((y, x))
            near = [(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1) if (y + j, x + i) in left]
            for place in near:
                del left[place]
            todo += near
        rows, columns = zip(*component, strict=True)
        boxes.append((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return boxes


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.9])
def test_components_are_those_of_a_flood_fill(share: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((rng.integers(1, 12), rng.integers(1, 12))) < share
        assert [tuple(int(side) for side in box) for box in component_boxes(mask)] == flood(mask)


def test_a_picture_has_as_many_regions_as_a_scene_and_the_whole_is_the_first() -> None:
    for picture in (drawn(0), Image.new("RGB", (30, 400), (9, 9, 9))):
        boxes = region_boxes(picture)
        assert boxes.shape == (REGIONS, 4)
        assert boxes.dtype == np.float32
        np.testing.assert_array_equal(boxes[0], (0, 0, 1, 1))
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_windows_match_no_thing() -> None:
    picture = drawn(0)
    things = propose_boxes(picture, 9)
    windows = region_boxes(picture)[1 + len(things) :]
    assert len(things) >= 2
    assert intersection_over_union(windows, things).max() < MATCH


def test_the_extractor_describes_its_boxes_and_the_same_pixels_give_the_same() -> None:
    extractor = open_extractor("scenes")
    first, second = extractor.extract([drawn(1), drawn(2)])
    np.testing.assert_array_equal(first.features, describe(drawn(1), first.boxes))
    np.testing.assert_array_equal(extractor.extract([drawn(2)])[0].features, second.features)
    assert (extractor.name, extractor.feature_dim) == (EXTRACTOR, FEATURES)


def test_the_extractor_of_the_scenes_is_rebuilt() -> None:
    assert rebuild_extractor(EXTRACTOR, {"crop": 32, "context": 0.1}).name == EXTRACTOR
