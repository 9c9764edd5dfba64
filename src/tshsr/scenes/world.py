"""Scenes: objects (things) with shape, colour, size, texture and position; sampling; twins, with one property swapped.

A scene determines its picture, so that the pictures of twins differ in the swapped property only. Lengths are in pixels
of a picture of `SIDE` x `SIDE`; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import TypeVar

import numpy as np

SIDE = 160
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black")
TEXTURES = ("plain", "striped", "dotted", "checked")
RADII = {"small": (13.0, 16.0), "large": (29.0, 36.0)}
CONTAINER_RADII = (34.0, 40.0)
CONTAINERS = ("ring", "ring", "square", "circle")
"""Shapes that may contain a small thing; rings twice as often."""
RING_HOLE = 0.68
"""Inner radius of a ring over its outer radius."""
CLEAR = 14.0
"""Smallest distance of centres, in pixels, for the relations `left of`, `above`, ... in captions."""
MOST_OVERLAP = 0.15
"""Largest covered fraction of the smaller of two boxes, unless one thing lies inside the other."""

Item = TypeVar("Item")
Kind = tuple[str, str, str, str]
"""Shape, colour, size, texture."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2."""


@dataclass(frozen=True)
class Thing:
    """One drawn object.

    Attributes:
        shape: One of SHAPES.
        colour: One of COLOURS.
        size: small or large.
        texture: One of TEXTURES.
        x: Centre, pixels from the left.
        y: Centre, pixels from the top.
        radius: Half the width of the shape, in pixels.
        angle: Rotation of the shape, in radians.
        slant: Direction of stripes and checks, in radians.
        tint: Added to the colour's red, green and blue.
        inside: Number of the thing that contains this one.
    """

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float
    slant: float
    tint: tuple[int, int, int]
    inside: int | None = None

    @property
    def kind(self) -> Kind:
        """The attributes that captions mention; things of equal kind form a group."""
        return self.shape, self.colour, self.size, self.texture


@dataclass(frozen=True)
class Background:
    """The background of a scene.

    Attributes:
        kind: plain, gradient, stripes or clouds.
        first: A light colour.
        second: Another light colour, for all kinds but plain.
        angle: Direction of the gradient or stripes, in radians.
        seed: Seed of the clouds.
    """

    kind: str
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    angle: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """Two to five things on a background."""

    things: tuple[Thing, ...]
    background: Background


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of the items (unlike `rng.choice`, the object itself)."""
    return items[int(rng.integers(len(items)))]


@cache
def unit_outline(shape: str) -> np.ndarray:
    """Vertices (n x 2) of a shape of radius 1 around 0, y downwards; for a ring, of its outer edge."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    match shape:
        case "circle" | "ring":
            return np.stack([np.cos(turn), np.sin(turn)], axis=1)
        case "square":
            return 0.86 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        case "triangle":
            return np.array([(0, -0.95), (1, 0.8), (-1, 0.8)])
        case "diamond":
            return np.array([(0, -1), (0.72, 0), (0, 1), (-0.72, 0)])
        case "star":
            spokes = np.pi * np.arange(10) / 5
            return np.stack([np.sin(spokes), -np.cos(spokes)], axis=1) * np.where(np.arange(10) % 2, 0.45, 1.0)[:, None]
        case "heart":
            across = 16 * np.sin(turn) ** 3
            up = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
            return np.stack([across, -up - 2.5], axis=1) / 16
        case "cross":
            a, b = 0.34, 0.98
            corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
            return np.array(corners + [(-x, -y) for x, y in corners])
    raise ValueError(f"shape is {shape!r}; expected one of {', '.join(SHAPES)}.")


def outline(thing: Thing) -> np.ndarray:
    """Vertices (n x 2) of the thing in the picture, in pixels."""
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    rotation = np.array([(cos, sin), (-sin, cos)])
    vertices: np.ndarray = thing.radius * unit_outline(thing.shape) @ rotation + (thing.x, thing.y)
    return vertices


def tight_box(thing: Thing) -> Box:
    """x1, y1, x2, y2 of the thing, in pixels."""
    vertices = outline(thing)
    (x1, y1), (x2, y2) = vertices.min(axis=0).tolist(), vertices.max(axis=0).tolist()
    return x1, y1, x2, y2


def overlap(a: Box, b: Box) -> float:
    """The fraction of the smaller box that the other one covers, 0 to 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0) * max(height, 0) / smaller


def is_consistent(things: Sequence[Thing]) -> bool:
    """Whether all things are visible and captions can distinguish them.

    Shape and colour determine the kind; a thing inside another one has another colour; all lie within the picture;
    boxes overlap little unless one thing lies inside the other.
    """
    kinds = {thing.kind for thing in things}
    if len({(shape, colour) for shape, colour, _, _ in kinds}) < len(kinds):
        return False
    boxes = [tight_box(thing) for thing in things]
    if any(min(box) < 1 or max(box) > SIDE - 1 for box in boxes):
        return False
    for (i, a), (j, b) in combinations(enumerate(things), 2):
        if a.inside == j or b.inside == i:
            if a.colour == b.colour:
                return False
        elif overlap(boxes[i], boxes[j]) > MOST_OVERLAP:
            return False
    return True


def sample_kinds(rng: np.random.Generator, count: int) -> list[Kind]:
    """Shape, colour, size and texture of each thing; a third of the scenes have a group of equal ones."""
    kinds: list[Kind] = []
    group = int(rng.integers(2, min(count, 4))) if count > 2 and rng.random() < 0.35 else 1
    while len(kinds) <= count - group:
        shape, colour = pick(rng, SHAPES), pick(rng, COLOURS)
        if kinds and rng.random() < 0.35:  # With a shared attribute the caption depends on the binding of words.
            colour = kinds[-1][1]
        elif kinds and rng.random() < 0.35:
            shape = kinds[-1][0]
        if all((shape, colour) != kind[:2] for kind in kinds):
            texture = "plain" if rng.random() < 0.3 else pick(rng, TEXTURES)
            kinds.append((shape, colour, "large" if rng.random() < 0.45 else "small", texture))
    return kinds + kinds[:1] * (group - 1)


def place(
    rng: np.random.Generator, kind: Kind, *, radii: tuple[float, float] | None = None, container: Thing | None = None
) -> Thing:
    """A thing somewhere in the picture, or inside its container (which is thing 0)."""
    shape, colour, size, texture = kind
    radius = rng.uniform(*(radii or RADII[size]))
    if container is None:
        x, y = rng.uniform(radius + 1, SIDE - radius - 1, size=2).tolist()
    else:
        room = 0.9 * (RING_HOLE if container.shape == "ring" else 0.75) * container.radius - radius
        distance, direction = max(room, 0) * rng.random(), 2 * np.pi * rng.random()
        x, y = container.x + distance * math.cos(direction), container.y + distance * math.sin(direction)
        radius = min(radius, radius + room)
    red, green, blue = rng.integers(-12, 13, size=3).tolist()
    angle, slant = rng.uniform(-0.15, 0.15), rng.uniform(0, math.pi)
    inside = None if container is None else 0
    return Thing(shape, colour, size, texture, x, y, radius, angle, slant, (red, green, blue), inside)


def sample_background(rng: np.random.Generator) -> Background:
    """A muted, light background, in contrast to every colour of COLOURS."""
    kind = pick(rng, ("plain", "gradient", "gradient", "stripes", "clouds"))
    base = rng.uniform(165, 225) + rng.uniform(-18, 18, size=3)
    other = np.clip(base + rng.uniform(-1, 1) * (35 if kind == "gradient" else 16), 140, 240)
    (r1, g1, b1), (r2, g2, b2) = base.astype(int).tolist(), other.astype(int).tolist()
    return Background(kind, (r1, g1, b1), (r2, g2, b2), rng.uniform(0, math.pi), int(rng.integers(2**31)))


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw scenes until one is consistent."""
    while True:
        kinds = sample_kinds(rng, pick(rng, (2, 2, 3, 3, 3, 4, 4, 4, 5, 5)))
        things = place_nested(rng, kinds) if rng.random() < 0.35 else []
        for kind in kinds[len(things) :]:
            thing = place_free(rng, kind, things)
            if thing is None:
                break
            things.append(thing)
        if len(things) == len(kinds) and is_consistent(things):
            return Scene(tuple(things), sample_background(rng))


def place_nested(rng: np.random.Generator, kinds: Sequence[Kind]) -> list[Thing]:
    """A large container with the colour and texture of the first kind, and a small thing of the second kind inside."""
    (_, colour, _, texture), (shape, other_colour, _, other_texture) = kinds[:2]
    container = place(rng, (pick(rng, CONTAINERS), colour, "large", texture), radii=CONTAINER_RADII)
    return [container, place(rng, (shape, other_colour, "small", other_texture), container=container)]


def place_free(rng: np.random.Generator, kind: Kind, things: Sequence[Thing]) -> Thing | None:
    """A thing that overlaps the others little; None after 20 attempts."""
    boxes = [tight_box(thing) for thing in things]
    for _ in range(20):
        thing = place(rng, kind)
        if all(overlap(tight_box(thing), box) <= MOST_OVERLAP for box in boxes):
            return thing
    return None


SWAPPED_FIELDS: dict[str, tuple[str, ...]] = {
    "colour": ("colour", "tint"),
    "shape": ("shape",),
    "texture": ("texture", "slant"),
    "place": ("x", "y", "radius"),
}
"""Properties that a twin swaps between two things, and their fields of Thing."""


def swap(scene: Scene, i: int, j: int, property_: str) -> Scene:
    """The same scene with one property of things i and j exchanged."""
    first, second = scene.things[i], scene.things[j]
    things = list(scene.things)
    things[i] = replace(first, **{name: getattr(second, name) for name in SWAPPED_FIELDS[property_]})
    things[j] = replace(second, **{name: getattr(first, name) for name in SWAPPED_FIELDS[property_]})
    return Scene(tuple(things), scene.background)


def twins(scene: Scene) -> list[Scene]:
    """Every consistent scene that differs from this one in one property swapped between two things.

    Groups, containers and their content stay unchanged; positions are swapped only between things of equal size, and
    only where that clearly changes which one is left of, or above, the other.
    """
    kinds = [thing.kind for thing in scene.things]
    containers = {thing.inside for thing in scene.things}
    swappable = [
        i
        for i, thing in enumerate(scene.things)
        if kinds.count(thing.kind) == 1 and i not in containers and thing.inside is None
    ]
    found = []
    for i, j in combinations(swappable, 2):
        a, b = scene.things[i], scene.things[j]
        for property_ in SWAPPED_FIELDS:
            if property_ == "place":
                useful = a.size == b.size and max(abs(a.x - b.x), abs(a.y - b.y)) > 2 * CLEAR
            else:
                visible = [name for name in ("shape", "colour", "texture") if name != property_]
                differ = any(getattr(a, name) != getattr(b, name) for name in visible) or a.size != b.size
                useful = differ and getattr(a, property_) != getattr(b, property_)
            twin = swap(scene, i, j, property_)
            if useful and is_consistent(twin.things):
                found.append(twin)
    return found
