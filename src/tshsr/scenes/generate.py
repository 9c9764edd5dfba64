"""Generation of one scene by index: picture, regions, captions, true regions of words, and foils.

Does not import torch, so that worker processes start fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.boxes import intersection_over_union
from tshsr.scenes.descriptor import describe
from tshsr.scenes.drawing import draw_scene
from tshsr.scenes.grammar import Caption, describe_scene, foils
from tshsr.scenes.meaning import FoilKind, SceneEvaluator
from tshsr.scenes.world import SIDE, Scene, pick, sample_scene, tight_box, twins

REGIONS = 12
MATCH = 0.5
"""Smallest intersection over union of a thing's tight box and a region that shows it."""


def sample_boxes(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Boxes of the scene's regions: float32, REGIONS x 4, as fractions of the picture."""
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
        boxes: regions x 4, as fractions of the picture.
    """
    tight = np.array([tight_box(thing) for thing in scene.things])
    matches = intersection_over_union(SIDE * boxes.astype(np.float64), tight) >= MATCH
    return [tuple(np.flatnonzero(column).tolist()) for column in matches.T]


def jitter(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """Move each side by at most 7 % of the box and 3 pixels, which keeps the overlap above MATCH."""
    reach = np.minimum(3.0, 0.07 * np.tile(box[2:] - box[:2], 2))
    return np.asarray(np.clip(box + rng.uniform(-reach, reach), 0, SIDE))


def part(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """A random part of a box, 40 to 65 % of its width and of its height."""
    size = (box[2:] - box[:2]) * rng.uniform(0.4, 0.65, size=2)
    corner = box[:2] + rng.random(2) * (box[2:] - box[:2] - size)
    return np.concatenate([corner, corner + size])


def window(rng: np.random.Generator) -> np.ndarray:
    """A box of 15 to 60 % of the picture's width and height, anywhere in it."""
    size = SIDE * rng.uniform(0.15, 0.6, size=2)
    corner = rng.random(2) * (SIDE - size)
    return np.concatenate([corner, corner + size])


SPLITS = ("train", "dev", "test")
TWINS_EVERY = 10
"""Period of twins among the test scenes: the last of each ten is the twin of the one before it."""


@dataclass(frozen=True)
class Chunk:
    """Scenes `start` to `stop` of a split, and the folder for their pictures."""

    seed: int
    split: str
    start: int
    stop: int
    pictures: Path


@dataclass(frozen=True)
class GeneratedScene:
    """The data of one scene.

    Attributes:
        name: Image id; the file is NAME.png.
        boxes: float32, regions x 4.
        features: float32, regions x FEATURES.
        captions: Five texts.
        regions_of_word: For each caption, the true regions by position of the word.
        foils: Number of the caption (0 to 4), kind, text.
    """

    name: str
    boxes: np.ndarray
    features: np.ndarray
    captions: tuple[str, ...]
    regions_of_word: tuple[dict[int, tuple[int, ...]], ...]
    foils: tuple[tuple[int, FoilKind, str], ...]


def generate_chunk(chunk: Chunk) -> list[GeneratedScene]:
    """Generate the scenes of a chunk and save their pictures."""
    return [generate_scene(chunk, index) for index in range(chunk.start, chunk.stop)]


def generate_scene(chunk: Chunk, index: int) -> GeneratedScene:
    """Generate one scene; it depends on the seed, the split and the index alone."""
    rng, scene, twin = scene_and_twin(chunk.seed, chunk.split, index)
    evaluator = SceneEvaluator(scene)
    written = describe_scene(rng, evaluator, None if twin is None else SceneEvaluator(twin))
    name = f"{chunk.split}-{index:05d}"
    picture = draw_scene(scene)
    picture.save(chunk.pictures / f"{name}.png", compress_level=4)
    boxes = sample_boxes(rng, scene)
    regions = regions_of_things(scene, boxes)
    return GeneratedScene(
        name=name,
        boxes=boxes,
        features=describe(picture, boxes),
        captions=tuple(caption.text for caption in written),
        regions_of_word=tuple(regions_of_words(evaluator, caption, regions) for caption in written),
        foils=() if chunk.split == "train" else choose_foils(rng, evaluator, written),
    )


def scene_and_twin(seed: int, split: str, index: int) -> tuple[np.random.Generator, Scene, Scene | None]:
    """The random generator of a scene, the scene, and its twin where it has one."""
    rng = generator(seed, split, index)
    place = index % TWINS_EVERY
    if split != "test" or place < TWINS_EVERY - 2:
        return rng, sample_scene(rng), None
    first = rng if place == TWINS_EVERY - 2 else generator(seed, split, index - 1)
    scene = sample_scene(first)
    while not (choices := twins(scene)):
        scene = sample_scene(first)
    # A separate generator, so that both members of the pair choose the same twin.
    twin = pick(np.random.default_rng([seed, SPLITS.index(split), index - place, 1]), choices)
    return (rng, scene, twin) if first is rng else (rng, twin, scene)


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random generator of a scene."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def regions_of_words(
    evaluator: SceneEvaluator, caption: Caption, regions: list[tuple[int, ...]]
) -> dict[int, tuple[int, ...]]:
    """The true regions of each content word: those of every thing that its phrase refers to in some grounding."""
    things: list[set[int]] = [set() for _ in caption.statement.phrases]
    for grounding in evaluator.groundings(caption.statement):
        for phrase, group in enumerate(grounding):
            things[phrase].update(group)
    found = [sorted({region for thing in group for region in regions[thing]}) for group in things]
    return {position: tuple(found[phrase]) for position, phrase in caption.phrase_of_word}


def choose_foils(
    rng: np.random.Generator, evaluator: SceneEvaluator, written: list[Caption]
) -> tuple[tuple[int, FoilKind, str], ...]:
    """One foil of each kind, where the scene's captions allow any."""
    chosen: dict[FoilKind, tuple[int, FoilKind, str]] = {}
    for number in rng.permutation(len(written)).tolist():
        for kind, text in foils(rng, evaluator, written[number]):
            chosen.setdefault(kind, (number, kind, text))
            if len(chosen) == 2:
                return tuple(chosen.values())
    return tuple(chosen.values())
