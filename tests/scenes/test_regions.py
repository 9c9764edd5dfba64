"""Regions of scenes and their features."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tshsr.boxes import intersection_over_union
from tshsr.scenes.descriptor import (
    BLOCKS,
    CROP,
    EXTRACTOR,
    FEATURES,
    averaging,
    cells,
    colour_shares,
    cut_out,
    describe,
    spread,
)
from tshsr.scenes.drawing import draw_scene
from tshsr.scenes.generate import MATCH, REGIONS, regions_of_things, sample_boxes
from tshsr.scenes.world import SIDE, Scene, sample_scene, tight_box

WHOLE = np.array([[0, 0, 1, 1]], np.float32)


def scenes(count: int, seed: int = 0) -> list[tuple[np.random.Generator, Scene]]:
    generators = [np.random.default_rng([seed, index]) for index in range(count)]
    return [(rng, sample_scene(rng)) for rng in generators]


def block(features: np.ndarray, name: str) -> np.ndarray:
    """The unscaled features of one block."""
    start = 0
    for other, (size, shift, scale) in BLOCKS.items():
        if other == name:
            return features[:, start : start + size] * scale + shift
        start += size
    raise KeyError(name)


def plain(colour: tuple[int, int, int], side: int = 40) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def window_boxes() -> np.ndarray:
    """Boxes (10 x 4) for any picture: the whole, and 3 x 3 overlapping halves."""
    halves = [(x, y, x + 0.5, y + 0.5) for y in (0.0, 0.25, 0.5) for x in (0.0, 0.25, 0.5)]
    return np.array([(0.0, 0.0, 1.0, 1.0), *halves], dtype=np.float32)


def test_a_scene_has_twelve_boxes_in_fractions() -> None:
    for rng, scene in scenes(50):
        boxes = sample_boxes(rng, scene)
        assert boxes.shape == (REGIONS, 4)
        assert boxes.dtype == np.float32
        assert boxes.min() >= 0
        assert boxes.max() <= 1
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert (boxes == WHOLE).all(axis=1).sum() == 1


def test_every_thing_has_a_region_and_no_distractor_is_one() -> None:
    places = set()
    for rng, scene in scenes(100):
        found = regions_of_things(scene, sample_boxes(rng, scene))
        assert [len(regions) for regions in found] == [1] * len(scene.things)
        assert len({region for regions in found for region in regions}) == len(scene.things)
        places.add(found[0][0])
    assert len(places) == REGIONS  # the order is random


def test_overlaps_agree_with_counted_pixels() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 20, size=(6, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1).astype(float)
    grids = np.zeros((6, 22, 22), bool)
    for grid, (x1, y1, x2, y2) in zip(grids, boxes.astype(int), strict=True):
        grid[y1:y2, x1:x2] = True
    counted = [[(a & b).sum() / (a | b).sum() for b in grids] for a in grids]
    np.testing.assert_allclose(intersection_over_union(boxes, boxes), counted)


def test_boxes_without_an_area_overlap_nothing() -> None:
    boxes = np.array([(0.2, 0.2, 0.2, 0.9), (0.2, 0.2, 0.2, 0.9), (0.0, 0.0, 1.0, 1.0)], np.float32)
    overlaps = intersection_over_union(boxes, boxes)
    assert overlaps.dtype == np.float32
    assert overlaps.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_a_region_counts_from_half_an_overlap_on() -> None:
    scene = next(scene for _, scene in scenes(20) if scene.things[0].size == "large")
    x1, y1, x2, y2 = tight_box(scene.things[0])
    more = (x1, y1, x1 + (MATCH + 0.02) * (x2 - x1), y2)
    less = (x1, y1, x1 + (MATCH - 0.02) * (x2 - x1), y2)
    assert regions_of_things(scene, np.array([less, more]) / SIDE)[0] == (1,)


def test_the_descriptor_has_its_documented_size_and_dtype() -> None:
    features = describe(plain((200, 30, 30)), window_boxes())
    assert features.shape == (10, FEATURES)
    assert FEATURES == 185
    assert features.dtype == np.float32
    assert EXTRACTOR == "scenes-pixels-1"


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
def test_a_picture_of_one_colour_has_finite_numbers(colour: tuple[int, int, int]) -> None:
    assert np.isfinite(describe(plain(colour), window_boxes())).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_pictures_of_other_modes_are_converted(mode: str) -> None:
    picture = draw_scene(scenes(1)[0][1]).convert(mode)
    np.testing.assert_array_equal(describe(picture, WHOLE), describe(picture.convert("RGB"), WHOLE))


def test_regions_are_described_one_by_one() -> None:
    rng, scene = scenes(1)[0]
    picture, boxes = draw_scene(scene), sample_boxes(rng, scene)
    alone = np.concatenate([describe(picture, box[None]) for box in boxes])
    np.testing.assert_allclose(describe(picture, boxes), alone, atol=1e-4)


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.5), (1, 1, 1, 1), (0, 0, 1e-4, 1), (0.2, 0.999, 0.9, 1)])
def test_a_box_without_area_is_still_described(box: tuple[float, ...]) -> None:
    assert np.isfinite(describe(plain((90, 60, 200), 7), np.array([box]))).all()


def test_a_crop_takes_some_context() -> None:
    picture = plain((0, 0, 0), 100)
    picture.paste((255, 255, 255), (40, 40, 60, 60))
    crop = cut_out(picture, np.array([[0.4, 0.4, 0.6, 0.6]]))[0, 0]
    assert crop.shape == (CROP, CROP)
    assert crop[0].max() < 0.1
    assert crop[CROP // 2].mean() == pytest.approx(20 / 24, abs=0.03)


@pytest.mark.parametrize(
    ("colour", "hue", "dark"), [((255, 0, 0), 0, 0), ((0, 255, 0), 4, 0), ((0, 0, 255), 8, 0), ((100, 0, 0), 0, 1)]
)
def test_a_pure_colour_falls_into_its_hue(colour: tuple[int, int, int], hue: int, dark: int) -> None:
    crops = cut_out(plain(colour), WHOLE)
    weights = np.full((1, CROP, CROP), 1 / CROP**2)
    shares = colour_shares(crops, crops.min(axis=0), crops.max(axis=0), weights)[0]
    assert shares.sum() == pytest.approx(1)
    assert shares[hue if dark else 12 + hue] > 0.95


def test_a_grey_falls_between_its_two_greys() -> None:
    crops = cut_out(plain((102, 102, 102)), WHOLE)  # 0.4, which is grey 2 of 0..5
    weights = np.full((1, CROP, CROP), 1 / CROP**2)
    shares = colour_shares(crops, crops.min(axis=0), crops.max(axis=0), weights)[0]
    assert shares[24 + 2] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("wraps", "expected"), [(True, [0.25, 1.5, 0.5, 0.75]), (False, [0.0, 1.5, 0.5, 1.0])], ids=["wraps", "ends"]
)
def test_spreading_shares_mass_between_two_neighbours(wraps: bool, expected: list[float]) -> None:
    place = np.array([[[1.25, 3.25]]])
    mass = np.array([[[2.0, 1.0]]])
    (histogram,) = spread(place, (mass,), 4, wraps=wraps)
    np.testing.assert_allclose(histogram, [expected])


@pytest.mark.parametrize("side", [3, 8])
def test_cells_are_means(side: int) -> None:
    values = np.random.default_rng(0).random((2, CROP, CROP))
    edges = [round(i * CROP / side) for i in range(side + 1)]
    means = cells(values, side)
    for row in range(side):
        for column in range(side):
            part = values[1, edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
            assert means[1, row, column] == pytest.approx(part.mean(), abs=1e-6)
    np.testing.assert_allclose(averaging(side).sum(axis=1), 1, rtol=1e-6)


def test_the_silhouette_shows_where_the_thing_is() -> None:
    picture = plain((210, 210, 210), 80)
    picture.paste((200, 20, 20), (20, 40, 60, 60))
    silhouette = block(describe(picture, WHOLE), "silhouette").reshape(8, 8)
    inside = np.zeros((8, 8), bool)
    inside[4:6, 2:6] = True
    assert silhouette[inside].min() > 0.8
    assert silhouette[~inside].max() < 0.2


def test_the_pattern_of_stripes_does_not_depend_on_their_slant() -> None:
    patterns = []
    for slant in (0.26, 0.26 + np.pi / 2):
        y, x = np.mgrid[0:96, 0:96]
        wave = np.sin((x * np.cos(slant) + y * np.sin(slant)) * 2 * np.pi * 5 / 96) > 0
        disc = np.hypot(x - 48, y - 48) < 36
        pixels = np.where(disc, np.where(wave, 250, 30), 128).astype(np.uint8)
        patterns.append(block(describe(Image.fromarray(pixels), WHOLE), "pattern").reshape(5, 7))
    np.testing.assert_allclose(patterns[0][:, 0], patterns[1][:, 0], atol=0.3)
    frequency = patterns[0][:, 0].argmax()
    np.testing.assert_allclose(patterns[0][frequency], patterns[1][frequency], atol=0.3)
    shares = 0.15 * patterns[0][frequency, 1:] + 1 / 6
    assert shares.sum() == pytest.approx(1, abs=1e-3)
    assert shares[0] > 0.6


def test_the_numbers_vary_around_zero_by_about_one() -> None:
    features = np.concatenate([describe(draw_scene(scene), sample_boxes(rng, scene)) for rng, scene in scenes(40)])
    assert abs(features.mean()) < 0.3
    assert 0.6 < features.std() < 1.3
    assert np.abs(features).max() < 12


def test_shape_colour_and_texture_can_be_read_off_linearly() -> None:
    rows, kinds = [], []
    for _, scene in scenes(500, seed=9):
        boxes = np.array([tight_box(thing) for thing in scene.things]) / SIDE
        rows.append(describe(draw_scene(scene), boxes))
        kinds += [thing.kind for thing in scene.things]
    features = np.concatenate(rows).astype(np.float64)
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    train = np.arange(len(features)) < 0.7 * len(features)
    covariance = features[train].T @ features[train] + 10 * np.eye(features.shape[1])
    for position, least in ((0, 0.92), (1, 0.95), (3, 0.85)):
        names, label = np.unique([kind[position] for kind in kinds], return_inverse=True)
        weights = np.linalg.solve(covariance, features[train].T @ np.eye(len(names))[label[train]])
        found = (features[~train] @ weights).argmax(axis=1)
        assert (found == label[~train]).mean() > least
