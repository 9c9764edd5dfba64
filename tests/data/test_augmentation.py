"""Random changes of training pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.picture_files import drawn
from tshsr.config.run import AugmentationConfig
from tshsr.data.augmentation import ASPECT, UNCHANGED, Augmentation, draw_augmentation, may_mirror

STRONG = AugmentationConfig(crop=0.3, mirror=0.5, colour=0.4)


def draws(config: AugmentationConfig, count: int = 200, **changes: int | bool) -> list[Augmentation]:
    given = {"seed": 1, "epoch": 2, "may_mirror": True, **changes}
    return [draw_augmentation(config, image=image, **given) for image in range(count)]


def test_a_change_is_a_function_of_seed_epoch_and_picture() -> None:
    assert draws(STRONG) == draws(STRONG)
    assert len({str(each) for each in draws(STRONG)}) == 200, "another one for each picture"
    for other in (draws(STRONG, seed=2), draws(STRONG, epoch=3)):
        assert not set(map(str, other)) & set(map(str, draws(STRONG)))


def test_one_setting_does_not_shift_the_numbers_of_another() -> None:
    plain = draws(replace(STRONG, crop=1.0))
    assert [(each.mirror, each.factors) for each in plain] == [(each.mirror, each.factors) for each in draws(STRONG)]
    assert [each.box for each in draws(replace(STRONG, colour=0.0, mirror=0.0))] == [e.box for e in draws(STRONG)]


def test_crops_have_the_area_and_the_shape_of_the_settings() -> None:
    boxes = np.array([each.box for each in draws(STRONG, 1000)])
    assert (boxes >= 0).all()
    assert (boxes <= 1 + 1e-9).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    # A side that would pass the picture's is cut, which makes the area smaller by at most the ratio.
    assert 0.3 / ASPECT < (width * height).min() < 0.33
    assert (width * height).max() > 0.95
    assert (width / height).min() >= 1 / ASPECT - 1e-9
    assert (width / height).max() <= ASPECT + 1e-9


def test_without_augmentation_a_picture_is_unchanged() -> None:
    off = AugmentationConfig(crop=1.0, mirror=0.0, colour=0.0)
    assert set(draws(off)) == {UNCHANGED}
    picture = drawn(0)
    assert UNCHANGED.finish(UNCHANGED.crop(picture)).tobytes() == picture.tobytes()


def test_half_of_the_pictures_are_mirrored_and_none_whose_captions_have_sides() -> None:
    mirrored = [each.mirror for each in draws(STRONG, 1000)]
    assert 430 < sum(mirrored) < 570
    assert not any(each.mirror for each in draws(replace(STRONG, mirror=1.0), may_mirror=False))
    assert all(each.mirror for each in draws(replace(STRONG, mirror=1.0)))


@pytest.mark.parametrize(
    ("captions", "allowed"),
    [
        (["a dog runs", "two people talk"], True),
        (["a dog runs", "a dog on the left runs"], False),
        (["The RIGHT hand is up."], False),
        (["a left-handed player"], False),
        (["the leftmost of three"], False),
        (["a bright light", "he upright cleft"], True),
        ([], True),
    ],
)
def test_a_mirror_image_contradicts_captions_with_left_or_right(captions: list[str], allowed: bool) -> None:
    assert may_mirror(captions) is allowed


def test_pixels_are_cropped_mirrored_and_recoloured() -> None:
    values = np.zeros((4, 6, 3), np.uint8)
    values[1, 4] = (200, 100, 0)
    picture = Image.fromarray(values)
    half = Augmentation(box=(0.5, 0.0, 1.0, 0.5)).crop(picture)
    np.testing.assert_array_equal(np.asarray(half), values[:2, 3:])
    np.testing.assert_array_equal(np.asarray(Augmentation(mirror=True).finish(picture)), values[:, ::-1])
    brighter = np.asarray(Augmentation(factors=(1.2, 1.0, 1.0)).finish(picture))
    assert brighter[1, 4].tolist() == [240, 120, 0]


def test_the_crop_of_a_tiny_picture_has_a_pixel() -> None:
    for box in ((0.0, 0.0, 0.01, 0.01), (0.99, 0.99, 1.0, 1.0)):
        assert Augmentation(box=box).crop(Image.new("RGB", (1, 3))).size == (1, 1)
