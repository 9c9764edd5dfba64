"""The regions of a scene: what an imperfect detector would give.

Twelve boxes in shuffled order: each thing's tight box, off by a few pixels; the whole picture; and distractors (parts
of things, background, random windows) that match no thing.
"""

from __future__ import annotations

import numpy as np

from tshsr.boxes import intersection_over_union
from tshsr.scenes.world import SIDE, Scene, tight_box

REGIONS = 12
MATCH = 0.5
"""Least intersection over union with a thing's tight box for a region to count as that thing's."""


def sample_boxes(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Boxes of the scene's regions: float32, REGIONS x 4, fractions of the picture."""
    tight = np.array([tight_box(thing) for thing in scene.things])
    boxes = [jitter(rng, box) for box in tight]
    boxes.append(np.array([0.0, 0.0, SIDE, SIDE]))
    while len(boxes) < REGIONS:
        part_of_thing = rng.random() < 0.4
        box = part(rng, tight[rng.integers(len(tight))]) if part_of_thing else window(rng)
        if intersection_over_union(box[None], tight).max() < MATCH - 0.05:
            boxes.append(box)
    shuffled = np.stack(boxes)[rng.permutation(REGIONS)]
    return (shuffled / SIDE).astype(np.float32)


def regions_of_things(scene: Scene, boxes: np.ndarray) -> list[tuple[int, ...]]:
    """For each thing the numbers of the regions that match it.

    Args:
        scene: Holds the things.
        boxes: regions x 4, fractions of the picture.
    """
    tight = np.array([tight_box(thing) for thing in scene.things])
    matches = intersection_over_union(SIDE * boxes.astype(np.float64), tight) >= MATCH
    return [tuple(np.flatnonzero(column).tolist()) for column in matches.T]


def jitter(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Move each side by at most 7 % of the box and 3 pixels; still more than MATCH of it."""
    reach = np.minimum(3.0, 0.07 * np.tile(box[2:] - box[:2], 2))
    return np.asarray(np.clip(box + rng.uniform(-reach, reach), 0, SIDE))


def part(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """A piece of a box, 40 to 65 % of its width and of its height."""
    size = (box[2:] - box[:2]) * rng.uniform(0.4, 0.65, size=2)
    corner = box[:2] + rng.random(2) * (box[2:] - box[:2] - size)
    return np.concatenate([corner, corner + size])


def window(rng: np.random.Generator) -> np.ndarray:
    """A box of 15 to 60 % of the picture's width and height, anywhere in it."""
    size = SIDE * rng.uniform(0.15, 0.6, size=2)
    corner = rng.random(2) * (SIDE - size)
    return np.concatenate([corner, corner + size])
