"""Boxes, pooling inside them, and preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.picture_files import drawn
from tshsr.boxes import centre_to_corners, grid_boxes, intersection_over_union, non_maximum_suppression, pool_boxes
from tshsr.errors import DataError
from tshsr.pretrained.networks import Preprocessing

SETTINGS = {"size": {"height": 30, "width": 50}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def test_centres_become_corners() -> None:
    np.testing.assert_allclose(centre_to_corners(np.array([[0.5, 0.4, 0.2, 0.6]])), [[0.4, 0.1, 0.6, 0.7]])


def random_boxes(count: int) -> np.ndarray:
    low, high = np.sort(np.random.default_rng(0).random((2, count, 2)), axis=0)
    return np.concatenate([low, np.maximum(high, low + 0.02)], axis=1).clip(0, 1).astype(np.float32)


def test_non_maximum_suppression_keeps_the_best_of_overlapping_boxes_best_first() -> None:
    boxes, scores = random_boxes(60), np.random.default_rng(1).random(60)
    kept = non_maximum_suppression(boxes, scores, overlap=0.3, most=60)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = intersection_over_union(boxes, boxes[kept])
    assert (overlaps[kept] - np.eye(len(kept)) <= 0.3 + 1e-6).all()
    for number in set(range(60)) - set(kept.tolist()):
        assert any(
            overlaps[number, place] > 0.3 and scores[kept[place]] >= scores[number] for place in range(len(kept))
        )
    np.testing.assert_array_equal(non_maximum_suppression(boxes, scores, overlap=0.3, most=3), kept[:3])


def test_boxes_thinner_than_a_line_are_no_regions() -> None:
    boxes = np.array([(0.1, 0.1, 0.1, 0.9), (0.2, 0.2, 0.4, 0.4)], np.float32)
    assert non_maximum_suppression(boxes, np.array([0.9, 0.1]), overlap=0.5, most=5).tolist() == [1]


def test_features_inside_a_box_are_their_mean_by_area() -> None:
    rng = np.random.default_rng(0)
    features, boxes = rng.normal(size=(3, 5, 2)), random_boxes(8)
    pooled = pool_boxes(features, boxes)
    for (x1, y1, x2, y2), found in zip(boxes.tolist(), pooled, strict=True):
        total, area = np.zeros(2), 0.0
        for y in range(3):
            for x in range(5):
                shared = max(0, min(x2, (x + 1) / 5) - max(x1, x / 5)) * max(0, min(y2, (y + 1) / 3) - max(y1, y / 3))
                total, area = total + shared * features[y, x], area + shared
        np.testing.assert_allclose(found, total / area, atol=1e-5)


def test_cells_cover_the_picture_in_reading_order() -> None:
    boxes = grid_boxes(2)
    np.testing.assert_allclose(
        boxes, [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1)], atol=1e-7
    )
    grid = np.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_allclose(pool_boxes(grid, boxes)[:, 0], [2.5, 4.5, 10.5, 12.5])


def test_a_centre_crop_becomes_a_stretch_to_its_size() -> None:
    cut = {**SETTINGS, "size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    preprocessing = Preprocessing.from_processor(cut, "here")
    picture = Image.new("RGB", (200, 50))
    picture.paste((255, 255, 255), (0, 0, 10, 50))
    pixels = preprocessing.apply(picture)
    assert pixels.shape == (3, 56, 56)
    assert pixels.dtype == np.float32
    assert pixels[:, :, 0].min() > 0.9, "the left edge is there"
    boxes = np.array([(0.0, 0.25, 0.5, 1.0)], np.float32)
    np.testing.assert_array_equal(preprocessing.boxes_on_picture(boxes, picture.size), boxes)


def test_pixels_are_scaled_shifted_and_divided() -> None:
    values = {**SETTINGS, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 0.2]}
    pixels = Preprocessing.from_processor(values, "here").apply(Image.new("RGB", (9, 9), (255, 51, 0)))
    np.testing.assert_allclose(pixels[:, 3, 3], [(1 - 0.1) / 0.5, (0.2 - 0.2) / 0.25, (0 - 0.3) / 0.2], atol=1e-6)
    plain = Preprocessing.from_processor({**values, "do_normalize": False}, "here").apply(
        Image.new("RGB", (9, 9), (255, 51, 0))
    )
    np.testing.assert_allclose(plain[:, 3, 3], [1, 0.2, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "pixels"), [((160, 120), (85, 64)), ((120, 160), (64, 85)), ((400, 100), (96, 24)), ((10, 10), (64, 64))]
)
def test_the_aspect_ratio_is_kept_between_a_shorter_and_a_longer_edge(
    size: tuple[int, int], pixels: tuple[int, int]
) -> None:
    preprocessing = Preprocessing.from_processor(
        {**SETTINGS, "size": {"shortest_edge": 64, "longest_edge": 96}}, "here"
    )
    assert preprocessing.size_for(*size) == pixels
    assert preprocessing.apply(Image.new("RGB", size)).shape == (3, pixels[1], pixels[0])


def test_both_sides_are_a_multiple_of_the_patch_so_that_no_edge_is_dropped() -> None:
    preprocessing = Preprocessing.from_processor(
        {**SETTINGS, "size": {"shortest_edge": 64, "longest_edge": 96}}, "here", multiple=16
    )
    assert [preprocessing.size_for(*size) for size in ((160, 120), (400, 100), (1000, 10))] == [
        (80, 64),
        (96, 16),
        (96, 16),
    ]


def test_boxes_in_a_padded_square_are_mapped_onto_the_picture() -> None:
    preprocessing = Preprocessing.from_processor(
        {**SETTINGS, "size": {"height": 40, "width": 40}}, "here", fit="square"
    )
    picture = Image.new("RGB", (80, 40), (255, 255, 255))
    pixels = preprocessing.apply(picture)
    assert pixels[:, :19].min() == pytest.approx(1)
    assert pixels[:, 21:].max() == pytest.approx(-1)
    boxes = np.array([(0.0, 0.0, 0.5, 0.25), (0.5, 0.0, 1.0, 1.0)], np.float32)
    np.testing.assert_allclose(preprocessing.boxes_on_picture(boxes, picture.size), [(0, 0, 0.5, 0.5), (0.5, 0, 1, 1)])


def test_a_panorama_is_shrunk_before_its_square_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    preprocessing = Preprocessing.from_processor(
        {**SETTINGS, "size": {"height": 40, "width": 40}}, "here", fit="square"
    )
    panorama = Image.new("RGB", (3000, 100))
    panorama.paste((255, 255, 255), (1500, 0, 3000, 100))
    made, new = [], Image.new
    monkeypatch.setattr(Image, "new", lambda mode, size: made.append(size) or new(mode, size))
    pixels = preprocessing.apply(panorama)
    assert made == [(82, 82)], "reduced by 37, from nine million pixels"
    assert pixels.shape == (3, 40, 40)
    assert pixels[:, 0, :19].max() == pytest.approx(-1)
    assert pixels[:, 0, 21:].min() > 0.9
    assert pixels[:, 3:].max() == pytest.approx(-1)


def test_a_picture_of_an_ordinary_size_keeps_its_bits_in_a_square() -> None:
    preprocessing = Preprocessing.from_processor(
        {**SETTINGS, "size": {"height": 40, "width": 40}}, "here", fit="square"
    )
    picture, square = drawn(0, (159, 120)), Image.new("RGB", (159, 159))
    square.paste(picture, (0, 0))
    stretched = Preprocessing.from_processor({**SETTINGS, "size": {"height": 40, "width": 40}}, "here")
    np.testing.assert_array_equal(preprocessing.apply(picture), stretched.apply(square))


def test_a_processor_without_a_size_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"here: the image processor has size \{\}; expected height and width, or edges"
    ):
        Preprocessing.from_processor({"do_resize": True}, "here")


def test_old_processors_that_give_one_number_are_read() -> None:
    assert Preprocessing.from_processor({**SETTINGS, "size": 30}, "here").apply(drawn(0)).shape == (3, 30, 30)
