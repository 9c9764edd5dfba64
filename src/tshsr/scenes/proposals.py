"""Box proposals in a drawn picture, from its pixels alone.

The background's colours (plain, gradient, stripes or clouds) lie on a line segment in colour space, fitted to the
picture's rim; pixels far from the segment are foreground. Proposals are connected components of the foreground, of its
pixels of one hue (separates touching things of different colours), and of the eroded foreground (separates touching
things of one hue).

Axes: y | x | channels (red, green, blue).
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from tshsr.boxes import intersection_over_union

LONGEST = 128
"""Longer side of the resized picture, in pixels."""
RIM = 3
THRESHOLDS = (0.07, 0.14, 0.25)
"""Smallest distances of the foreground from the background's colours; white and black are sqrt(3) apart."""
GAPS = (0, 3)
"""Radii of the closing, in pixels: none, and one that closes stripes and dots."""
DEPTHS = (3, 6)
"""Radii of the erosion that separates touching things, in pixels."""
HUE_BINS = 12
COLOURED = 0.15
"""Smallest chroma, the difference of the largest and smallest channel, of a pixel with a hue."""
DARK = 0.35
"""Largest brightness of a black pixel, which has no hue."""
LEAST, MOST = 0.004, 0.9
"""Smallest and largest box, as a fraction of the picture's area."""
SAME = 0.7
"""Intersection over union above which two boxes are duplicates."""


def propose_boxes(picture: Image.Image, most: int) -> np.ndarray:
    """Proposals: float32, at most `most` x 4, as fractions of the picture; the best first.

    Args:
        picture: RGB, any size.
        most: Largest number of boxes; an empty background has none.
    """
    pixels = _resized(picture)
    distance = off_background(pixels)
    found = [box for threshold in THRESHOLDS for box in component_boxes(distance > threshold)]
    found += [box for gap in GAPS for depth in DEPTHS for box in eroded_boxes(distance > THRESHOLDS[1], gap, depth)]
    found += hue_boxes(pixels, distance > THRESHOLDS[0])
    height, width = distance.shape
    boxes = np.array(found).reshape(-1, 4) / (width, height, width, height)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return distinct(boxes[(area >= LEAST) & (area <= MOST)], most)


def _resized(picture: Image.Image) -> np.ndarray:
    scale = min(1.0, LONGEST / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32) / 255


def off_background(pixels: np.ndarray) -> np.ndarray:
    """Distance of each pixel's colour from the background's segment: y x x.

    The segment is fitted to the rim by iteratively reweighted principal component analysis.
    """
    rim = np.ones(pixels.shape[:2], bool)
    rim[RIM:-RIM, RIM:-RIM] = False
    colours = pixels[rim]
    weights = np.ones(len(colours))
    centre, direction = np.median(colours, axis=0), np.zeros(3)
    for _ in range(8):  # things at the rim are outliers and get low weights
        far = _from_line(colours, centre, direction)
        weights = 1 / (1 + np.square(far / 0.06)) ** 2
        centre = np.average(colours, axis=0, weights=weights)
        spread = (colours - centre).T * weights @ (colours - centre)
        direction = np.linalg.eigh(spread)[1][:, -1]
    along = (colours - centre) @ direction
    near = _from_line(colours, centre, direction) < 0.1
    low, high = np.quantile(along[near], (0.02, 0.98)) if near.any() else (0.0, 0.0)
    flat = pixels.reshape(-1, 3) - centre
    place = np.clip(flat @ direction, low, high)
    return np.asarray(np.linalg.norm(flat - place[:, None] * direction, axis=1)).reshape(pixels.shape[:2])


def _from_line(colours: np.ndarray, centre: np.ndarray, direction: np.ndarray) -> np.ndarray:
    off = colours - centre
    return np.asarray(np.linalg.norm(off - (off @ direction)[:, None] * direction, axis=1))


def eroded_boxes(foreground: np.ndarray, gap: int, depth: int) -> list[np.ndarray]:
    """Boxes of the components that remain after a closing and an erosion, grown back by the erosion."""
    margin = gap + depth
    closed = ~_dilated(~_dilated(np.pad(foreground, margin), gap), gap)
    eroded = ~_dilated(~closed, depth)
    height, width = foreground.shape
    outwards = depth * np.array([-1, -1, 1, 1]) - margin
    return [np.clip(box + outwards, 0, (width, height, width, height)) for box in component_boxes(eroded)]


def _dilated(mask: np.ndarray, depth: int) -> np.ndarray:
    """Dilation by a square of this radius."""
    for _ in range(2):  # along one axis, then along the other
        wide = mask.copy()
        for step in range(1, depth + 1):
            wide[:-step] |= mask[step:]
            wide[step:] |= mask[:-step]
        mask = wide.T
    return mask


def hue_boxes(pixels: np.ndarray, foreground: np.ndarray) -> list[np.ndarray]:
    """Boxes of components of one hue (two neighbouring bins, so that no hue is split), and of black."""
    largest, smallest = pixels.max(axis=2), pixels.min(axis=2)
    chroma = largest - smallest
    bins = np.floor(_hue(pixels, largest, chroma) * HUE_BINS).astype(np.int64) % HUE_BINS
    coloured = foreground & (chroma > COLOURED)
    found = component_boxes(foreground & ~coloured & (largest < DARK))
    for first in range(HUE_BINS):
        found += component_boxes(coloured & ((bins == first) | (bins == (first + 1) % HUE_BINS)))
    return found


def _hue(pixels: np.ndarray, largest: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Hue of each pixel, 0 to 1 from red over green and blue to red; arbitrary for grey."""
    red, green, blue = np.moveaxis(pixels, 2, 0)
    difference = np.where(largest == red, green - blue, np.where(largest == green, blue - red, red - green))
    sector = np.where(largest == red, 0, np.where(largest == green, 2, 4))
    return np.asarray((difference / np.maximum(chroma, 1e-6) + sector) / 6 % 1)


def component_boxes(mask: np.ndarray) -> list[np.ndarray]:
    """Boxes x1, y1, x2, y2 in pixels of a mask's 8-connected components, in the order of their first pixels."""
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    found = ndimage.find_objects(labels)
    return [np.array([x.start, y.start, x.stop, y.stop], np.float64) for y, x in found]


def distinct(boxes: np.ndarray, most: int) -> np.ndarray:
    """Deduplicated boxes, those with most duplicates first: n x 4 -> at most `most` x 4."""
    kept: list[int] = []
    overlaps = intersection_over_union(boxes, boxes)
    votes = (overlaps > SAME).sum(axis=1) + np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    for number in np.argsort(-votes, kind="stable").tolist():
        if len(kept) < most and not (overlaps[number][kept] > SAME).any():
            kept.append(number)
    return boxes[kept].astype(np.float32)
