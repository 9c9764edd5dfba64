"""One scene from its number: the picture, its regions, captions, truth and foils; the work of one process.

Nothing here depends on torch, so a worker process starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tshsr.scenes.descriptor import describe
from tshsr.scenes.drawing import draw_scene
from tshsr.scenes.grammar import Written, describe_scene, foils
from tshsr.scenes.meaning import FoilKind, Witness
from tshsr.scenes.regions import regions_of_things, sample_boxes
from tshsr.scenes.world import Scene, pick, sample_scene, twins

SPLITS = ("train", "dev", "test")
TWINS_EVERY = 10
"""Of so many test scenes the last one is the twin of the one before: a fifth of the scenes are in such a pair."""


@dataclass(frozen=True)
class Job:
    """Scenes `start` to `stop` of a split, and the folder for their pictures."""

    seed: int
    split: str
    start: int
    stop: int
    pictures: Path


@dataclass(frozen=True)
class MadeScene:
    """What is kept of a scene.

    Attributes:
        name: Of the image; its file has the same name and `.png`.
        boxes: float32, regions x 4.
        features: float32, regions x FEATURES.
        captions: Five texts.
        regions_of_word: For each caption.
        foils: Number of the caption (0 to 4), kind, text.
    """

    name: str
    boxes: np.ndarray
    features: np.ndarray
    captions: tuple[str, ...]
    regions_of_word: tuple[dict[int, tuple[int, ...]], ...]
    foils: tuple[tuple[int, FoilKind, str], ...]


def run_job(job: Job) -> list[MadeScene]:
    """Make some scenes and save their pictures."""
    return [make_scene(job, index) for index in range(job.start, job.stop)]


def make_scene(job: Job, index: int) -> MadeScene:
    """Make one scene; it depends on the seed, the split and the index, and on nothing else."""
    rng, scene, twin = scene_and_twin(job.seed, job.split, index)
    witness = Witness(scene)
    written = describe_scene(rng, witness, None if twin is None else Witness(twin))
    name = f"{job.split}-{index:05d}"
    picture = draw_scene(scene)
    picture.save(job.pictures / f"{name}.png", compress_level=4)
    boxes = sample_boxes(rng, scene)
    regions = regions_of_things(scene, boxes)
    return MadeScene(
        name=name,
        boxes=boxes,
        features=describe(picture, boxes),
        captions=tuple(caption.text for caption in written),
        regions_of_word=tuple(find_words(witness, caption, regions) for caption in written),
        foils=() if job.split == "train" else choose_foils(rng, witness, written),
    )


def scene_and_twin(seed: int, split: str, index: int) -> tuple[np.random.Generator, Scene, Scene | None]:
    """The generator of a scene, the scene, and the scene that it must be told apart from."""
    rng = generator(seed, split, index)
    place = index % TWINS_EVERY
    if split != "test" or place < TWINS_EVERY - 2:
        return rng, sample_scene(rng), None
    first = rng if place == TWINS_EVERY - 2 else generator(seed, split, index - 1)
    scene = sample_scene(first)
    while not (choices := twins(scene)):
        scene = sample_scene(first)
    # Its own generator, so that both members of the pair find the same twin.
    twin = pick(np.random.default_rng([seed, SPLITS.index(split), index - place, 1]), choices)
    return (rng, scene, twin) if first is rng else (rng, twin, scene)


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """A generator that depends on nothing but its scene's number."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def find_words(witness: Witness, caption: Written, regions: list[tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The true regions of each content word: those of every thing that its phrase names in some reading."""
    things: list[set[int]] = [set() for _ in caption.statement.phrases]
    for reading in witness.readings(caption.statement):
        for phrase, group in enumerate(reading):
            things[phrase].update(group)
    found = [sorted({region for thing in group for region in regions[thing]}) for group in things]
    return {position: tuple(found[phrase]) for position, phrase in caption.phrase_of_word}


def choose_foils(
    rng: np.random.Generator, witness: Witness, written: list[Written]
) -> tuple[tuple[int, FoilKind, str], ...]:
    """One foil of each kind, where the scene's captions allow any."""
    chosen: dict[FoilKind, tuple[int, FoilKind, str]] = {}
    for number in rng.permutation(len(written)).tolist():
        for kind, text in foils(rng, witness, written[number]):
            chosen.setdefault(kind, (number, kind, text))
            if len(chosen) == 2:
                return tuple(chosen.values())
    return tuple(chosen.values())
