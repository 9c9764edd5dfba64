"""Region -> 185 features of its pixels, deterministic, not learned.

A region is cropped with a margin of a tenth of its size and resized to 32 x 32 pixels. Its foreground is what differs
from the colours in the corners of that square. The features, in order (`BLOCKS`):

    0   colour      30  foreground colours: 12 dark hues, 12 bright hues, 6 greys; square roots of their shares
    30  surround     3  mean red, green, blue of the rim
    33  layout      27  red, then green, then blue of 3 x 3 cells, row by row
    60  silhouette  64  mean foreground of 8 x 8 cells, row by row
    124 edges       24  edges of the foreground: 2 x 2 cells x 6 directions; square roots of their shares
    148 pattern     35  spectrum of the smallest channel inside the foreground: 5 frequencies x 7 numbers: the log
                        energy of the frequency, then the shares of its 6 directions, largest first (invariant to the
                        slant of stripes)
    183 contrast     2  deviation of the smallest channel inside the foreground; share of the foreground

Every block is shifted and scaled by constants to about zero mean and unit variance over the scenes.
Axes: channels (red, green, blue) | regions | y | x.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise, product

import numpy as np
from PIL import Image

EXTRACTOR = "scenes-pixels-1"
CROP = 32
CONTEXT = 0.1
"""Margin on each side, as a fraction of a box's width and height."""
HUES = 12
GREYS = 6
FREQUENCIES = 5
DIRECTIONS = 6
BLOCKS: dict[str, tuple[int, float, float]] = {
    "colour": (2 * HUES + GREYS, 0.1, 0.2),
    "surround": (3, 0.7, 0.15),
    "layout": (27, 0.65, 0.2),
    "silhouette": (64, 0.45, 0.35),
    "edges": (4 * DIRECTIONS, 0.18, 0.1),
    "pattern": (FREQUENCIES * (1 + DIRECTIONS), 0.0, 1.0),
    "contrast": (2, 0.3, 0.2),
}
"""For each block its size, shift and scale: (x - shift) / scale."""
FEATURES = sum(size for size, _, _ in BLOCKS.values())


def describe(picture: Image.Image, boxes: np.ndarray) -> np.ndarray:
    """Features of regions.

    Args:
        picture: Any size and mode.
        boxes: regions x 4: x1, y1, x2, y2 as fractions of the picture.

    Returns:
        float32, regions x FEATURES.
    """
    crops = cut_out(picture, boxes)
    foreground = foreground_of(crops)
    smallest, largest = np.minimum.reduce(crops), np.maximum.reduce(crops)
    inside = foreground / foreground.sum(axis=(1, 2), keepdims=True)
    centred = smallest - (smallest * inside).sum(axis=(1, 2), keepdims=True)
    deviation = np.sqrt((np.square(centred) * inside).sum(axis=(1, 2)))
    blocks = {
        "colour": np.sqrt(colour_shares(crops, smallest, largest, inside)),
        "surround": (crops * rim()).sum(axis=(2, 3)).T,
        "layout": np.moveaxis(cells(crops, 3), 0, 1).reshape(len(boxes), -1),
        "silhouette": cells(foreground, 8).reshape(len(boxes), -1),
        "edges": np.sqrt(edge_shares(foreground)),
        "pattern": spectrum(centred * foreground),
        "contrast": np.stack([2 * deviation, foreground.mean(axis=(1, 2))], axis=1),
    }
    scaled = [(blocks[name] - shift) / scale for name, (_, shift, scale) in BLOCKS.items()]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def cut_out(picture: Image.Image, boxes: np.ndarray) -> np.ndarray:
    """Crops of regions with their margin, resized to CROP x CROP: float32 in 0..1, 3 x regions x y x x."""
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    size = np.array([rgb.width, rgb.height] * 2, dtype=np.float64)
    margin = CONTEXT * np.tile(boxes[:, 2:] - boxes[:, :2], 2) * (-1, -1, 1, 1)
    wide = (np.clip(boxes + margin, 0, 1) * size).tolist()
    crops = []
    for x1, y1, x2, y2 in wide:
        # A box thinner than a pixel is widened to one.
        x1, y1 = min(x1, rgb.width - 1), min(y1, rgb.height - 1)
        box = (x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))
        crops.append(np.asarray(rgb.resize((CROP, CROP), Image.Resampling.BILINEAR, box=box)))
    return np.ascontiguousarray(np.moveaxis(np.stack(crops), -1, 0), dtype=np.float32) / 255


def foreground_of(crops: np.ndarray) -> np.ndarray:
    """Distance of each pixel's colour from the nearest mean colour of the four corners, 0..1: regions x y x x.

    With the nearest corner, a thing that covers one corner is still foreground.
    """
    nearest = np.full(crops.shape[1:], np.inf, dtype=np.float32)
    for y, x in product((slice(3), slice(-3, None)), repeat=2):
        sample = crops[:, :, y, x].mean(axis=(2, 3), keepdims=True)
        np.minimum(nearest, np.square(crops - sample).sum(axis=0), out=nearest)
    foreground: np.ndarray = 1.0 - np.exp(-nearest / 0.03) + 1e-3
    return foreground


@cache
def rim() -> np.ndarray:
    """Weights (y x x, sum 1) of the outermost two rows and columns."""
    weights = np.ones((CROP, CROP), dtype=np.float32)
    weights[2:-2, 2:-2] = 0
    weights /= weights.sum()
    return weights


def colour_shares(crops: np.ndarray, smallest: np.ndarray, largest: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Soft histogram of 12 dark hues, 12 bright hues and 6 greys: regions x 30, rows sum to 1 as the weights do."""
    chroma = largest - smallest
    coloured = np.square(np.minimum(chroma / 0.3, 1)) * weights
    bright = np.clip((largest - 0.4) / 0.4, 0, 1) * coloured
    hue = hues(crops, largest, chroma)
    shares = [
        *spread(hue, (coloured - bright, bright), HUES, wraps=True),
        *spread(largest * (GREYS - 1), (weights - coloured,), GREYS, wraps=False),
    ]
    return np.concatenate(shares, axis=1).clip(0)


def hues(crops: np.ndarray, largest: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Hue of each pixel, 0 (red) up to HUES; arbitrary for grey."""
    red, green, blue = crops
    difference = np.where(largest == red, green - blue, np.where(largest == green, blue - red, red - green))
    sector = np.where(largest == red, 0, np.where(largest == green, 2, 4))
    return np.asarray((difference / np.maximum(chroma, 1e-6) + sector) * (HUES / 6) % HUES)


def spread(place: np.ndarray, masses: Sequence[np.ndarray], size: int, *, wraps: bool) -> list[np.ndarray]:
    """Histograms with linear interpolation between the two nearest bins: regions x size, one for each of `masses`."""
    lower = place.astype(np.intp)
    above = place - lower
    row = np.arange(len(place))[:, None, None] * size
    first = (row + lower % size).ravel()
    second = (row + ((lower + 1) % size if wraps else np.minimum(lower + 1, size - 1))).ravel()
    histograms = []
    for mass in masses:
        upper = above * mass
        total = np.bincount(first, (mass - upper).ravel(), len(place) * size)
        total += np.bincount(second, upper.ravel(), len(place) * size)
        histograms.append(total.reshape(len(place), size))
    return histograms


@cache
def averaging(side: int) -> np.ndarray:
    """Matrix (side x CROP) of means over `side` nearly equal intervals."""
    edges = np.linspace(0, CROP, side + 1).round().astype(int).tolist()
    matrix = np.zeros((side, CROP), dtype=np.float32)
    for row, (start, stop) in enumerate(pairwise(edges)):
        matrix[row, start:stop] = 1 / (stop - start)
    return matrix


def cells(values: np.ndarray, side: int) -> np.ndarray:
    """Means over side x side cells of the last two axes."""
    means: np.ndarray = averaging(side) @ values @ averaging(side).T
    return means


def edge_shares(foreground: np.ndarray) -> np.ndarray:
    """Directions of the foreground's gradient in 2 x 2 cells: regions x 24, rows sum to 1."""
    down, across = np.gradient(foreground, axis=(1, 2))
    strength = np.hypot(down, across) + 1e-6
    turn = np.arctan2(down, across) % np.pi * (DIRECTIONS / np.pi)
    half = CROP // 2
    quarters = [
        values.reshape(-1, 2, half, 2, half).swapaxes(2, 3).reshape(-1, half, half) for values in (turn, strength)
    ]
    shares = spread(quarters[0], (quarters[1],), DIRECTIONS, wraps=True)[0].reshape(len(foreground), -1)
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


@cache
def spectrum_bins() -> np.ndarray:
    """The bin, frequency x direction, of each entry of a real 2-D spectrum; one last bin for the rest."""
    y, x = np.meshgrid(np.fft.fftfreq(CROP) * CROP, np.arange(CROP // 2 + 1), indexing="ij")
    radius = np.hypot(x, y)
    edges = (1.5, 3.0, 4.5, 6.5, 9.0, 14.0)
    ring = np.digitize(radius, edges) - 1
    direction = np.minimum((np.arctan2(y, x) % np.pi * (DIRECTIONS / np.pi)).astype(np.int64), DIRECTIONS - 1)
    outside = (ring < 0) | (ring >= FREQUENCIES)
    return np.where(outside, FREQUENCIES * DIRECTIONS, ring * DIRECTIONS + direction)


def spectrum(values: np.ndarray) -> np.ndarray:
    """Log energy and sorted shares of directions of each frequency: regions x 35."""
    energy = np.square(np.abs(np.fft.rfft2(values))) / CROP**2
    bins = spectrum_bins()
    size = FREQUENCIES * DIRECTIONS + 1
    row = np.arange(len(values))[:, None, None] * size
    sums = np.bincount((row + bins).ravel(), energy.ravel(), len(values) * size).reshape(-1, size)
    inside = sums[:, :-1].reshape(-1, FREQUENCIES, DIRECTIONS) + 1e-3
    totals = inside.sum(axis=-1, keepdims=True)
    shares = np.sort(inside / totals, axis=-1)[..., ::-1]
    return np.concatenate([np.log(totals) / 2, (shares - 1 / DIRECTIONS) / 0.15], axis=-1).reshape(len(values), -1)
