"""Random crops, mirror images and colour changes of training pictures: a pure function of seed, epoch and picture."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from tshsr.config.run import AugmentationConfig

AUGMENTATION_STREAM = 5
"""Separates these random numbers from others of the same seed."""
ASPECT = 4 / 3
"""Largest factor on the aspect ratio of a crop."""
SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True)
class Augmentation:
    """One change of a picture.

    Attributes:
        box: Of the crop: x1, y1, x2, y2 as fractions of the picture.
        mirror: Whether left and right are exchanged.
        factors: Of brightness, contrast and saturation.
    """

    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mirror: bool = False
    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def crop(self, picture: Image.Image) -> Image.Image:
        """The part of a picture inside the box, at least one pixel wide and high."""
        width, height = picture.size
        left, top = (min(int(low * side), side - 1) for low, side in zip(self.box[:2], picture.size, strict=True))
        right, bottom = max(left + 1, round(self.box[2] * width)), max(top + 1, round(self.box[3] * height))
        return (
            picture if (left, top, right, bottom) == (0, 0, width, height) else picture.crop((left, top, right, bottom))
        )

    def finish(self, picture: Image.Image) -> Image.Image:
        """Mirror and colours, for a picture at its final size."""
        if self.mirror:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhancer, factor in zip(ENHANCERS, self.factors, strict=True):
            if factor != 1.0:
                picture = enhancer(picture).enhance(factor)
        return picture


UNCHANGED = Augmentation()
"""No change, for evaluation."""


def draw_augmentation(
    config: AugmentationConfig, *, seed: int, epoch: int, image: int, may_mirror: bool
) -> Augmentation:
    """The change of a picture in an epoch.

        area ~ U(crop, 1),  ratio ~ exp U(-log 4/3, log 4/3),  width = min(1, sqrt(area ratio)),  height likewise,

    all as fractions of the picture, at a uniform place (the random resized crop of Inception, Szegedy et al. 2015).

    Args:
        seed: Of the run.
        epoch: 0-based.
        image: Row of the picture in the training split.
        may_mirror: False where a mirror image would contradict a caption (`may_mirror`).
    """
    dice = np.random.default_rng([seed, epoch, image, 0, AUGMENTATION_STREAM])
    # All numbers are always drawn, so that one setting does not shift those of another.
    area, ratio = dice.uniform(config.crop, 1), np.exp(dice.uniform(-np.log(ASPECT), np.log(ASPECT)))
    place, coin, colours = dice.random(2), dice.random(), dice.uniform(-1, 1, size=len(ENHANCERS))
    sides = np.minimum(1, np.sqrt([area * ratio, area / ratio])) if config.crop < 1 else np.ones(2)
    x, y = place * (1 - sides)
    brightness, contrast, saturation = (1 + config.colour * colours).tolist()
    return Augmentation(
        box=(float(x), float(y), float(x + sides[0]), float(y + sides[1])),
        mirror=may_mirror and bool(coin < config.mirror),
        factors=(brightness, contrast, saturation),
    )


def may_mirror(captions: Iterable[str]) -> bool:
    """Whether no caption has a word that begins with left or right, in any case of letters (English captions)."""
    return not any(SIDES.search(caption) for caption in captions)
